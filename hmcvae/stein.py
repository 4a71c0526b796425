"""Kernelised Stein discrepancies between samples and a density known by its score.

Equations: KSD of Liu, Lee, Jordan (2016); max-sliced KSD with r = e_k of Gong, Li, Hernandez-Lobato
(2021), "Sliced kernelized Stein discrepancy"; active slices of Gong et al. (2021). For slice k with
unit direction g_k, u = g_k . x, sigma = score_k, rho = g_kk, Delta = u_n - u_m, K = exp(-Delta^2 /
b^2), b^2 = 2 med_k:

  sum_k mean_nm [ sigma_n sigma_m K + rho (sigma_n - sigma_m)(2 Delta / b^2) K
                  + rho^2 (2 / b^2 - 4 Delta^2 / b^4) K ].

One sample set at a time; `jax.vmap` for a batch. Every sum runs over the n (n - 1) / 2 distinct
pairs, and the median is selected bit by bit instead of sorted.
"""

from typing import Literal

import chex
import jax
import jax.numpy as jnp
import optax
from jax import lax

Statistic = Literal["V", "U"]
Bandwidth = Literal["paper", "median"]
MAX_MEDIAN_SAMPLES = 500  # the published code takes the median over the first 500 samples


def sksd(
    samples: jax.Array,
    scores: jax.Array,
    *,
    slices: jax.Array | None = None,
    statistic: Statistic = "V",
    bandwidth: Bandwidth = "paper",
    differentiate_scores: bool = False,
) -> jax.Array:
    """Compute the max-sliced kernelised Stein discrepancy.

    Args:
      samples: [n, d]; gradients flow to them. n >= 2.
      scores: [n, d], gradient of the log density at each sample.
      slices: [d, d], unit rows g_k; None is the identity, a sum of d one-dimensional KSDs.
      statistic: "V" averages over all n^2 pairs; "U" drops the diagonal and divides by n (n - 1),
        which has mean zero at the target and may be negative.
      bandwidth: "paper" is the lower median of Delta^2 over the upper triangle with its zero
        diagonal (as published; too small); "median" is the median over distinct pairs. Always a
        constant for differentiation; b^2 = 1 where the median is zero.
      differentiate_scores: let gradients flow to `scores` too.

    Returns:
      A scalar.
    """
    _check(samples, scores, statistic)
    if bandwidth not in ("paper", "median"):
        raise ValueError(f"bandwidth is {bandwidth!r}, but it must be 'paper' or 'median'")
    if not differentiate_scores:
        scores = lax.stop_gradient(scores)
    n, d = samples.shape
    if slices is None:
        u, rho = samples.T, jnp.ones((d, 1), samples.dtype)
    else:
        u, rho = slices @ samples.T, jnp.diagonal(slices)[:, None]
    med = _median_square(u[:, :MAX_MEDIAN_SAMPLES], include_diagonal=bandwidth == "paper")
    med = lax.stop_gradient(med)
    scale = (1.0 / jnp.where(med > 0, med, 0.5))[:, None]  # 2 / b^2, [d, 1]

    (u_n, u_m), (s_n, s_m) = _pairs(u), _pairs(scores.T)
    delta = u_n - u_m
    square = scale * delta**2  # 2 Delta^2 / b^2
    stein = s_n * s_m + rho * scale * ((s_n - s_m) * delta + rho * (1.0 - square))
    off_diagonal = 2.0 * jnp.sum(stein * jnp.exp(-0.5 * square))
    if statistic == "U":
        return off_diagonal / (n * (n - 1))
    diagonal = jnp.sum(scores.T**2 + rho**2 * scale)
    return (off_diagonal + diagonal) / n**2


def ksd(samples: jax.Array, scores: jax.Array, *, statistic: Statistic = "U") -> jax.Array:
    """Compute the kernelised Stein discrepancy with K = exp(-|x - y|^2 / (2 h^2)).

    h^2 is the median squared distance over distinct pairs, a constant for differentiation.

    Args:
      samples: [n, d]; gradients flow to them. n >= 2.
      scores: [n, d], constant for differentiation.
      statistic: "V" or "U", see `sksd`.

    Returns:
      A scalar.
    """
    _check(samples, scores, statistic)
    scores = lax.stop_gradient(scores)
    n, d = samples.shape
    x, y = _pairs(samples.T)
    s, t = _pairs(scores.T)
    delta = x - y
    square = jnp.sum(delta**2, axis=0)  # [pairs]
    h2 = _middle(lax.stop_gradient(square))
    h2 = jnp.where(h2 > 0, h2, 1.0)
    stein = jnp.sum(s * t, axis=0) + jnp.sum((s - t) * delta, axis=0) / h2
    stein = stein + d / h2 - square / h2**2
    off_diagonal = 2.0 * jnp.sum(stein * jnp.exp(-0.5 * square / h2))
    if statistic == "U":
        return off_diagonal / (n * (n - 1))
    return (off_diagonal + jnp.sum(scores**2) + n * d / h2) / n**2


def ascend_slices(
    samples: jax.Array,
    scores: jax.Array,
    slices: jax.Array,
    *,
    num_steps: int = 50,
    learning_rate: float = 2e-3,
    statistic: Statistic = "V",
    bandwidth: Bandwidth = "paper",
) -> jax.Array:
    """Learn slices by gradient ascent of the discrepancy, rows kept at unit length.

    Adam with betas (0.9, 0.99), as in the code of Gong et al.; fresh optimiser state.

    Args:
      samples: [n, d], constant.
      scores: [n, d], constant.
      slices: [d, d] unit rows to start from, for example `jnp.eye(d)` or `active_slices`.
      num_steps: ascent steps.
      learning_rate: of Adam.
      statistic: see `sksd`.
      bandwidth: see `sksd`.

    Returns:
      [d, d], unit rows.
    """
    samples, scores = lax.stop_gradient((samples, scores))
    optimiser = optax.adam(learning_rate, b1=0.9, b2=0.99)

    def discrepancy(slices):
        return sksd(samples, scores, slices=slices, statistic=statistic, bandwidth=bandwidth)

    def body(carry, _):
        slices, opt_state = carry
        gradient = -jax.grad(discrepancy)(slices)
        updates, opt_state = optimiser.update(gradient, opt_state)
        slices = slices + updates
        return (slices / jnp.linalg.norm(slices, axis=-1, keepdims=True), opt_state), None

    (slices, _), _ = lax.scan(body, (slices, optimiser.init(slices)), None, length=num_steps)
    return slices


def active_slices(samples: jax.Array, scores: jax.Array) -> jax.Array:
    """Find the slices along which the Stein witness varies most.

    The witness f(x) = mean_m [K(x_m, x) s_m + grad_{x_m} K(x_m, x)] is a kernel-smoothed difference
    of the scores of the density and of the samples; g_k is the leading eigenvector of
    mean_n grad f_k(x_n) grad f_k(x_n)^T.

    Args:
      samples: [n, d], constant.
      scores: [n, d], constant.

    Returns:
      [d, d], unit rows of arbitrary sign (no statistic here depends on it).
    """
    _check(samples, scores, "V")
    samples, scores = lax.stop_gradient((samples, scores))
    x, y = _pairs(samples.T)
    h2 = _middle(jnp.sum((x - y) ** 2, axis=0))
    h2 = jnp.where(h2 > 0, h2, 1.0)

    def witness(x):
        delta = samples - x
        kernel = jnp.exp(-0.5 * jnp.sum(delta**2, axis=-1, keepdims=True) / h2)
        return jnp.mean(kernel * (scores - delta / h2), axis=0)

    slopes = jax.vmap(jax.jacfwd(witness))(samples)  # [n, component, direction]
    _, vectors = jnp.linalg.eigh(jnp.einsum("nki,nkj->kij", slopes, slopes))
    return vectors[:, :, -1]


def _check(samples: jax.Array, scores: jax.Array, statistic: str) -> None:
    if jnp.ndim(samples) != 2 or jnp.shape(samples) != jnp.shape(scores):
        raise ValueError(
            f"samples {jnp.shape(samples)} and scores {jnp.shape(scores)} must both be [n, d]; use "
            f"jax.vmap for a batch"
        )
    if samples.shape[0] < 2:
        raise ValueError(
            f"samples hold {samples.shape[0]} row, but a discrepancy compares pairs; give n >= 2"
        )
    if statistic not in ("V", "U"):
        raise ValueError(f"statistic is {statistic!r}, but it must be 'V' or 'U'")


def _pairs(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """List the members of the n (n - 1) / 2 distinct pairs: [d, n] -> two arrays [d, pairs].

    Row a of the tiled matrix is u rotated by a; rotations 1..n/2 meet every pair once, the last of
    an even n twice, which the cut leaves out. Only copies, no gather.
    """
    d, n = u.shape
    half, num_pairs = n // 2, n * (n - 1) // 2
    rotated = jnp.tile(u, (1, half + 2))[:, : (half + 1) * (n + 1)]
    rotated = rotated.reshape(d, half + 1, n + 1)[:, 1:, :n].reshape(d, half * n)
    fixed = jnp.tile(u, (1, half))
    return fixed[:, :num_pairs], rotated[:, :num_pairs]


def _median_square(u: chex.Array, *, include_diagonal: bool) -> jax.Array:
    """Return the median of Delta^2 for each row of u [d, n]: [d]."""
    n = u.shape[1]
    first, second = _pairs(u)
    square = (first - second) ** 2
    if not include_diagonal:
        return _middle(square)
    rank = (n * (n + 1) // 2 - 1) // 2 - n  # among distinct pairs, after the n zeros
    return jnp.zeros(u.shape[0], u.dtype) if rank < 0 else _select(square, rank)


def _middle(values: jax.Array) -> jax.Array:
    """Return the ordinary median of non-negative values over the last axis."""
    size = values.shape[-1]
    low = _select(values, (size - 1) // 2)
    return low if size % 2 else 0.5 * (low + _select(values, size // 2))


def _select(values: jax.Array, rank: int) -> jax.Array:
    """Return the value of a rank (0 = smallest) over the last axis of non-negative floats.

    Non-negative floats order as their bits do, so the answer is built from its highest bit down,
    by counting the values below.
    """
    integer = {4: jnp.int32, 8: jnp.int64}[values.dtype.itemsize]
    bits = lax.bitcast_convert_type(values, integer)
    num_bits = 8 * values.dtype.itemsize - 1

    def body(i, found):
        candidate = found | (jnp.ones((), integer) << (num_bits - 1 - i).astype(integer))
        below = jnp.sum(bits < candidate[..., None], axis=-1)
        return jnp.where(below <= rank, candidate, found)

    found = lax.fori_loop(0, num_bits, body, jnp.zeros(values.shape[:-1], integer))
    return lax.bitcast_convert_type(found, values.dtype)
