"""Tuning: the short example, learning in every mode, robustness, errors; effective sample size."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import densities, diagnostics, hmc, tuning


def test_fifteen_line_example():
    """The block that docs/hmc.md shows, run as it is printed: there is no second copy."""
    page = (Path(__file__).parents[2] / "docs" / "hmc.md").read_text()
    shown = page.split("```python\n")[1].split("```")[0]
    lines = [
        line for line in shown.splitlines() if line and not line.startswith(("import", "from"))
    ]
    assert len(lines) <= 15
    names = {}
    exec(compile(shown, "docs/hmc.md", "exec"), names)
    chains, metrics, scale = names["chains"], names["metrics"], names["scale"]
    assert metrics.accept_prob.shape == (600, 10)
    np.testing.assert_allclose(chains.position.std(0), scale, rtol=0.15)
    assert 0.6 < chains.info.accept_prob.mean() < 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "detached"},
        {"gradient": "exact"},
        {"objective": "chees"},
        {"learn": ("step_size", "momentum_var"), "accept_target": None},
    ],
    ids=["detached", "exact", "chees", "momentum"],
)
def test_tuning_moves_towards_the_target(options):
    cov = jnp.array([[0.09, 0.0], [0.0, 1.0]])
    mean = jnp.array([1.0, -1.0])
    run = jax.jit(
        lambda key: tuning.tune(
            key, densities.gaussian, jnp.zeros(2), jnp.zeros(2), mean, cov, num_steps=80,
            num_transitions=4, num_leapfrog=3, num_chains=60, num_chains_stein=30,
            initial_step_size=0.03, learning_rate=0.05, **options,
        )
    )  # fmt: skip
    parameters, metrics = run(jax.random.key(5))
    chex.assert_tree_all_finite(parameters)
    assert metrics.objective[-20:].mean() > metrics.objective[:5].mean() + 0.5
    assert parameters.log_step_size.mean() > jnp.log(0.03)
    if "learn" in options:
        assert jnp.all(parameters.log_inflation == 0)
        assert jnp.any(parameters.log_momentum_var != 0)
    else:
        assert jnp.all(parameters.log_momentum_var == 0)
        assert metrics.discrepancy[-20:].mean() < metrics.discrepancy[:5].mean()


@pytest.mark.parametrize("options", [{}, {"gradient": "exact"}, {"objective": "chees"}])
def test_non_finite_regions_leave_parameters_finite(options, key):
    half_line = lambda z: jnp.sum(jnp.log(z) - z)
    parameters, metrics = jax.jit(
        lambda key: tuning.tune(
            key, half_line, jnp.full(2, 1.0), jnp.full(2, -8.0), num_steps=15, num_transitions=3,
            num_chains=30, num_chains_stein=10, initial_step_size=1.5, **options,
        )
    )(key)  # fmt: skip
    chex.assert_tree_all_finite(parameters)
    assert metrics.divergences.max() > 0


def test_layers_of_a_tree(key):
    density = lambda z: -0.5 * (jnp.sum(z["h1"] ** 2) + jnp.sum(z["h2"] ** 2))
    mean = {"h1": jnp.zeros(3), "h2": jnp.zeros(2)}
    parameters, metrics = tuning.tune(
        key, density, mean, mean, num_steps=2, num_transitions=2, num_chains=5, num_chains_stein=5
    )
    assert parameters.log_step_size["h1"].shape == (2, 3)
    assert metrics.log_inflation.shape == (2, 5)


def test_build_repeats_tune(key):
    zeros = jnp.zeros(2)
    options = {"num_chains": 7, "num_chains_stein": 5, "num_leapfrog": 2}
    want, _ = jax.jit(
        lambda key: tuning.tune(
            key, densities.wave, zeros, zeros, num_steps=3, num_transitions=2, **options
        )
    )(key)
    tuner = tuning.build(densities.wave, **options)
    state, step = tuner.init(zeros, 2, 0.1), jax.jit(tuner.step)
    for k in jax.random.split(key, 3):
        state, _ = step(k, state, zeros, zeros)
    chex.assert_trees_all_close(state.parameters, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learn": ("steps",)}, r"learn names \['steps'\]"),
        ({"objective": "elbo"}, "objective is 'elbo'"),
        ({"gradient": "none"}, "tuning needs 'detached' or 'exact'"),
        ({"accept_target": 1.5}, "accept_target is 1.5"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        tuning.build(densities.wave, **options)


def autoregression(key, phi, num_chains, num_draws):
    def body(x, noise):
        x = phi * x + jnp.sqrt(1 - phi**2) * noise
        return x, x

    first, rest = jax.random.split(key)
    start = jax.random.normal(first, (num_chains,))
    _, draws = jax.lax.scan(body, start, jax.random.normal(rest, (num_draws, num_chains)))
    return draws.T[:, :, None]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.4])
def test_effective_sample_size_of_an_autoregression(key, phi):
    draws = autoregression(key, phi, 8, 4000)
    got = diagnostics.effective_sample_size(draws)[0] / 32000
    assert got == pytest.approx((1 - phi) / (1 + phi), rel=0.15)


def test_effective_sample_size_sees_stuck_chains(key):
    draws = jax.random.normal(key, (4, 500, 2)) + jnp.array(
        [[[0.0, 0.0]], [[0, 5]], [[0, 9]], [[0, 2]]]
    )
    good, stuck = diagnostics.effective_sample_size(draws)
    assert good > 1500
    assert stuck < 20
    with pytest.raises(ValueError, match=r"must be \[chains, draws, d\]"):
        diagnostics.effective_sample_size(draws[0])


def test_hmc_efficiency_matches_its_acceptance(key):
    """Half a period of an oscillator mixes at least as well as independent draws."""
    table = jnp.full(200, jnp.log(0.3))
    run = lambda k: hmc.run(
        k, jnp.zeros(1), lambda z: -0.5 * jnp.sum(z**2), table, keep_path=True, gradient="none"
    ).path[1:]
    draws = jax.vmap(run)(jax.random.split(key, 20))
    assert diagnostics.effective_sample_size(draws)[0] > 3000
