"""VAMoH on a data set of functions: a config and a `Field` bound to `functions.vamoh`.

A replica is one seed. All seeds see the same items, batches drawn per seed; items stay on the host
as bytes and travel with the batches, masks are drawn on the device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from functions import domains, encodings, observations, siren, tasks, vamoh
from functions.render import render
from launch.data import fields
from launch.experiment import Experiment, gradient_phase
from launch.experiments import field_model, field_report, vamoh_report
from launch.experiments.field_model import FieldModel, refuse
from launch.metrics import say

REPRESENTATIONS = ("siren", "fourier")
CPU_CHUNK = 1024  # points of one item whose activations fit a core's cache


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; configs/_vamoh.py has the fields."""
    check(config)
    experiment = build(config, load_field(config))
    coords, tables, _ = experiment.data
    seen = len(np.unique(tables[0].index)) / coords.shape[1]
    if seen < 1:
        say(f"the encoder reads {seen:.1%} of the points; more centres or neighbours read more")
    return experiment


def build(config, field: fields.Field) -> Experiment:
    """Builds the experiment on a data set that is already in memory."""
    field_model.check_data(config, field)
    net = make_model(config, field)
    check_likelihood(net.likelihood, field)
    geometry = make_geometry(config, field.domain)
    init = lambda key: vamoh.init(key, net, geometry)
    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit together
    seeds = tuple(range(config.seeds))

    def batches(phase, start, num):
        size = config.train.batch_size
        rows = field_model.rows(config, len(field.train), size, phase, start, num)
        return field_model.batch(field, rows)

    loss, optimizer = _loss(config, net, field), field_model.adam(config.train)
    model = make_field_model(config, field, geometry)
    scorer = vamoh_report.Scorer(model, field, config, net, geometry)
    return Experiment(
        init=init,
        phases=(gradient_phase("train", config.train.steps, loss, optimizer),),
        data=jax.tree.map(lambda a: np.stack([a] * len(seeds)), geometry),
        batches=batches,
        evaluate=field_report.evaluator(scorer, len(seeds)),
        figures=field_report.figures,
        replica_seeds=seeds,
        rules=partition_rules(config),
        meta=field_model.meta("VAMoH", field),
    )


def check(config):
    """Refuses combinations that cannot be trained, in one sentence each."""
    model, train = config.model, config.train
    field_model.check(config)
    if model.representation not in REPRESENTATIONS:
        refuse("model.representation", model.representation, "'siren' or 'fourier'")
    if model.likelihood and model.likelihood not in observations.KINDS:
        refuse("model.likelihood", model.likelihood, f"'' or one of {observations.KINDS}")
    if model.bound not in ("exact", "published"):
        refuse("model.bound", model.bound, "'exact' or 'published'")
    for name in ("latent_size", "num_components"):
        if model[name] < 1:
            refuse(f"model.{name}", model[name], "1 or more")
    levels = {len(model.encoder[name]) for name in ("points", "neighbours", "channels")}
    if len(levels) > 1 or levels == {0}:
        refuse("model.encoder", model.encoder.to_dict(), "points, neighbours and channels a level")
    if not config.paper and min(model.encoder.channels) < 1:
        refuse(
            "model.encoder.channels", tuple(model.encoder.channels),
            "positive numbers; 0, average pooling, belongs to config.paper=True",
        )  # fmt: skip
    for name in ("warmup", "kl_off", "kl_rise", "uniform_gate", "standard_prior"):
        if not 0 <= train[name] < 1:
            refuse(f"train.{name}", train[name], "a share of the steps, in [0, 1)")
    if train.kl_off + train.kl_rise >= 1:
        refuse("train.kl_off", train.kl_off, "less than 1 together with train.kl_rise")
    if not 0 <= train.max_missing < 1:
        refuse("train.max_missing", train.max_missing, "a rate in [0, 1)")
    if not 0 <= train.box_share <= 1:
        refuse("train.box_share", train.box_share, "a share in [0, 1]")


def check_likelihood(kind: str, field: fields.Field):
    """Refuses a likelihood that the data does not fit."""
    if kind == "logistic" and not field.num_levels:
        raise ValueError(
            f"config.model.likelihood='logistic': {field.name} holds reals, not levels; leave it "
            f"empty or choose 'continuous_bernoulli' or 'gaussian'"
        )
    if kind != field.kind:  # the data's own was checked when it was read
        observations.check(kind, fields.to_unit(field.train, field.num_levels), field.train_mask)


def load_field(config) -> fields.Field:
    """Loads the data set that the config names."""
    is_own = config.data.name.startswith("npz:")
    return field_model.load(config, kind=config.model.likelihood or None if is_own else None)


def make_model(config, field: fields.Field) -> vamoh.VAMoH:
    """Builds the module from the config and the shape of the data."""
    options = config.model
    num_channels = field.train.shape[-1]
    if options.representation == "siren":
        represent = siren.Siren(tuple(options.widths), num_channels, options.omega)
    else:
        represent = siren.FourierMLP(
            tuple(options.widths), num_channels, options.num_frequencies, options.frequency_std
        )
    return vamoh.VAMoH(
        representation=represent,
        coord_size=domains.coordinates(field.domain).shape[-1],
        num_channels=num_channels,
        latent_size=options.latent_size,
        num_components=options.num_components,
        encoder_channels=tuple(c or None for c in options.encoder.channels),
        hyper_widths=tuple(options.hyper_widths),
        gate_widths=tuple(options.gate_widths),
        encoder_weight_widths=tuple(options.encoder.weight_widths),
        share_trunk=options.share_trunk,
        prior=options.prior,
        prior_layers=options.prior_layers,
        num_frequencies=options.num_frequencies,
        frequency_std=options.frequency_std,
        likelihood=options.likelihood or field.kind,
        num_levels=field.num_levels,
        bound=options.bound,
        paper=config.paper,
    )


def make_geometry(config, domain: domains.Domain) -> vamoh.Geometry:
    """Computes coordinates and the encoder's neighbourhoods once."""
    stages = field_model.stages(config, "encoder", domain)
    if not config.paper:
        tables = domains.tables(domains.positions(domain), stages)
        return vamoh.Geometry(domains.coordinates(domain), tables, None)
    coords = domains.paper_coordinates(domain)
    with jax.enable_x64(True):  # coarse levels are full of near ties
        table = encodings.frequencies(
            config.model.num_frequencies, coords.shape[-1], std=config.model.frequency_std
        )
        features = np.asarray(encodings.fourier_features(np.float64(table), np.float64(coords)))
    # the released search: neighbours in the space of the Fourier features
    tables = domains.tables(domains.positions(domain), stages, features=features)
    return vamoh.Geometry(
        coords, tuple(t._replace(offset=None) for t in tables), np.float32(features)
    )


def make_field_model(config, field: fields.Field, geometry: vamoh.Geometry) -> FieldModel:
    """Wraps the networks for scores and pictures; `geometry` is the data of the experiment."""
    net = make_model(config, field)
    apply = lambda params, *args, method: net.apply({"params": params}, *args, method=method)
    from_base = functools.partial(apply, method="prior_forward")

    def encode(key, params, values, mask):
        del key
        return apply(params, values, mask, geometry, method="encode")[0]

    def draw(key, params, values, mask, num):
        mean, log_var = apply(params, values, mask, geometry, method="encode")
        return mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, (num, *mean.shape))

    def decode(key, params, z, coords, *, chunk=16384, seen=None):
        values, mask = seen or (None, None)
        return render(key, net, params, z, coords, chunk=chunk, values=values, mask=mask)._asdict()

    def generate(key, params):
        return from_base(params, jax.random.normal(key, (net.latent_size,)))

    return FieldModel(
        coordinates=domains.paper_coordinates if config.paper else domains.coordinates,
        decode=decode,
        generate={"": generate},
        to_base=functools.partial(apply, method="prior_inverse"),
        from_base=from_base,
        reconstruct=encode,
        complete=encode,
        draw=draw,
        num_components=net.num_components,
    )


def partition_rules(config) -> tuple:
    """Shards the emission, nearly all weights, over `model`: components, or else trunk features."""
    if config.model.num_components % config.mesh.model == 0:
        return ((r"emission_(kernel|bias)$", PartitionSpec("model")),)
    return ((r"emission_kernel$", PartitionSpec(None, None, "model")),)


def _loss(config, model, field):
    train = config.train
    num_points = field.train.shape[1]
    kl_off, kl_rise = _steps(train, train.kl_off), _steps(train, train.kl_rise)
    chunk = train.chunk
    if chunk < 0:  # the caches of a CPU want blocks, an accelerator or a mesh wants everything
        is_split = config.mesh.data * config.mesh.model > 1
        chunk = 0 if jax.default_backend() != "cpu" or is_split else CPU_CHUNK

    def loss(key, step, params, geometry, batch):
        key_mask, key_points, key_elbo = jax.random.split(key, 3)
        values = fields.to_unit(batch["values"], field.num_levels)  # [B, N, C]
        size = values.shape[0]
        mask = jnp.broadcast_to(batch["mask"], (size, num_points))
        points = None
        if train.max_missing or train.box_share:
            rows = 1 if config.paper else size  # the release draws one mask for a batch
            key_drop, key_box, key_coin = jax.random.split(key_mask, 3)
            shown = tasks.drop_per_item(key_drop, num_points, train.max_missing, rows)
            if train.box_share:
                boxes = tasks.box_per_item(key_box, field.domain, rows)
                is_box = jax.random.bernoulli(key_coin, train.box_share, (rows, 1))
                shown = jnp.where(is_box, boxes, shown)
            mask &= shown
        if train.num_points:
            points = tasks.subset(key_points, num_points, train.num_points)
            if config.paper:  # the release shows the subset to the encoder and does not rescale
                mask &= jnp.zeros(num_points, bool).at[points].set(True)
        one = lambda key, values, mask: vamoh.elbo(
            key, model, params, values, mask, geometry, points=points, chunk=chunk,
            is_uniform=step < _steps(train, train.uniform_gate),
            is_standard=step < _steps(train, train.standard_prior),
        )  # fmt: skip
        terms = jax.vmap(one)(jax.random.split(key_elbo, size), values, mask)
        beta = jnp.clip((step + 1 - kl_off) / max(kl_rise, 1), 0.0, 1.0)
        fit = terms.log_lik - terms.kl_c
        num_seen = jnp.sum(mask) * values.shape[-1]
        return jnp.mean(beta * terms.kl_z - fit), {
            "elbo": jnp.mean(fit - terms.kl_z),
            "bits_per_dimension": jnp.sum(terms.kl_z - fit) / num_seen / jnp.log(2.0),
            "kl_z": jnp.mean(terms.kl_z),
            "kl_c": jnp.mean(terms.kl_c),
        }

    return loss


def _steps(train, share):
    """Turns a share of a run into steps."""
    return round(share * train.steps)
