"""The predictive distribution of a real target: one Gaussian a posterior sample, equally likely.

p(y | x_O) is estimated by 1/S sum_s N(y; mean_s, std^2), in raw units.
"""

from typing import NamedTuple

import numpy as np
from jax.scipy.special import ndtr

HALVINGS = 60  # of the bracket of a quantile; more than double precision can tell apart
REACH = 10.0  # standard deviations that the bracket goes beyond the outermost means


class Predictive(NamedTuple):
    """Equally weighted mixtures of Gaussians that share a standard deviation, one a row."""

    means: np.ndarray  # [N, S]
    scale: float  # standard deviation of every component

    def mean(self) -> np.ndarray:
        """Returns the means, [N]."""
        return self.means.mean(axis=1)

    def std(self) -> np.ndarray:
        """Returns the standard deviations, [N]."""
        return np.sqrt(self.means.var(axis=1) + self.scale**2)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """Returns the probability of at most y [N], [N]."""
        return np.asarray(ndtr(self._standardise(y)), np.float64).mean(axis=1)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """Returns log densities at y [N], in nats, [N]."""
        exponent = -0.5 * self._standardise(y) ** 2
        largest = exponent.max(axis=1)
        mean = np.exp(exponent - largest[:, None]).mean(axis=1)
        return largest + np.log(mean) - np.log(self.scale * np.sqrt(2 * np.pi))

    def quantile(self, q: float) -> np.ndarray:
        """Returns the q-quantiles, 0 < q < 1, by bisection, [N]."""
        if not 0 < q < 1:
            raise ValueError(f"q={q}: expected a probability between 0 and 1")
        low = self.means.min(axis=1) - REACH * self.scale
        high = self.means.max(axis=1) + REACH * self.scale
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            is_low = self.cdf(middle) < q
            low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
        return 0.5 * (low + high)

    def sample(self, num_draws: int, random_state: int | None = None) -> np.ndarray:
        """Draws values, [N, num_draws]."""
        rng = np.random.default_rng(random_state)
        shape = (len(self.means), num_draws)
        picked = rng.integers(self.means.shape[1], size=shape)
        noise = rng.standard_normal(shape)
        return np.take_along_axis(self.means, picked, axis=1) + self.scale * noise

    def _standardise(self, y):
        return (np.asarray(y, np.float64)[:, None] - self.means) / self.scale
