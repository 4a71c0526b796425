"""Completion by descent: the posterior mode of a linear Gaussian model, and the order of modes."""

import jax.numpy as jnp
import numpy as np
import pytest

from functions import completion
from tests.functions.programs import jit

N, C, Z = 20, 2, 3


@pytest.fixture(scope="module")
def item():
    rng = np.random.default_rng(0)
    return rng.uniform(size=(N, C)).astype(np.float32), rng.uniform(size=N) < 0.7


def test_linear_gaussian_model_is_completed_by_its_posterior_mode(item):
    values, mask = item
    noise = 0.7
    design = np.random.default_rng(1).normal(size=(N * C, Z)).astype(np.float32)
    seen = np.repeat(mask, C)
    precision = np.eye(Z) + design[seen].T @ design[seen] / noise**2
    mode = np.linalg.solve(precision, design[seen].T @ values.ravel()[seen] / noise**2)
    found = jit(
        lambda values: completion.complete(
            jnp.stack([jnp.ones(Z), -jnp.ones(Z)]),
            lambda z: -0.5 * jnp.sum(z**2), lambda z: (design @ z).reshape(N, C),
            values, mask, noise=noise, num_steps=300, learning_rate=0.1,
        )
    )(np.where(mask[:, None], values, np.nan))  # fmt: skip
    np.testing.assert_allclose(found.latents, [mode, mode], atol=1e-3)
    np.testing.assert_allclose(found.energies[0], found.energies[1], rtol=1e-5)


def test_better_modes_come_first(item):
    """Two wells at +-1, the right one deeper; NaN comes last."""
    values, mask = item
    log_prior = lambda z: jnp.sum(-8.0 * (z**2 - 1.0) ** 2 + z)
    found = jit(
        lambda starts: completion.complete(
            starts, log_prior, lambda z: jnp.zeros((N, C)), values, mask,
            noise=1.0, num_steps=200, learning_rate=0.05,
        )
    )(jnp.array([[jnp.nan], [-0.8], [1.3]]))  # fmt: skip
    np.testing.assert_allclose(found.latents[:2, 0], [1.0, -1.0], atol=0.05)
    assert np.isnan(found.latents[2, 0])
    assert found.energies[0] < found.energies[1] - 1.5
