"""Function representations: a plain loop, the published sizes, and how they start."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import encodings, siren

N, K, B = 13, 3, 2  # points, components, items
PUBLISHED = [((4, 4, 4), 3, 1083), ((32, 32), 3, 9379), ((64, 64, 64), 3, 24963)]
PUBLISHED += [((64, 64, 64), 1, 24833)]
MODULES = {
    "siren": siren.Siren((5, 7), 2, omega=3.0),
    "fourier": siren.FourierMLP((5, 7), 2, num_frequencies=4),
}


def features_of(module, x):
    """Returns what the first layer sees of the coordinates [N, d], in double precision."""
    if isinstance(module, siren.Siren):
        return x
    phase = 2 * np.pi * x @ np.float64(encodings.frequencies(4, x.shape[-1])).T
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)


@pytest.mark.parametrize("name", MODULES)
def test_networks_are_the_loop_over_layers(name, key):
    module = MODULES[name]
    x = jax.random.uniform(key, (N, 2), minval=-1.0)
    params = module.init(key, x[0])["params"]
    noise = jax.random.split(jax.random.key(1), 6)
    leaves, tree = jax.tree.flatten(params)
    leaves = [a + 0.1 * jax.random.normal(k, a.shape) for k, a in zip(noise, leaves, strict=True)]
    params = jax.tree.unflatten(tree, leaves)
    got = jax.vmap(lambda x: module.apply({"params": params}, x))(x)
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

    @jax.jit
    @jax.vmap
    def run(x):
        return module.apply(params, x, capture_intermediates=True)[1]["intermediates"]

    phases = run(x)
    for i in range(1, depth):
        phase = phases[f"layer_{i}"]["__call__"][0]
        assert 0.8 < phase.std() < 1.05  # s^2 = 1 - exp(-2 s^2) has the solution s = 0.89
        assert abs(phase.mean()) < 0.15
    assert 0.5 < phases["output"]["__call__"][0].std() < 1.5


def dot_generals(jaxpr):
    """Yields all matrix products of a jaxpr, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from dot_generals(inner)


@pytest.mark.parametrize("name", MODULES)
def test_first_layers_of_all_networks_are_one_product(name, key):
    module = MODULES[name]
    size = 2 if name == "siren" else 8  # of what the first layer sees
    params = jax.vmap(jax.vmap(lambda k: module.init(k, jnp.zeros(2))))(
        jax.random.split(key, (B, K))
    )
    over_points = jax.vmap(module.apply, (None, 0))
    run = jax.vmap(jax.vmap(over_points, (0, None)), (0, None))
    found = {}
    for equation in dot_generals(jax.make_jaxpr(run)(params, jnp.zeros((N, 2))).jaxpr):
        shapes = [v.aval.shape for v in equation.invars]
        if (B, K, size, 5) in shapes:
            found["first"] = equation, shapes
        if (B, K, 5, 7) in shapes:
            found["second"] = equation, shapes
    equation, shapes = found["first"]
    assert shapes == [(B, K, size, 5), (N, size)]  # the coordinates are not repeated
    (_, batch), result = equation.params["dimension_numbers"], equation.outvars[0].aval.shape
    assert batch == ((), ())
    assert result == (B, K, 5, N)
    # and, on the contrary, the second layer is a product an item and component
    assert found["second"][0].params["dimension_numbers"][1] == ((0, 1), (0, 1))
