"""Likelihoods: parameters and masked data in, log probabilities out.

First the densities of a single kind, plain functions of (x, parameters) that broadcast; then the
same over the columns of a mixed `Schema`, one operation a kind. Densities of the mixed part are
those of Peis et al. (2022), of standardised values; add `log_jacobian` for raw units. Continuous
Bernoulli: Loaiza-Ganem & Cunningham (2019). Discretised logistic: Salimans et al. (2017).

Missing entries are filled with a legal value before the density and set to exactly 0 after it, so
that nothing under the mask, NaN included, reaches a value or a gradient. All values are in nats.
Not here: priors and KL terms (`hmcvae.gaussian`), standardisation (`hmcvae.columns`).
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae.columns import Scaler, Schema
from hmcvae.grouping import GROUPS, REAL, merge, runs, take

FILLER = 0.0  # a value with a finite density and gradient for every kind below
LOG_2PI = math.log(2.0 * math.pi)
MAX_EXPONENT = 80.0  # e^-80 is a normal single-precision number, and nothing beside 1


def gaussian_log_prob(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Returns log N(x; mean, exp(log_var)) = -1/2 [log 2 pi + log_var + (x - mean)^2 / var]."""
    return -0.5 * (LOG_2PI + log_var + jnp.square(x - mean) * jnp.exp(-log_var))


def bernoulli_log_prob(
    x: jax.Array, logit: jax.Array, pos_weight: jax.Array | None = None
) -> jax.Array:
    """Returns w x log sigma(logit) + (1 - x) log sigma(-logit).

    Args:
      x: 0 or 1, or anything between for a cross entropy.
      logit: log odds of 1.
      pos_weight: w. Unless it is 1 the result is a weighted score, not a log probability; the
        tables of Peis et al. (2022) use w = #negatives / #positives. None is 1.

    Returns:
      The score, of the broadcast shape.
    """
    softplus = jax.nn.softplus(logit)
    positive = x * (logit - softplus)
    if pos_weight is not None:
        positive = pos_weight * positive
    return positive - (1.0 - x) * softplus


def categorical_log_prob(label: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns log softmax(logits)[label].

    Args:
      label: [...] class index, of any dtype.
      logits: [..., C]; -inf excludes a class.

    Returns:
      [...] log probabilities.
    """
    label = label[..., None].astype(jnp.int32)
    is_label = label == jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    picked = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1)  # a select: -inf * 0 is NaN
    return picked - jax.nn.logsumexp(logits, axis=-1)


def continuous_bernoulli_log_prob(x: jax.Array, logit: jax.Array) -> jax.Array:
    """Returns the log density of x in [0, 1] under a continuous Bernoulli.

    log p = log C + x log sigma(logit) + (1 - x) log sigma(-logit), C = logit / tanh(logit / 2).
    With L(y) = coth y - 1/y, C = 2 (1 + logit/2 L(logit/2)), regular at logit = 0 (lambda = 1/2).

    Args:
      x: value in [0, 1].
      logit: log(lambda / (1 - lambda)).

    Returns:
      Log densities of the broadcast shape.
    """
    half = 0.5 * logit
    log_normaliser = math.log(2.0) + jnp.log1p(half * _langevin(half))
    return log_normaliser + bernoulli_log_prob(x, logit)


def continuous_bernoulli_mean(logit: jax.Array) -> jax.Array:
    """Returns the mean, 1/2 + L(logit / 2) / 2 with L(y) = coth y - 1/y (not sigma(logit))."""
    return 0.5 + 0.5 * _langevin(0.5 * logit)


def continuous_bernoulli_sample(key: chex.PRNGKey, logit: jax.Array) -> jax.Array:
    """Draws by inverting the distribution function, log(1 + u (e^logit - 1)) / logit."""
    u = jax.random.uniform(key, logit.shape, logit.dtype)
    is_small = jnp.abs(logit) < 1e-3
    a = jnp.where(is_small, 1.0, jnp.abs(logit))
    # of -|logit|, whose exponential cannot overflow; then mirrored: x -> 1 - x flips the sign
    draw = -jnp.log1p(u * jnp.expm1(-a)) / a
    series = u - 0.5 * jnp.abs(logit) * u * (u - 1.0)
    draw = jnp.clip(jnp.where(is_small, series, draw), 0.0, 1.0)
    return jnp.where(logit > 0, 1.0 - draw, draw)


def discretised_logistic_log_prob(
    x: jax.Array,
    loc: jax.Array,
    log_scale: jax.Array,
    *,
    num_levels: int = 256,
    half_width: float | None = None,
    edge_bins: bool = True,
    floor: float = 0.0,
) -> jax.Array:
    """Returns the log mass that a logistic density puts on the bin of x.

    With m = (x - loc) / s, h = w / s, t = e^-|m| and q = e^-h,
    sigma(m + h) - sigma(m - h) = (1 - q^2) t / [(q + t) (1 + q t)], in which nothing cancels.
    The defaults give masses that sum to 1 over the levels k / (num_levels - 1). VAMoH as released
    uses half_width=1/512, edge_bins=False, floor=1e-7: bins that leave gaps and a floor.

    Args:
      x: levels in [0, 1].
      loc: location, in the units of x.
      log_scale: log s.
      num_levels: levels, 1 / (num_levels - 1) apart.
      half_width: w; None is half a level.
      edge_bins: let the bins at 0 and 1 reach to -inf and +inf.
      floor: probability added inside the logarithm.

    Returns:
      Log masses of the broadcast shape.
    """
    half_width = 0.5 / (num_levels - 1) if half_width is None else half_width
    inv_scale = jnp.exp(-log_scale)
    m, h = (x - loc) * inv_scale, half_width * inv_scale
    is_above = m >= 0
    d = jnp.where(is_above, m, -m)  # |m|, with slope 1 at 0, where that of an edge bin is not 0
    # q would underflow for s < w / 80. Only d - h matters then: shorten both.
    surplus = jax.lax.stop_gradient(jnp.maximum(h - MAX_EXPONENT, 0.0))
    d, h = jnp.where(d >= surplus, d - surplus, 0.0), h - surplus
    # One exponential and one logarithm an element; what depends on h has the shape of log_scale.
    t, q = jnp.exp(-d), jnp.exp(-h)
    near, far = q + t, 1.0 + q * t
    numerator = jnp.log(-jnp.expm1(-2.0 * h)) - d  # log[(1 - q^2) t]
    denominator = near * far
    if edge_bins:
        # sigma(h - m) at the top, sigma(h + m) at the bottom: 1 / far if loc lies beyond that
        # edge, else t / near.
        is_top, is_bottom = x > 1.0 - half_width, x < half_width
        is_edge, is_beyond = is_top | is_bottom, is_above == is_bottom
        numerator = jnp.where(is_edge, jnp.where(is_beyond, 0.0, -d), numerator)
        denominator = jnp.where(is_edge, jnp.where(is_beyond, far, near), denominator)
    log_mass = numerator - jnp.log(denominator)
    return jnp.log(jnp.exp(log_mass) + floor) if floor else log_mass


def discretised_logistic_mean(loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Returns the mean of a logistic variable clipped to [0, 1].

    1 - s [softplus((1 - loc) / s) - softplus(-loc / s)], the integral of the survival function;
    it differs from the mean over 256 levels by less than 2e-5 for s >= 0.01.
    """
    scale = jnp.exp(log_scale)
    return 1.0 - scale * (jax.nn.softplus((1.0 - loc) / scale) - jax.nn.softplus(-loc / scale))


def discretised_logistic_sample(
    key: chex.PRNGKey, loc: jax.Array, log_scale: jax.Array, *, num_levels: int = 256
) -> jax.Array:
    """Draws levels in [0, 1]: logistic noise around loc, clipped and rounded to a level."""
    shape = np.broadcast_shapes(jnp.shape(loc), jnp.shape(log_scale))
    noise = jax.random.logistic(key, shape, jnp.result_type(loc))
    draw = jnp.clip(loc + jnp.exp(log_scale) * noise, 0.0, 1.0)
    return jnp.round(draw * (num_levels - 1)) / (num_levels - 1)


def log_prob(
    schema: Schema,
    theta: jax.Array,
    x: jax.Array,
    mask: jax.Array,
    *,
    log_var: jax.Array,
    pos_weight: jax.Array | None = None,
) -> jax.Array:
    """Returns the log density of each column given the outputs of a network.

    Args:
      schema: the D columns, static.
      theta: [..., D, C] with C = schema.max_classes; a categorical column reads its first
        num_classes logits, any other theta[..., 0]. May have leading axes that x lacks (samples).
      x: [..., D] standardised reals and codes; whatever sits under the mask is ignored.
      mask: [..., D] True = observed.
      log_var: [D] or scalar, log variance of standardised reals; ignored by discrete columns.
      pos_weight: [D] or None, weight of a bernoulli 1 (`bernoulli_log_prob`); ignored by others.

    Returns:
      [..., D] nats per *standardised* unit (`log_jacobian` turns them into raw ones), exactly 0
      where missing.
    """
    shape = np.broadcast_shapes(theta.shape[:-1], x.shape, mask.shape)
    mask = _lift(mask.astype(bool), shape)
    x = jnp.where(mask, _lift(x, shape), FILLER)
    theta = _lift(theta, (*shape, theta.shape[-1]))
    parts = []
    for kinds in GROUPS:
        indices = schema.indices(*kinds)
        if not indices:
            continue
        x_k, theta_k = take(x, indices, -1), take(theta, indices, -2)
        if kinds == REAL:
            parts.append(gaussian_log_prob(x_k, theta_k[..., 0], _pick(log_var, indices, x_k)))
        elif kinds == ("bernoulli",):
            weight = None if pos_weight is None else _pick(pos_weight, indices, x_k)
            parts.append(bernoulli_log_prob(x_k, theta_k[..., 0], weight))
        else:
            parts.append(categorical_log_prob(x_k, _own_logits(schema, theta_k)))
    return jnp.where(mask, merge(schema, parts), 0.0)


def log_jacobian(
    schema: Schema, scaler: Scaler, x_raw: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Returns log |d standardised / d raw|, which turns `log_prob` into a density in raw units.

    Args:
      schema: the D columns, static.
      scaler: shift and scale [D].
      x_raw: [..., D] values in raw units.
      mask: [..., D] True = observed; missing entries give 0. None is all observed.

    Returns:
      [..., D]: -log scale (gaussian), -log scale - log(1 + x) (loggaussian), 0 (discrete).
    """
    x_raw = x_raw if mask is None else jnp.where(mask.astype(bool), x_raw, FILLER)
    is_log = jnp.broadcast_to(schema.is_kind("loggaussian"), x_raw.shape)
    is_real = jnp.broadcast_to(schema.is_kind(*REAL), x_raw.shape)
    if mask is not None:
        is_real = is_real & mask.astype(bool)
    log_scale = _row(jnp.log(jnp.asarray(scaler.scale, x_raw.dtype)), x_raw)
    return jnp.where(is_real, -log_scale - jnp.log1p(jnp.where(is_log, x_raw, 0.0)), 0.0)


def mean(schema: Schema, theta: jax.Array) -> jax.Array:
    """Returns the mean of real and bernoulli columns, the mode of categorical ones.

    Args:
      schema: the D columns, static.
      theta: [..., D, C] outputs of a network.

    Returns:
      [..., D] standardised reals, probabilities of 1, class indices as floats (see `probs`).
    """
    first = theta[..., 0]
    out = jnp.where(
        jnp.broadcast_to(schema.is_kind("bernoulli"), first.shape), jax.nn.sigmoid(first), first
    )
    return _set_categorical(schema, theta, out)


def mode(schema: Schema, theta: jax.Array) -> jax.Array:
    """Returns the most probable value of every column.

    Args:
      schema: the D columns, static.
      theta: [..., D, C] outputs of a network.

    Returns:
      [..., D] standardised reals; codes as floats, through which no gradient flows.
    """
    first = theta[..., 0]
    rounded = (first > 0).astype(first.dtype)
    out = jnp.where(jnp.broadcast_to(schema.is_kind("bernoulli"), first.shape), rounded, first)
    return _set_categorical(schema, theta, out)


def probs(schema: Schema, theta: jax.Array) -> jax.Array:
    """Returns class probabilities.

    Args:
      schema: the D columns, static.
      theta: [..., D, C] outputs of a network.

    Returns:
      [..., D, C]: softmax over its own classes (categorical), the probability of 1 in position 0
      (bernoulli); zeros elsewhere and for real columns.
    """
    parts = []
    for kinds in GROUPS:
        indices = schema.indices(*kinds)
        if not indices:
            continue
        theta_k = take(theta, indices, -2)
        if kinds == ("categorical",):
            parts.append(jax.nn.softmax(_own_logits(schema, theta_k), axis=-1))
        else:
            first = jax.nn.sigmoid(theta_k) if kinds == ("bernoulli",) else theta_k
            is_first = jnp.arange(theta.shape[-1]) == 0
            keep = is_first if kinds == ("bernoulli",) else jnp.zeros_like(is_first)
            parts.append(jnp.where(jnp.broadcast_to(keep, first.shape), first, 0.0))
    return merge(schema, parts, axis=-2)


def sample(key: chex.PRNGKey, schema: Schema, theta: jax.Array, log_var: jax.Array) -> jax.Array:
    """Draws one value of every column.

    Args:
      key: typed PRNG key, consumed once.
      schema: the D columns, static.
      theta: [..., D, C] outputs of a network.
      log_var: [D] or scalar, log variance of standardised reals.

    Returns:
      [..., D] standardised reals and codes as floats.
    """
    parts = []
    keys = jax.random.split(key, len(GROUPS))
    for key_k, kinds in zip(keys, GROUPS, strict=True):
        indices = schema.indices(*kinds)
        if not indices:
            continue
        theta_k = take(theta, indices, -2)
        first = theta_k[..., 0]
        if kinds == REAL:
            noise = jax.random.normal(key_k, first.shape, first.dtype)
            parts.append(first + jnp.exp(0.5 * _pick(log_var, indices, first)) * noise)
        elif kinds == ("bernoulli",):
            noise = jax.random.logistic(key_k, first.shape, first.dtype)
            parts.append((first + noise > 0).astype(first.dtype))
        else:
            label = jax.random.categorical(key_k, _own_logits(schema, theta_k), axis=-1)
            parts.append(label.astype(first.dtype))
    return merge(schema, parts)


def flat_width(schema: Schema) -> int:
    """Returns the width of `one_hot`: one a column, num_classes for a categorical one."""
    return sum(column.num_classes for column in schema.columns)


def one_hot(schema: Schema, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Writes a row as a flat vector, categorical columns one-hot.

    Args:
      schema: the D columns, static.
      x: [..., D] standardised reals and codes.
      mask: [..., D] True = observed; a missing column is all zeros. None is all observed.

    Returns:
      [..., flat_width(schema)], columns in order.
    """
    parts = []
    if mask is not None:
        x = jnp.where(mask.astype(bool), x, FILLER)
    for start, stop, kinds in runs(schema):
        if kinds != ("categorical",):
            parts.append(x[..., start:stop])
            continue
        for i in range(start, stop):
            label = x[..., i].astype(jnp.int32)
            parts.append(jax.nn.one_hot(label, schema.columns[i].num_classes, dtype=x.dtype))
    flat = jnp.concatenate(parts, axis=-1)
    return flat if mask is None else jnp.where(repeat_columns(schema, mask), flat, 0.0)


def repeat_columns(schema: Schema, values: jax.Array) -> jax.Array:
    """Repeats [..., D] values (a mask, say) to the layout of `one_hot`."""
    widths = [column.num_classes for column in schema.columns]
    if max(widths) == 1:
        return values
    return values[..., np.repeat(np.arange(len(widths)), widths)]


def _langevin(y):
    # L(y) = coth y - 1/y; the odd series to y^11 has relative error 2e-10 at |y| = 1/2
    is_small = jnp.abs(y) < 0.5
    small, large = jnp.where(is_small, y, 0.0), jnp.where(is_small, 1.0, y)
    u = jnp.square(small)
    series = 1 / 3 + u * (
        -1 / 45 + u * (2 / 945 + u * (-1 / 4725 + u * (2 / 93555 - u * 1382 / 638512875)))
    )
    return jnp.where(is_small, small * series, 1.0 / jnp.tanh(large) - 1.0 / large)


def _own_logits(schema, theta):
    # theta [..., n, C] of the n categorical columns; -inf beyond a column's own classes
    counts = [c.num_classes for c in schema.columns if c.kind == "categorical"]
    width = theta.shape[-1]
    if min(counts) == width:
        return theta
    is_own = np.arange(width) < np.array(counts)[:, None]
    return jnp.where(np.broadcast_to(is_own, theta.shape), theta, -jnp.inf)


def _set_categorical(schema, theta, out):
    indices = schema.indices("categorical")
    if not indices:
        return out
    groups = ((*REAL, "bernoulli"), ("categorical",))
    label = jnp.argmax(_own_logits(schema, take(theta, indices, -2)), axis=-1).astype(out.dtype)
    others = schema.indices(*groups[0])
    parts = [take(out, others, -1), label] if others else [label]
    return merge(schema, parts, groups=groups)


def _lift(a, shape):
    # leading axes of size 1: rank promotion made explicit
    return a.reshape((1,) * (len(shape) - a.ndim) + a.shape)


def _row(vector, like):
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))


def _pick(vector, indices, like):
    vector = jnp.asarray(vector)
    return vector if vector.ndim == 0 else _row(take(vector, indices, -1), like)
