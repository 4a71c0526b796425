"""Scores of reconstructions, completions, segmentations and generated sets.

Errors and overlaps of one item are JAX functions of its points [N, C], to be jitted and vmapped;
what compares sets of items is NumPy and runs on the host. Sources: SSIM of Wang et al. (2004),
active units of Burda et al. (2016), Frechet distance of Dowson & Landau (1982) as used by Heusel
et al. (2017), improved precision and recall of Kynkaanniemi et al. (2019), density and coverage of
Naeem et al. (2020).

`where` [N] chooses the points that count, for example `~mask` for the unobserved ones; values
elsewhere, NaN included, change nothing. Nothing here is FID: that needs the weights of an
Inception network; features are the caller's, for example `pca_features`, and named beside a score.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin_min

SSIM_WIDTH, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03  # Wang et al. (2004), section III
BLOCK = 2**24  # numbers held at a time by what compares sets, 128 MiB in double


def mean_squared_error(
    prediction: jax.Array,
    y: jax.Array,
    *,
    weights: jax.Array | float = 1.0,
    where: jax.Array | bool = True,
) -> jax.Array:
    """Averages the squared error of one item over channels and points.

    Args:
      prediction: [N, C].
      y: [N, C], in the same unit.
      weights: [N] relative weights of the points, such as `domains.cell_weights`.
      where: [N] bool, the points that count.

    Returns:
      Scalar >= 0 in squared units of y, lower is better; NaN where no point counts.
    """
    where = jnp.broadcast_to(where, y.shape[:1])
    weights = jnp.where(where, weights, 0.0)
    prediction, y = (jnp.where(where[:, None], x, 0.0) for x in (prediction, y))
    return jnp.sum(weights * jnp.mean(jnp.square(prediction - y), axis=-1)) / jnp.sum(weights)


def psnr(mse: jax.Array) -> jax.Array:
    """Returns the peak signal-to-noise ratio -10 log10(mse) of values with range 1.

    Two averages over a test set are in use: `psnr(mses).mean()`, of the images' own ratios, and
    `psnr(mses.mean())`, which is never larger. Say which one a number is.

    Args:
      mse: of values in [0, 1], any shape.

    Returns:
      Decibels, higher is better; inf for a perfect match.
    """
    return -10.0 * jnp.log10(mse)


def rmse(mse: jax.Array, *, scale: float = 1.0) -> jax.Array:
    """Returns scale sqrt(mse), for example in kelvin.

    Args:
      mse: of normalised values, any shape.
      scale: raw units of one normalised unit.

    Returns:
      Raw units, >= 0, lower is better.
    """
    return scale * jnp.sqrt(mse)


def ssim(prediction: jax.Array, y: jax.Array) -> jax.Array:
    """Computes the structural similarity of two images with range 1, the mean over channels.

    Gaussian window of 11 pixels and sigma 1.5, only where it lies inside the image, and moments
    weighted by it, as published. On an image less than 11 pixels high or wide the window is cut to
    the largest odd size that fits, its sigma kept: such numbers compare with one another only.

    Args:
      prediction: [H, W, C] in [0, 1].
      y: [H, W, C] in [0, 1].

    Returns:
      Scalar in [-1, 1], higher is better; 1 only for equal images.
    """
    height, width, _ = y.shape
    size = min(SSIM_WIDTH, height, width)
    size -= 1 - size % 2
    kernel = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / SSIM_SIGMA))
    kernel /= kernel.sum()
    rows, columns = (
        sum(kernel[i] * np.eye(n - size + 1, n, i) for i in range(size)) for n in (height, width)
    )

    def blur(image):
        # full precision: variances are small differences of what this returns
        return jnp.einsum("ih,hwc,jw->ijc", rows, image, columns, precision="highest")

    mean_p, mean_y = blur(prediction), blur(y)
    var_p = blur(prediction * prediction) - mean_p * mean_p
    var_y = blur(y * y) - mean_y * mean_y
    covariance = blur(prediction * y) - mean_p * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2.0 * mean_p * mean_y + c1) / (mean_p * mean_p + mean_y * mean_y + c1)
    return jnp.mean(luminance * (2.0 * covariance + c2) / (var_p + var_y + c2))


def accuracy(prediction: jax.Array, y: jax.Array, *, where: jax.Array | bool = True) -> jax.Array:
    """Returns the share of values on the same side of 0.5.

    Args:
      prediction: [N, C] probabilities of 1.
      y: [N, C], 0 or 1.
      where: [N] bool, the points that count.

    Returns:
      Scalar in [0, 1], higher is better; NaN where no point counts.
    """
    where = jnp.broadcast_to(where, y.shape[:1])[:, None]
    is_same = jnp.where(y > 0.5, prediction > 0.5, prediction <= 0.5)  # NaN agrees with nothing
    return jnp.sum(where & is_same) / (jnp.sum(where) * y.shape[1])


def intersection_over_union(
    prediction: jax.Array, y: jax.Array, *, where: jax.Array | bool = True
) -> jax.Array:
    """Returns how far two shapes, the values above 0.5, overlap: |A and B| / |A or B|.

    Unlike accuracy it does not count the empty space on which everything agrees.

    Args:
      prediction: [N, C] probabilities of 1.
      y: [N, C], 0 or 1.
      where: [N] bool, the points that count.

    Returns:
      Scalar in [0, 1], higher is better; 1 where both shapes are empty.
    """
    where = jnp.broadcast_to(where, y.shape[:1])[:, None]
    a, b = where & (prediction > 0.5), where & (y > 0.5)
    union = jnp.sum(a | b)
    return jnp.where(union > 0, jnp.sum(a & b) / jnp.maximum(union, 1), 1.0)


def predictive_nll(log_liks: jax.Array) -> jax.Array:
    """Returns -log (1/S) sum_s p(y_U | z_s), the score of a completion.

    By Jensen's inequality too high on average, and falling as S grows: compare at equal S.

    Args:
      log_liks: [S, ...] log p(y_U | z_s) summed over unobserved points and channels, nats.

    Returns:
      [...] nats per item, lower is better; unbounded below for densities.
    """
    return math.log(log_liks.shape[0]) - jax.nn.logsumexp(log_liks, axis=0)


def bits_per_dimension(elbo: jax.Array, num_values: int) -> jax.Array:
    """Returns -elbo / (num_values log 2).

    A code length only where the likelihood is a mass (the 256 levels of an image); a density of
    values in [0, 1] lacks their width: add 8 bits to compare it with 256 levels.

    Args:
      elbo: nats per item, summed over points and channels.
      num_values: N C of the observed points.

    Returns:
      Bits per value, of the shape of elbo, lower is better.
    """
    return -elbo / (num_values * math.log(2.0))


def active_units(means: jax.Array, *, threshold: float = 0.01) -> jax.Array:
    """Counts the latents that react to data: variance over items of the posterior mean.

    Args:
      means: [I, Z], mean of q(z | x_i).
      threshold: least variance; 0.01 in Burda et al. (2016), for latents of prior variance 1.

    Returns:
      Scalar integer from 0 to Z; Z says that no latent is ignored.
    """
    return jnp.sum(jnp.var(means, axis=0) > threshold)


def adjusted_rand(
    segments: np.ndarray, labels: np.ndarray, *, where: np.ndarray | bool = True
) -> float:
    """Computes the adjusted Rand index of two segmentations of one item.

    Args:
      segments: [N] int, found.
      labels: [N] int, true; the names of segments do not matter.
      where: [N] bool, the points that count, for example all but the background.

    Returns:
      At most 1, higher is better; 0 is expected of random segments, negative is worse than chance.
    """
    where = np.broadcast_to(where, np.shape(labels))
    return float(adjusted_rand_score(np.asarray(labels)[where], np.asarray(segments)[where]))


def pca_features(train: np.ndarray, *others: np.ndarray, num: int) -> tuple[np.ndarray, ...]:
    """Projects sets of items onto the leading principal components of the training items.

    Deterministic, not whitened: distances are those between items, less what is left out.

    Args:
      train: [I, ...] items, flattened; a subset serves where all do not fit into memory.
      *others: [n, ...] sets to project the same way.
      num: F, number of components, at most the number of items and of values per item.

    Returns:
      Features [n, F] of train and of every other set, in the units of the items.
    """
    train, *others = (np.reshape(items, (len(items), -1)) for items in (train, *others))
    if num > min(train.shape):
        raise ValueError(
            f"num is {num}, but {train.shape[0]} items of {train.shape[1]} values have at most "
            f"{min(train.shape)} components; ask for fewer"
        )
    pca = PCA(num, random_state=0).fit(train)
    return tuple(pca.transform(items) for items in (train, *others))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the squared Frechet distance of the Gaussians fitted to two sets of features.

    |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a^1/2 S_b S_a^1/2)^1/2. With centred features
    X_a^T X_a = (n - 1) S_a, the last trace is the sum of the singular values of
    X_a X_b^T / sqrt((n - 1)(m - 1)): no square root of a singular covariance where items are fewer
    than features. Small sets do bias the distance upwards: compare at equal numbers of items.

    Args:
      a: [n, F] features, n >= 2.
      b: [m, F] features, m >= 2.

    Returns:
      >= 0, lower is better, in squared units of the features.
    """
    a, b = _check_features(a=(a, 2), b=(b, 2))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    # triangular factors have the products of the features, and at most F rows
    root_a, root_b = (
        np.linalg.qr((x - x.mean(axis=0)) / math.sqrt(len(x) - 1), mode="r") for x in (a, b)
    )
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2.0 * overlap
    return max(float(np.square(mean_a - mean_b).sum() + spread), 0.0)  # rounding may go below


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], higher is better."""

    precision: float  # of samples that lie on the manifold of real items: quality
    recall: float  # of real items that lie on the manifold of samples: variety


def precision_recall(samples: np.ndarray, real: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Computes improved precision and recall.

    The manifold of a set is the union of closed balls, one around each member, that reach its k-th
    nearest neighbour in the set.

    Args:
      samples: [n, F] features of generated items, n > k.
      real: [m, F] features of real items, m > k.
      k: neighbours; 3 is the published choice.

    Returns:
      `PrecisionRecall`, both 1 for equal sets; one outlier inflates them (see `density_coverage`).
    """
    samples, real = _check_features(samples=(samples, k + 1), real=(real, k + 1))
    precision = np.mean(_count_balls(samples, real, k) > 0)
    recall = np.mean(_count_balls(real, samples, k) > 0)
    return PrecisionRecall(float(precision), float(recall))


class DensityCoverage(NamedTuple):
    """Robust counterparts of precision and recall, higher is better."""

    density: float  # balls of real items around a sample, over k; >= 0, 1 expected of fresh data
    coverage: float  # share of real items with a sample in their ball, in [0, 1]


def density_coverage(samples: np.ndarray, real: np.ndarray, *, k: int = 5) -> DensityCoverage:
    """Computes density and coverage, with closed balls around the real items only.

    Args:
      samples: [n, F] features of generated items.
      real: [m, F] features of real items, m > k.
      k: neighbours; 5 is the published choice.

    Returns:
      `DensityCoverage`. Fresh data from the distribution of `real`, n = m large, has density 1 and
      coverage 1 - 2^-k; a copy of `real` has density 1 + 1/k, every ball holding its own centre.
    """
    samples, real = _check_features(samples=(samples, 1), real=(real, k + 1))
    density = np.mean(_count_balls(samples, real, k)) / k
    nearest = np.concatenate([d.min(axis=1) for d in _distances(real, samples)])
    return DensityCoverage(float(density), float(np.mean(nearest <= _radii(real, k))))


class Audit(NamedTuple):
    """Distances of samples to training items, against those of test items."""

    index: np.ndarray  # [S] int, the training item nearest to each sample
    distance: np.ndarray  # [S] float64, Euclidean distance to it, in the unit of the items
    reference: np.ndarray  # [J] float64, the same distance of every test item
    ratio: float  # median distance / median reference; >= 0, near 1 for fresh data
    share: float  # in [0, 1], of samples nearer than the 1 % quantile of reference


def nearest_neighbour_audit(samples: np.ndarray, train: np.ndarray, test: np.ndarray) -> Audit:
    """Asks whether generated items are copies of training items.

    Of fresh items 1 % lie nearer to the training items than 99 % of the test items do. A `share`
    well above 0.01 flags copies, though blurred samples are near to everything: look at the pairs.

    Args:
      samples: [S, ...] generated items.
      train: [I, ...] training items.
      test: [J, ...] test items, of the same shape and unit as the others (bytes with bytes).

    Returns:
      An `Audit`. Blocks of items are compared in double, so that memory stays bounded.
    """
    samples, train, test = (np.reshape(x, (len(x), -1)) for x in (samples, train, test))
    index, distance = _nearest(samples, train)
    _, reference = _nearest(test, train)
    with np.errstate(divide="ignore", invalid="ignore"):  # most of test may be in train
        ratio = np.median(distance) / np.median(reference)
    share = np.mean(distance < np.quantile(reference, 0.01))
    return Audit(index, distance, reference, float(ratio), float(share))


def _check_features(**sets: tuple[np.ndarray, int]) -> list[np.ndarray]:
    """Returns sets in double, each given with its least number of items, or says what is wrong."""
    arrays = {name: np.asarray(x, np.float64) for name, (x, _) in sets.items()}
    shapes = [x.shape for x in arrays.values()]
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        given = " and ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise ValueError(f"{given} must be [items, features] with equally many features")
    for name, (_, least) in sets.items():
        num = len(arrays[name])
        if num < least:
            raise ValueError(f"{name} holds {num} items, but this takes {least}; give more")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds NaN or inf; look at the items behind its features")
    return list(arrays.values())


def _distances(queries, points):
    """Yields blocks [q, P] of exact distances: equal points are at 0, ties are ties."""
    for rows in _blocks(len(queries), len(points)):
        yield cdist(queries[rows], points)


def _radii(points, k):
    # sorted by distance, a point comes first in its own list, so neighbour k has index k
    return np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _distances(points, points)])


def _count_balls(queries, points, k):
    """Counts, for each query, the balls of points that hold it: [Q]."""
    radii = _radii(points, k)
    return np.concatenate([np.sum(d <= radii, axis=1) for d in _distances(queries, points)])


def _nearest(queries, points):
    """Finds the point nearest to each query: index [Q] and distance [Q]."""
    index = np.zeros(len(queries), np.int64)
    distance = np.full(len(queries), np.inf)
    for rows in _blocks(len(queries), queries.shape[1]):
        block = queries[rows].astype(np.float64)
        nearest, found = index[rows], distance[rows]  # views, filled here
        for others in _blocks(len(points), points.shape[1]):
            near, apart = pairwise_distances_argmin_min(block, points[others].astype(np.float64))
            is_nearer = apart < found
            nearest[is_nearer] = near[is_nearer] + others.start
            found[is_nearer] = apart[is_nearer]
        # the search takes squares apart and loses small distances; copies are at exactly 0
        found[:] = np.linalg.norm(block - points[nearest], axis=1)
    return index, distance


def _blocks(num, width):
    """Cuts `num` rows of `width` numbers into slices of about BLOCK numbers."""
    size = max(1, BLOCK // width)
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
