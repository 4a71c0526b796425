"""Blockwise sums: the value and the gradient of the plain sum, whatever the blocks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions.blockwise import block_sum

N, B = 13, 5


def fit(weights, features, data, is_real):
    """Something with the shape of a likelihood: a sum over points, an auxiliary sum."""
    per_point = jnp.sin(data["x"] @ weights["w"] + features[:, 0]) * features[:, 1]
    keep = data["mask"] & is_real
    return jnp.sum(jnp.where(keep, per_point, 0.0)), jnp.sum(keep * 1.0)


def make(key):
    keys = jax.random.split(key, 4)
    weights = {"w": jax.random.normal(keys[0], (B, 3))}
    features = jax.random.normal(keys[1], (N, 2))
    data = {
        "x": jax.random.normal(keys[2], (N, 3)),
        "mask": jax.random.bernoulli(keys[3], 0.7, (B, N)),
    }
    return weights, features, data


def over_items(f):
    """Items differ in weights and mask, and share features and coordinates: [B], [B]."""
    axes = ({"w": 0}, None, {"x": None, "mask": 0})
    return jax.vmap(f, in_axes=axes)


def plain(weights, features, data):
    return fit(weights, features, data, jnp.ones(N, bool))


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
def test_blocks_change_neither_value_nor_gradient(key, jit, chunk):
    args = make(key)

    def objective(f):
        def run(weights, features, data):
            values, counts = over_items(f)(weights, features, data)
            return jnp.sum(jnp.square(values)), counts

        return jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))

    expected, found = objective(plain)(*args), objective(block_sum(fit, chunk))(*args)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-5)


def test_value_without_a_gradient(key):
    args = make(key)
    chex.assert_trees_all_close(
        over_items(block_sum(fit, 4))(*args), over_items(plain)(*args), rtol=1e-5, atol=1e-5
    )


def test_replicas_outside_items(key):
    args = jax.vmap(make)(jax.random.split(key, 2))
    run = lambda f: jax.vmap(jax.grad(lambda *a: jnp.sum(over_items(f)(*a)[0])))(*args)
    chex.assert_trees_all_close(run(block_sum(fit, 4)), run(plain), rtol=1e-5, atol=1e-5)


def test_memory_does_not_grow_with_points_or_items():
    """Activations [B, N, 64] of the plain sum are kept for the way back, those of a block not."""

    def deep(weights, features, data, is_real):
        h = data
        for w in weights:
            h = jnp.tanh(h @ w)
        return jnp.sum(jnp.where(is_real[:, None], h, 0.0)) + jnp.sum(features), jnp.zeros(())

    def memory(num_items, num_points, chunk):
        f = block_sum(deep, chunk) if chunk else lambda *a: deep(*a, jnp.ones(num_points, bool))
        weights = [jax.ShapeDtypeStruct((num_items, 64, 64), jnp.float32)] * 4
        features = jax.ShapeDtypeStruct((num_points,), jnp.float32)
        data = jax.ShapeDtypeStruct((num_points, 64), jnp.float32)
        total = lambda *a: jnp.sum(jax.vmap(f, in_axes=(0, None, None))(*a)[0])
        compiled = jax.jit(jax.grad(total)).lower(weights, features, data).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = memory(8, 512, 256), memory(8, 4096, 256)
    assert large < 2 * small
    assert large < 0.2 * memory(8, 4096, 0)


def test_a_step_of_training_compiles_once(key):
    run = jax.jit(
        chex.assert_max_traces(lambda *a: jax.grad(lambda *b: block_sum(fit, 4)(*b)[0])(*a), n=1)
    )
    for i in range(3):
        weights, features, data = make(jax.random.fold_in(key, i))
        one = {"w": weights["w"][0]}, features, {"x": data["x"], "mask": data["mask"][0]}
        assert np.isfinite(run(*one)["w"]).all()
