"""Expected gains: what each unknown feature of a row would tell of its target.

In nats of information on the target unless it says otherwise (Ma et al. 2019, EDDI; Peis et al.
2022, section 4):

  mutual_information  I(x_i; y | x_O) of posterior samples, bias corrected, all targets jointly
  published           the same by the published estimator, defects included
  kraskov             the same by nearest neighbours
  gaussian_kl         the reward of EDDI and VAEM, from the Gaussians of the encoder
  random, fixed_order what they are compared with; their gains are no expectations
  oracle              how much the error falls when the true x_i is revealed (it looks at the truth)

Samples of x_i and y share the posterior sample eps. With `feed` the target is predicted from the
sampled x_i as it will be from the measured one; without, they are tied by eps alone, as published.
The value of a feature that is not yet measured reaches nothing but the oracle.

Not here: estimators of information from samples (`hmcvae.information`), the sequence of choices
(`hmcvae.acquire`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hmcvae import information, likelihoods, predict
from hmcvae.model import HVAE, Rows
from hmcvae.objectives import Schedule
from hmcvae.predict import TestRows

SAMPLED = ("mutual_information", "published", "kraskov")
INFORMATION = (*SAMPLED, "gaussian_kl")
BLIND = ("random", "fixed_order")  # look at no data
REWARDS = (*INFORMATION, *BLIND, "oracle")


class Settings(NamedTuple):
    """How gains are estimated; static under `jit`."""

    reward: str = "mutual_information"  # one of REWARDS
    num_samples: int = 200  # S, posterior samples of a row
    bins: int = 7  # levels of a real variable; a discrete one has its classes
    feed: bool = True  # give the sampled x_i to the predictor
    num_neighbours: int = 3  # of `kraskov`
    lookahead: int = 0  # best candidates whose next step is simulated; 0 is greedy
    num_simulated: int = 4  # values of each that are simulated
    rows_per_block: int = 8  # worked on at a time: memory; few stay in a CPU's caches
    weighted_target: bool = False  # the predictor was trained with weights: see predict.score


class Gains(NamedTuple):
    """What every feature of every row is expected to bring."""

    gain: jax.Array  # [B, D] nats, -inf for what is no candidate
    rate: jax.Array  # [B, D] gain for a unit of cost, by which features rank; -inf likewise


class Context(NamedTuple):
    """What every estimate needs besides the rows."""

    model: HVAE
    params: Any
    schedule: Schedule
    settings: Settings
    pos_weight_y: jax.Array | None


class Block(NamedTuple):
    """Some rows of an episode at one step."""

    rows: TestRows  # `shown` is what is measured by now
    left: jax.Array  # [R] budget
    candidates: jax.Array  # [R, D]


class Draws(NamedTuple):
    """Posterior samples of a block."""

    eps: jax.Array  # [S, R, d_tot]
    theta: jax.Array  # [S, R, D, C] without noise of z, as the predictor sees it
    theta_y: jax.Array  # [S, R, P, C_y] of probabilities without weights
    weighted_y: jax.Array  # [S, R, P, C_y] for the published score
    x: jax.Array  # [S, R, D] sampled values and codes


def check(model: HVAE, params, settings: Settings, order=None) -> None:
    """Refuses settings that cannot be served, in one sentence each."""
    reward = settings.reward
    if reward not in REWARDS:
        raise ValueError(f"reward {reward!r} is unknown; use one of {', '.join(REWARDS)}")
    if not model.target.num_columns:
        raise ValueError("the model has no target, so no feature tells anything of it; train one")
    if reward == "published" and model.target.num_columns > 2:
        raise ValueError(
            f"reward 'published' with {model.target.num_columns} targets: it knows 1 or 2; use "
            f"'mutual_information'"
        )
    if reward == "gaussian_kl" and not is_gaussian(model, params):
        raise ValueError(
            "reward 'gaussian_kl' compares posteriors that are Gaussians of the encoder; use it "
            "with a model without HMC, or use 'mutual_information'"
        )
    if (reward == "fixed_order") != (order is not None):
        raise ValueError(
            f"reward {reward!r} with order={order!r}: 'fixed_order' needs the rank of every "
            f"feature, and no other reward takes one"
        )
    if settings.lookahead and reward not in SAMPLED:
        raise ValueError(
            f"lookahead={settings.lookahead} with reward {reward!r}: only {', '.join(SAMPLED)} "
            f"look ahead; set it to 0"
        )
    if settings.num_samples <= max(settings.num_neighbours, settings.bins):
        raise ValueError(
            f"num_samples={settings.num_samples}: expected more than bins={settings.bins} and "
            f"num_neighbours={settings.num_neighbours}"
        )


def is_gaussian(model: HVAE, params) -> bool:
    """Tells whether the model's posterior is a Gaussian of its encoder in the latents eps."""
    return "hmc" not in params and (model.reparameterised or len(model.layer_sizes) == 1)


def draw(key, context, rows) -> Draws:
    """Samples what is not known of a block from the posterior given what is."""
    model, settings = context.model, context.settings
    key_eps, key_decode, key_x = jax.random.split(key, 3)
    posterior = predict.sample_posterior(
        key_eps, model, context.params, rows.x, rows.shown,
        num_samples=settings.num_samples, schedule=context.schedule,
    )  # fmt: skip
    out = predict.decode_posterior(
        key_decode, model, context.params, rows.x, rows.shown, posterior.eps
    )
    x = likelihoods.sample(key_x, model.schema, out.theta, apply(context, lambda m: m.log_var_x))
    return Draws(posterior.eps, out.theta_plugin, *_odds(context, out.theta_y), x)


def _odds(context, theta_y):
    """Returns the parameters of probabilities and those of the published score: predict.score."""
    model, weight = context.model, context.pos_weight_y
    if weight is None or model.paper:
        return theta_y, theta_y
    if context.settings.weighted_target:
        return predict.scale_odds(model.target, theta_y, 1 / weight), theta_y
    return theta_y, predict.scale_odds(model.target, theta_y, weight)


def apply(context: Context, method, *args):
    """Calls a method of the model with its parameters."""
    return context.model.apply({"params": context.params}, *args, method=method)


def gains(key, context, block, draws, costs, order) -> Gains:
    """Estimates the gains of the reward and what they are for a unit of cost."""
    settings = context.settings
    key, key_ahead = jax.random.split(key)
    gain = _reward(key, context, block.rows, draws, order)
    rate = gain if settings.reward in BLIND else _rate(gain, costs)
    gain, rate = (jnp.where(block.candidates, v, -jnp.inf) for v in (gain, rate))
    if settings.lookahead:
        return _look_ahead(key_ahead, context, block, draws, Gains(gain, rate), costs)
    return Gains(gain, rate)


def _rate(gain, cost):
    # below zero, which a corrected estimate can be, a high cost must not look better
    return jnp.where(gain > 0, gain / cost, gain * cost)


def _reward(key, context, rows, draws, order):
    """Estimates the gain of every column of every row, [R, D]."""
    reward = context.settings.reward
    if reward == "random":
        return jax.random.uniform(key, rows.x.shape)
    if reward == "fixed_order":
        return jnp.broadcast_to(-jnp.asarray(order, jnp.float32), rows.x.shape)
    if reward == "oracle":
        return _oracle(key, context, rows, draws)
    if reward == "gaussian_kl":
        return _gaussian_kl(key, context, rows, draws)
    return _sampled_information(key, context, rows, draws)


def _sampled_information(key, context, rows, draws):
    """Estimates I(x_i; y | x_O) from samples, [R, D]."""
    model, settings = context.model, context.settings
    is_fed = settings.feed and settings.reward != "published"
    theta_y = _fed(context, rows, draws) if is_fed else draws.theta_y[:, :, None]
    log_var = apply(context, lambda m: m.log_var_y)
    # one set of random numbers for all candidates, so that their differences are those of x_i
    draw = jax.vmap(likelihoods.sample, in_axes=(None, None, 2, None), out_axes=2)
    y = draw(key, model.target, theta_y, log_var)  # [S, R, D or 1, P]
    x, y = jnp.moveaxis(draws.x, 0, -1), jnp.moveaxis(y, 0, -1)  # [R, D, S], [R, D or 1, P, S]
    if settings.reward == "published":
        return information.published(x, y, settings.bins)
    if settings.reward == "kraskov":
        return information.kraskov(
            x, y,
            is_discrete_x=model.schema.is_kind("bernoulli", "categorical"),
            is_discrete_y=model.target.is_kind("bernoulli", "categorical"),
            num_neighbours=settings.num_neighbours,
        )  # fmt: skip
    x, counts = _levels(model.schema, x, settings.bins)
    y, counts_y = _levels(model.target, y, settings.bins)
    y, num_y = information.join(y, counts_y)
    return information.mutual_information(x, y, max(counts), num_y)


def _levels(schema, values, bins):
    """Turns samples [..., D, S] into levels and their numbers: classes, or bins of equal count."""
    is_discrete = schema.is_kind("bernoulli", "categorical")
    levels = jnp.where(
        is_discrete[:, None], values.astype(jnp.int32), information.equal_count(values, bins)
    )
    counts = [max(c.num_classes, 2) if c.is_discrete else bins for c in schema.columns]
    return levels, counts


def _fed(context, rows, draws):
    """Parameters of y when the predictor is given the sampled x_i, [S, R, D, P, C_y]."""
    is_fed = jnp.eye(rows.x.shape[-1], dtype=bool)

    def one(eps, theta, drawn, x, mask):
        # the D rows in each of which one more column is known
        known = Rows(jnp.where(is_fed, drawn, x), is_fed | mask, None, None, None)

        def run(model):
            h = model.hierarchy(eps)[0]
            every = lambda a: jnp.broadcast_to(a, (len(x), *a.shape))
            return model.predict(known, every(h), every(theta))

        return apply(context, run)

    every_row = jax.vmap(one)
    theta_y = jax.vmap(every_row, in_axes=(0, 0, 0, None, None))(
        draws.eps, draws.theta, draws.x, rows.x, rows.shown
    )
    return _odds(context, theta_y)[0]


def _gaussian_kl(key, context, rows, draws):
    """Estimates the reward of EDDI, E[KL(x_i, o || o) - KL(x_i, y, o || y, o)], [R, D]."""
    model = context.model
    key_z, key_y = jax.random.split(key)
    is_new = jnp.eye(rows.x.shape[-1], dtype=bool)
    log_var = apply(context, lambda m: m.log_var_y)
    y = likelihoods.sample(key_y, model.target, draws.theta_y, log_var)  # [S, R, P]

    def one(key, drawn, y, x, mask):
        full = jnp.where(mask, x, drawn)
        # one draw of z for what is known and for the sampled features, in all four posteriors
        z = apply(context, "extract", key, full, jnp.ones_like(mask))

        def heads(mask, is_known):
            known = Rows(full, mask, z, y, jnp.broadcast_to(is_known, y.shape))
            return apply(context, "encode", known)

        def reward(mask_x):
            posteriors = [heads(m, k) for k in (False, True) for m in (mask_x, mask)]
            with_x, without, with_xy, with_y = posteriors
            return information.gaussian_reward(with_x, without, with_xy, with_y)

        return jax.vmap(reward)(mask | is_new)

    every_row = jax.vmap(one)
    keys = jax.random.split(key_z, draws.x.shape[:2])
    samples = jax.vmap(every_row, in_axes=(0, 0, 0, None, None))(
        keys, draws.x, y, rows.x, rows.shown
    )
    return jnp.mean(samples, axis=0)


def _oracle(key, context, rows, draws):
    """How much the error falls when the true value of a column is revealed, [R, D]."""
    now = _error(context, rows, draws)

    def after(is_new):
        revealed = rows._replace(shown=rows.shown | (is_new & rows.known))
        return _error(context, revealed, draw(key, context, revealed))

    errors = jax.lax.map(after, jnp.eye(rows.x.shape[-1], dtype=bool))  # [D, R]
    return now[:, None] - errors.T


def _error(context, rows, draws):
    """Squared error of the standardised mean, 1 minus the probability of the true class, [R]."""
    target = context.model.target
    mean = jnp.mean(likelihoods.mean(target, draws.theta_y), axis=0)
    log_probs = apply(context, "log_prob_y", draws.theta_y, rows.y, rows.y_known, None)
    miss = 1 - jnp.mean(jnp.exp(log_probs), axis=0)
    error = jnp.where(target.is_kind("bernoulli", "categorical"), miss, (mean - rows.y) ** 2)
    return jnp.sum(error, axis=-1, where=rows.y_known)


def _look_ahead(key, context, block, draws, greedy, costs) -> Gains:
    """Adds to the best candidates what the best feature after them is expected to bring.

    Each of some sampled values of a candidate is taken for measured, and the gains of what is left
    are estimated again. Candidates then rank by the gain of the pair for a unit of its cost.
    """
    settings = context.settings
    num_rows, num_columns = block.rows.x.shape
    num, num_values = min(settings.lookahead, num_columns), settings.num_simulated
    _, first = jax.lax.top_k(greedy.rate, num)  # [R, k]
    is_first = jax.nn.one_hot(first, num_columns, dtype=bool)[:, :, None]  # [R, k, 1, D]
    values = jnp.moveaxis(draws.x[:num_values], 0, 1)[:, None]  # [R, 1, M, D]
    shape = (num_rows, num, num_values)
    every = lambda leaf: jnp.broadcast_to(leaf[:, None, None], (*shape, *leaf.shape[1:]))
    flat = lambda leaf: leaf.reshape(-1, *leaf.shape[len(shape) :])
    rows = jax.tree.map(every, block.rows)
    rows = rows._replace(x=jnp.where(is_first, values, rows.x), shown=rows.shown | is_first)
    rows = jax.tree.map(flat, rows)
    key_draw, key_gain = jax.random.split(key)
    second = _reward(key_gain, context, rows, draw(key_draw, context, rows), None)
    second = second.reshape(*shape, num_columns)

    own_gain = jnp.take_along_axis(greedy.gain, first, axis=-1)[..., None, None]  # [R, k, 1, 1]
    pair_cost = costs[first][..., None, None] + costs  # [R, k, 1, D]
    can_follow = every(block.candidates) & ~is_first & (pair_cost <= every(block.left)[..., None])
    pair_rate = jnp.where(can_follow, _rate(own_gain + second, pair_cost), -jnp.inf)
    best = jnp.argmax(pair_rate, axis=-1, keepdims=True)
    pick = lambda leaf: jnp.take_along_axis(leaf, best, axis=-1)[..., 0]
    has_next = pick(can_follow)
    own_rate = jnp.take_along_axis(greedy.rate, first, axis=-1)[..., None]
    gain = own_gain[..., 0] + jnp.where(has_next, pick(second), 0.0)
    rate = jnp.where(has_next, pick(pair_rate), own_rate)

    def scatter(values):
        at = jnp.where(is_first[:, :, 0], jnp.mean(values, axis=-1)[..., None], -jnp.inf)
        return jnp.where(block.candidates, jnp.max(at, axis=1), -jnp.inf)

    return Gains(scatter(gain), scatter(rate))
