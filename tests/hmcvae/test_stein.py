"""Discrepancies: stored numbers, and what a Stein discrepancy must do."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import stein

GOLDEN = Path(__file__).parents[1] / "golden" / "stein.npz"
GROUPS = [f"{c}.{n}" for c in ("c0", "c1") for n in ("n12_d3", "n13_d2", "n40_d5", "n9_d1")]


def close(got, want, rtol=1e-7, atol=1e-8):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


@pytest.mark.golden
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("group", GROUPS)
def test_golden(group, x64):
    stored = np.load(GOLDEN)
    tolerance = {} if x64 else {"rtol": 1e-4, "atol": 1e-5}
    with jax.enable_x64(x64):
        x, s, g = (jnp.asarray(stored[f"{group}.{k}"]) for k in ("samples", "scores", "slices"))
        for name, slices in (("identity", None), ("slices_g", g)):
            for statistic in "VU":
                got = stein.sksd(x, s, slices=slices, statistic=statistic)
                close(got, stored[f"{group}.{name}.sksd_{statistic}_formula"], **tolerance)
                got = stein.sksd(x, s, slices=slices, statistic=statistic, bandwidth="median")
                want = stored[f"{group}.{name}.sksd_{statistic}_offdiag_median"]
                close(got, want, **tolerance)
        eye = stein.sksd(x, s, slices=jnp.eye(x.shape[1]))
        close(eye, stored[f"{group}.identity.sksd_V_hhvaem"], 1e-5)
        for statistic in "VU":
            got = stein.ksd(x, s, statistic=statistic)
            close(got, stored[f"{group}.ksd.{statistic}_formula"], **tolerance)


def test_published_values():
    z = jnp.sin(jnp.arange(10.0)[:, None] + 2.0 * jnp.arange(3.0)[None])
    g = jnp.array([[1, 0.5, 0], [0, 1, 0.5], [0.5, 0, 1]])
    g = g / jnp.linalg.norm(g, axis=-1, keepdims=True)
    assert stein.sksd(z, -z) == pytest.approx(0.897317, abs=1e-5)
    assert stein.sksd(z, -z, slices=g) == pytest.approx(1.012020, abs=1e-5)


@pytest.mark.parametrize("n", [4, 7, 30, 31])
def test_bandwidth_is_the_median_of_a_sort(n):
    x = np.random.default_rng(n).normal(size=(n, 1)).astype(np.float32)
    s = -x
    square = (x - x.T) ** 2
    for bandwidth, values in (
        ("paper", np.sort(square[np.triu_indices(n)])),
        ("median", np.sort(square[np.triu_indices(n, 1)])),
    ):
        med = values[(len(values) - 1) // 2] if bandwidth == "paper" else np.median(values)
        kernel = np.exp(-square / (2 * med))
        want = s * s.T + (s - s.T) * (x - x.T) / med + 1 / med - square / med**2
        close(stein.sksd(x, s, bandwidth=bandwidth), np.mean(want * kernel), 1e-4, 1e-5)


@pytest.mark.parametrize("discrepancy", [stein.sksd, stein.ksd])
def test_zero_for_exact_samples_positive_for_shifted(discrepancy):
    x = jax.random.normal(jax.random.key(3), (200, 20, 2))
    f = jax.jit(jax.vmap(lambda x, s: discrepancy(x, s, statistic="U")))
    exact, shifted = f(x, -x), f(x, -(x + 1.0))
    error = exact.std() / np.sqrt(len(exact))
    assert abs(exact.mean()) < 4 * error
    assert shifted.mean() > 10 * error


def test_permutation_and_batch(key):
    x = jax.random.normal(key, (5, 11, 3))
    s = jnp.cos(x)
    batched = jax.vmap(stein.sksd)(x, s)
    shuffled = jax.random.permutation(key, 11)
    for i in range(5):
        close(stein.sksd(x[i], s[i]), batched[i], 1e-5, 1e-6)
        close(stein.sksd(x[i][shuffled], s[i][shuffled]), batched[i], 1e-4, 1e-5)


def test_u_and_v_differ_by_the_diagonal(key):
    x = jax.random.normal(key, (13, 3))
    s, n = -x, 13
    for f in (stein.sksd, stein.ksd):
        off = f(x, s, statistic="U") * n * (n - 1)
        diagonal = f(x, s, statistic="V") * n**2 - off
        assert diagonal > jnp.sum(s**2)


def test_gradient_reaches_samples_only(key):
    x = jax.random.normal(key, (9, 3))
    gx, gs = jax.grad(stein.sksd, (0, 1))(x, -x)
    assert jnp.all(gs == 0)
    assert jnp.all(jnp.isfinite(gx))
    assert jnp.any(gx != 0)
    gs = jax.grad(lambda s: stein.sksd(x, s, differentiate_scores=True))(-x)
    assert jnp.any(gs != 0)


@pytest.mark.parametrize("bandwidth", ["paper", "median"])
def test_coinciding_samples_stay_finite(bandwidth):
    x = jnp.ones((6, 2))
    value, slope = jax.value_and_grad(stein.sksd)(x, -x, bandwidth=bandwidth)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.isfinite(stein.ksd(x, -x))


def test_slices_find_the_direction_of_the_error(key):
    x = jax.random.normal(key, (200, 3))
    direction = jnp.array([0.6, 0.8, 0.0])
    s = -(x - 2.0 * jnp.tanh(x @ direction)[:, None] * direction)  # two modes along `direction`
    eye = stein.sksd(x, s, statistic="U")
    active = stein.active_slices(x, s)
    learned = stein.ascend_slices(x, s, active, num_steps=30)
    close(jnp.linalg.norm(active, axis=-1), jnp.ones(3), 1e-5)
    close(jnp.linalg.norm(learned, axis=-1), jnp.ones(3), 1e-5)
    assert abs(active[0] @ direction) > 0.95
    assert stein.sksd(x, s, slices=active, statistic="U") > eye
    assert stein.sksd(x, s, slices=learned) > stein.sksd(x, s, slices=active)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"samples": jnp.ones(3), "scores": jnp.ones(3)}, r"must both be \[n, d\]"),
        ({"samples": jnp.ones((1, 2)), "scores": jnp.ones((1, 2))}, "give n >= 2"),
        ({"statistic": "W"}, "must be 'V' or 'U'"),
        ({"bandwidth": "mean"}, "must be 'paper' or 'median'"),
    ],
)
def test_errors(kwargs, match):
    given = {"samples": jnp.ones((3, 2)), "scores": jnp.ones((3, 2))} | kwargs
    with pytest.raises(ValueError, match=match):
        stein.sksd(given.pop("samples"), given.pop("scores"), **given)
