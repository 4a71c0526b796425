import pickle

import numpy as np
import pytest
from scipy import stats

from hmcvae import columns, sample_scores
from hmcvae.columns import Column, Schema
from launch import imputation_masks, imputation_scores, rival_columns, rivals
from launch.data import tables

MIXED = Schema(
    (
        Column("real", "gaussian"),
        Column("flag", "bernoulli"),
        Column("size", "loggaussian"),
        Column("class", "categorical", 4),
    )
)
REALS = Schema(tuple(Column(f"x{i}", "gaussian") for i in range(3)))


def mixed_table(num, seed=0):
    """Rows in which every column tells of every other; class 3 does not occur."""
    rng = np.random.default_rng(seed)
    f = rng.normal(size=num)
    real, size = f + 0.3 * rng.normal(size=num), np.exp(0.5 * f + 0.3 * rng.normal(size=num))
    return np.stack([real, f > 0, size, np.digitize(f, [-0.5, 0.5])], axis=1)


def masked(seed, schema, x, rate):
    return imputation_masks.hide(seed, schema, x, np.ones(x.shape, bool), "mcar", rate)


def mixed_rows():
    """Test rows under NaN, the first without anything observed, the second complete."""
    x = mixed_table(23, seed=1)
    mask = np.random.default_rng(2).random(x.shape) < 0.5
    mask[0], mask[1] = False, True
    return np.where(mask, x, np.nan), mask


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_what_is_observed_stays_and_the_seed_decides_the_rest(name):
    x_train = mixed_table(61)
    seen = np.ones(x_train.shape, bool)
    x, mask = mixed_rows()
    fitted = rivals.fit(name, 7, MIXED, x_train, seen)
    before = pickle.dumps(fitted)
    draws, point = rivals.sample(fitted, x, mask, 5)
    assert pickle.dumps(fitted) == before
    assert draws.shape == (5, *x.shape)
    for out in (*draws, point):
        np.testing.assert_array_equal(out[mask], x[mask])
        columns.check(MIXED, out, np.ones(mask.shape, bool))  # finite, legal codes, no size < 0
    again = rivals.sample(pickle.loads(before), np.where(mask, x, 1e9), mask, 5)
    np.testing.assert_array_equal(again[0], draws)
    np.testing.assert_array_equal(again[1], point)
    other, _ = rivals.sample(rivals.fit(name, 8, MIXED, x_train, seen), x, mask, 5)
    assert np.any(other != draws)


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_poor_training_rows_are_no_obstacle(name):
    """A constant real column, a constant flag, a class of one row, and holes."""
    x_train = mixed_table(40)
    x_train[:, :2] = [2.0, 1.0]
    x_train[:, 3] = np.r_[2, np.zeros(20), np.ones(19)]
    mask_train = masked(0, MIXED, x_train, 0.2)
    mask_train[0] = True
    x, mask = mixed_rows()
    fitted = rivals.fit(name, 0, MIXED, np.where(mask_train, x_train, np.nan), mask_train)
    draws, point = rivals.sample(fitted, x, mask, 3)
    for out in (*draws, point):
        np.testing.assert_allclose(out[:, 0][~mask[:, 0]], 2.0)
        assert np.all(out[:, 1][~mask[:, 1]] == 1.0)
        assert np.all(out[:, 3][~mask[:, 3]] < 3)
        assert np.all(np.isfinite(out))


def test_mean_is_the_training_mean_or_mode_and_its_draws_are_training_values():
    x_train = mixed_table(60)
    x, mask = mixed_rows()
    fitted = rivals.fit("mean", 0, MIXED, x_train, np.ones(x_train.shape, bool))
    draws, point = rivals.sample(fitted, x, mask, 300)
    guess = [
        x_train[:, 0].mean(),
        np.bincount(x_train[:, 1].astype(int)).argmax(),
        np.expm1(np.log1p(x_train[:, 2]).mean()),
        np.bincount(x_train[:, 3].astype(int)).argmax(),
    ]
    np.testing.assert_allclose(point[0], guess)
    for j in range(4):
        gap = np.abs(draws[:, 0, j, None] - x_train[:, j]).min(axis=1)
        np.testing.assert_allclose(gap, 0.0, atol=1e-9)
        error = x_train[:, j].std() / 300**0.5
        assert abs(draws[:, 0, j].mean() - x_train[:, j].mean()) < 4 * error


def test_neighbours_are_the_nearest_over_shared_columns():
    x_train = mixed_table(50)
    mask_train = masked(3, MIXED, x_train, 0.2)
    x, mask = mixed_rows()
    fitted = rivals.fit("knn", 0, MIXED, x_train, mask_train)
    draws, point = rivals.sample(fitted, x, mask, 40)
    scaler = columns.fit(MIXED, x_train, mask_train)
    z_train = columns.transform(MIXED, scaler, x_train, mask_train)
    z = columns.transform(MIXED, scaler, x, mask)
    for b in np.flatnonzero(mask.any(axis=1)):
        shared = mask[b] & mask_train  # [N, D]
        square = np.where(MIXED.is_kind("bernoulli", "categorical"), 2.0 * (z[b] != z_train), 0.0)
        square = np.where(MIXED.is_kind("gaussian", "loggaussian"), (z[b] - z_train) ** 2, square)
        with np.errstate(invalid="ignore"):
            distance = np.sum(square, axis=1, where=shared) / shared.sum(axis=1)
        for j in np.flatnonzero(~mask[b]):
            able = np.flatnonzero(mask_train[:, j] & shared.any(axis=1))
            near = able[np.argsort(distance[able])]
            ties = distance[near] <= distance[near[9]] + 1e-12  # codes make equal distances
            donors = x_train[near[ties], j]
            assert np.abs(draws[:, b, j, None] - donors).min(axis=1).max() < 1e-9
            if ties.sum() == 10 and j == 0:
                np.testing.assert_allclose(point[b, j], donors.mean())


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_chained_regressions_draw_from_the_exact_conditional_of_a_gaussian(rate):
    cov = np.array([[1.0, 0.8, 0.3], [0.8, 1.5, 0.6], [0.3, 0.6, 0.7]])
    mean = np.array([1.0, -2.0, 0.5])
    rng = np.random.default_rng(0)
    x_train = rng.multivariate_normal(mean, cov, size=20_000)
    fitted = rivals.fit("mice", 0, REALS, x_train, masked(1, REALS, x_train, rate))
    x = rng.multivariate_normal(mean, cov, size=6)
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    draws, point = rivals.sample(fitted, x, mask, 4000)
    for b, seen in enumerate(mask):
        gain = cov[np.ix_(~seen, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
        exact = mean[~seen] + gain @ (x[b] - mean)[seen]
        residual = cov[np.ix_(~seen, ~seen)] - gain @ cov[np.ix_(seen, ~seen)]
        sd = np.sqrt(np.diag(residual))
        # 4 standard errors of 4000 draws are 0.063 sd; the rest is for the fitted coefficients
        np.testing.assert_allclose((draws[:, b, ~seen].mean(axis=0) - exact) / sd, 0.0, atol=0.1)
        np.testing.assert_allclose((point[b, ~seen] - exact) / sd, 0.0, atol=0.1)
        np.testing.assert_allclose(draws[:, b, ~seen].std(axis=0) / sd, 1.0, atol=0.05)
        ours = np.cov(draws[:, b, ~seen].T) / np.outer(sd, sd)
        np.testing.assert_allclose(ours, residual / np.outer(sd, sd), atol=0.1)


def test_chained_regressions_draw_classes_by_their_probability():
    """x | c ~ N(2 c - 1, 1) with even c gives p(c = 1 | x) = sigmoid(2 x)."""
    rng = np.random.default_rng(0)
    c = rng.integers(2, size=4000)
    x_train = np.stack([2 * c - 1 + rng.normal(size=4000), c], axis=1)
    schema = Schema(MIXED.columns[:2])
    fitted = rivals.fit("mice", 0, schema, x_train, x_train == x_train)
    x = np.array([[-1.0, 0.0], [0.1, 0.0], [0.6, 0.0], [0.0, 1.0]])
    mask = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], bool)
    draws, point = rivals.sample(fitted, x, mask, 4000)
    exact = 1 / (1 + np.exp(-2 * x[:3, 0]))
    np.testing.assert_allclose(draws[:, :3, 1].mean(axis=0), exact, atol=0.04)
    np.testing.assert_array_equal(point[:3, 1], [0, 1, 1])
    np.testing.assert_allclose(draws[:, 3, 0].mean(), 1.0, atol=0.1)


def test_matching_takes_the_nearest_predictions_up_to_the_ends():
    rng = np.random.default_rng(0)
    inputs, values = rng.normal(size=(30, 2)), rng.normal(size=30)
    model = rival_columns.fit_matching(0, inputs, values)
    at = np.concatenate([rng.normal(size=(40, 2)), [[50.0, 50.0], [-50.0, -50.0]]])
    fitted, line = (model.linear.expect(v)[:, 0] for v in (inputs, at))
    near = np.argsort(np.abs(fitted - line[:, None]), axis=1)[:, : rival_columns.NUM_DONORS]
    np.testing.assert_allclose(model.expect(at[None])[0, :, 0], values[near].mean(axis=1))
    drawn = model.draw(rng, at[None])[0]
    assert np.isin(drawn, values).all()


def test_forest_draws_training_values_by_how_often_they_share_a_leaf():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 2))
    values = inputs[:, 0] + rng.normal(size=60)
    model = rival_columns.fit_forest(0, inputs, values)
    at = rng.normal(size=(3, 2))
    same = model.estimator.apply(at)[:, None] == model.estimator.apply(inputs)  # [3, 60, T]
    weight = (same / same.sum(axis=1, keepdims=True)).mean(axis=-1)
    draws = model.draw(rng, np.tile(at, (8000, 1, 1)))
    ours = (draws[..., None] == values).mean(axis=0)
    np.testing.assert_allclose(ours, weight, atol=4 * 0.5 / 8000**0.5)
    np.testing.assert_allclose(model.expect(at[None])[0, :, 0], model.estimator.predict(at))


def test_rivals_beat_the_mean_on_wine():
    table = tables.load("wine")
    fold = tables.make_splits(table)[0]
    hidden = table.mask[fold.test] & ~fold.test_mask
    scores = {}
    for name in rivals.RIVALS:
        x_train, mask_train = table.x[fold.train], table.mask[fold.train]
        fitted = rivals.fit(name, 0, table.schema, x_train, mask_train)
        draws, point = rivals.sample(fitted, table.x[fold.test], fold.test_mask, 20)
        by_column = imputation_scores.score(
            table.schema, fitted.scaler, draws, point, table.x[fold.test], hidden
        )
        scores[name] = imputation_scores.summarise(by_column)
    for name in ("knn", "mice", "pmm", "forest"):
        for score in ("error", "crps"):
            assert scores[name][score] < 0.85 * scores["mean"][score], (name, score)
        assert 0.35 < scores[name]["coverage_50"] < 0.65
        assert 0.75 < scores[name]["coverage_90"] < 1.0


def test_refuses_what_it_cannot_fit():
    x = mixed_table(20)
    seen = np.ones(x.shape, bool)
    with pytest.raises(ValueError, match="rival 'median' is unknown; use one of mean, knn"):
        rivals.fit("median", 0, MIXED, x, seen)
    seen[:, 2] = False
    with pytest.raises(ValueError, match="column 'size' has no observed entry"):
        rivals.fit("mean", 0, MIXED, x, seen)


def test_crps_of_gaussian_draws_is_the_closed_form_whatever_their_number():
    rng = np.random.default_rng(0)
    mean, sd, y = 0.5, 2.0, 1.7
    w = (y - mean) / sd
    exact = sd * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - np.pi**-0.5)
    for num in (2, 7, 40):
        cells = 80_000 // num
        ours = sample_scores.crps(mean + sd * rng.normal(size=(num, cells)), np.full(cells, y))
        assert abs(ours.mean() - exact) < 4 * ours.std() / cells**0.5
    spread = np.abs(draws := rng.normal(size=(5, 1)))
    pairs = np.abs(draws - draws.T).sum() / (2 * 5 * 4)
    np.testing.assert_allclose(sample_scores.crps(draws, np.zeros(1)), spread.mean() - pairs)


def test_brier_of_class_draws_is_that_of_the_probabilities_whatever_their_number():
    rng = np.random.default_rng(0)
    probs, y = np.array([0.6, 0.3, 0.1]), 1
    exact = np.sum((probs - (np.arange(3) == y)) ** 2)
    for num in (2, 5):
        draws = rng.choice(3, size=(num, 20_000), p=probs).astype(float)
        ours = sample_scores.brier(draws, np.full(20_000, float(y)), 3)
        assert abs(ours.mean() - exact) < 4 * ours.std() / 20_000**0.5


def test_average_is_over_columns_with_hidden_cells():
    rng = np.random.default_rng(0)
    x, hidden = mixed_table(30), np.zeros((30, len(MIXED.columns)), bool)
    draws = x + rng.integers(0, 2, size=(6, *x.shape))
    hidden[:20, 0] = hidden[:3, 1] = True
    kinds = [column.is_discrete for column in MIXED.columns]
    scores = [
        sample_scores.brier(draws[:, :n, j], x[:n, j], max(MIXED.columns[j].num_classes, 2))
        if kinds[j]
        else sample_scores.crps(draws[:, :n, j], x[:n, j])
        for j, n in ((0, 20), (1, 3))
    ]
    expected = np.mean([score.mean() for score in scores])
    np.testing.assert_allclose(sample_scores.average(MIXED, draws, x, hidden), expected)
    assert sample_scores.average(MIXED, draws, x, np.zeros_like(hidden)) == 0


@pytest.mark.parametrize(("level", "num"), [(0.5, 3), (0.5, 20), (0.9, 19), (0.9, 20)])
def test_coverage_of_exact_draws_is_nominal_from_few_draws_on(level, num):
    draws = np.random.default_rng(0).normal(size=(num + 1, 20_000))
    ours = sample_scores.is_covered(draws[1:], draws[0], level).mean()
    # interpolation between order statistics costs up to 0.004 in the tails
    assert abs(ours - level) < 4 * (level * (1 - level) / 20_000) ** 0.5 + 0.004


def test_scores_read_hidden_cells_alone_in_standardised_units():
    x = mixed_table(30)
    scaler = columns.fit(MIXED, x, x == x)
    hidden = np.random.default_rng(0).random(x.shape) < 0.4
    hidden[:, 3] = False
    shift = np.array([0.7, 0.0, 0.0, 0.0])
    draws = np.stack([x - shift, x + shift])
    out = imputation_scores.score(MIXED, scaler, draws, x + shift, x, hidden)
    np.testing.assert_allclose(out["error"], [0.7 / x[:, 0].std(), 0.0, 0.0, np.nan], atol=1e-9)
    np.testing.assert_allclose(out["crps"], [0.0, np.nan, 0.0, np.nan], atol=1e-9)
    np.testing.assert_allclose(out["brier"], [np.nan, 0.0, np.nan, np.nan])
    other = [np.where(hidden, v, 1.0) for v in (draws, x + shift, x)]
    again = imputation_scores.score(MIXED, scaler, *other, hidden)
    for name, values in out.items():
        np.testing.assert_array_equal(again[name], values)
    with pytest.raises(ValueError, match="draws=1"):
        imputation_scores.score(MIXED, scaler, draws[:1], x, x, hidden)
    means = imputation_scores.summarise(
        {"a": np.array([1.0, np.nan, 2.0]), "b": np.full(2, np.nan)}
    )
    assert means["a"] == 1.5
    assert np.isnan(means["b"])


def test_centre_of_draws_is_the_standardised_mean_and_the_mode():
    x = mixed_table(30)
    scaler = columns.fit(MIXED, x, x == x)
    draws = np.array([[[1.0, 0, 0.0, 3]], [[2.0, 1, 3.0, 1]], [[6.0, 1, 15.0, 3]]])
    geometric = np.expm1(np.log([1.0, 4.0, 16.0]).mean())
    ours = imputation_scores.centre(MIXED, scaler, draws)
    np.testing.assert_allclose(ours, [[3.0, 1, geometric, 3]])
