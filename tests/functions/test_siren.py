"""Function representations: a plain loop, the published sizes, and how they start."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from functions import encodings, siren
from tests.functions.programs import dot_generals, jit, operands

N, K, B = 13, 3, 2  # points, components, items
PUBLISHED = [((4, 4, 4), 3, 1083), ((32, 32), 3, 9379), ((64, 64, 64), 3, 24963)]
PUBLISHED += [((64, 64, 64), 1, 24833)]
MODULES = {
    "siren": siren.Siren((5, 7), 2, omega=3.0),
    "fourier": siren.FourierMLP((5, 7), 2, num_frequencies=4),
    "coordinates": siren.CoordinateMLP((5, 7), 2),
}


def features_of(module, x):
    """Returns what the first layer sees of the coordinates [N, d], in double precision."""
    if not isinstance(module, siren.FourierMLP):
        return x
    phase = 2 * np.pi * x @ np.float64(encodings.frequencies(4, x.shape[-1])).T
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)


@pytest.mark.parametrize("name", MODULES)
def test_networks_are_the_loop_over_layers(name, key):
    module = MODULES[name]
    x = jax.random.uniform(key, (N, 2), minval=-1.0)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, key, x[0])["params"]
    params = jax.tree.map(lambda s: np.float32(0.7 * rng.normal(size=s.shape)), shapes)
    got = jit(jax.vmap(lambda x: module.apply({"params": params}, x)))(x)
    h = features_of(module, np.float64(x))
    for layer in ("layer_0", "layer_1"):
        h = h @ np.float64(params[layer]["kernel"]) + np.float64(params[layer]["bias"])
        h = np.sin(h) if name == "siren" else np.where(h > 0, h, 0.1 * h)
    want = h @ np.float64(params["output"]["kernel"]) + np.float64(params["output"]["bias"])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("widths", "channels", "count"), PUBLISHED)
def test_published_sizes(widths, channels, count):
    module = siren.FourierMLP(widths, channels)
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(2))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("omega", [6.0, 30.0])
@pytest.mark.parametrize("dim", [1, 3])
def test_phases_of_a_siren_keep_their_size_with_depth(omega, dim, key):
    depth, width = 12, 128
    module = siren.Siren((width,) * depth, 3, omega)
    x = jax.random.uniform(key, (256, dim), minval=-1.0)
    params = module.init(key, x[0])
    first = params["params"]["layer_0"]
    assert 0.9 * omega / dim < jnp.abs(first["kernel"]).max() <= omega / dim
    assert 0.9 * jnp.pi < jnp.abs(first["bias"]).max() <= jnp.pi

    @jit
    @jax.vmap
    def run(x):
        return module.apply(params, x, capture_intermediates=True)[1]["intermediates"]

    phases = run(x)
    for i in range(1, depth):
        phase = phases[f"layer_{i}"]["__call__"][0]
        assert 0.8 < phase.std() < 1.05  # s^2 = 1 - exp(-2 s^2) has the solution s = 0.89
        assert abs(phase.mean()) < 0.15
    assert 0.5 < phases["output"]["__call__"][0].std() < 1.5


@pytest.mark.parametrize("name", MODULES)
def test_first_layers_of_all_networks_are_one_precise_product(name):
    module = MODULES[name]
    size = 8 if name == "fourier" else 2  # of what the first layer sees
    one = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(2))["params"]
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct((B, K, *s.shape), s.dtype), one)
    evaluate = lambda params, x: siren.evaluate(module, params, x)
    run = jax.vmap(jax.vmap(evaluate, (0, None)), (0, None))
    found = {}
    for equation in dot_generals(jax.make_jaxpr(run)(params, jnp.zeros((N, 2))).jaxpr):
        for layer, shape in (("first", (B, K, size, 5)), ("second", (B, K, 5, 7))):
            if operands(equation)[0] == shape:
                found[layer] = equation
    first, second = found["first"], found["second"]
    assert operands(first)[1] == (size, N)  # the coordinates are not repeated
    assert first.params["dimension_numbers"][1] == ((), ())
    assert first.outvars[0].aval.shape == (B, K, 5, N)
    # and, on the contrary, the second layer is a product an item and component
    assert second.params["dimension_numbers"][1] == ((0, 1), (0, 1))
    if name == "siren":  # Fourier features are computed precisely and then of order 1
        assert set(first.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_any_module_is_a_representation(key):
    """A module that only takes one coordinate is mapped over points; ours take all at once."""
    x = jax.random.uniform(key, (N, 2), minval=-1.0)
    for module in (*MODULES.values(), nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])):
        params = jit(module.init)(key, x[0])["params"]
        got = jit(functools.partial(siren.evaluate, module))(params, x)
        want = jit(module.apply)({"params": params}, x[-1])
        assert got.shape == (N, 2)
        np.testing.assert_allclose(got[-1], want, rtol=1e-4, atol=1e-5)
