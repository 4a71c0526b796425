"""Entries hidden on purpose, by a stated mechanism, so that imputations of them can be scored.

  mcar  completely at random: every entry with the same probability
  mar   at random: 30 % of the columns, at least one, lose nothing; an entry (i, j) of the others is
        hidden with probability sigmoid(2 s_ij + b_j), s_ij a combination of what row i has in the
        complete columns, with Gaussian weights of column j
  mnar  not at random: sigmoid(2 s_ij + b_j) again, s_ij the entry's own value or minus it, one
        coin a column; large entries go, or small ones

s is standardised a column and b solved for the rate, in both as the logistic mechanisms of Muzellec
et al. (2020), "Missing data imputation using optimal transport". Codes count as numbers.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from hmcvae import columns
from hmcvae.columns import Schema

MECHANISMS = ("mcar", "mar", "mnar")
COMPLETE = 0.3  # share of the columns that "mar" leaves alone
SLOPE = 2.0  # logits a standard deviation


def hide(
    seed: int, schema: Schema, x: np.ndarray, mask: np.ndarray, mechanism: str, rate: float
) -> np.ndarray:
    """Hides observed entries.

    Args:
      seed: of everything random.
      schema: the D columns.
      x: [N, D] raw reals and codes; an entry under the mask counts as its column's mean.
      mask: [N, D] True = observed.
      mechanism: one of `MECHANISMS`.
      rate: expected share of the entries to hide, of the columns that lose any.

    Returns:
      [N, D] the mask that is left.
    """
    rng = np.random.default_rng(seed)
    coins = rng.random(mask.shape)
    if mechanism == "mcar":
        return mask & (coins >= rate)
    scaler = columns.fit(schema, x, mask)
    z = _unit(columns.transform(schema, scaler, np.asarray(x, np.float64), mask))
    num = schema.num_columns
    if mechanism == "mar":
        complete = rng.permutation(num)[: max(1, round(COMPLETE * num))]
        scores = _unit(z[:, complete] @ rng.normal(size=(len(complete), num)))
        targets = np.setdiff1d(np.arange(num), complete)
    elif mechanism == "mnar":
        scores, targets = z * rng.choice([-1.0, 1.0], num), range(num)
    else:
        raise ValueError(f"mechanism {mechanism!r} is unknown; use one of {', '.join(MECHANISMS)}")
    left = mask.copy()
    for j in targets:
        logits = SLOPE * scores[:, j]
        gap = lambda b, logits=logits: expit(logits + b).mean() - rate
        reach = np.abs(logits).max() + 50.0
        left[:, j] &= coins[:, j] >= expit(logits + brentq(gap, -reach, reach))
    return left


def _unit(values):
    """Columns of mean 0 and deviation 1; constant ones are 0."""
    values = values - values.mean(axis=0)
    return values / np.maximum(values.std(axis=0), 1e-12)
