"""The noise of imputed numbers: as wide and with as heavy tails as held-out cells ask for.

The likelihood that a model is trained by is Gaussian. What it leaves unexplained of hidden cells
is often small and at times large, so that Gaussian intervals are too wide in the middle, and a
small table is fitted better than what was not seen of it, so that they are too narrow in all. With
n ~ N(0, 1),

  r = w s sinh(tau n) / tau,  s = tau sqrt(2 / (exp(2 tau^2) - 1)),

has standard deviation w for every tau, is Gaussian at tau = 0, and has all its moments (Johnson's
S_U, 1949). tau and w are one number a table each, chosen by the log score of held-out cells. NumPy
throughout.
"""

from typing import NamedTuple

import numpy as np

TAILS = np.arange(11) / 10  # beyond 1, columns that repeat a value would set the tails
WIDTHS = 2.0 ** (np.arange(-2, 9) / 4)


class Noise(NamedTuple):
    """Of real columns, in units of their learned deviations."""

    tail: float = 0.0  # tau
    width: float = 1.0  # w


def stretch(noise: Noise, normal: np.ndarray) -> np.ndarray:
    """Turns standard normal numbers n into noise r."""
    tail, width = noise
    return width * _scale(tail) * np.sinh(tail * normal) / tail if tail else width * normal


def log_density(noise: Noise, residual: np.ndarray) -> np.ndarray:
    """Returns the log density of residuals r, in nats."""
    tail, width = noise
    normal, log_slope = residual / width, -np.log(width)
    if tail:
        u = tail * normal / _scale(tail)
        normal = np.arcsinh(u) / tail
        log_slope -= 0.5 * np.log1p(u**2) + np.log(_scale(tail))
    return log_slope - 0.5 * (normal**2 + np.log(2 * np.pi))


def fit(residual: np.ndarray) -> Noise:
    """Chooses the noise that gives hidden cells the best log score.

    Args:
      residual: [S, N] of N cells at S posterior samples, in units of the learned deviation.

    Returns:
      Noise of `TAILS` and `WIDTHS`; the learned one without cells.
    """
    if not residual.size:
        return Noise()
    choices = [Noise(float(tail), float(width)) for width in WIDTHS for tail in TAILS]
    return max(choices, key=lambda noise: score(noise, residual))


def score(noise: Noise, residual: np.ndarray) -> float:
    """Returns the log score of N cells with residuals [S, N] at S samples, in nats a cell."""
    total = np.logaddexp.reduce(log_density(noise, residual), axis=0)
    return float(np.mean(total) - np.log(len(residual)))


def _scale(tail):
    return tail * np.sqrt(2 / np.expm1(2 * tail**2))
