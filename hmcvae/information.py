"""Estimators of information from samples: histograms, nearest neighbours, Gaussian posteriors.

All are array functions that work on any leading axes at once (rows, candidate columns) with the
samples S along the last one, and give nats. A variable is a vector of samples; several targets are
one variable whose levels are the cells of their grid (`join`).

The published estimator (Peis et al. 2022, section 4 and their code) is `published`, with its
defects: bins of equal width, no correction of the bias (of about (b_x - 1)(b_y - 1) / 2S for
independent variables), and of two targets only the lowest corner of their grid. What replaces it is
`mutual_information` on levels of equal count. Nearest neighbours: Kraskov, Stoegbauer & Grassberger
(2004), and Gao et al. (2017) where samples are tied. The Gaussian reward: Ma et al. (2019), EDDI.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma

FAR = 1e6  # distance of two classes: beyond that of any two standardised reals


def equal_width(values: jax.Array, num_bins: int) -> jax.Array:
    """Quantises each variable between its own extremes: q = floor((v - min) / width).

    Args:
      values: [..., S].
      num_bins: b; the width is (max - min) / b, and the upper edge belongs to the last bin.

    Returns:
      [..., S] int32 levels from 0 to b - 1; 0 throughout for a constant.
    """
    low = jnp.min(values, axis=-1, keepdims=True)
    width = (jnp.max(values, axis=-1, keepdims=True) - low) / num_bins
    level = jnp.floor((values - low) / jnp.where(width > 0, width, 1.0)).astype(jnp.int32)
    return jnp.minimum(level, num_bins - 1)


def equal_count(values: jax.Array, num_bins: int) -> jax.Array:
    """Quantises each variable by rank, so that no outlier decides and units do not matter.

    Args:
      values: [..., S], samples of a continuous variable: ties are broken by position.
      num_bins: b.

    Returns:
      [..., S] int32 levels from 0 to b - 1, each of S / b samples.
    """
    return _ranks(values) * num_bins // values.shape[-1]


def join(levels: jax.Array, counts: Sequence[int]) -> tuple[jax.Array, int]:
    """Makes one variable of several: its levels are the cells of their grid.

    Args:
      levels: [..., P, S] int32.
      counts: number of levels of each of the P variables.

    Returns:
      [..., S] int32 levels and their number: the cells of the grid, or where these are more than
      the samples, S after renumbering those that occur.
    """
    num_samples = levels.shape[-1]
    joint, num = levels[..., 0, :], counts[0]
    for p, count in enumerate(counts[1:], start=1):
        joint, num = joint * count + levels[..., p, :], num * count
        if num > num_samples:
            joint, num = _renumber(joint), num_samples
    return joint, num


def plug_in(x: jax.Array, y: jax.Array, num_x: int, num_y: int) -> jax.Array:
    """Computes sum_ij P_ij log(P_ij / (P_i P_j)) of the frequencies P.

    Args:
      x: [..., S] int32 levels.
      y: [..., S] int32 levels; leading axes broadcast against those of x.
      num_x: levels of x.
      num_y: levels of y.

    Returns:
      [...] nats, not negative.
    """
    return _from_frequencies(_frequencies(x, y, num_x, num_y))


def mutual_information(
    x: jax.Array, y: jax.Array, num_x: int, num_y: int, *, num_shifts: int = 8
) -> jax.Array:
    """Estimates I(x; y) without the bias that independent variables would show.

    The plug-in estimate minus its mean over pairings x_s, y_{s + k} for shifts k. Samples are
    exchangeable, so such pairs are independent draws with the margins of the true ones, and the
    expectation for independent variables is 0 whatever the numbers of levels and samples.

    Args:
      x: [..., S] int32 levels.
      y: [..., S] int32 levels; leading axes broadcast against those of x.
      num_x: levels of x.
      num_y: levels of y.
      num_shifts: shifts, spread over the samples.

    Returns:
      [...] nats, below 0 by chance where there is no information.
    """
    num_samples = x.shape[-1]
    shifts = np.linspace(0, num_samples, num_shifts + 2)[1:-1].astype(int)
    shifted = lambda k: plug_in(x, jnp.roll(y, k, axis=-1), num_x, num_y)
    chance = jnp.mean(jax.lax.map(shifted, jnp.asarray(shifts)), axis=0)
    return plug_in(x, y, num_x, num_y) - chance


def published(x: jax.Array, y: jax.Array, num_bins: int) -> jax.Array:
    """Estimates I(x; y) as published, defects included.

    Args:
      x: [..., S] samples of any kind.
      y: [..., P, S] samples of one target or two; leading axes broadcast against those of x.
      num_bins: b, levels of every variable. (The number of classes takes its place in the
        reference where it is smaller, which changes no estimate.)

    Returns:
      [...] nats; of two targets only the floor(sqrt b) lowest levels of each are counted.
    """
    num_targets = y.shape[-2]
    if num_targets > 2:
        raise ValueError(
            f"num_targets={num_targets}: the published estimator knows 1 or 2; use "
            f"mutual_information"
        )
    x, y = equal_width(x, num_bins), equal_width(y, num_bins)
    if num_targets == 1:
        return plug_in(x, y[..., 0, :], num_bins, num_bins)
    kept = int(np.sqrt(num_bins))
    # pairs outside the corner become a last level, which is then left out of the sum
    is_kept = jnp.all(y < kept, axis=-2)
    corner = jnp.where(is_kept, y[..., 0, :] * kept + y[..., 1, :], kept**2)
    return _from_frequencies(_frequencies(x, corner, num_bins, kept**2 + 1), kept**2)


def kraskov(
    x: jax.Array,
    y: jax.Array,
    *,
    is_discrete_x: jax.Array,
    is_discrete_y: jax.Array,
    num_neighbours: int = 3,
) -> jax.Array:
    """Estimates I(x; y) by nearest neighbours, for reals, classes and mixtures of both.

    psi(k) + psi(S) - mean[psi(n_x) + psi(n_y)]: n counts the samples, itself included, that are
    nearer in x (in y) than the k-th neighbour is in the larger of both distances. Reals are
    standardised, two classes are far apart. Where the k-th neighbour is tied, k becomes the number
    of samples within that distance, and n counts the tied ones too. Memory grows with S^2.

    Args:
      x: [..., S].
      y: [..., P, S]; leading axes broadcast against those of x.
      is_discrete_x: bool, broadcasts against the leading axes of x.
      is_discrete_y: [P] bool.
      num_neighbours: k.

    Returns:
      [...] nats.
    """
    num_samples = x.shape[-1]
    dx = _distances(x, is_discrete_x)
    dy = jnp.max(_distances(y, is_discrete_y), axis=-3)
    dx, dy = jnp.broadcast_arrays(dx, dy)
    both = jnp.maximum(dx, dy)  # [..., S, S]
    radius = jnp.sort(both, axis=-1)[..., num_neighbours, None]  # the nearest is itself
    k = jnp.sum(both <= radius, axis=-1)
    is_tied = (k > num_neighbours + 1) | (radius[..., 0] == 0)
    k = jnp.where(is_tied, k, num_neighbours)

    def count(d):
        n = jnp.where(is_tied, jnp.sum(d <= radius, axis=-1), jnp.sum(d < radius, axis=-1))
        return digamma(n.astype(x.dtype))

    terms = digamma(k.astype(x.dtype)) + digamma(jnp.asarray(num_samples, x.dtype))
    return jnp.mean(terms - count(dx) - count(dy), axis=-1)


def gaussian_kl(mean, log_var, other_mean, other_log_var) -> jax.Array:
    """Computes KL(N(mean, exp log_var) || N(other_mean, exp other_log_var)), [..., d] -> [...]."""
    square = (mean - other_mean) ** 2 * jnp.exp(-other_log_var)
    ratio = log_var - other_log_var
    return 0.5 * jnp.sum(square + jnp.exp(ratio) - 1.0 - ratio, axis=-1)


def gaussian_reward(with_x, without, with_xy, with_y) -> jax.Array:
    """Computes KL(q(h|x_i,o) || q(h|o)) - KL(q(h|x_i,y,o) || q(h|y,o)) for each pair of samples.

    Its mean over x_i, y ~ p(x_i, y | o) is I(x_i; y | o) where the posteriors are exact: the chain
    rule I(h; x_i) - I(h; x_i | y), x_i and y being independent given h.

    Args:
      with_x: mean and log variance of q(h | x_i, o), each [..., d].
      without: the same of q(h | o).
      with_xy: the same of q(h | x_i, y, o).
      with_y: the same of q(h | y, o).

    Returns:
      [...] nats.
    """
    return gaussian_kl(*with_x, *without) - gaussian_kl(*with_xy, *with_y)


def _ranks(values):
    return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1).astype(jnp.int32)


def _renumber(levels):
    """Numbers the levels that occur 0, 1, ... in ascending order, [..., S]."""
    ordered = jnp.sort(levels, axis=-1)
    is_new = (ordered[..., 1:] != ordered[..., :-1]).astype(jnp.int32)
    number = jnp.pad(jnp.cumsum(is_new, axis=-1), [(0, 0)] * (levels.ndim - 1) + [(1, 0)])
    return jnp.take_along_axis(number, _ranks(levels), axis=-1)


def _frequencies(x, y, num_x, num_y):
    # products of one-hot rows: a matrix product, where a scatter would be slow on every device
    one_hot_x, one_hot_y = jax.nn.one_hot(x, num_x), jax.nn.one_hot(y, num_y)
    return jnp.einsum("...sx,...sy->...xy", one_hot_x, one_hot_y) / x.shape[-1]


def _from_frequencies(joint, num_kept=None):
    """Sums over the first `num_kept` levels of y only, if given."""
    p_x, p_y = jnp.sum(joint, axis=-1, keepdims=True), jnp.sum(joint, axis=-2, keepdims=True)
    ratio = jnp.where(joint > 0, joint, 1.0) / jnp.where(joint > 0, p_x * p_y, 1.0)
    return jnp.sum((joint * jnp.log(ratio))[..., :num_kept], axis=(-2, -1))


def _distances(values, is_discrete):
    """Distances [..., S, S] of all pairs of samples [..., S]."""
    is_discrete = jnp.asarray(is_discrete)[..., None, None]
    std = jnp.std(values, axis=-1, keepdims=True)
    scaled = values / jnp.where(std > 0, std, 1.0)
    gap = jnp.abs(scaled[..., :, None] - scaled[..., None, :])
    return jnp.where(is_discrete, jnp.where(gap > 0, FAR, 0.0), gap)
