"""Scores of draws against the truth: CRPS, Brier score, and whether intervals cover it.

The fair ones (Ferro, 2014, "Fair scores for ensemble forecasts"): their expectation is the score of
the distribution that the draws come from, whatever their number. NumPy throughout.
"""

import numpy as np

from hmcvae.columns import Schema


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Estimates E|X - y| - E|X - X'| / 2 from draws of X.

    Args:
      draws: [M, ...], M >= 2.
      truth: [...].

    Returns:
      [...] in the units of the draws; single cells may come out below 0, expectations may not.
    """
    num = len(draws)
    # sum over pairs |x_i - x_j| = sum_i (2 i - M - 1) x_(i), i = 1..M
    weights = 2.0 * np.arange(1, num + 1) - num - 1
    pairs = np.tensordot(weights, np.sort(draws, axis=0), axes=1)
    return np.mean(np.abs(draws - truth), axis=0) - pairs / (num * (num - 1))


def brier(draws: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Estimates sum_c (p_c - 1[y = c])^2 from draws of a class.

    Args:
      draws: [M, ...] codes, M >= 2.
      truth: [...] codes.
      num_classes: C.

    Returns:
      [...]; the variance of the frequencies, sum_c p_c (1 - p_c) / M, is taken off.
    """
    codes = np.arange(num_classes)
    freqs = np.mean(draws[..., None] == codes, axis=0)
    gaps = np.sum((freqs - (truth[..., None] == codes)) ** 2, axis=-1)
    return gaps - np.sum(freqs * (1 - freqs), axis=-1) / (len(draws) - 1)


def average(schema: Schema, draws: np.ndarray, truth: np.ndarray, hidden: np.ndarray) -> float:
    """Averages over columns the CRPS of hidden reals and the Brier score of hidden codes.

    Args:
      schema: the D columns.
      draws: [M, B, D] values and codes, M >= 2.
      truth: [B, D].
      hidden: [B, D] the cells that count.

    Returns:
      The mean over the columns with hidden cells; 0 without any.
    """
    means = []
    for j, column in enumerate(schema.columns):
        x, y = draws[:, hidden[:, j], j], truth[hidden[:, j], j]
        if len(y):
            found = brier(x, y, max(column.num_classes, 2)) if column.is_discrete else crps(x, y)
            means.append(found.mean())
    return float(np.mean(means)) if means else 0.0


def is_covered(draws: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    """Tells where the truth lies within the equal-tailed interval of the draws.

    The quantile of order q is the order statistic q (M + 1), interpolated: draws and truth of one
    continuous distribution then give the nominal coverage at any M that reaches so far out.

    Args:
      draws: [M, ...].
      truth: [...].
      level: nominal coverage.

    Returns:
      [...] bool, ends included.
    """
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(draws, tails, axis=0, method="weibull")
    return (low <= truth) & (truth <= high)
