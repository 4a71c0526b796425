"""The vectorised sine: as exact as single precision allows, with the right derivatives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions.sine import cosine, sine

PAIRS = [(sine, np.sin), (cosine, np.cos)]


@pytest.mark.parametrize(("ours", "true"), PAIRS)
@pytest.mark.parametrize("bound", [4.0, 300.0, 1e4])
def test_error_is_below_two_units_of_rounding(ours, true, bound):
    x = np.random.default_rng(0).uniform(-bound, bound, 200_000).astype(np.float32)
    error = np.abs(np.asarray(jax.jit(ours)(x), np.float64) - true(x.astype(np.float64)))
    assert error.max() < 2e-7


@pytest.mark.parametrize(("ours", "true"), PAIRS)
def test_multiples_of_a_quarter_turn(ours, true):
    x = (np.arange(-40, 41) * (np.pi / 2)).astype(np.float32)
    np.testing.assert_allclose(ours(x), true(x.astype(np.float64)), atol=2e-7)
    assert sine(jnp.float32(0.0)) == 0.0


def test_derivatives_of_first_and_second_order():
    x = jnp.linspace(-7.0, 7.0, 101)
    chex.assert_trees_all_close(jax.vmap(jax.grad(sine))(x), jnp.cos(x), atol=5e-7)
    chex.assert_trees_all_close(jax.vmap(jax.grad(cosine))(x), -jnp.sin(x), atol=5e-7)
    chex.assert_trees_all_close(jax.vmap(jax.grad(jax.grad(sine)))(x), -jnp.sin(x), atol=5e-7)
    _, tangent = jax.jvp(sine, (x,), (2.0 * jnp.ones_like(x),))
    chex.assert_trees_all_close(tangent, 2.0 * jnp.cos(x), atol=1e-6)


def test_double_precision_is_the_library_s():
    with jax.enable_x64(True):
        x = jnp.linspace(-50.0, 50.0, 1001)
        np.testing.assert_array_equal(sine(x), jnp.sin(x))
        np.testing.assert_array_equal(cosine(x), jnp.cos(x))


def test_nonfinite_input_is_nan():
    assert np.isnan(sine(jnp.array([np.inf, -np.inf, np.nan], jnp.float32))).all()
