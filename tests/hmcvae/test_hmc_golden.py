"""The sampler against stored numbers of an independent implementation."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import densities, hmc, stein
from tests.hmcvae.test_hmc import close

GOLDEN = Path(__file__).parents[1] / "golden"


def target(stored, group):
    name = group.split(".")[1]
    if name == "gauss3d":
        root = ".".join(group.split(".")[:2])
        mean, cov = jnp.asarray(stored[f"{root}.mean"]), jnp.asarray(stored[f"{root}.cov"])
        return lambda z: densities.gaussian(z, mean, cov)
    return densities.TARGETS[name].log_density


LEAPFROG = [
    f"{c}.{n}"
    for c in ("c0", "c1")
    for n in ("bivariate_gaussian", "gaussian_mixture", "dual_moon", "wave", "gauss3d")
]


@pytest.mark.golden
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("group", LEAPFROG)
def test_golden_leapfrog(group, x64):
    file = np.load(GOLDEN / "hmc_leapfrog.npz")
    tolerance = (1e-9, 1e-9) if x64 else (1e-4, 1e-4)
    with jax.enable_x64(x64):
        stored = {k: jnp.asarray(v) for k, v in file.items() if k.startswith(group)}
        density = target(stored, group)
        z0, step = stored[f"{group}.z0"], stored[f"{group}.eps"]
        for suffix, end in (("", ""), (".momvar", "_correct")):
            p0 = stored[f"{group}{suffix}.r0"]
            sd = jnp.exp(0.5 * stored[f"{group}.momvar.log_v"]) if suffix else jnp.ones(len(step))
            noise = hmc.Noise(p0[:, None] / sd, jnp.full((len(z0), 1), -1e6))
            one = partial(hmc.leapfrog, log_density=density, step_size=step / sd)
            ends, p = jax.vmap(lambda z, p, f=one: f(hmc.init(density, z), p))(z0, p0 / sd)
            close(ends.position, stored[f"{group}{suffix}.z1"], *tolerance)
            close(p * sd, stored[f"{group}{suffix}.r1"], *tolerance)
            log_var = 2 * jnp.log(sd)[None]
            chain = jax.vmap(
                lambda n, z, v=log_var: hmc.replay(
                    n, z, density, jnp.log(step)[None], log_momentum_var=v
                )
            )(noise, z0)
            close(-chain.info.energy_error[:, 0], stored[f"{group}{suffix}.dH{end}"], *tolerance)
            close(
                chain.info.accept_prob[:, 0], stored[f"{group}{suffix}.p_accept{end}"], *tolerance
            )


@pytest.mark.golden
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_far_from_the_ridge(case, x64):
    file = np.load(GOLDEN / "hmc_accept.npz")
    tolerance = (1e-9, 1e-9) if x64 else (1e-3, 1e-4)
    with jax.enable_x64(x64):
        s = {k.split(".")[-1]: jnp.asarray(v) for k, v in file.items() if f"{case}.wave_far" in k}
        f = lambda z, p: hmc.leapfrog(hmc.init(densities.wave, z), p, densities.wave, s["eps"])
        ends, p = jax.vmap(f)(s["z0"], s["r0"])
        close(ends.position, s["z1_correct"], *tolerance)
        close(p, s["r1_correct"], *tolerance)


STEP = [f"{c}.{n}" for c in ("c0", "c1") for n in ("gauss3d", "dual_moon", "gaussian_mixture")]


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("group", STEP)
def test_golden_step_gradient(group, x64):
    file = np.load(GOLDEN / "hmc_step_gradient.npz")
    tolerance = (1e-7, 1e-7) if x64 else (1e-3, 1e-3)
    with jax.enable_x64(x64):
        s = {k[len(group) + 1 :]: jnp.asarray(v) for k, v in file.items() if k.startswith(group)}
        density = target({k: jnp.asarray(v) for k, v in file.items()}, group)
        noise = hmc.Noise(jnp.swapaxes(s["r"], 0, 1), jnp.log(s["u"].T))
        sd = jnp.sqrt(s["var0"])

        def chains(log_step, log_var, log_inflation, gradient):
            start = s["mu0"] + sd * jnp.exp(log_inflation) * s["xi"]
            run = lambda n, z: hmc.replay(
                n, z, density, log_step, num_leapfrog=int(s["L"]),
                log_momentum_var=log_var, gradient=gradient, keep_path=True,
            )  # fmt: skip
            return jax.vmap(run)(noise, start)

        def mean_objective(log_step, log_var, gradient):
            out = chains(log_step, log_var, s["log_inflation"], gradient)
            return out.log_density.mean(), out

        f = jax.grad(mean_objective, (0, 1), has_aux=True)
        zeros = jnp.zeros_like(s["log_eps"])
        (steps, variances), out = f(s["log_eps"], zeros, "detached")
        close(jnp.swapaxes(out.path, 0, 1), s["chain"], *tolerance)
        close(out.info.accept_prob.T, s["p_accept"], *tolerance)
        assert np.array_equal(out.info.is_accepted.T, s["accepted"].astype(bool))
        close(steps, s["grad_log_eps_detached_ref"], *tolerance)
        close(variances, s["grad_log_vr_detached_ref"], *tolerance)
        (steps, _), _ = f(s["log_eps"], zeros, "exact")
        close(steps, s["grad_log_eps_exact"], *tolerance)

        def discrepancy(log_inflation):
            out = chains(s["log_eps"], zeros, log_inflation, "detached")
            return stein.sksd(out.position, out.score)

        value, slope = jax.value_and_grad(discrepancy)(s["log_inflation"])
        tolerance = (1e-5, 1e-7) if x64 else (1e-3, 1e-3)
        close(value, s["sksd_ref"], *tolerance)
        close(slope, s["grad_log_inflation_sksd_ref"], *tolerance)
