"""Scores against loops, closed forms, SciPy and scikit-learn; nothing counts outside `where`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, special, stats
from sklearn.metrics import adjusted_rand_score

from functions import metrics


def make_item(seed=0, num_points=23, channels=3):
    rng = np.random.default_rng(seed)
    y, prediction = rng.random((2, num_points, channels), np.float32)
    return prediction, y, rng.random(num_points), rng.random(num_points) < 0.6


def test_squared_error_is_a_weighted_mean_over_the_points_that_count():
    prediction, y, weights, where = make_item()
    total = 0.0
    for n in np.flatnonzero(where):
        total += weights[n] * np.mean([(prediction[n, c] - y[n, c]) ** 2 for c in range(3)])
    got = jax.jit(metrics.mean_squared_error)(prediction, y, weights=weights, where=where)
    np.testing.assert_allclose(got, total / weights[where].sum(), rtol=1e-5)
    plain = metrics.mean_squared_error(prediction, y)
    np.testing.assert_allclose(plain, np.mean((prediction - y) ** 2), rtol=1e-5)
    scaled = metrics.mean_squared_error(prediction, y, weights=7 * weights, where=where)
    np.testing.assert_allclose(scaled, got, rtol=1e-5)
    assert jnp.isnan(metrics.mean_squared_error(prediction, y, where=np.zeros(23, bool)))


def test_nothing_counts_outside_where():
    prediction, y, weights, where = make_item()
    scores = (
        lambda p, y: metrics.mean_squared_error(p, y, weights=weights, where=where),
        lambda p, y: metrics.accuracy(p, y, where=where),
        lambda p, y: metrics.intersection_over_union(p, y, where=where),
    )
    for score in scores:
        value = score(prediction, y)
        for filler in (np.nan, np.inf, -5.0):
            fill = lambda x, filler=filler: np.where(where[:, None], x, filler)
            assert score(fill(prediction), fill(y)) == value
            assert score(prediction, fill(y)) == value
    slope = jax.grad(scores[0])(prediction, np.where(where[:, None], y, np.nan))
    np.testing.assert_array_equal(np.isfinite(slope), True)
    np.testing.assert_array_equal(slope[~where], 0.0)


def test_psnr_and_its_two_averages():
    mses = jnp.array([1.0, 0.1, 1e-3])
    np.testing.assert_allclose(metrics.psnr(mses), [0, 10, 30], atol=1e-4)
    assert metrics.psnr(mses).mean() == pytest.approx(40 / 3, rel=1e-5)
    assert metrics.psnr(mses.mean()) == pytest.approx(-10 * np.log10(1.101 / 3), rel=1e-5)
    assert metrics.psnr(jnp.array(0.0)) == np.inf


def test_rmse_is_in_raw_units():
    prediction, y, weights, _ = make_item(channels=1)
    mse = metrics.mean_squared_error(prediction, y, weights=weights)
    kelvin = [202.66 + 118.27 * x.astype(float)[:, 0] for x in (prediction, y)]
    want = np.sqrt(np.average((kelvin[0] - kelvin[1]) ** 2, weights=weights))
    assert metrics.rmse(mse, scale=118.27) == pytest.approx(want, rel=1e-5)


def ssim_by_loops(x, y, size):
    """Averages the published formula over every channel and window, one at a time."""
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    values = []
    for c in range(x.shape[2]):
        for i in range(x.shape[0] - size + 1):
            for j in range(x.shape[1] - size + 1):
                a, b = (image[i : i + size, j : j + size, c].astype(float) for image in (x, y))
                ma, mb = (kernel * a).sum(), (kernel * b).sum()
                va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
                cov = (kernel * (a - ma) * (b - mb)).sum()
                top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
                values.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    return np.mean(values)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((13, 17, 3), 11), ((11, 11, 1), 11), ((10, 14, 2), 9), ((6, 3, 1), 3), ((1, 4, 2), 1)],
)
def test_ssim_against_loops(shape, size):
    rng = np.random.default_rng(1)
    y = rng.random(shape, np.float32)
    x = np.clip(y + 0.2 * rng.normal(size=shape), 0, 1).astype(np.float32)
    got = jax.jit(metrics.ssim)(x, y)
    assert got == pytest.approx(ssim_by_loops(x, y, size), abs=2e-5)
    assert got == pytest.approx(float(metrics.ssim(y, x)), abs=2e-5)
    assert metrics.ssim(y, y) == pytest.approx(1.0, abs=1e-6)
    assert got < 0.999


def test_ssim_of_flat_images_is_its_luminance_term():
    x, y = jnp.full((12, 12, 1), 0.8), jnp.full((12, 12, 1), 0.3)
    want = (2 * 0.8 * 0.3 + 1e-4) / (0.8**2 + 0.3**2 + 1e-4)
    assert metrics.ssim(x, y) == pytest.approx(want, abs=2e-4)  # variances cancel in single


def test_voxel_overlap():
    y = np.array([1, 1, 1, 0, 0, 0, 0])[:, None]
    prediction = np.array([0.9, 0.6, 0.4, 0.7, 0.1, 0.5, 0.2])[:, None]
    assert metrics.accuracy(prediction, y) == pytest.approx(5 / 7)
    assert metrics.intersection_over_union(prediction, y) == pytest.approx(2 / 4)
    where = np.array([1, 1, 1, 0, 1, 1, 1], bool)
    assert metrics.accuracy(prediction, y, where=where) == pytest.approx(5 / 6)
    assert metrics.intersection_over_union(prediction, y, where=where) == pytest.approx(2 / 3)
    empty = np.zeros((7, 1))
    assert metrics.intersection_over_union(empty, empty) == 1.0
    assert metrics.intersection_over_union(empty, y) == 0.0
    assert jnp.isnan(metrics.accuracy(prediction, y, where=np.zeros(7, bool)))
    assert metrics.accuracy(np.full((7, 1), np.nan), y) == 0.0


def test_overlap_against_sets():
    rng = np.random.default_rng(2)
    prediction, y = rng.random((5, 40, 2)), rng.random((5, 40, 2)) < 0.3
    got = jax.vmap(metrics.intersection_over_union)(prediction, y)
    share = jax.vmap(metrics.accuracy)(prediction, y)
    for i in range(5):
        a, b = ({tuple(x) for x in np.argwhere(z)} for z in (prediction[i] > 0.5, y[i]))
        assert got[i] == pytest.approx(len(a & b) / len(a | b), rel=1e-6)
        assert share[i] == pytest.approx(1 - len(a ^ b) / 80, rel=1e-6)


def test_predictive_nll_averages_probabilities():
    log_liks = np.log([[0.1, 0.5], [0.3, 0.5]])
    np.testing.assert_allclose(metrics.predictive_nll(log_liks), -np.log([0.2, 0.5]), rtol=1e-5)
    far = jnp.array([-2e4, -2e4 - 3.0, -jnp.inf])  # far below the smallest single
    want = 2e4 - special.logsumexp([0.0, -3.0]) + np.log(3)
    assert metrics.predictive_nll(far) == pytest.approx(want, abs=1e-2)


def test_predictive_nll_of_a_conjugate_model():
    z = np.random.default_rng(3).normal(size=20_000)  # y = z + noise: y ~ N(0, 2)
    weights = stats.norm.pdf(0.7, z, 1.0)
    error = weights.std() / weights.mean() / np.sqrt(len(z))
    got = metrics.predictive_nll(jnp.log(weights))
    assert abs(got + stats.norm.logpdf(0.7, 0, np.sqrt(2))) < 4 * error


def test_bits_per_dimension():
    elbo = -12 * np.log(256.0)  # 12 values of 8 bits, none of them explained
    assert metrics.bits_per_dimension(elbo, 12) == pytest.approx(8.0)


def test_active_units():
    rng = np.random.default_rng(4)
    deviations = np.array([1.0, 0.0, 0.2, 0.05, 0.5])  # variances 1, 0, 0.04, 0.0025, 0.25
    means = 3.0 + deviations * rng.normal(size=(500, 5))
    assert metrics.active_units(means) == 3
    assert metrics.active_units(means, threshold=0.1) == 2


def test_adjusted_rand():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 60)
    where = rng.random(60) < 0.7
    renamed = np.array([7, 2, 5])[labels]
    renamed[~where] = 9
    assert metrics.adjusted_rand(renamed, labels, where=where) == 1.0
    assert metrics.adjusted_rand(renamed, labels) == adjusted_rand_score(labels, renamed) < 1.0
    values = [metrics.adjusted_rand(rng.integers(0, 3, 60), labels) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)


def test_pca_features_keep_the_leading_directions():
    rng = np.random.default_rng(6)
    scales = np.array([5.0, 3.0, 1.0, 0.1, 0.1, 0.1])
    train, other = (scales * rng.normal(size=(n, 6)) for n in (50, 7))
    basis = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)[2][:3]
    first, second = metrics.pca_features(train.reshape(50, 2, 3), other.reshape(7, 2, 3), num=3)
    for got, items in ((first, train), (second, other)):
        want = (items - train.mean(axis=0)) @ basis.T
        np.testing.assert_allclose(np.abs(got), np.abs(want), atol=1e-9)
    (full,) = metrics.pca_features(train, num=6)
    assert metrics.frechet_distance(full, full[:25]) == pytest.approx(
        metrics.frechet_distance(train, train[:25]), rel=1e-9
    )
    with pytest.raises(ValueError, match="num is 7, but 50 items of 6 values have at most 6"):
        metrics.pca_features(train, num=7)


def with_moments(rng, n, mean, covariance):
    """Makes n points that have exactly this mean and covariance."""
    x = rng.normal(size=(n, len(mean)))
    x = x - x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return mean + x @ np.linalg.cholesky(covariance).T


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(7)
    mean_a, mean_b = rng.normal(size=(2, 4))
    var_a, var_b = rng.gamma(2.0, size=(2, 4))
    a = with_moments(rng, 20, mean_a, np.diag(var_a))
    b = with_moments(rng, 30, mean_b, np.diag(var_b))
    want = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(var_a) - np.sqrt(var_b)) ** 2)
    assert metrics.frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


def test_frechet_distance_against_a_matrix_root():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(31, 5)) + 0.3
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    want = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(want, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(want, rel=1e-9)
    rotation = stats.ortho_group.rvs(5, random_state=rng)
    turned = metrics.frechet_distance(a @ rotation + 2.0, b @ rotation + 2.0)
    assert turned == pytest.approx(want, rel=1e-9)


def test_frechet_distance_of_fewer_items_than_features():
    rng = np.random.default_rng(9)
    a = rng.normal(size=(6, 50))
    shift = rng.normal(size=50)
    assert metrics.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-10)
    assert metrics.frechet_distance(a, a + shift) == pytest.approx(shift @ shift, rel=1e-10)
    want = 0.25 * np.trace(np.cov(a, rowvar=False)) + 0.25 * np.sum(a.mean(axis=0) ** 2)
    assert metrics.frechet_distance(a, 0.5 * a) == pytest.approx(want, rel=1e-10)
    # orthogonal supports have no overlap: both spreads remain in full
    b = np.concatenate([np.zeros((6, 50)), a], axis=1)
    a = np.concatenate([a, np.zeros((6, 50))], axis=1)
    total = 2 * np.trace(np.cov(a, rowvar=False)) + np.sum((a.mean(0) - b.mean(0)) ** 2)
    assert metrics.frechet_distance(a, b) == pytest.approx(total, rel=1e-10)


def manifolds_by_loops(samples, real, k):
    """Computes the four scores point by point, from their definitions."""

    def radius(points, i):
        others = [np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i]
        return sorted(others)[k - 1]

    def count(query, points):
        return sum(np.linalg.norm(query - p) <= radius(points, i) for i, p in enumerate(points))

    precision = np.mean([count(x, real) > 0 for x in samples])
    recall = np.mean([count(x, samples) > 0 for x in real])
    density = np.mean([count(x, real) for x in samples]) / k
    coverage = np.mean(
        [min(np.linalg.norm(p - x) for x in samples) <= radius(real, i) for i, p in enumerate(real)]
    )
    return precision, recall, density, coverage


def manifolds(samples, real, k):
    pair = metrics.precision_recall(samples, real, k=k)
    return *pair, *metrics.density_coverage(samples, real, k=k)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("kind", ["shifted", "lattice"])
def test_manifold_scores_against_loops(monkeypatch, kind, k):
    rng = np.random.default_rng(10)
    samples, real = rng.normal(size=(13, 2)) + 1.0, rng.normal(size=(17, 2))
    if kind == "lattice":  # distances tie, points repeat: the balls are closed
        samples, real = rng.integers(0, 3, (13, 2)), rng.integers(0, 4, (17, 2))
    want = manifolds_by_loops(samples, real, k)
    np.testing.assert_allclose(manifolds(samples, real, k), want, rtol=1e-12)
    monkeypatch.setattr(metrics, "BLOCK", 40)  # two or three rows at a time
    np.testing.assert_allclose(manifolds(samples, real, k), want, rtol=1e-12)


def test_manifold_scores_of_equal_and_of_distant_sets():
    x = np.random.default_rng(11).normal(size=(30, 4))
    np.testing.assert_allclose(manifolds(x, x[::-1], 5), (1.0, 1.0, 6 / 5, 1.0))
    assert manifolds(x, x + 100.0, 5) == (0.0, 0.0, 0.0, 0.0)
    collapsed = np.repeat(x[:1], 30, axis=0)  # one good sample: all quality, no variety
    precision, recall, density, coverage = manifolds(collapsed, x, 3)
    assert precision == 1.0
    assert recall == pytest.approx(1 / 30)
    assert density > 0
    assert coverage < 0.5


def test_density_and_coverage_of_fresh_data():
    rng = np.random.default_rng(12)
    pairs = [metrics.density_coverage(*rng.normal(size=(2, 200, 3))) for _ in range(30)]
    values, n, k = np.array(pairs), 200, 5
    error = values.std(axis=0) / np.sqrt(30)
    i = np.arange(1, k + 1)  # Naeem et al. (2020), lemma 2, for n = m
    expected = np.array([1.0, 1 - np.prod((n - i) / (2 * n - i))])
    assert np.all(np.abs(values.mean(axis=0) - expected) < 4 * error)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (np.ones((3, 2)), np.ones((9, 4)), r"\(3, 2\) and .* \(9, 4\) must be \[items, features\]"),
        (np.ones(9), np.ones(9), r"must be \[items, features\]"),
        (np.ones((9, 2)), np.ones((1, 2)), "holds 1 items, but this takes"),
        (np.ones((9, 2)), np.full((9, 2), np.nan), "holds NaN or inf"),
    ],
)
def test_feature_errors(a, b, match):
    for score in (metrics.frechet_distance, metrics.precision_recall, metrics.density_coverage):
        with pytest.raises(ValueError, match=match):
            score(a, b)


@pytest.mark.parametrize("block", [metrics.BLOCK, 60])
def test_audit_against_loops(monkeypatch, block):
    monkeypatch.setattr(metrics, "BLOCK", block)
    rng = np.random.default_rng(13)
    samples, train, test = (rng.random((n, 4, 3), np.float32) for n in (11, 29, 17))
    samples[4] = train[20]
    audit = metrics.nearest_neighbour_audit(samples, train, test)

    def distances(x):
        return np.array([[np.linalg.norm(a.astype(float) - b) for b in train] for a in x])

    want, reference = distances(samples), distances(test).min(axis=1)
    np.testing.assert_array_equal(audit.index, want.argmin(axis=1))
    np.testing.assert_allclose(audit.distance, want.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(audit.reference, reference, rtol=1e-12)
    assert audit.distance[4] == 0.0
    assert audit.ratio == pytest.approx(np.median(want.min(axis=1)) / np.median(reference))
    assert audit.share == np.mean(want.min(axis=1) < np.quantile(reference, 0.01)) >= 1 / 11


def test_audit_tells_copies_from_fresh_data():
    rng = np.random.default_rng(14)
    train, test, fresh = rng.normal(size=(3, 400, 5))
    copies = train[:100] + 1e-3 * rng.normal(size=(100, 5))
    honest = metrics.nearest_neighbour_audit(fresh, train, test)
    caught = metrics.nearest_neighbour_audit(copies, train, test)
    assert honest.share < 0.05
    assert 0.8 < honest.ratio < 1.25
    assert caught.share == 1.0
    assert caught.ratio < 0.01
    np.testing.assert_array_equal(caught.index, np.arange(100))


def test_audit_keeps_small_distances_far_from_the_origin():
    train, test = 1e5 + np.random.default_rng(16).normal(size=(2, 20, 5))
    audit = metrics.nearest_neighbour_audit(train + 1e-4 * np.eye(5)[2], train, test)
    np.testing.assert_array_equal(audit.index, np.arange(20))
    np.testing.assert_allclose(audit.distance, 1e-4, rtol=1e-5)


def test_audit_takes_bytes():
    rng = np.random.default_rng(15)
    samples, train, test = (rng.integers(0, 256, (n, 9), np.uint8) for n in (5, 8, 6))
    audit = metrics.nearest_neighbour_audit(samples, train, test)
    wide = metrics.nearest_neighbour_audit(*(x.astype(float) for x in (samples, train, test)))
    for got, want in zip(audit, wide, strict=True):
        np.testing.assert_array_equal(got, want)
    copied = metrics.nearest_neighbour_audit(train, train, train)
    assert np.isnan(copied.ratio)
    assert copied.share == 0.0
