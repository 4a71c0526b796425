"""The two-dimensional targets of the HMC tuning paper, with grids and initial proposals.

Campbell et al. (2021); constants of the published implementation. Log
densities take one point [2] and return nats; logaddexp replaces the published log(1e-300 + ...),
which underflows to -inf in single precision away from the ridge.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MIXTURE_STD = 0.15
GAUSSIAN_MEAN = np.array([1.0, 1.0])
GAUSSIAN_COV = np.array([[1.2, 0.7], [0.7, 0.5]])


class Target(NamedTuple):
    """A density, the square to draw it on, and the Gaussian that chains start from."""

    log_density: Callable  # [2] -> []  nats
    limit: float  # grid is [-limit, limit]^2
    mean: tuple[float, float]  # of the initial proposal
    log_var: tuple[float, float]


def gaussian(x: jax.Array, mean: jax.Array, cov: jax.Array) -> jax.Array:
    """Evaluate log N(x; mean, cov) for x [d], normalised."""
    mean, cov = jnp.asarray(mean, x.dtype), jnp.asarray(cov, x.dtype)
    chol = jnp.linalg.cholesky(cov)
    white = jax.scipy.linalg.solve_triangular(chol, x - mean, lower=True)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
    return -0.5 * (jnp.sum(white**2) + log_det + x.shape[-1] * jnp.log(2 * jnp.pi))


def bivariate_gaussian(x: jax.Array) -> jax.Array:
    """Evaluate log N(x; (1, 1), [[1.2, 0.7], [0.7, 0.5]]), normalised."""
    return gaussian(x, GAUSSIAN_MEAN, GAUSSIAN_COV)


def gaussian_mixture(x: jax.Array) -> jax.Array:
    """Evaluate 8 equal Gaussians of standard deviation 0.15 on the unit circle, normalised."""
    angles = np.arange(8) * np.pi / 4
    means = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=-1), x.dtype)
    exponents = -0.5 * jnp.sum((x[None] - means) ** 2, axis=-1) / MIXTURE_STD**2
    return jax.nn.logsumexp(exponents) - np.log(8 * 2 * np.pi * MIXTURE_STD**2)


def wave(x: jax.Array) -> jax.Array:
    """Evaluate two ridges, one following -sin(pi x0 / 2), one displaced; unnormalised."""
    w = jnp.sin(jnp.pi * x[0] / 2)
    bump = 3.0 * jnp.exp(-((x[0] - 1.0) ** 2) / 0.72)
    return jnp.logaddexp(-0.5 * ((x[1] + w) / 0.35) ** 2, -0.5 * ((-x[1] - w + bump) / 0.35) ** 2)


def dual_moon(x: jax.Array) -> jax.Array:
    """Evaluate two opposite arcs of a ring of radius 2; unnormalised."""
    square = jnp.sum(x**2)
    tiny = jnp.finfo(x.dtype).tiny
    radius = jnp.sqrt(jnp.maximum(square, tiny))  # finite gradient at the centre
    sides = jnp.logaddexp(-0.5 * ((x[0] + 2.0) / 0.6) ** 2, -0.5 * ((x[0] - 2.0) / 0.6) ** 2)
    return -3.125 * (radius - 2.0) ** 2 + sides


_LOG_HUNDREDTH = float(np.log(0.01))

TARGETS = {
    "wave": Target(wave, 10.0, (0.0, 0.0), (0.0, 0.0)),
    "dual_moon": Target(dual_moon, 3.0, (0.0, 0.0), (0.0, 0.0)),
    "gaussian_mixture": Target(gaussian_mixture, 1.3, (0.0, 0.0), (_LOG_HUNDREDTH, _LOG_HUNDREDTH)),
    "bivariate_gaussian": Target(bivariate_gaussian, 4.0, (0.0, 0.0), (0.0, 0.0)),
}
