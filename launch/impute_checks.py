"""How far imputations can be trusted: held-out cells, and which column tells of which.

A share of the observed cells is hidden before anything is trained, and imputed like the missing
ones; their scores are those of a model that has never seen them. They count as typical of the
missing cells only if these are missing at random.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from hmcvae import columns, frames, sample_scores
from hmcvae.columns import Schema
from launch import imputation_scores, rivals

SHARE = 0.1  # of the observed cells of modelled columns
LEVELS = tuple(np.arange(1, 10) / 10)  # nominal coverage
ROWS = 512  # on which it is asked which column tells of which


class HeldOut(NamedTuple):
    """Cells that training did not see, and what was imputed for them."""

    schema: Schema  # D modelled columns
    hidden: np.ndarray  # [R, D] bool
    truth: np.ndarray  # [R, D] raw reals and codes
    draws: np.ndarray  # [M, R, D] the same
    scores: dict[str, np.ndarray]  # by name, [D]: those of `imputation_scores.score`
    baseline: np.ndarray  # [D] "error" of the mean or mode
    coverage: np.ndarray  # [len(LEVELS)] share of reals within their interval, NaN where unknown
    num_reals: int  # hidden cells of the same


def choose(seed: int, frame: pd.DataFrame, is_modelled: np.ndarray) -> np.ndarray:
    """Chooses observed cells [N, D] to hide; columns that would lose their variety keep all."""
    # a stream of its own: holes that were made by default_rng(seed) would hide the same cells
    coins = np.random.default_rng([seed, 1]).random(frame.shape) < SHARE
    hidden = coins & frame.notna().to_numpy() & is_modelled
    for i in np.flatnonzero(hidden.any(axis=0)):
        if frame.iloc[~hidden[:, i], i].nunique() < min(frame.iloc[:, i].nunique(), 3):
            hidden[:, i] = False
    return hidden


def check(imputer, frame: pd.DataFrame, hidden: np.ndarray, num_draws: int) -> HeldOut | None:
    """Scores imputations of hidden cells.

    Args:
      imputer: fitted to the frame without its hidden cells.
      frame: [N, D].
      hidden: [N, D] from `choose`.
      num_draws: M.

    Returns:
      HeldOut, or None where nothing is hidden.
    """
    rows = np.flatnonzero(hidden.any(axis=1))
    if not len(rows):
        return None
    features = imputer.features_
    schema = frames.schema(features)
    kept = [i for i, feature in enumerate(features) if feature.column is not None]
    shown = without(frame, hidden)
    encode = lambda frame: frames.encode(features, frame)
    x, truth = encode(shown), encode(frame.iloc[rows])
    draws = np.stack([encode(drawn) for drawn in imputer.sample(shown.iloc[rows], num_draws)])
    hidden = hidden[rows][:, kept]
    mask = ~np.isnan(x)
    scaler = columns.fit(schema, x, mask)
    point = imputation_scores.centre(schema, scaler, draws)
    scores = imputation_scores.score(schema, scaler, draws, point, truth, hidden)
    marginal = rivals.fit("mean", 0, schema, x, mask)
    guess = rivals.sample(marginal, x[rows], mask[rows], 2)
    baseline = imputation_scores.score(schema, scaler, *guess, truth, hidden)["error"]
    reals = hidden & ~schema.is_kind("bernoulli", "categorical")
    coverage = np.full(len(LEVELS), np.nan)
    reach = (num_draws - 1) / (num_draws + 1)  # from the smallest draw to the largest
    for k, level in enumerate(LEVELS):
        if reals.any() and level <= reach:
            inside = sample_scores.is_covered(draws[:, reals], truth[reals], level)
            coverage[k] = inside.mean()
    for level in (0.5, 0.9):
        if level > reach:
            scores[f"coverage_{100 * level:.0f}"][:] = np.nan
    return HeldOut(schema, hidden, truth, draws, scores, baseline, coverage, int(reals.sum()))


def reliability(held_out: HeldOut, num_bins: int = 5) -> np.ndarray:
    """Compares forecast probabilities of categories with how often they came true.

    Half of the draws say which bin a forecast belongs to, the other half what it is: sorted by
    themselves, the frequencies of few draws would lie further apart than probabilities do.

    Returns:
      [num_bins, 3]: mean forecast, frequency, number of (cell, category) pairs, all categories of
      all columns together.
    """
    parts = [np.zeros((0, 3))]
    for j, column in enumerate(held_out.schema.columns):
        if column.is_discrete:
            at = held_out.hidden[:, j]
            codes = np.arange(max(column.num_classes, 2))
            came_true = held_out.truth[at, j, None] == codes
            agrees = held_out.draws[:, at, j, None] == codes  # [M, n, C]
            halves = (agrees[0::2].mean(axis=0), agrees[1::2].mean(axis=0))
            parts.append(np.stack([*halves, came_true], axis=-1).reshape(-1, 3))
    sorting, forecast, truth = np.concatenate(parts).T
    place = np.minimum((sorting * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    sums = [np.bincount(place, values, minlength=num_bins) for values in (forecast, truth)]
    means = [np.divide(total, counts, where=counts > 0, out=total) for total in sums]
    return np.stack([*means, counts], axis=-1)


def influence(imputer, seed: int, frame: pd.DataFrame, num_draws: int) -> np.ndarray:
    """Measures how much a column's cell narrows the imputations of every other.

    Of rows drawn at random, a random half of the observed cells is hidden. The spread that the
    draws of a hidden cell have left, relative to that of its column (variances of standardised
    reals, Gini impurities of categories), is regressed on which of the other cells are shown.

    Returns:
      [D, D] of the modelled columns: percentage points of the variance of column i that showing
      column j takes away on average, 0 where that is less than two standard errors; NaN on the
      diagonal, and where too few rows tell.
    """
    features, rng = imputer.features_, np.random.default_rng(seed)
    kept = [i for i, feature in enumerate(features) if feature.column is not None]
    rows = frame.iloc[rng.integers(len(frame), size=ROWS)].reset_index(drop=True)
    hide = rng.random(rows.shape) < 0.5
    shown = without(rows, hide)
    draws = [frames.encode(features, drawn) for drawn in imputer.sample(shown, num_draws)]
    left = _spread(imputer, np.stack(draws))
    shown = shown.iloc[:, kept].notna().to_numpy()
    out = np.full((len(kept), len(kept)), np.nan)
    for i in range(len(kept)):
        at = ~shown[:, i]
        others = np.delete(shown[at], i, axis=1).astype(float)
        if at.sum() > 2 * len(kept):
            gain, error = _regress(others, -100 * left[at, i])
            out[i, np.arange(len(kept)) != i] = np.where(gain > 2 * error, gain, 0.0)
    return out


def without(frame: pd.DataFrame, hidden: np.ndarray) -> pd.DataFrame:
    """Returns the frame with cells [N, D] made missing."""
    return frame.mask(pd.DataFrame(hidden, index=frame.index, columns=frame.columns))


def _regress(inputs, values):
    """Least squares with an intercept: slopes and their standard errors, [F] each."""
    design = np.column_stack([np.ones(len(inputs)), inputs])
    inverse = np.linalg.pinv(design.T @ design)
    slopes = inverse @ design.T @ values
    variance = np.sum((values - design @ slopes) ** 2) / (len(values) - len(slopes))
    return slopes[1:], np.sqrt(variance * np.diag(inverse)[1:])


def _spread(imputer, draws):
    """Spread of draws [M, R, D] a cell, relative to that of all draws of its column: [R, D]."""
    schema = frames.schema(imputer.features_)
    num = len(draws)
    z = columns.transform(schema, imputer.scaler_, draws, ~np.isnan(draws))
    within, total = z.var(axis=0, ddof=1), z.var(axis=(0, 1))
    for j, column in enumerate(schema.columns):
        if column.is_discrete:
            same = z[..., j, None] == np.arange(max(column.num_classes, 2))
            gini = lambda share: 1 - np.sum(share**2, axis=-1)
            within[:, j] = gini(same.mean(axis=0)) * num / (num - 1)
            total[j] = gini(same.mean(axis=(0, 1)))
    return within / np.maximum(total, 1e-12)
