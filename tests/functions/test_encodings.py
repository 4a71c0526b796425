"""Fourier features: stored numbers, their distance law and their precision."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import encodings

GOLDEN = Path(__file__).parents[1] / "golden" / "fourier_features.npz"


@pytest.mark.golden
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("group", [f"{c}.{n}" for c in ("c0", "c1") for n in ("image", "sphere")])
def test_golden(group, x64):
    stored = np.load(GOLDEN)
    tolerance = 1e-11 if x64 else 1e-5
    with jax.enable_x64(x64):
        b, x = (jnp.asarray(stored[f"{group}.{k}"]) for k in ("frequencies", "coords"))
        got = jax.jit(encodings.fourier_features)(b, x)
        assert got.dtype == (jnp.float64 if x64 else jnp.float32)
        want = stored[f"{group}.features"]
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_frequencies_are_a_constant_of_their_arguments():
    b = encodings.frequencies(5, 3)
    assert b.shape == (5, 3)
    assert b.dtype == np.float32
    np.testing.assert_array_equal(b, encodings.frequencies(5, 3))
    np.testing.assert_array_equal(encodings.frequencies(5, 3, std=1.0), b / 2)
    assert not np.isin(b, encodings.frequencies(5, 3, seed=1)).any()
    assert b[0, 0] == pytest.approx(0.25146, abs=1e-5)  # NumPy has not changed its stream


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_frequencies_are_standard_normal_times_std(std):
    b = encodings.frequencies(4000, 2, std=std, seed=3)
    assert np.abs(b.mean(axis=0)).max() < 4 * std / np.sqrt(4000)
    covariance = b.T @ b / (4000 * std**2)
    np.testing.assert_allclose(covariance, np.eye(2), atol=4 * np.sqrt(2 / 4000))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_distance_law(dim):
    # |gamma(x) - gamma(x')|^2 is a sum over frequencies, so its error is known from the sample
    num, std = 4000, 2.0
    b = encodings.frequencies(num, dim, std=std, seed=dim)
    x = np.random.default_rng(0).normal(size=(7, dim)).astype(np.float32)
    direction = x / np.linalg.norm(x, axis=-1, keepdims=True)
    distance = np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.5], np.float32)[:, None]
    first = encodings.fourier_features(b, x)
    second = encodings.fourier_features(b, x + distance * direction)
    terms = np.asarray(first - second).reshape(7, 2, num) ** 2
    terms = terms.sum(axis=1)
    law = 2 * num * (1 - np.exp(-2 * (np.pi * std * distance[:, 0]) ** 2))
    error = 4 * terms.std(axis=1) * np.sqrt(num)
    assert (np.abs(terms.sum(axis=1) - law) < error).all()
    assert (error < 0.15 * law).all()


def test_cosines_come_first_and_lie_on_circles(key):
    b = encodings.frequencies(6, 2)
    x = jax.random.uniform(key, (4, 3, 2), minval=-1.0)
    features = encodings.fourier_features(b, x)
    assert features.shape == (4, 3, 12)
    cos, sin = jnp.split(features, 2, axis=-1)
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, rtol=1e-5)
    origin = encodings.fourier_features(b, jnp.zeros(2))
    np.testing.assert_allclose(origin, np.repeat([1.0, 0.0], 6), atol=1e-7)
    mirrored = encodings.fourier_features(b, -x)
    np.testing.assert_allclose(mirrored, jnp.concatenate([cos, -sin], axis=-1), atol=1e-6)


def test_whole_periods_change_nothing():
    b = np.array([[3.0, 0.0], [0.0, -2.0]], np.float32)
    x = np.array([0.1, 0.2], np.float32)
    moved = encodings.fourier_features(b, x + np.array([1.0, 0.5], np.float32))
    np.testing.assert_allclose(moved, encodings.fourier_features(b, x), atol=1e-5)
