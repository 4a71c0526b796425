"""Masks by mechanism: their rate, and what an entry's fate depends on."""

import numpy as np
import pytest

from hmcvae.columns import Column, Schema
from launch import imputation_masks

SCHEMA = Schema(
    (*(Column(f"x{i}", "gaussian") for i in range(5)), Column("size", "loggaussian"),
     Column("class", "categorical", 3))
)  # fmt: skip
NUM = 4000


def table(seed=0):
    rng = np.random.default_rng(seed)
    reals = rng.normal(size=(NUM, 5))
    return np.column_stack([reals, np.exp(rng.normal(size=NUM)), rng.integers(3, size=NUM)])


def hidden(mechanism, rate, x, mask=None, seed=0):
    mask = np.ones(x.shape, bool) if mask is None else mask
    left = imputation_masks.hide(seed, SCHEMA, x, mask, mechanism, rate)
    assert not np.any(left & ~mask)
    return mask & ~left


@pytest.mark.parametrize("mechanism", imputation_masks.MECHANISMS)
@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_every_column_that_loses_entries_loses_its_share(mechanism, rate):
    share = hidden(mechanism, rate, table()).mean(axis=0)
    touched = share > 0
    assert touched.sum() == (5 if mechanism == "mar" else 7)  # 30 % of 7 columns are 2
    assert np.all(np.abs(share[touched] - rate) < 4 * (rate * (1 - rate) / NUM) ** 0.5)


def test_at_random_depends_on_complete_columns_alone():
    x = table()
    gone = hidden("mar", 0.3, x)
    complete = ~gone.any(axis=0)
    other = np.where(complete, x, table(1))
    np.testing.assert_array_equal(hidden("mar", 0.3, other), gone)
    assert np.any(hidden("mar", 0.3, np.where(complete, table(1), x)) != gone)
    # logits of two deviations: some complete column tells the fate of every other
    told = np.abs(np.corrcoef(x[:, complete].T, gone[:, ~complete].T)[: complete.sum(), 2:])
    assert np.all(told.max(axis=0) > 0.2)


def test_not_at_random_depends_on_the_entry_itself():
    x = table()
    gone = hidden("mnar", 0.3, x)
    other = table(1)
    other[:, 2] = x[:, 2]
    np.testing.assert_array_equal(hidden("mnar", 0.3, other)[:, 2], gone[:, 2])
    x[:, 5] = np.log1p(x[:, 5])
    for j in range(7):
        assert abs(np.corrcoef(x[:, j], gone[:, j])[0, 1]) > 0.4
    signs = [np.sign(x[gone[:, j], j].mean() - x[~gone[:, j], j].mean()) for j in range(7)]
    assert set(signs) == {-1.0, 1.0}


def test_missing_entries_stay_missing_and_unread():
    x, mask = table(), np.random.default_rng(1).random((NUM, 7)) < 0.8
    for mechanism in imputation_masks.MECHANISMS:
        gone = hidden(mechanism, 0.3, np.where(mask, x, np.nan), mask)
        np.testing.assert_array_equal(gone, hidden(mechanism, 0.3, np.where(mask, x, 9.0), mask))
    with pytest.raises(ValueError, match="mechanism 'none' is unknown; use one of mcar"):
        hidden("none", 0.3, x)
