"""Which unknown feature of a row to measure next to predict its target, and when to stop.

Sequential active information acquisition (Ma et al. 2019, EDDI; Peis et al. 2022, section 4): given
what is known of a row, every unknown feature has an expected gain; the one of the highest gain for
a unit of cost is measured, and so on until nothing is left, or the budget is spent, or the best
gain is too low, or the target is known well enough.

Not here: the gains themselves (`hmcvae.rewards`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import columns, likelihoods, predict, rewards
from hmcvae.columns import Scaler
from hmcvae.compiling import RUN_BRIEFLY
from hmcvae.model import HVAE
from hmcvae.objectives import Schedule
from hmcvae.predict import TestRows
from hmcvae.rewards import Block, Context, Gains, Settings


class Episode(NamedTuple):
    """T acquisitions, and the prediction before each of them and after the last."""

    chosen: jax.Array  # [T, B] column, -1 where the row has stopped
    gain: jax.Array  # [T, B] its expected gain; NaN where stopped, and of random and fixed_order
    spent: jax.Array  # [T + 1, B] cost so far
    y_mean: jax.Array  # [T + 1, B, P] raw units
    y_probs: jax.Array  # [T + 1, B, P, C_y]
    joint_y: jax.Array  # [T + 1, B] log probability of the true targets, nats, standardised units
    paper_y: jax.Array  # [T + 1, B] the published score: ones of Bernoulli targets weighted
    spread: jax.Array  # [T + 1, B] standard deviation of the target, standardised units


class Advice(NamedTuple):
    """One unknown feature of a row."""

    name: str
    gain: float  # expected, in nats
    rate: float  # gain for a unit of cost


def episode(
    key,
    model: HVAE,
    params,
    scaler_y: Scaler,
    rows: TestRows,
    *,
    settings: Settings,
    schedule: Schedule,
    num_steps: int,
    costs=None,
    budget: float = np.inf,
    min_gain: float = -np.inf,
    max_spread: float = -np.inf,
    order=None,
    pos_weight_y=None,
) -> Episode:
    """Measures feature after feature of all rows, each row its own.

    Args:
      key: PRNG key.
      model: the module; it has at least one target.
      params: trained parameters.
      scaler_y: standardisation of the targets.
      rows: [B, ...]; `shown` is known at the start, and nothing but `known` can be measured.
      settings: reward, samples.
      schedule: leapfrog steps of a transition, number of importance samples.
      num_steps: T.
      costs: [D] positive costs of the features; None is 1 each.
      budget: of a row, in the units of the costs.
      min_gain: a row stops where no feature is expected to bring as much; random and fixed_order
        expect nothing and do not stop by it.
      max_spread: a row stops where its `spread` is at most this.
      order: [D] rank of every feature, lowest first, for `fixed_order`.
      pos_weight_y: [P] weights of the `paper` score, or None.

    Returns:
      Episode.
    """
    rewards.check(model, params, settings, order)
    num_rows, num_columns = rows.x.shape
    costs = jnp.ones(num_columns) if costs is None else jnp.asarray(costs, jnp.float32)
    context = Context(model, params, schedule, settings, pos_weight_y)

    def one_block(step, key, block):
        key_draw, key_gain = jax.random.split(key)
        draws = rewards.draw(key_draw, context, block.rows)
        prediction = _predict(context, scaler_y, block.rows, draws)

        def choose():
            found = rewards.gains(key_gain, context, block, draws, costs, order)
            best = jnp.argmax(found.rate, axis=-1)
            gain = jnp.take_along_axis(found.gain, best[:, None], axis=-1)[:, 0]
            if settings.reward in rewards.BLIND:
                gain = jnp.full_like(gain, jnp.nan)
            return best.astype(jnp.int32), gain

        def finish():
            return jnp.full(len(block.left), -1), jnp.full(len(block.left), -jnp.inf)

        return prediction, jax.lax.cond(step < num_steps, choose, finish)

    def body(carry, inputs):
        shown, is_open = carry
        step, key = inputs
        spent = jnp.sum(jnp.where(shown & ~rows.shown, costs, 0.0), axis=-1)
        is_within = spent[:, None] + costs <= budget * (1 + 1e-6)  # rounding of the sum
        candidates = rows.known & ~shown & is_within & is_open[:, None]
        block = Block(rows._replace(shown=shown), budget - spent, candidates)
        run = functools.partial(one_block, step)
        prediction, (best, gain) = _by_blocks(run, key, block, settings.rows_per_block)
        is_open = jnp.any(candidates, axis=-1) & (prediction["spread"] > max_spread)
        is_open &= ~(gain < min_gain)
        is_new = (jnp.arange(num_columns) == best[:, None]) & is_open[:, None]
        record = prediction | {
            "spent": spent,
            "chosen": jnp.where(is_open, best, -1),
            "gain": jnp.where(is_open, gain, jnp.nan),
        }
        return (shown | is_new, is_open), record

    start = (rows.shown & rows.known, jnp.ones(num_rows, bool))
    keys = jax.random.split(key, num_steps + 1)
    _, record = jax.lax.scan(body, start, (jnp.arange(num_steps + 1), keys))
    record["chosen"], record["gain"] = record["chosen"][:-1], record["gain"][:-1]
    return Episode(**record)


def expected_gains(
    key,
    model: HVAE,
    params,
    x,
    mask,
    *,
    settings: Settings,
    schedule: Schedule,
    costs=None,
    pos_weight_y=None,
) -> Gains:
    """Estimates what each unknown feature of each row would tell of the target.

    Args:
      key: PRNG key.
      model: the module; it has at least one target.
      params: trained parameters.
      x: [B, D] standardised values and codes; anything under the mask.
      mask: [B, D] True = known.
      settings: its reward is one of INFORMATION.
      schedule: leapfrog steps of a transition, number of importance samples.
      costs: [D] positive costs of the features; None is 1 each.
      pos_weight_y: [P], where the predictor was trained with weights.

    Returns:
      Gains, -inf where known.
    """
    if settings.reward not in rewards.INFORMATION:
        raise ValueError(
            f"settings.reward={settings.reward!r} expects nothing; use one of "
            f"{', '.join(rewards.INFORMATION)}"
        )
    rewards.check(model, params, settings)
    costs = jnp.ones(x.shape[-1]) if costs is None else jnp.asarray(costs, jnp.float32)
    context = Context(model, params, schedule, settings, pos_weight_y)
    y = jnp.zeros((len(x), model.target.num_columns))
    rows = TestRows(x, mask, jnp.ones_like(mask), y, y > 0)
    block = Block(rows, jnp.full(len(x), jnp.inf), ~mask)

    def one_block(key, block):
        key_draw, key_gain = jax.random.split(key)
        draws = rewards.draw(key_draw, context, block.rows)
        return rewards.gains(key_gain, context, block, draws, costs, None)

    return _by_blocks(one_block, key, block, settings.rows_per_block)


DEFAULT = Settings()
_compiled_gains = jax.jit(
    expected_gains,
    static_argnames=("model", "settings", "schedule"),
    compiler_options=RUN_BRIEFLY,
)


def advise(
    key,
    model: HVAE,
    params,
    scaler: Scaler,
    row,
    mask,
    *,
    schedule: Schedule,
    settings: Settings = DEFAULT,
    costs=None,
    pos_weight_y=None,
) -> tuple[Advice, ...]:
    """Ranks the unknown features of one row; compiled once a model, unlike all else here.

    Args:
      key: PRNG key.
      model: the module; it has at least one target.
      params: trained parameters.
      scaler: standardisation of the training rows.
      row: [D] in raw units, codes of discrete columns; anything under the mask.
      mask: [D] True = known.
      schedule: leapfrog steps of a transition, number of importance samples.
      settings: its reward is one of INFORMATION.
      costs: [D] positive costs of the features; None is 1 each.
      pos_weight_y: [P], where the predictor was trained with weights.

    Returns:
      The features that are not known, best first. Under a lookahead only those that it simulated.
    """
    mask = np.asarray(mask, bool)[None]
    x = columns.transform(model.schema, scaler, np.asarray(row, np.float64)[None], mask)
    found = _compiled_gains(
        key, model, params, jnp.asarray(x, jnp.float32), jnp.asarray(mask),
        settings=settings, schedule=schedule, costs=costs, pos_weight_y=pos_weight_y,
    )  # fmt: skip
    gain, rate = (np.asarray(leaf[0], np.float64) for leaf in found)
    ranked = [i for i in np.argsort(-rate, kind="stable") if np.isfinite(rate[i])]
    return tuple(Advice(model.schema.names[i], float(gain[i]), float(rate[i])) for i in ranked)


def _by_blocks(function, key, block, size):
    """Applies function(key, block) to blocks of at most `size` rows, padded to equal size."""
    num_rows = len(block.left)
    num_blocks = -(-num_rows // size)
    size = -(-num_rows // num_blocks)
    spare = num_blocks * size - num_rows

    def split(leaf):
        leaf = jnp.pad(leaf, [(0, spare)] + [(0, 0)] * (leaf.ndim - 1))
        return leaf.reshape(num_blocks, size, *leaf.shape[1:])

    keys = jax.random.split(key, num_blocks)
    out = jax.lax.map(lambda args: function(*args), (keys, jax.tree.map(split, block)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_rows], out)


def _predict(context, scaler_y, rows, draws):
    """Averages the prediction over samples, and scores it: the last fields of `Episode`."""
    target = context.model.target
    log_prob = functools.partial(rewards.apply, context, "log_prob_y")
    proper = log_prob(draws.theta_y, rows.y, rows.y_known, None)
    paper = log_prob(draws.weighted_y, rows.y, rows.y_known, context.pos_weight_y)
    mean = likelihoods.mean(target, draws.theta_y)
    probs = jnp.mean(likelihoods.probs(target, draws.theta_y), axis=0)
    return {
        "y_mean": jnp.mean(columns.inverse(target, scaler_y, mean, floor=False), axis=0),
        "y_probs": probs,
        "joint_y": predict.log_mean_exp(jnp.sum(proper, axis=-1)),
        "paper_y": predict.log_mean_exp(jnp.sum(paper, axis=-1)),
        "spread": jnp.sqrt(jnp.mean(_variance(context, mean, probs), axis=-1)),
    }


def _variance(context, mean, probs):
    """Variance of every target [R, P]: of the standardised real, of 0 and 1, or of the one-hot."""
    target = context.model.target
    log_var = rewards.apply(context, lambda m: m.log_var_y)
    real = jnp.var(mean, axis=0) + jnp.exp(log_var)
    is_discrete = target.is_kind("bernoulli", "categorical")
    return jnp.where(is_discrete, jnp.sum(probs * (1 - probs), axis=-1), real)
