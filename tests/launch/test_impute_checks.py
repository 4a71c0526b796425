"""Held-out cells and influence, on imputers whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hmcvae import columns, frames
from hmcvae.columns import Column, Schema
from launch import impute_checks

SLOPE = 0.8  # of b on a; the rest of b, and all of c and d, are noise


def make_frame(num=2000, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num)
    b = SLOPE * a + (1 - SLOPE**2) ** 0.5 * rng.normal(size=num)
    return pd.DataFrame({"a": a, "b": b, "c": rng.normal(size=num), "d": rng.random(num) < 0.3})


class Exact:
    """Draws b given a, a given b, and c and d from their marginals."""

    def __init__(self, frame, width=1.0):
        self.features_, self.width = frames.describe(frame), width
        schema, x = frames.schema(self.features_), frames.encode(self.features_, frame)
        self.scaler_ = columns.fit(schema, x, ~np.isnan(x))

    def sample(self, frame, num):
        rng = np.random.default_rng(7)
        return [self._draw(rng, frame) for _ in range(num)]

    def _draw(self, rng, frame):
        out, noise = frame.copy(), rng.normal(size=(len(frame), 3))
        for name, other in (("a", "b"), ("b", "a")):
            known = frame[other].notna()
            sd = np.where(known, (1 - SLOPE**2) ** 0.5, 1.0) * self.width
            drawn = SLOPE * frame[other].fillna(0.0) + sd * noise[:, 0]
            out[name] = frame[name].fillna(drawn)
        out["c"] = frame["c"].fillna(pd.Series(self.width * noise[:, 1], frame.index))
        flags = pd.Series(rng.random(len(frame)) < 0.3, frame.index)
        out["d"] = frame["d"].astype(object).where(frame["d"].notna(), flags)
        return out


@pytest.mark.parametrize(("width", "is_right"), [(1.0, True), (0.5, False)])
def test_calibration_is_on_the_diagonal_for_exact_draws_alone(width, is_right):
    frame = make_frame()
    hidden = impute_checks.choose(0, frame, np.array([True, True, True, True]))
    assert abs(hidden.mean() - impute_checks.SHARE) < 0.02
    imputer = Exact(frame, width)
    out = impute_checks.check(imputer, frame, hidden, 20)
    gap = np.abs(out.coverage - impute_checks.LEVELS).max()
    assert (gap < 0.06) == is_right
    error = 4 * (0.5 / hidden.sum(axis=0)) ** 0.5
    expected = np.array([(1 - SLOPE**2) ** 0.5, (1 - SLOPE**2) ** 0.5, 1.0, 0.3])
    if is_right:
        assert np.all(np.abs(out.scores["error"] - expected) < error + 0.05)
    assert np.all(np.abs(out.baseline - [1.0, 1.0, 1.0, 0.3]) < error)
    forecast, frequency, count = impute_checks.reliability(out, 1)[0]
    assert count == 2 * hidden[:, 3].sum()
    assert forecast == frequency == 0.5  # two categories, one of which came true


def test_exact_probabilities_are_reliable_however_few_the_draws():
    rng = np.random.default_rng(0)
    p, num = rng.random(40_000), 40_000
    schema = Schema((Column("a", "bernoulli"),))
    draws = (rng.random((10, num)) < p).astype(float)[..., None]
    truth = (rng.random(num) < p).astype(float)[:, None]
    held_out = impute_checks.HeldOut(
        schema, np.ones((num, 1), bool), truth, draws, {}, np.zeros(1), np.zeros(9), 0
    )
    forecast, frequency, count = impute_checks.reliability(held_out).T
    assert np.all(np.abs(forecast - frequency) < 4 * (0.5 / count) ** 0.5)
    assert forecast.max() - forecast.min() > 0.4


def test_truth_under_hidden_cells_is_not_shown():
    frame = make_frame(200)
    hidden = impute_checks.choose(0, frame, np.ones(4, bool))
    seen = []
    exact = Exact(frame)
    spy = SimpleNamespace(
        features_=exact.features_,
        scaler_=exact.scaler_,
        sample=lambda f, n: seen.append(f) or exact.sample(f, n),
    )
    impute_checks.check(spy, frame, hidden, 3)
    rows = hidden.any(axis=1)
    np.testing.assert_array_equal(seen[0].isna().to_numpy(), hidden[rows])


def test_influence_is_the_share_of_variance_that_a_column_explains():
    frame = make_frame()
    out = impute_checks.influence(Exact(frame), 0, frame, 20)
    assert np.isnan(np.diag(out)).all()
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 100 * SLOPE**2
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(out[off], expected[off], atol=16)
    # of ten others, chance passes two standard errors once in four tables
    assert np.sum(out[off] != 0) <= 4


def test_columns_of_little_variety_are_not_held_out_of():
    frame = pd.DataFrame({"a": [0.0] * 99 + [1.0], "b": np.arange(100.0), "c": np.arange(100.0)})
    chosen = [impute_checks.choose(s, frame, np.array([True, True, False])) for s in range(40)]
    assert not any(hidden[99, 0] for hidden in chosen)
    assert not any(hidden[:, 2].any() for hidden in chosen)
    assert any(hidden[:, 1].any() for hidden in chosen)
    nothing = np.zeros(frame.shape, bool)
    assert impute_checks.check(None, frame, nothing, 3) is None


def test_cells_are_held_out_where_the_same_seed_made_the_holes():
    frame = make_frame(200)
    holes = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    hidden = impute_checks.choose(0, holes, np.ones(4, bool))
    assert 0.05 < hidden.sum() / holes.notna().to_numpy().sum() < 0.15
