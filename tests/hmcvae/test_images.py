"""Image networks: published sizes, convolutions against their definition, rows apart."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import images
from hmcvae.images import Downsample, ImageDecoder, ImageEncoder, Upsample

# side, kernel: maps of both networks, then odd and tiny ones
MAPS = [(28, 5), (7, 5), (16, 4), (3, 5), (5, 4), (1, 5)]
# weights and biases of the published layers, counted by hand; normalisation has two a channel
ENCODERS = {
    "mnist": (1 * 16 + 16 * 32 + 32 * 32) * 25 + (16 + 32 + 32),
    "celeba": (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 512) * 16
    + 3 * (32 + 32 + 64 + 64 + 512),
}
DECODERS = {
    "mnist": 20 * 512 + 512 + 512 * 512 + 512 + (32 * 32 + 32 * 16 + 16) * 25 + (32 + 16 + 1),
    "celeba": 20 * 512
    + 3 * 512
    + (512 * 64 + 64 * 64 + 64 * 32 + 32 * 32 + 32 * 3) * 16
    + 3 * (64 + 64 + 32 + 32)
    + 3,
}
SIZES = {"mnist": 784, "celeba": 12288}


def convolution(x, kernel, out):
    """y[o] = sum_t x[2 o + t - p] w[t], tap by tap; zero outside the map."""
    size, pad = kernel.shape[0], (kernel.shape[0] - 1) // 2
    side = x.shape[1]
    y = np.zeros((len(x), out, out, kernel.shape[-1]))
    for row, column in np.ndindex(out, out):
        for t, u in np.ndindex(size, size):
            i, j = 2 * row + t - pad, 2 * column + u - pad
            if 0 <= i < side and 0 <= j < side:
                y[:, row, column] += x[:, i, j] @ kernel[t, u]
    return y


def transposed(x, kernel, out):
    """y[2 i + t - p] += x[i] w[t], tap by tap; what falls outside the map is dropped."""
    size, pad = kernel.shape[0], (kernel.shape[0] - 1) // 2
    y = np.zeros((len(x), out, out, kernel.shape[-1]))
    for i, j in np.ndindex(*x.shape[1:3]):
        for t, u in np.ndindex(size, size):
            row, column = 2 * i + t - pad, 2 * j + u - pad
            if 0 <= row < out and 0 <= column < out:
                y[:, row, column] += x[:, i, j] @ kernel[t, u]
    return y


def initialised(key, module, x):
    """Parameters of the module, all different from zero, and its output."""
    params = jax.jit(module.init)(key, x)["params"]
    return params, module.apply({"params": params}, x)


@pytest.mark.parametrize(("side", "kernel"), MAPS)
def test_strided_convolutions_are_their_definition(key, side, kernel):
    x = jax.random.normal(key, (2, side, side, 3))
    params, y = initialised(key, Downsample(5, kernel), x)
    expected = convolution(np.asarray(x), np.asarray(params["kernel"]), -(-side // 2))
    np.testing.assert_allclose(y, expected + params["bias"], atol=1e-5)


@pytest.mark.parametrize(("side", "kernel"), MAPS)
def test_transposed_convolutions_are_their_definition(key, side, kernel):
    x = jax.random.normal(key, (2, -(-side // 2), -(-side // 2), 3))
    params, y = initialised(key, Upsample(5, kernel, side), x)
    expected = transposed(np.asarray(x), np.asarray(params["kernel"]), side)
    np.testing.assert_allclose(y, expected + params["bias"], atol=1e-5)


@pytest.mark.parametrize(("side", "kernel"), MAPS)
def test_upsampling_is_the_adjoint_of_downsampling(key, side, kernel):
    """<x, up(y)> = <down(x), y> where both have one kernel, its channels swapped."""
    x = jax.random.normal(key, (2, side, side, 3))
    params, down = initialised(key, Downsample(5, kernel), x)
    y = jax.random.normal(jax.random.key(1), down.shape)
    swapped = {"kernel": params["kernel"].swapaxes(2, 3), "bias": jnp.zeros(3)}
    up = Upsample(3, kernel, side).apply({"params": swapped}, y)
    left, right = jnp.vdot(x, up), jnp.vdot(down - params["bias"], y)
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "kernel"), [(7, 5), (8, 4)])
def test_gradients_are_those_of_a_strided_convolution(key, side, kernel):
    """Of both modules, with respect to maps, weights and biases, inside a loop too."""
    pad = (kernel - 1) // 2

    def strided(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), [(pad, pad + 2)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[:, : -(-side // 2), : -(-side // 2)]

    def down(params, x):
        return strided(x, params["kernel"]) + params["bias"]

    def up(params, x):
        like = jnp.zeros((len(x), side, side, 5))
        back = jax.linear_transpose(lambda y: strided(y, params["kernel"].swapaxes(2, 3)), like)
        return back(x)[0] + params["bias"]

    for module, definition, size in (
        (Downsample(5, kernel), down, side),
        (Upsample(5, kernel, side), up, -(-side // 2)),
    ):
        x = jax.random.normal(key, (2, size, size, 3))
        params, y = initialised(key, module, x)
        weight = jax.random.normal(jax.random.key(1), y.shape)
        apply = lambda params, x, module=module: module.apply({"params": params}, x)

        def gradients(function, params, x, weight=weight):
            return jax.grad(lambda *v: jnp.vdot(weight, function(*v)), (0, 1))(params, x)

        @jax.jit
        def in_a_loop(params, x, apply=apply, gradients=gradients):
            return jax.lax.map(lambda x: gradients(apply, params, x), x[None])

        expected = gradients(definition, params, x)
        looped = jax.tree.map(lambda leaf: leaf[0], in_a_loop(params, x))
        for found in (gradients(apply, params, x), looped):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("kind", images.KINDS)
def test_networks_have_the_published_number_of_weights(key, kind):
    encoder, decoder = ImageEncoder(kind), ImageDecoder(kind, 512)
    like = jax.eval_shape(encoder.init, key, jnp.zeros(SIZES[kind]))
    assert count(like) == ENCODERS[kind]
    like = jax.eval_shape(decoder.init, key, jnp.zeros(20))
    assert count(like) == DECODERS[kind]


@pytest.mark.parametrize("module", [Downsample(6, 5), Upsample(6, 5, 9)], ids=["down", "up"])
def test_weights_start_uniform_within_one_over_root_fan_in(key, module):
    """Fan-in is channels read times taps; of a transposed convolution, channels written."""
    fan_in = 25 * (40 if isinstance(module, Downsample) else 6)
    params = module.init(key, jnp.zeros((1, 5, 5, 40)))["params"]
    for leaf in jax.tree.leaves(params):
        assert jnp.abs(leaf).max() <= fan_in**-0.5
    spread = jnp.std(params["kernel"]) * fan_in**0.5
    np.testing.assert_allclose(spread, 3**-0.5, rtol=0.05)


NETWORKS = {
    **{f"{kind} encoder": (ImageEncoder(kind), SIZES[kind], 512) for kind in images.KINDS},
    **{f"{kind} decoder": (ImageDecoder(kind, 24), 7, SIZES[kind]) for kind in images.KINDS},
}


@pytest.fixture(params=NETWORKS)
def network(request, key):
    module, width, features = NETWORKS[request.param]
    x = jax.random.normal(key, (2, 3, width))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    return jax.jit(lambda x: module.apply(variables, x)), x, features


def test_leading_axes_are_kept_and_vmap_is_a_batch(network):
    apply, x, features = network
    whole = apply(x)
    assert whole.shape == (2, 3, features)
    np.testing.assert_allclose(apply(x[1, 2]), whole[1, 2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(apply)(x), whole, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it(network):
    apply, x, _ = network
    rows = x.reshape(6, -1)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(apply(rows[order]), apply(rows)[order], rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda x: apply(x)[0].sum())(rows)
    assert jnp.all(slope[1:] == 0)
    assert jnp.any(slope[0] != 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", images.KINDS)
def test_decoders_know_where_a_pixel_is(key, kind):
    """The order of the columns is rows, columns, colours: what the encoder reads."""
    sizes = images.KINDS[kind]
    grid = jnp.zeros((sizes.side, sizes.side, sizes.num_colours)).at[3, 5, -1].set(1.0)
    first = Downsample(sizes.channels[0], sizes.kernel, name="conv0")
    encoder = ImageEncoder(kind)
    variables = encoder.init(key, grid.reshape(-1))
    _, inside = encoder.apply(
        variables, grid.reshape(-1), capture_intermediates=lambda m, _: isinstance(m, Downsample)
    )
    seen = inside["intermediates"]["conv0"]["__call__"][0]
    expected = first.apply({"params": variables["params"]["conv0"]}, grid[None])
    np.testing.assert_array_equal(seen, expected)
    decoder = ImageDecoder(kind, 16)
    variables = decoder.init(key, jnp.ones(7))
    out, inside = decoder.apply(
        variables, jnp.ones(7), capture_intermediates=lambda m, _: isinstance(m, nn.Module)
    )
    last = inside["intermediates"][f"conv{len(sizes.channels) - 1}"]["__call__"][0]
    np.testing.assert_array_equal(out, last.reshape(-1))


@pytest.mark.parametrize(
    ("kind", "num_columns", "sentence"),
    [
        ("mnst", 784, "networks 'mnst' are unknown; use one of table, mnist, celeba"),
        ("mnist", 64, r"read 784 columns \(28 x 28 x 1\), but the table has 64; use networks"),
        ("celeba", 784, r"read 12288 columns \(64 x 64 x 3\), but the table has 784"),
    ],
)
def test_tables_of_other_shapes_are_refused(kind, num_columns, sentence):
    with pytest.raises(ValueError, match=sentence):
        images.check(kind, num_columns)
