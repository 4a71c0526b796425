"""Targets against stored numbers and brute-force integration."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import densities

GOLDEN = Path(__file__).parents[1] / "golden" / "hmc_densities.npz"
NAMES = sorted(densities.TARGETS)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
@pytest.mark.parametrize("name", NAMES)
def test_golden(name, case):
    stored = np.load(GOLDEN)
    f = jax.value_and_grad(densities.TARGETS[name].log_density)
    group = f"{case}.{name}"
    for x64, rtol, atol in ((True, 1e-10, 1e-10), (False, 1e-4, 1e-4)):  # scores reach 1e2
        with jax.enable_x64(x64):
            value, score = jax.jit(jax.vmap(f))(jnp.asarray(stored[f"{group}.points"]))
        np.testing.assert_allclose(value, stored[f"{group}.logp_correct"], rtol=rtol, atol=atol)
        np.testing.assert_allclose(score, stored[f"{group}.score_correct"], rtol=rtol, atol=atol)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_gaussian(case):
    stored = np.load(GOLDEN)
    g = {k: stored[f"{case}.gauss3d.{k}"] for k in ("mean", "cov", "points")}
    with jax.enable_x64(True):
        f = jax.vmap(jax.value_and_grad(densities.gaussian), (0, None, None))
        value, score = f(*map(jnp.asarray, (g["points"], g["mean"], g["cov"])))
    np.testing.assert_allclose(value, stored[f"{case}.gauss3d.logp_ref"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(score, stored[f"{case}.gauss3d.score_ref"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("wave", (0.5, 0.2), -3.289973),
        ("dual_moon", (1.0, 1.0), -2.461205),
        ("gaussian_mixture", (0.3, 0.2), -9.431206),
        ("bivariate_gaussian", (0.3, 0.2), -1.775149),
    ],
)
def test_published_values(name, point, value):
    got = densities.TARGETS[name].log_density(jnp.asarray(point))
    assert got == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("name", ["gaussian_mixture", "bivariate_gaussian"])
def test_normalised(name):
    target = densities.TARGETS[name]
    axis = np.linspace(-6.0, 6.0, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    total = np.exp(jax.jit(jax.vmap(target.log_density))(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_finite_far_away_and_at_the_centre(name):
    points = jnp.array([[0.0, 0.0], [80.0, -90.0], [-300.0, 0.1]])
    f = jax.vmap(jax.value_and_grad(densities.TARGETS[name].log_density))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in f(points))
