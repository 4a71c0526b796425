"""The diffusion model against Gaussian data, for which the velocity is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import diffusion
from tests.functions.programs import jit

MEAN, STD = jnp.array([1.0, -0.5]), jnp.array([0.3, 1.4])


def exact(x, angle):
    """Returns E[cos(a) eps - sin(a) x_0 | x] for x_0 ~ N(MEAN, STD^2)."""
    c, s = jnp.cos(angle)[..., None], jnp.sin(angle)[..., None]
    gain = c * STD**2 / (c**2 * STD**2 + s**2)
    return (c * x - (MEAN + gain * (x - c * MEAN))) / s


def test_sampler_maps_noise_to_data(key):
    """The exact flow takes noise eps to MEAN + STD eps; the error of n steps falls as 1 / n."""
    want = MEAN + STD * jax.random.normal(key, (200, 2))
    error = []
    for num in (20, 80):
        draw = jit(functools.partial(diffusion.sample, num_steps=num), static_argnums=(1, 2))
        error.append(float(jnp.max(jnp.abs(draw(key, exact, (200, 2)) - want))))
    assert error[1] < 0.1
    assert 2.5 < error[0] / error[1] < 6.0


def test_loss_is_least_at_the_exact_velocity(key):
    """Its slope in a factor on the velocity, and in an offset, is 0 there within the noise."""
    data = MEAN + STD * jax.random.normal(jax.random.fold_in(key, 1), (64, 20000 // 64, 2))

    def slopes(pair):
        def moved(by):
            velocity = lambda x, a: (1 + by[0]) * exact(x, a) + by[1]
            return diffusion.loss(pair[0], velocity, pair[1])

        return jax.value_and_grad(moved)(jnp.zeros(2))

    losses, found = jit(lambda *pairs: jax.lax.map(slopes, pairs))(jax.random.split(key, 64), data)
    error = found.std(axis=0) / 8
    assert np.all(np.abs(found.mean(axis=0)) < 4 * error)
    assert losses.mean() < 1.0


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_denoiser_takes_leading_axes_and_starts_at_zero(shape, key):
    model = diffusion.Denoiser(2, width=4, num_blocks=1)
    x, angle = jnp.ones((*shape, 2)), jnp.full(shape, 0.3)
    params = model.init(key, jnp.zeros(2), jnp.zeros(()))
    np.testing.assert_array_equal(model.apply(params, x, angle), jnp.zeros((*shape, 2)))


def test_every_parameter_of_the_denoiser_is_trained(key):
    model = diffusion.Denoiser(2, width=4, num_blocks=1)
    params = model.init(key, jnp.zeros(2), jnp.zeros(()))
    moved = lambda p: p + 0.1 * jax.random.normal(key, p.shape)  # the last layer starts at 0
    params = jax.tree.map(moved, params)
    x = MEAN + STD * jax.random.normal(key, (64, 2))
    loss = lambda params: diffusion.loss(key, lambda x, a: model.apply(params, x, a), x)
    slopes = jit(jax.grad(loss))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))
