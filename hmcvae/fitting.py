"""The device's half of the estimators: three stages of training, and questions about rows.

Algorithm 1 of Peis et al. (2022) on a table that fits the device: one-column VAEs, dependency VAE
by a bound, encoder and chain by HMC, each as compiled chunks of steps whose batches are
drawn with replacement. Given held-out rows stage 2 keeps the parameters that explain them best.
Values are standardised, reals and codes as in `hmcvae.columns`. No files and no clocks: a
caller that wants to stop early says so between chunks (`hmcvae.estimator`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hmcvae import likelihoods, objectives, predict
from hmcvae.compiling import RUN_BRIEFLY, RUN_ONCE
from hmcvae.marginal import kl_weights
from hmcvae.model import HVAE, Rows
from hmcvae.objectives import Schedule
from hmcvae.posterior import init_hmc

CHUNK = 100  # steps of one dispatch
SCORE_EVERY = 5  # chunks between scores of held-out rows
PATIENCE = 5  # scores without a better one before stage 2 stops
ROWS = 128  # fewer rows are padded to this number, a power of two
SCORE_SAMPLES = 16  # posterior samples of a held-out row
ROUND = 10  # posterior samples that `answer` draws at a time
BLOCK = 64  # rows that `answer` is asked about at a time, so that one program serves all tables


class Table(NamedTuple):
    """Rows to train on or to score; P = 0 without a target."""

    x: jax.Array  # [N, D] standardised values and codes, 0 where missing
    mask: jax.Array  # [N, D]
    y: jax.Array  # [N, P]
    y_mask: jax.Array  # [N, P]


class Recipe(NamedTuple):
    """How long and how to train; hashable."""

    steps: tuple[tuple[str, int], ...]  # (stage, number of steps) of "marginal", "vi" and "hmc"
    batch_size: int
    learning_rate: float  # at the beginning of every stage, see `adam`
    num_transitions: int  # T of the chain that stage "hmc" adds
    schedule: Schedule


class Progress(NamedTuple):
    """Where training stands after a chunk."""

    stage: str
    step: int  # steps done of this stage
    num_steps: int  # steps of this stage
    loss: float  # mean over the chunk, nats a row
    score: float  # of held-out rows, nats a hidden cell; NaN until the first one


def default_recipe(max_steps: int, batch_size: int, learning_rate: float, num_transitions: int):
    """Builds the recipe of the default model for `max_steps` steps of stage 2, wake-sleep.

    Step sizes are learned in units of the encoder's deviations and pulled to an acceptance of 0.8,
    which a hundredth of the steps suffices for; the decoder rests meanwhile.
    """
    stages = [("marginal", max_steps // 10), ("vi", max_steps), ("hmc", max_steps // 100)]
    steps = tuple((stage, max(num, 1)) for stage, num in stages[: 3 if num_transitions else 2])
    schedule = Schedule(bound="wake", accept_target=0.8, precondition=True)
    return Recipe(steps, batch_size, learning_rate, num_transitions, schedule)


def adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Builds Adam for a stage of `num_steps`: its rate falls by a cosine to a hundredth.

    Large steps find what a small table has to tell in a few thousand steps; small ones at the end
    average over the noise of masks, draws and batches.
    """
    return optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps, alpha=0.01))


def optimiser(
    stage: str,
    main: optax.GradientTransformation,
    *,
    end_to_end: bool = True,
    generative: optax.GradientTransformation | None = None,
    step_rate: float = 1e-2,
    scale_rate: float = 1e-2,
    stein_every: int = 10,
) -> optax.GradientTransformation:
    """Builds the optimiser of a stage; groups that the stage does not train stay as they are.

    Args:
      stage: "marginal", "vi" or "hmc".
      main: trains the one-column VAEs in "marginal", encoder and the generative group in "vi", the
        encoder in "hmc".
      end_to_end: go on training the one-column decoders in "vi".
      generative: trains the generative group in "hmc"; None is not at all.
      step_rate: learning rate of the log step sizes.
      scale_rate: learning rate of the log inflation, every `stein_every`-th step.
      stein_every: see `Schedule`.

    Returns:
      A partition by `objectives.labels`.
    """
    freeze = optax.set_to_zero()
    rates = dict.fromkeys(("marginal", "marginal_decoder", "encoder", "generative"), freeze)
    if stage == "marginal":
        rates |= {"marginal": main, "marginal_decoder": main}
    elif stage == "vi":
        rates |= {"encoder": main, "generative": main}
        rates["marginal_decoder"] = main if end_to_end else freeze
    else:
        scale = optax.conditionally_mask(
            optax.adam(scale_rate), lambda step: step % stein_every == 0
        )
        rates |= {"encoder": main, "generative": generative or freeze}
        rates |= {"step": optax.adam(step_rate), "scale": scale}
    return optax.partition(rates, objectives.labels)


def fit(
    key,
    model: HVAE,
    recipe: Recipe,
    rows: Table,
    held_out: Table | None,
    report: Callable[[Progress], bool],
) -> Any:
    """Trains the model.

    Args:
      key: PRNG key.
      model: the module.
      recipe: stages and their lengths, rounded up to whole chunks where they have several.
      rows: to train on.
      held_out: to score stage 2 by, or None to train through it.
      report: called after every chunk; False ends the stage.

    Returns:
      Parameters.
    """
    key_init, key_hmc, key_score, key = jax.random.split(key, 4)
    params = _init(key_init, model)
    for stage, num_steps in recipe.steps:
        if stage == "hmc":
            tuned = init_hmc(key_hmc, model, recipe.num_transitions, (0.1, 0.3))
            params = {**params, "hmc": tuned}
        key, key_stage = jax.random.split(key)
        chunks = _chunks(key_stage, model, recipe, stage, num_steps, params, rows)
        if stage == "vi" and held_out is not None:
            params = _best(key_score, model, recipe.schedule, chunks, held_out, report)
        else:
            params = _last(chunks, report)
    return params


def _chunks(key, model, recipe, stage, num_steps, params, rows) -> Iterator[tuple[Progress, Any]]:
    """Trains one stage, a chunk of steps at a time."""
    size = min(CHUNK, num_steps)
    num_steps = -(-num_steps // size) * size
    num_rows, rows = len(rows.x), _padded(rows)
    recipe = recipe._replace(steps=((stage, num_steps),))  # the others are no part of the program
    opt_state = jax.jit(_optimiser(recipe).init, compiler_options=RUN_ONCE)(params)
    for done in range(0, num_steps, size):
        params, opt_state, loss = _chunk(
            key, params, opt_state, rows, num_rows, done,
            model=model, recipe=recipe, size=size,
        )  # fmt: skip
        yield Progress(stage, done + size, num_steps, float(loss), float("nan")), params


def _last(chunks, report):
    """Returns the parameters at the end of a stage."""
    for progress, params in chunks:
        if not report(progress) or progress.step >= progress.num_steps:
            return params


def _best(key, model, schedule, chunks, held_out, report):
    """Returns the best-scored parameters of a stage."""
    best, best_score, age, score = None, -np.inf, 0, float("nan")
    # few rows are scored under several masks, in the room that padding would take
    copies = max(1, ROWS // len(held_out.x))
    held_out = _padded(jax.tree.map(lambda leaf: np.tile(leaf, (copies, 1)), held_out))
    for i, (progress, params) in enumerate(chunks):
        is_last = progress.step >= progress.num_steps
        if (i + 1) % SCORE_EVERY == 0 or is_last:
            score = float(_score(key, params, held_out, model=model, schedule=schedule))
            age += 1
            if score > best_score:
                best, best_score, age = params, score, 0
        if not report(progress._replace(score=score)) or age >= PATIENCE:
            break
    return params if best is None else best


@functools.partial(jax.jit, static_argnames="model", compiler_options=RUN_ONCE)
def _init(key, model):
    return model.init(key, model.blank_row())["params"]


def _optimiser(recipe):
    ((stage, num_steps),) = recipe.steps
    return optimiser(stage, adam(recipe.learning_rate, num_steps))


@functools.partial(
    jax.jit, static_argnames=("model", "recipe", "size"), compiler_options=RUN_BRIEFLY
)
def _chunk(key, params, opt_state, rows, num_rows, start, *, model, recipe, size):
    """Takes `size` steps of the recipe's only stage; returns parameters, optimiser, mean loss."""
    transform, ((stage, _),) = _optimiser(recipe), recipe.steps

    def step(carry, step):
        params, opt_state = carry
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, step))
        index = jax.random.randint(key_batch, (recipe.batch_size,), 0, num_rows)
        batch = jax.tree.map(lambda leaf: leaf[index], rows)
        value, grads = jax.value_and_grad(
            lambda params: _loss(key_loss, model, recipe, stage, params, batch, step)
        )(params)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    carry, values = jax.lax.scan(step, (params, opt_state), start + jnp.arange(size))
    return *carry, jnp.mean(values)


def _loss(key, model, recipe, stage, params, batch, step):
    key_rows, key_loss = jax.random.split(key)
    if stage == "marginal":
        mask, _ = objectives.random_mask(key_rows, batch.mask, batch.y_mask)
        beta = kl_weights(model.schema)
        return objectives.marginal_loss(key_loss, model, params, batch.x, mask, beta=beta)[0]
    rows = objectives.training_rows(key_rows, model, params, *batch)
    bound = objectives.BOUNDS[recipe.schedule.bound]
    loss = bound if stage == "vi" else objectives.hmc_loss
    return loss(key_loss, model, params, rows, step, schedule=recipe.schedule)[0]


@functools.partial(jax.jit, static_argnames=("model", "schedule"), compiler_options=RUN_BRIEFLY)
def _score(key, params, rows, *, model, schedule):
    """Log score of what is hidden of held-out rows, in nats a cell.

    The target where there is one, and otherwise half of the observed cells, each on its own, under
    draws resampled from the encoder's.
    """
    key_hide, key_eps, key_x = jax.random.split(key, 3)
    hidden = jax.random.bernoulli(key_hide, 0.5, rows.mask.shape) & rows.mask
    if model.target.num_columns:
        hidden = jnp.zeros_like(hidden)
    shown = rows.mask & ~hidden
    posterior = predict.sample_posterior(
        key_eps, model, params, rows.x, shown, num_samples=SCORE_SAMPLES, schedule=schedule
    )
    out = predict.decode_posterior(key_x, model, params, rows.x, shown, posterior.eps)
    if model.target.num_columns:
        hidden, args, method = rows.y_mask, (out.theta_y, rows.y, rows.y_mask), "log_prob_y"
    else:
        args, method = (out.theta, rows.x, hidden), "log_prob_x"
    log_prob = predict.log_mean_exp(model.apply({"params": params}, *args, method=method))
    return jnp.sum(log_prob, where=hidden) / jnp.maximum(jnp.sum(hidden), 1)


class Answer(NamedTuple):
    """Likelihood parameters and draws at posterior samples of a block of rows."""

    theta: jax.Array  # [ROUND, B, D, C] of the columns
    theta_y: jax.Array | None  # [ROUND, B, P, C_y] of the targets
    draws: jax.Array  # [ROUND, B, D] standardised values and codes


@functools.partial(jax.jit, static_argnames=("model", "schedule"), compiler_options=RUN_BRIEFLY)
def answer(keys, params, x, mask, number, *, model: HVAE, schedule: Schedule) -> Answer:
    """Samples x_U and y given x_O, one round: any number of samples takes one program.

    Every row has a key of its own, so that what is said of a row does not depend on its company.

    Args:
      keys: [B] PRNG keys.
      params: from `fit`.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed.
      number: of the round, from 0; every round draws anew.
      model: the module.
      schedule: of the recipe.

    Returns:
      Answer.
    """

    def one(key, x, mask):
        key_eps, key_decode, key_x = jax.random.split(jax.random.fold_in(key, number), 3)
        x, mask = x[None], mask[None]
        posterior = predict.sample_posterior(
            key_eps, model, params, x, mask, num_samples=ROUND, schedule=schedule
        )
        out = predict.decode_posterior(key_decode, model, params, x, mask, posterior.eps)
        log_var = model.apply({"params": params}, method=lambda m: m.log_var_x)
        draws = likelihoods.sample(key_x, model.schema, out.theta, log_var)
        return Answer(*(None if v is None else v[:, 0] for v in (out.theta, out.theta_y, draws)))

    return jax.vmap(one, out_axes=1)(keys, x, mask)


@functools.partial(jax.jit, static_argnames=("model", "num_samples"), compiler_options=RUN_BRIEFLY)
def log_evidence(key, params, x, mask, *, model: HVAE, num_samples: int) -> jax.Array:
    """Estimates log p(x_O) of rows by importance sampling from the encoder.

    log 1/K sum_k p(x_O, eps_k) / q(eps_k | x_O), a lower bound on average (Burda et al. 2016); the
    same noise serves all rows.

    Args:
      key: PRNG key.
      params: from `fit`.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed.
      model: the module, trained end to end.
      num_samples: K.

    Returns:
      [B] nats of standardised units; 0 for a row with nothing observed.
    """

    def one(key):
        def of_row(x, mask):
            key_z, key_eps = jax.random.split(key)
            z = model.apply({"params": params}, key_z, x, mask, method="extract")
            row = Rows(x, mask, z, None, None)
            heads = model.apply({"params": params}, row, method="encode")
            drawn = model.apply({"params": params}, key_eps, *heads, method="draw")
            joint = model.apply({"params": params}, drawn.latents, row, method="log_joint")
            return joint.total() - drawn.log_prob()

        return jax.vmap(of_row)(x, mask)

    log_weights = jax.vmap(one)(jax.random.split(key, num_samples))  # [K, B]
    return jnp.where(jnp.any(mask, axis=-1), predict.log_mean_exp(log_weights), 0.0)


def _padded(rows):
    """Pads to a power of two, so that tables of many lengths share a program."""
    num = len(rows.x)
    size = 1 << max(num - 1, ROWS - 1).bit_length()
    return jax.tree.map(lambda leaf: np.pad(leaf, ((0, size - num), (0, 0))), rows)
