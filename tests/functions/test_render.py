"""Rendering: in chunks as at once, on finer grids, with observed values, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import domains, mixture, siren, vamoh
from functions.domains import Domain, Table
from functions.render import render
from tests.functions.programs import jit

DOMAIN = Domain("image", (5, 7), "corners")
N, C, K, Z = 35, 2, 3, 4
MODEL = vamoh.VAMoH(
    siren.Siren((6,), C, omega=3.0), 2, C, Z, K, encoder_channels=(4,), hyper_widths=(6,),
    gate_widths=(7,), encoder_weight_widths=(3,), prior="normal",
)  # fmt: skip
LATENT = np.float32([1.0, -0.5, 0.3, -1.2])
COORDS = domains.coordinates(DOMAIN)
EXACT = ("mean", "most_probable", "segment", "entropy")  # what does not depend on the noise


@pytest.fixture(scope="module")
def params():
    """Parameters drawn without a regard to how they should start; sharp components."""
    rng = np.random.default_rng(0)
    tables = domains.tables(domains.positions(DOMAIN), ((6, 5),))
    geometry = vamoh.Geometry(COORDS, tables, None)
    shapes = jax.eval_shape(lambda key: vamoh.init(key, MODEL, geometry), jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)
    params["gate"]["output"]["kernel"] *= 3.0
    params["hyper"]["emission_bias"] *= 3.0
    params["log_scale"] = params["log_scale"] * 0.3 - 2.0
    return params


@functools.partial(jit, static_argnames="chunk")
def run(params, coords, key=None, **options):
    key = jax.random.key(1) if key is None else key
    return render(key, MODEL, params, jnp.asarray(LATENT), coords, **options)


@jit
def components(params, values):
    """Returns log p(c | x, z), the means and log p(y | c) of all components."""
    apply = lambda method, *args: MODEL.apply({"params": params}, *args, method=method)
    decoded = apply("decode", jnp.asarray(LATENT), COORDS)
    log_lik = apply("log_lik", decoded, values, jnp.ones(N, bool))
    return decoded.log_pi, apply("means", decoded), log_lik


def observed():
    rng = np.random.default_rng(2)
    return rng.uniform(size=(N, C)).astype(np.float32), rng.uniform(size=N) < 0.5


@pytest.mark.parametrize("chunk", [1, 7, 9, 100])  # 9 does not divide 35
@pytest.mark.parametrize("is_observed", [False, True])
def test_chunks_are_rendered_as_the_whole(chunk, is_observed, params):
    values, mask = observed()
    seen = {"values": values, "mask": mask} if is_observed else {}
    whole = run(params, COORDS, chunk=N, **seen)
    parts = run(params, COORDS, chunk=chunk, **seen)
    assert len(set(np.asarray(whole.segment).tolist())) > 1
    for name in EXACT:
        a, b = getattr(parts, name), getattr(whole, name)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
    assert parts.sample.shape == whole.sample.shape == (N, C)


def test_observed_points_take_the_responsibilities(params):
    values, mask = observed()
    log_pi, means, log_lik = components(params, values)
    r = np.where(mask, mixture.responsibilities(log_pi, log_lik), log_pi)
    for log_weights, seen in ((log_pi, {}), (r, {"values": values, "mask": mask})):
        weights = np.exp(np.float64(log_weights))
        out = run(params, COORDS, **seen)
        want = (weights[..., None] * means).sum(0)
        np.testing.assert_allclose(out.mean, want, rtol=1e-5, atol=1e-6)
        segment = weights.argmax(0)
        np.testing.assert_array_equal(out.segment, segment)
        best = np.take_along_axis(np.asarray(means), segment[None, :, None], axis=0)[0]
        np.testing.assert_allclose(out.most_probable, best, rtol=1e-5, atol=1e-6)
        entropy = -(weights * log_weights).sum(0)
        np.testing.assert_allclose(out.entropy, entropy, rtol=1e-4, atol=1e-5)
    assert np.abs(r - log_pi).max() > 1.0
    hidden = np.where(mask[:, None], values, np.nan)
    again = run(params, COORDS, values=hidden, mask=mask)
    jax.tree.map(np.testing.assert_array_equal, again, out)


def test_samples_are_levels_with_the_mean_rendered(params):
    keys = jax.random.split(jax.random.key(3), 3000)
    samples = jax.vmap(lambda key: run(params, COORDS, key=key, chunk=9).sample)(keys)
    levels = np.asarray(samples) * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    out = run(params, COORDS)
    error = 4.5 * samples.std(0) / np.sqrt(len(keys)) + 1e-3  # the mean is that of no bins
    assert (abs(samples.mean(0) - out.mean) < error).all()
    # channels of a point share their component: of the two draws, the spread between components
    log_pi, means, _ = components(params, np.zeros((N, C), np.float32))
    pi = np.exp(log_pi)
    centred = means - out.mean
    between = (pi * centred[..., 0] * centred[..., 1]).sum(0)
    deviation = np.asarray(samples - samples.mean(0))
    product = deviation[..., 0] * deviation[..., 1]
    assert (abs(product.mean(0) - between) < 4.5 * product.std(0) / np.sqrt(len(keys)) + 1e-3).all()
    assert abs(between).max() > 0.01


def test_a_finer_grid_contains_the_coarse_one(params):
    finer = domains.interleaved(DOMAIN)
    large, small = run(params, domains.coordinates(finer), chunk=16), run(params, COORDS)
    index = domains.index_map(DOMAIN, finer)
    for name in EXACT:
        a, b = getattr(large, name)[index], getattr(small, name)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_large_picture_of_a_published_network_takes_little_memory():
    """2048 x 2048 of the networks for CelebA-HQ: compiled, not run."""
    num_components, channels = 10, 3
    model = vamoh.VAMoH(
        siren.FourierMLP((64, 64, 64), channels), 2, channels, 64, num_components,
        encoder_channels=(32,), hyper_widths=(256, 512), gate_widths=(64, 32),
        share_trunk=False, prior="normal", bound="published", paper=True,
    )  # fmt: skip
    shape = jax.ShapeDtypeStruct
    table = Table(shape((4,), jnp.int32), shape((4, 3), jnp.int32), None)
    inputs = (shape((9, 2), jnp.float32), (table,), shape((9, 256), jnp.float32))
    init = lambda key, *inputs: vamoh.init(key, model, vamoh.Geometry(*inputs))
    params = jax.eval_shape(init, jax.random.key(0), *inputs)
    assert params["hyper"]["emission_bias"].shape == (num_components, 24_963)

    def compiled(size):
        draw = jax.jit(lambda key, params, z, coords: render(key, model, params, z, coords))
        args = (shape((64,), jnp.float32), shape((size * size, 2), jnp.float32))
        return draw.lower(jax.random.key(0), params, *args).compile().memory_analysis()

    memory, smaller = compiled(2048), compiled(512)
    output = (3 * channels + 2) * 4 * 2048**2  # eleven numbers a pixel
    assert output <= memory.output_size_in_bytes < 1.01 * output
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 2**30
    # what is not output is for one chunk, at any resolution
    assert 1e7 < smaller.temp_size_in_bytes
    assert memory.temp_size_in_bytes < 1.1 * smaller.temp_size_in_bytes
