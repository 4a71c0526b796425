"""Hypernetworks: the loop over latents and components, any target, the start, stored numbers."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from functions import encodings, siren
from functions.hypernet import HyperNetwork, offset_scale
from tests.functions.programs import jit

GOLDEN = Path(__file__).parents[1] / "golden" / "hypernet.npz"
B, K, Z = 3, 2, 5
PUBLISHED = [  # widths, channels, Z, width of the hypernetwork, K, size of one, size of all
    ((4, 4, 4), 3, 16, 16, 4, 36_555, 146_220),
    ((32, 32), 3, 32, 128, 5, 2_447_651, 12_238_255),
    ((64, 64, 64), 3, 64, 256, 10, 12_954_243, 129_542_430),
    ((64, 64, 64), 1, 32, 256, 3, 12_879_361, 38_638_083),
]


class Target(nn.Module):
    """Not a function representation: layers with and without bias, a normalisation, a scalar."""

    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(7, kernel_init=self.kernel_init, name="dense")(x)
        h = nn.LayerNorm(name="norm")(nn.gelu(h))
        h = nn.Dense(3, use_bias=False, kernel_init=self.kernel_init, name="linear")(h)
        return h * self.param("gain", nn.initializers.constant(2.0), ())


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def ravel(tree):
    """Flattens parameters [K, ...] to the order in which they are emitted, [K, P]."""
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in leaves], axis=-1)


@functools.partial(jit, static_argnums=0)
def init(module, key, x):
    return module.init(key, x)["params"]


@functools.partial(jit, static_argnums=0)
def emit(hyper, params, z):
    return jax.vmap(lambda z: hyper.apply({"params": params}, z))(z)


def drawn(module, x):
    """Returns parameters of the module, drawn without a regard to how they should start."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("share_trunk", [False, True])
def test_emission_is_the_loop_over_latents_and_components(share_trunk, raw, key):
    hyper = HyperNetwork(Target(), 2, K, (6, 8), share_trunk=share_trunk, raw=raw)
    z = jax.random.normal(key, (B, Z))
    params = drawn(hyper, z[0])
    emitted = emit(hyper, params, z)
    trunks = 1 if share_trunk else K
    assert params["trunk_1"]["kernel"].shape == (trunks, 6, 8)
    template = jax.eval_shape(Target().init, key, jnp.zeros(2))["params"]
    assert jax.tree.structure(emitted) == jax.tree.structure(template)
    scale = np.ones(count(template)) if raw else offset_scale(
        [leaf.shape for leaf in jax.tree.leaves(template)]
    )  # fmt: skip
    double = jax.tree.map(np.float64, params)
    for b in range(B):
        flat = ravel(jax.tree.map(lambda leaf, b=b: leaf[b], emitted))
        for k in range(K):
            h = np.float64(z[b])
            for name in ("trunk_0", "trunk_1"):
                layer = jax.tree.map(lambda a, k=k: a[0 if share_trunk else k], double[name])
                h = h @ layer["kernel"] + layer["bias"]
                h = np.where(h > 0, h, 0.1 * h)
            offset = scale * (double["emission_kernel"][k] @ h)
            want = double["emission_bias"][k] + offset
            np.testing.assert_allclose(flat[k], want, rtol=1e-4, atol=1e-5)


def test_offsets_are_scaled_by_fan_in():
    shapes = [(7,), (4, 7), (3, 3, 2, 5), ()]
    want = [1.0] * 7 + [0.5] * 28 + [18**-0.5] * 90 + [1.0]
    np.testing.assert_allclose(offset_scale(shapes), want, rtol=1e-6)


@pytest.mark.parametrize("share_trunk", [False, True])
def test_base_weights_are_those_the_target_starts_with(share_trunk, key):
    numbered = lambda key, shape, dtype=jnp.float32: jnp.arange(math.prod(shape)).reshape(shape) / 7
    z = jax.random.normal(key, (B, Z))
    for kernel_init, is_random in ((numbered, False), (nn.initializers.lecun_normal(), True)):
        target = Target(kernel_init)
        hyper = HyperNetwork(target, 2, K, (6,), share_trunk=share_trunk)
        params = init(hyper, key, z[0])
        params["emission_kernel"] = jnp.zeros_like(params["emission_kernel"])
        emitted = emit(hyper, params, z)
        own = jax.device_get(init(target, key, jnp.zeros(2)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(own):
            name = jax.tree_util.keystr(path)
            got = np.asarray(functools.reduce(lambda tree, step: tree[step.key], path, emitted))
            np.testing.assert_array_equal(got, np.broadcast_to(got[:1], got.shape), name)  # any z
            if is_random and "kernel" in name:  # a draw of its own for every component
                assert (got[0, 0] != got[0, 1]).all()
                bound = 2 / 0.87962566 / np.sqrt(leaf.shape[0])  # where the normal is truncated
                assert (np.abs(got) < bound).all()
            else:
                np.testing.assert_array_equal(got, np.broadcast_to(leaf, got.shape), name)


def test_offsets_start_smaller_than_the_base(key):
    hyper = HyperNetwork(siren.FourierMLP((32, 32), 3), 2, 4)
    z = jax.random.normal(key, (50, 16))
    emitted = emit(hyper, init(hyper, key, z[0]), z)
    for name in ("layer_0", "layer_1", "output"):
        kernel = emitted[name]["kernel"]  # [B, K, in, out]
        offset, base = kernel.std(axis=0).mean(), kernel.mean(axis=0).std()
        assert 0.05 < offset / base < 0.5


def test_every_parameter_is_trained(key):
    hyper = HyperNetwork(Target(), 2, K, (6, 8))
    z = jax.random.normal(key, (Z,))
    params = drawn(hyper, z)

    def loss(params, z):
        theta = hyper.apply({"params": params}, z)
        out = jax.vmap(lambda theta: Target().apply({"params": theta}, jnp.ones(2)))(theta)
        return jnp.sum(jnp.sin(out))

    grads, grad_z = jit(jax.grad(loss, (0, 1)))(params, z)
    assert all(g.any() for g in jax.tree.leaves(grads))
    assert grad_z.all()


@pytest.mark.parametrize(("widths", "channels", "size", "width", "num", "one", "total"), PUBLISHED)
def test_published_sizes(widths, channels, size, width, num, one, total):
    target = siren.FourierMLP(widths, channels)
    for components, expected in ((1, one), (num, total)):
        hyper = HyperNetwork(target, 2, components, (width, 2 * width), share_trunk=False, raw=True)
        assert count(jax.eval_shape(hyper.init, jax.random.key(0), jnp.zeros(size))) == expected


def test_released_start(key):
    """Standard deviations of emitted weights, as measured on the released code (PolyMNIST)."""
    target = siren.FourierMLP((4, 4, 4), 3)
    hyper = HyperNetwork(target, 2, 4, (16, 32), share_trunk=False, raw=True)
    z = jax.random.normal(key, (200, 16))
    emitted = emit(hyper, init(hyper, key, z[0]), z)
    weights = emitted["layer_0"]["kernel"]
    np.testing.assert_allclose(weights.std(), 0.155, rtol=0.1)


def load(case, group):
    stored, prefix = np.load(GOLDEN), f"{case}.{group}."
    return {k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)}


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_decode(case, monkeypatch):
    layout, g = load(case, "layout"), load(case, "decode")
    monkeypatch.setattr(encodings, "frequencies", lambda *args, **options: g["frequencies"])
    # where our leaves stand in their flat vector: their matrices are [out, in]
    places = {
        name: {"kernel": layout[f"w{i}_of_arange"].T, "bias": layout[f"b{i}_of_arange"]}
        for i, name in enumerate(("layer_0", "layer_1", "output"))
    }
    order = ravel(jax.tree.map(lambda leaf: leaf[None], places))[0].astype(int)
    assert len(order) == layout["num_params"]
    both = lambda name: np.stack([g[f"hyper{k}_{name}"] for k in range(2)])
    with jax.enable_x64(True):
        params = {
            f"trunk_{i}": {"kernel": both(f"w{i}").swapaxes(1, 2), "bias": both(f"b{i}")}
            for i in range(2)
        }
        params["emission_kernel"] = both("w2")[:, order]
        params["emission_bias"] = both("b2")[:, order]
        params = jax.tree.map(jnp.asarray, params)
        target = siren.FourierMLP((4, 4), 2, num_frequencies=3)
        hyper = HyperNetwork(target, 2, 2, (5, 10), share_trunk=False, raw=True)
        emitted = emit(hyper, params, jnp.asarray(g["z"]))
        for b in range(2):
            flat = ravel(jax.tree.map(lambda leaf, b=b: leaf[b], emitted))
            want = g["emitted_flat"][:, b, order]
            np.testing.assert_allclose(flat, want, rtol=1e-8, atol=1e-8)
        at_point = lambda theta, x: target.apply({"params": theta}, x)
        over = jax.vmap(at_point, (None, 0))  # points, then components, then items
        decode = jax.vmap(jax.vmap(over, (0, None)), (0, None))
        logits = decode(emitted, jnp.asarray(g["coords"]))
        want = np.moveaxis(g["logits"], -1, 1)  # [B, n, C, K]
        np.testing.assert_allclose(logits, want, rtol=1e-8, atol=1e-8)
