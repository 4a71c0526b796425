"""Functa on a data set of functions: a config and a `Field` bound to `functions.functa`.

Three phases: `train` trains the shared network and the step sizes, `fit` encodes every training
item once, a batch a step, and `prior` trains a flow and a diffusion model on these latents. The
latents are part of the state, so that a run cut off in `fit` goes on with the item that it had come
to; when all are there they are stored, `arrays/fit.npz`. A replica is one seed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from functions import completion, diffusion, flows, functa, tasks
from launch.data import fields
from launch.experiment import Experiment, Phase, TrainState, gradient_phase
from launch.experiments import field_model, field_report, functa_report
from launch.experiments.field_model import FieldModel, refuse

PHASES = ("train", "fit", "prior")  # also groups of the config
PRIORS = ("flow", "denoiser")  # entries of the parameters that the last phase trains
load_field = field_model.load


class Networks(NamedTuple):
    """The modules of a run."""

    net: functa.Functa
    flow: flows.RealNVP  # of standardised latents, as is the next
    denoiser: diffusion.Denoiser


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; configs/_functa.py has the fields."""
    check(config)
    return build(config, load_field(config))


def build(config, field: fields.Field) -> Experiment:
    """Builds the experiment on a data set that is already in memory."""
    field_model.check_data(config, field, PHASES)
    networks, coords = make_networks(config, field), functa.coordinates(field.domain)
    num_items, seeds = len(field.train), tuple(range(config.seeds))

    def batches(phase, start, num):
        size = config[PHASES[phase]].batch_size
        if PHASES[phase] == "fit":  # in order; the last batch repeats the last item
            places = np.arange(start * size, (start + num) * size, dtype=np.int32)
            places = np.minimum(places, num_items - 1).reshape(num, size)
            rows = np.stack([places] * len(seeds))
        else:
            rows = field_model.rows(config, num_items, size, phase, start, num)
        items = {} if PHASES[phase] == "prior" else field_model.batch(field, rows)
        return {"rows": rows, **items}

    model = make_field_model(config, field, coords)
    scorer = functa_report.Scorer(model, field, config, networks.net)
    return Experiment(
        init=lambda key: functa.init(key, networks.net, coords.shape[-1]),
        phases=(
            gradient_phase(
                "train", config.train.steps, _loss(config, networks.net, field),
                field_model.adam(config.train),
            ),
            _fit_phase(config, networks.net, field),
            _prior_phase(config, networks),
        ),
        data=np.stack([coords] * len(seeds)),
        batches=batches,
        evaluate=functa_report.evaluator(scorer, len(seeds)),
        figures=field_report.figures,
        replica_seeds=seeds,
        rules=(),
        meta=field_model.meta("Functa", field),
    )  # fmt: skip


def check(config):
    """Refuses combinations that cannot be trained, in one sentence each."""
    field_model.check(config)
    positive = {
        "model": ("latent_size", "width", "num_layers"),
        "train": ("inner_steps",),
        "prior": ("flow_layers", "width", "num_blocks", "sample_steps"),
        "evaluate": ("completion_steps", "num_samples"),
    }
    for group, names in positive.items():
        for name in names:
            if config[group][name] < 1:
                refuse(f"{group}.{name}", config[group][name], "1 or more")
    if min(config.evaluate.inner_steps, default=1) < 1:
        refuse("evaluate.inner_steps", tuple(config.evaluate.inner_steps), "numbers of steps")
    if not config.evaluate.noise > 0:
        refuse("evaluate.noise", config.evaluate.noise, "more than 0")
    for group in ("train", "prior"):
        if not 0 <= config[group].warmup < 1:
            refuse(f"{group}.warmup", config[group].warmup, "a share of the steps, in [0, 1)")


def make_networks(config, field: fields.Field) -> Networks:
    """Builds the modules from the config and the shape of the data."""
    options, prior = config.model, config.prior
    net = functa.Functa(
        field.train.shape[-1], options.latent_size, options.width, options.num_layers, options.omega
    )
    flow = flows.prior("realnvp", options.latent_size, num_layers=prior.flow_layers)
    return Networks(
        net, flow, diffusion.Denoiser(options.latent_size, prior.width, prior.num_blocks)
    )


def make_field_model(config, field: fields.Field, coords: jax.Array) -> FieldModel:
    """Wraps the networks for scores and pictures; `coords` is the data of the experiment."""
    net, flow, denoiser = make_networks(config, field)
    train, evaluate = config.train, config.evaluate
    own_coords, shape = jnp.asarray(coords), (config.model.latent_size,)
    whitened = lambda params, z: (z - params["mean"]) / params["std"]
    coloured = lambda params, w: params["mean"] + params["std"] * w
    apply = lambda params, *args, method: flow.apply(params["flow"], *args, method=method)

    def decode(key, params, z, coords, *, chunk=16384, seen=None):
        del key, seen
        # the data's range, which the other models' outputs cannot leave
        return {"mean": jnp.clip(functa.render(net, params, z, coords, chunk=chunk), 0.0, 1.0)}

    def from_base(params, u):
        return coloured(params, apply(params, u, method="forward"))

    def reconstruct(key, params, values, mask):
        del key
        return functa.fit(
            net, params, values, mask, own_coords,
            num_steps=train.inner_steps, penalty=train.penalty,
        ).latent  # fmt: skip

    def modes(params, values, mask, starts):
        found = completion.complete(
            starts,
            lambda w: apply(params, w, method="log_prob"),
            lambda w: functa.evaluate(net, params, coloured(params, w), own_coords),
            values, mask,
            noise=evaluate.noise, num_steps=evaluate.completion_steps,
            learning_rate=evaluate.completion_rate,
        )  # fmt: skip
        return coloured(params, found.latents)

    def complete(key, params, values, mask):
        del key
        start = apply(params, jnp.zeros(shape), method="forward")  # about the prior's mode
        return modes(params, values, mask, start[None])[0]

    def draw(key, params, values, mask, num):
        u = jax.random.normal(key, (num, *shape))
        return modes(params, values, mask, apply(params, u, method="forward"))

    def by_diffusion(key, params):
        velocity = lambda w, angle: denoiser.apply(params["denoiser"], w, angle)
        drawn = diffusion.sample(key, velocity, shape, num_steps=config.prior.sample_steps)
        return coloured(params, drawn)

    return FieldModel(
        coordinates=functa.coordinates,
        decode=decode,
        generate={
            "": lambda key, params: from_base(params, jax.random.normal(key, shape)),
            "_diffusion": by_diffusion,
        },
        to_base=lambda params, z: apply(params, whitened(params, z), method="inverse"),
        from_base=from_base,
        reconstruct=reconstruct,
        complete=complete,
        draw=draw,
    )


def _loss(config, net, field):
    train, num_points = config.train, field.train.shape[1]

    def loss(key, step, params, coords, batch):
        del step
        values, mask = _items(field, batch)
        if train.num_points:
            points = tasks.subset(key, num_points, train.num_points)
            coords, values, mask = coords[points], values[:, points], mask[:, points]
        one = lambda values, mask: functa.meta_loss(
            net, params, values, mask, coords, num_steps=train.inner_steps,
            penalty=train.penalty, is_first_order=train.is_first_order,
        )  # fmt: skip
        errors, fits = jax.vmap(one)(values, mask)
        return jnp.mean(errors), {
            "psnr": jnp.mean(-10.0 * jnp.log10(errors)),
            "psnr_before": jnp.mean(-10.0 * jnp.log10(fits.losses[:, 0])),
            "step_size": jnp.mean(jnp.exp(params["log_step"])),
        }

    return loss


def _items(field, batch):
    """Returns values [B, N, C] in [0, 1] and masks [B, N]."""
    values = fields.to_unit(batch["values"], field.num_levels)
    return values, jnp.broadcast_to(batch["mask"], values.shape[:2])


def _fit_phase(config, net, field):
    """Encodes the training items: adds `latents` [I, Z] and their errors `mse` [I]."""
    num_items = len(field.train)

    def init(key, params):
        del key
        table = jnp.zeros((num_items, net.latent_size))
        return TrainState(params | {"latents": table, "mse": jnp.zeros(num_items)}, ())

    def step(key, step, state, coords, batch):
        del key, step
        params = state.params
        one = lambda values, mask: functa.meta_loss(
            net, params, values, mask, coords, num_steps=config.train.inner_steps,
            penalty=config.train.penalty,
        )  # fmt: skip
        errors, fits = jax.vmap(one)(*_items(field, batch))
        table = params["latents"].at[batch["rows"]].set(fits.latent)
        mse = params["mse"].at[batch["rows"]].set(errors)
        return TrainState(params | {"latents": table, "mse": mse}, ()), {"loss": jnp.mean(errors)}

    return Phase("fit", -(-num_items // config.fit.batch_size), init, step)


def _prior_phase(config, networks):
    """Trains both priors on standardised latents: adds `mean`, `std` [Z] and the two networks."""
    prior, size = config.prior, networks.net.latent_size
    optimizer = field_model.adam(prior)

    def init(key, params):
        keys = jax.random.split(key)
        latents = params["latents"]
        params = params | {
            "mean": jnp.mean(latents, axis=0),
            "std": jnp.maximum(jnp.std(latents, axis=0), 1e-6),  # some latents may do nothing
            "flow": networks.flow.init(keys[0], jnp.zeros(size)),
            "denoiser": networks.denoiser.init(keys[1], jnp.zeros(size), jnp.zeros(())),
        }
        return TrainState(params, optimizer.init({name: params[name] for name in PRIORS}))

    def loss(trained, key, latents):
        key_noise, key_diffusion = jax.random.split(key)
        noisy = latents + prior.noise * jax.random.normal(key_noise, latents.shape)
        log_prob = networks.flow.apply(trained["flow"], noisy, method="log_prob")
        nll = -jnp.mean(log_prob) / size
        velocity = lambda x, angle: networks.denoiser.apply(trained["denoiser"], x, angle)
        error = diffusion.loss(key_diffusion, velocity, latents)
        return nll + error, {"nll": nll, "denoising": error}

    def step(key, step, state, coords, batch):
        del step, coords
        params = state.params
        latents = (params["latents"][batch["rows"]] - params["mean"]) / params["std"]
        trained = {name: params[name] for name in PRIORS}
        slope_of = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), slopes = slope_of(trained, key, latents)
        updates, opt_state = optimizer.update(slopes, state.opt_state, trained)
        params = params | optax.apply_updates(trained, updates)
        return TrainState(params, opt_state), metrics | {"loss": value}

    return Phase("prior", prior.steps, init, step)
