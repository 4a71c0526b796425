"""GASP on a data set of functions: a config and a `Field` bound to `functions.gasp`.

One phase whose step is one update of the discriminator and one of the generator, each with an Adam
of its own. A game that is lost stops the run with exit code 3, as a loss that is not finite does:
the metrics `*_alarm` say how near the limits of config.train.watch are, see `functions.gasp.look`,
and are infinite from the step on in which one is reached. A replica is one seed.

GASP has no inference. With `evaluate.completion_steps` latents of test items are found by descent
(`functions.completion`), from all points for reconstructions and from the observed ones for
completions: the best of `evaluate.num_samples` starts, and as draws the ends of all. Without, there
are the scores of generated items alone. There is no likelihood, hence no score in nats.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import PartitionSpec

from functions import completion, domains, gasp, siren, tasks
from launch.data import fields
from launch.experiment import Experiment, Phase, TrainState
from launch.experiments import field_model, field_report
from launch.experiments.field_model import FieldModel, refuse

REPRESENTATIONS = ("siren", "fourier", "coordinates")
BETAS = (0.5, 0.999)  # of both optimisers, as published
load_field = field_model.load
ALARMS = gasp.Watch(  # what has happened if one is raised
    loss="sure_discriminator_alarm",
    contrast="blind_discriminator_alarm",
    variety="collapsed_generator_alarm",
    norm="exploding_gradients_alarm",
)


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; configs/_gasp.py has the fields."""
    check(config)
    return build(config, load_field(config))


def build(config, field: fields.Field) -> Experiment:
    """Builds the experiment on a data set that is already in memory."""
    field_model.check_data(config, field)
    num_channels = field.train.shape[-1]
    generator, discriminator = make_generator(config, field), make_discriminator(config)
    geometry = make_geometry(config, field.domain)
    init = lambda key: gasp.init(key, generator, discriminator, geometry, num_channels)
    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit together
    seeds = tuple(range(config.seeds))

    def batches(phase, start, num):
        size = config.train.batch_size
        rows = field_model.rows(config, len(field.train), size, phase, start, num)
        return field_model.batch(field, rows)

    scorer = field_report.Scorer(make_field_model(config, field, geometry), field, config)
    return Experiment(
        init=init,
        phases=(_phase(config, generator, discriminator, field),),
        data=jax.tree.map(lambda a: np.stack([a] * len(seeds)), geometry),
        batches=batches,
        evaluate=field_report.evaluator(scorer, len(seeds)),
        figures=field_report.figures,
        replica_seeds=seeds,
        # nearly all weights: sharded over features of the trunk, their moments and average too
        rules=((r"emission_kernel$", PartitionSpec(None, None, "model")),),
        meta=field_model.meta("GASP", field),
    )


def check(config):
    """Refuses combinations that cannot be trained, in one sentence each."""
    model, train, evaluate = config.model, config.train, config.evaluate
    field_model.check(config)
    if model.representation not in REPRESENTATIONS:
        refuse("model.representation", model.representation, f"one of {REPRESENTATIONS}")
    if model.latent_size < 1:
        refuse("model.latent_size", model.latent_size, "1 or more")
    levels = {len(model.discriminator[name]) for name in ("points", "neighbours", "channels")}
    if len(levels) > 1 or levels == {0}:
        refuse(
            "model.discriminator", model.discriminator.to_dict(),
            "points, neighbours and channels a level",
        )  # fmt: skip
    last = model.discriminator.points[-1], model.discriminator.channels[-1]
    if config.paper and last != (1, 1):
        refuse("model.discriminator", last, "one point and one channel, the logit, as last level")
    if not config.paper and min(model.discriminator.channels) < 1:
        refuse(
            "model.discriminator.channels", tuple(model.discriminator.channels),
            "positive numbers; 0, average pooling, belongs to config.paper=True",
        )  # fmt: skip
    if train.lazy < 1:
        refuse("train.lazy", train.lazy, "1 or more: a penalty every so many steps")
    if train.penalty < 0:
        refuse("train.penalty", train.penalty, "0 or more")
    if not 0 <= train.average < 1:
        refuse("train.average", train.average, "a decay in [0, 1)")
    for name, value in train.watch.items():
        if not value > 0:
            refuse(f"train.watch.{name}", value, "more than 0")
    if evaluate.completion_steps < 0:
        refuse("evaluate.completion_steps", evaluate.completion_steps, "0, no inference, or more")
    for name in ("noise", "num_samples"):
        if not evaluate[name] > 0:
            refuse(f"evaluate.{name}", evaluate[name], "more than 0")


def make_generator(config, field: fields.Field) -> gasp.Generator:
    """Builds the generator from the config and the shape of the data."""
    options, num_channels = config.model, field.train.shape[-1]
    widths = tuple(options.widths)
    if options.representation == "siren":
        represent = siren.Siren(widths, num_channels, options.omega)
    elif options.representation == "fourier":
        represent = siren.FourierMLP(
            widths, num_channels, options.num_frequencies, options.frequency_std
        )
    else:
        represent = siren.CoordinateMLP(widths, num_channels)
    return gasp.Generator(
        representation=represent,
        coord_size=domains.coordinates(field.domain).shape[-1],
        latent_size=options.latent_size,
        hyper_widths=tuple(options.hyper_widths),
        raw=config.paper,
    )


def make_discriminator(config) -> nn.Module:
    """Builds the discriminator that the config describes."""
    options = config.model.discriminator
    module = gasp.PaperDiscriminator if config.paper else gasp.Discriminator
    return module(tuple(c or None for c in options.channels), tuple(options.weight_widths))


def make_geometry(config, domain: domains.Domain) -> gasp.Geometry:
    """Computes coordinates and the discriminator's neighbourhoods once."""
    stages = field_model.stages(config, "discriminator", domain)
    tables = domains.tables(domains.positions(domain), stages)
    if not config.paper:
        return gasp.Geometry(domains.coordinates(domain), tables)
    return gasp.Geometry(
        domains.paper_coordinates(domain), tuple(t._replace(offset=None) for t in tables)
    )


def make_field_model(config, field: fields.Field, geometry: gasp.Geometry) -> FieldModel:
    """Wraps the averaged generator for scores and pictures; of shapes a sample ends at 0.5."""
    generator, settings = make_generator(config, field), config.evaluate

    def decode(key, params, z, coords, *, chunk=16384, seen=None):
        del key, seen
        mean = gasp.render(generator, params["average"], z, coords, chunk=chunk)
        is_shape = field.kind == "bernoulli"
        return {"mean": mean} | ({"sample": jnp.round(mean)} if is_shape else {})

    def descend(key, params, values, mask, num=settings.num_samples):
        return completion.complete(
            jax.random.normal(key, (num, generator.latent_size)),
            lambda z: -0.5 * jnp.sum(jnp.square(z)),
            lambda z: decode(None, params, z, geometry.coords)["mean"],
            values, mask,
            noise=settings.noise, num_steps=settings.completion_steps,
            learning_rate=settings.completion_rate,
        ).latents  # fmt: skip

    find = (lambda *item: descend(*item)[0]) if settings.completion_steps else None
    return FieldModel(
        coordinates=domains.paper_coordinates if config.paper else domains.coordinates,
        decode=decode,
        generate={"": lambda key, params: jax.random.normal(key, (generator.latent_size,))},
        to_base=lambda params, z: z,
        from_base=lambda params, u: u,
        reconstruct=find,
        complete=find,
        draw=descend if settings.completion_steps else None,
    )


def _phase(config, generator, discriminator, field):
    """Makes the phase of adversarial training."""
    train = config.train
    limits = train.watch.to_dict()
    horizon = limits.pop("horizon")
    limits = gasp.Watch(**limits)
    optimizers = {
        "generator": optax.adam(train.learning_rate, *BETAS),
        "discriminator": optax.adam(train.discriminator_rate, *BETAS),
    }

    def init(key, params):
        del key
        moments = {name: optimizer.init(params[name]) for name, optimizer in optimizers.items()}
        return TrainState(params, moments | {"watch": gasp.watch()})

    def descend(state, name, grads):
        updates, moments = optimizers[name].update(grads, state.opt_state[name])
        return optax.apply_updates(state.params[name], updates), moments

    def step(key, step, state, geometry, batch):
        key_points, key_first, key_second = jax.random.split(key, 3)
        real = 2.0 * fields.to_unit(batch["values"], field.num_levels) - 1.0  # [B, N, C]
        size, num_points, _ = real.shape
        mask, coords = jnp.broadcast_to(batch["mask"], (size, num_points)), geometry.coords
        points = jnp.arange(num_points)
        if train.num_points:
            points = tasks.subset(key_points, num_points, train.num_points)
            mask, coords = mask & jnp.zeros(num_points, bool).at[points].set(True), coords[points]

        def generate(key, params):
            z = jax.random.normal(key, (size, generator.latent_size))
            fake = jax.vmap(lambda z: generator.apply({"params": params}, z, coords))(z)
            return jnp.zeros_like(real).at[:, points].set(fake) if train.num_points else fake

        def judge(params, values, mask):
            return discriminator.apply({"params": params}, values, mask, geometry)

        judge_all = jax.vmap(judge, in_axes=(None, 0, 0))
        fake = generate(key_first, state.params["generator"])

        def game(params):
            both = judge_all(params, jnp.concatenate([real, fake]), jnp.concatenate([mask, mask]))
            return gasp.discriminator_loss(both[:size], both[size:]), both

        def penalty(params):
            one = lambda values, mask: gasp.r1(
                lambda values: judge(params, values, mask), values, paper=config.paper
            )
            return 0.5 * train.penalty * jnp.mean(jax.vmap(one)(real, mask))

        judged = state.params["discriminator"]
        (loss, logits), grads = jax.value_and_grad(game, has_aux=True)(judged)
        penalised, steep = gasp.lazily(
            step, train.lazy, lambda: jax.value_and_grad(penalty)(judged)
        )
        grads = jax.tree.map(jnp.add, grads, steep)
        judged, moments = descend(state, "discriminator", grads)

        def fool(params):
            return gasp.generator_loss(judge_all(judged, generate(key_second, params), mask))

        lost, slopes = jax.value_and_grad(fool)(state.params["generator"])
        made, other_moments = descend(state, "generator", slopes)

        norms = {"discriminator": optax.tree.norm(grads), "generator": optax.tree.norm(slopes)}
        seen = gasp.Watch(
            loss=loss,
            contrast=jnp.std(logits),
            variety=gasp.spread(fake, mask) / gasp.spread(real, mask),
            norm=jnp.maximum(*norms.values()),
        )
        means, alarms = gasp.look(state.opt_state["watch"], seen, limits, horizon=horizon)
        params = {
            "generator": made,
            "discriminator": judged,
            "average": gasp.follow(step, state.params["average"], made, train.average),
        }
        moments = {"generator": other_moments, "discriminator": moments, "watch": means}
        return TrainState(params, moments), {
            "loss": loss + penalised,
            "discriminator_loss": loss,
            "generator_loss": lost,
            "penalty": penalised,
            "margin": jnp.mean(logits[:size]) - jnp.mean(logits[size:]),
            "contrast": seen.contrast,
            "variety": seen.variety,
            **{f"gradient_{name}": norm for name, norm in norms.items()},
            **dict(zip(ALARMS, alarms, strict=True)),
        }

    return Phase("train", train.steps, init, step)
