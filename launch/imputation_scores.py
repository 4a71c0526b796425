"""Scores of multiple imputations of hidden cells: point error, CRPS, Brier score, coverage.

Any method that returns draws in raw units goes through `score`: the rivals of `launch.rivals`,
`hmcvae.predict.impute`, a program of the user's. Reals are compared in standardised units of the
training rows, as in `error_x` of `launch.experiments.tabular_report`. Scores of draws are those of
`hmcvae.sample_scores`.
"""

from collections.abc import Sequence

import numpy as np

from hmcvae import columns, sample_scores
from hmcvae.columns import Scaler, Schema


def score(
    schema: Schema,
    scaler: Scaler,
    draws: np.ndarray,
    point: np.ndarray,
    x: np.ndarray,
    hidden: np.ndarray,
    *,
    levels: Sequence[float] = (0.5, 0.9),
) -> dict[str, np.ndarray]:
    """Scores imputations of the hidden cells, column by column.

    Args:
      schema: the D columns.
      scaler: standardisation of the training rows.
      draws: [M, B, D] imputations in raw units and codes, M >= 2; an interval of level a is free of
        sampling bias from M = 2 / (1 - a) - 1 draws on (19 for 90 %).
      point: [B, D] single best imputation in raw units and codes.
      x: [B, D] the truth in raw units and codes; read only where hidden.
      hidden: [B, D] True = known, and hidden from the method.
      levels: of the intervals.

    Returns:
      By name, [D], NaN where a column has no hidden cell or is of the other kind. "error": RMSE of
      `point` of real columns, error rate of discrete ones; "crps" of real columns; "brier" of
      discrete ones, sum over classes of (p - indicator)^2, from 0 to 2; "coverage_50",
      "coverage_90": share of the truth of real columns within the equal-tailed interval.
    """
    num_draws = len(draws)
    if num_draws < 2:
        raise ValueError(f"draws={num_draws}: a distribution needs 2 or more draws a cell")
    z = columns.transform(schema, scaler, np.asarray(x, np.float64), hidden)
    z_point = _standardise(schema, scaler, point)
    z_draws = _standardise(schema, scaler, draws)
    names = ["error", "crps", "brier", *(f"coverage_{round(100 * level)}" for level in levels)]
    out = {name: np.full(schema.num_columns, np.nan) for name in names}
    for j, column in enumerate(schema.columns):
        at = hidden[:, j]
        if not at.any():
            continue
        truth, guess, sample = z[at, j], z_point[at, j], z_draws[:, at, j]
        if column.is_discrete:
            out["error"][j] = np.mean(guess != truth)
            num = max(column.num_classes, 2)
            out["brier"][j] = np.mean(sample_scores.brier(sample, truth, num))
            continue
        out["error"][j] = np.sqrt(np.mean((guess - truth) ** 2))
        out["crps"][j] = np.mean(sample_scores.crps(sample, truth))
        for level in levels:
            inside = sample_scores.is_covered(sample, truth, level)
            out[f"coverage_{round(100 * level)}"][j] = np.mean(inside)
    return out


def summarise(by_column: dict[str, np.ndarray]) -> dict[str, float]:
    """Averages every score over the columns that have it; NaN if none has."""
    means = {}
    for name, values in by_column.items():
        known = values[~np.isnan(values)]
        means[name] = float(known.mean()) if len(known) else float("nan")
    return means


def centre(schema: Schema, scaler: Scaler, draws: np.ndarray) -> np.ndarray:
    """Reduces draws [M, B, D] to a point [B, D]: standardised mean, most frequent class.

    For methods that give draws only; one that knows its own expectation should use that.
    """
    z = _standardise(schema, scaler, draws)
    out = z.mean(axis=0)
    for j, column in enumerate(schema.columns):
        if column.is_discrete:
            codes = np.arange(max(column.num_classes, 2))
            out[:, j] = (z[..., j, None] == codes).sum(axis=0).argmax(axis=-1)
    return columns.inverse(schema, scaler, out)


def _standardise(schema, scaler, values):
    values = np.asarray(values, np.float64)
    return columns.transform(schema, scaler, values, np.ones(values.shape, bool))
