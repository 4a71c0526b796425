"""The sampler: integrator, invariance, rejection, gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import densities, hmc

MODES = ("detached", "exact")


def quartic(z):
    return -0.5 * jnp.sum(z**2) - 0.1 * jnp.sum(z**4)


def half_line(z):
    """Finite for z > 0 only; NaN score and value elsewhere."""
    return jnp.sum(jnp.log(z) - 2.0 * z)


def close(got, want, rtol=1e-7, atol=1e-7):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


# --- integrator


def test_published_trajectory():
    state = hmc.init(quartic, jnp.array([1.0, -0.5]))
    start = jnp.array([0.3, 0.7])
    end, p = hmc.leapfrog(state, start, quartic, jnp.array([0.1, 0.2]), num_leapfrog=5)
    close(end.position, [0.969610, 0.330085], atol=1e-5)
    close(p, [-0.415510, 0.799989], atol=1e-5)
    gain = end.log_density - state.log_density - 0.5 * (p @ p - start @ start)
    close(gain, 8.107e-4, atol=1e-6)


def test_harmonic_end_state():
    """Steps of 2 sin(w/2) rotate phase space by w exactly, in the leapfrog's own metric."""
    log_density = lambda z: -0.5 * jnp.sum(z**2)
    with jax.enable_x64(True):
        z0, p0, num = jnp.array([0.7]), jnp.array([-0.4]), 7
        w = 0.3
        e = 2 * np.sin(w / 2)
        c = np.sqrt(1 - e**2 / 4)
        end, p = hmc.leapfrog(
            hmc.init(log_density, z0), p0, log_density, jnp.array([e]), num_leapfrog=num
        )
        close(end.position, z0 * np.cos(num * w) + p0 / c * np.sin(num * w), 1e-12)
        close(p, p0 * np.cos(num * w) - c * z0 * np.sin(num * w), 1e-12)


def test_energy_error_is_second_order():
    with jax.enable_x64(True):
        p0 = jnp.array([0.6, -1.1])
        state = hmc.init(quartic, jnp.array([1.0, -0.5]))

        def error(num):
            end, p = hmc.leapfrog(state, p0, quartic, jnp.full(2, 1.0 / num), num_leapfrog=num)
            return abs(end.log_density - state.log_density - 0.5 * (p @ p - p0 @ p0))

        slope = np.polyfit(
            np.log([1 / 16, 1 / 32, 1 / 64]), np.log([error(n) for n in (16, 32, 64)]), 1
        )[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_reversible():
    state = hmc.init(quartic, jnp.array([1.0, -0.5, 0.2]))
    p0 = jnp.array([0.3, 0.7, -1.0])
    step = jnp.array([0.1, 0.2, 0.3])
    end, p = hmc.leapfrog(state, p0, quartic, step, num_leapfrog=6)
    back, p = hmc.leapfrog(end, -p, quartic, step, num_leapfrog=6)
    close(back.position, state.position, 1e-5, 1e-6)
    close(p, -p0, 1e-5, 1e-6)


def test_score_evaluations_per_transition(key):
    """1 + T L evaluations in a chain, counted while it runs, not while it is traced."""
    seen = []

    def log_density(z):
        jax.debug.callback(lambda _: seen.append(1), z)
        return -0.5 * jnp.sum(z**2)

    for gradient in ("none", "detached"):
        seen.clear()
        hmc.run(key, jnp.ones(2), log_density, jnp.zeros(3), num_leapfrog=4, gradient=gradient)
        jax.effects_barrier()
        assert len(seen) == 1 + 3 * 4


# --- chains


def test_moments_with_momentum_variance(key):
    mean = jnp.array([0.5, -1.0, 2.0])
    cov = jnp.array([[1.0, 0.4, 0.0], [0.4, 0.5, -0.2], [0.0, -0.2, 2.0]])
    num_chains, num_steps = 4000, 30
    log_var = jnp.linspace(-0.7, 1.0, 3 * num_steps).reshape(num_steps, 3)

    @jax.jit
    @jax.vmap
    def chain(key):
        log_step = jnp.full(num_steps, jnp.log(0.3))
        return hmc.run(key, mean, densities.gaussian, log_step, mean, cov, log_momentum_var=log_var)

    end = chain(jax.random.split(key, num_chains))
    error = jnp.sqrt(jnp.diagonal(cov) / num_chains)
    assert jnp.all(abs(end.position.mean(0) - mean) < 4 * error)
    got = jnp.cov(end.position.T)
    spread = jnp.diagonal(cov)
    cov_error = jnp.sqrt((spread[:, None] * spread[None] + cov**2) / num_chains)
    assert jnp.all(abs(got - cov) < 4 * cov_error)
    assert 0.8 < end.info.accept_prob.mean() < 1.0


def test_acceptance_rises_to_one(key):
    def acceptance(log_step):
        table = jnp.full(8, log_step)
        run = lambda k: hmc.run(k, jnp.ones(3), quartic, table).info.accept_prob.mean()
        return jax.vmap(run)(jax.random.split(key, 50)).mean()

    rates = jax.jit(jax.vmap(acceptance))(jnp.log(jnp.array([1.5, 0.8, 0.2, 0.01])))
    assert jnp.all(jnp.diff(rates) > 0)
    assert rates[-1] > 0.9999


def test_vmap_equals_loop(key):
    keys = jax.random.split(key, 5)
    starts = jax.random.normal(key, (5, 2))
    run = jax.jit(lambda k, z: hmc.run(k, z, densities.wave, jnp.full(4, -1.5), num_leapfrog=3))
    many = jax.vmap(run)(keys, starts)
    for i in range(5):
        one = run(keys[i], starts[i])
        close(many.position[i], one.position, 1e-4, 1e-5)
        assert bool(jnp.all(many.info.is_accepted[i] == one.info.is_accepted))


def test_transition_repeats_run(key):
    z = jnp.array([0.3, -0.2])
    step = jnp.array([-1.0, -0.5])
    log_var = jnp.array([0.3, -0.1])
    got, info = hmc.transition(
        key, hmc.init(quartic, z), quartic, step, num_leapfrog=3, log_momentum_var=log_var
    )
    want = hmc.run(
        key, z, quartic, step[None], num_leapfrog=3, log_momentum_var=log_var[None], keep_path=True
    )
    close(got.position, want.position, 1e-6)
    close(got.score, want.score, 1e-6)
    close(info.energy_error, want.info.energy_error[0], 1e-4, 1e-6)
    close(want.path[0], z)
    close(want.path[-1], want.position)


def test_momentum_variance_is_a_step_size(key):
    z = jnp.array([0.3, -0.2])
    log_step, log_var = jnp.full((3, 2), -1.0), jnp.full((3, 2), 0.4)
    a = hmc.run(key, z, quartic, log_step, log_momentum_var=log_var)
    b = hmc.run(key, z, quartic, log_step - 0.2)
    close(a.position, b.position, 1e-5)


def test_pytree_equals_flat(key):
    flat = jnp.array([0.5, -0.3, 0.1, 0.8, -1.0])
    split = lambda x: {"h1": x[..., :3], "h2": x[..., 3:]}
    tree_density = lambda z: quartic(jnp.concatenate([z["h1"], z["h2"]]))
    table = jax.random.normal(key, (4, 5)) * 0.2 - 1.5

    def objective(table, density, z, tree):
        chain = hmc.run(key, z, density, split(table) if tree else table, keep_path=True)
        return chain.log_density, chain

    (a, chain_a), grad_a = jax.value_and_grad(objective, has_aux=True)(table, quartic, flat, False)
    (b, chain_b), grad_b = jax.value_and_grad(objective, has_aux=True)(
        table, tree_density, split(flat), True
    )
    close(a, b, 1e-5)
    close(grad_a, grad_b, 1e-4, 1e-5)
    close(chain_a.path, jnp.concatenate([chain_b.path["h1"], chain_b.path["h2"]], -1), 1e-5, 1e-6)


def test_one_trace_for_five_batches(key):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def chain(key, z, center):
        log_density = lambda z, center: quartic(z - center)
        return hmc.run(key, z, log_density, jnp.full(3, -1.0), center).position

    for i in range(5):
        chain(jax.random.fold_in(key, i), jnp.full(2, float(i)), jnp.full(2, float(i)))


def test_strict_dtypes(key):
    for x64 in (False, True):
        with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"):
            z = jnp.ones(2, jnp.float32)
            chain = hmc.run(key, z, quartic, jnp.full(3, -1.0), gradient="exact")
        assert chain.position.dtype == chain.log_density.dtype == jnp.float32


# --- rejection


def test_large_gain_is_accepted(key):
    """A gain of 200 nats overflows exp in single precision."""
    log_density = lambda z: jnp.sum(jnp.where(z < 1.0, -200.0, 0.0))
    noise = hmc.Noise(jnp.full((1, 1), 2.0), jnp.full(1, -1e-6))
    chain = hmc.replay(noise, jnp.zeros(1), log_density, jnp.zeros(1), num_leapfrog=1)
    assert chain.info.energy_error[0] == -200.0
    assert bool(chain.info.is_accepted[0])
    assert chain.info.accept_prob[0] == 1.0
    assert not bool(chain.info.is_divergent[0])


@pytest.mark.parametrize("gradient", MODES)
def test_non_finite_regions(gradient, key):
    """Whole-trajectory rejection, a truthful flag, finite gradients."""
    table = jnp.log(jnp.array([0.2, 3.0, 0.3, 5.0, 0.2]))

    def objective(table, keys):
        run = lambda k: hmc.run(
            k, jnp.full(2, 0.4), half_line, table, gradient=gradient, keep_path=True
        )
        chain = jax.vmap(run)(keys)
        return chain.log_density.mean(), chain

    keys = jax.random.split(key, 64)
    (_, chain), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(table, keys)
    assert jnp.all(jnp.isfinite(chain.path))
    assert jnp.all(jnp.isfinite(chain.log_density))
    assert jnp.all(jnp.isfinite(chain.score))
    assert jnp.all(jnp.isfinite(slope))
    divergent, accepted = chain.info.is_divergent, chain.info.is_accepted
    assert jnp.all(divergent.mean(0)[jnp.array([1, 3])] > 0.9)
    assert not jnp.any(divergent & accepted)
    assert jnp.all(chain.info.accept_prob[divergent] == 0)
    stays = jnp.all(chain.path[:, 1:] == chain.path[:, :-1], axis=-1)
    assert jnp.all(stays == ~accepted)
    assert jnp.all(slope[jnp.array([0, 2, 4])] != 0)


def test_non_finite_score_in_the_middle(key):
    """A bad score inside a trajectory that ends well still rejects it."""

    @jax.custom_jvp
    def log_density(z):
        return -0.5 * jnp.sum(z**2)

    @log_density.defjvp
    def _(primals, tangents):
        (z,), (t,) = primals, tangents
        bad = jnp.where(jnp.abs(z) < 0.1, jnp.inf, z)
        return log_density(z), -jnp.sum(bad * t)

    noise = hmc.Noise(jnp.full((1, 1), -0.5), jnp.full(1, -10.0))
    chain = hmc.replay(noise, jnp.ones(1), log_density, jnp.zeros(1), num_leapfrog=2)
    assert bool(chain.info.is_divergent[0])
    assert chain.position[0] == 1.0


def test_divergence_is_one_sided(key):
    z = jnp.array([20.0])
    log_density = lambda z: -0.5 * jnp.sum(z**2)
    up = hmc.Noise(jnp.zeros((1, 1)), jnp.full(1, -1e9))
    chain = hmc.replay(up, z, log_density, jnp.log(jnp.full(1, 4.0)), num_leapfrog=3)
    assert bool(chain.info.is_divergent[0])
    chain = hmc.replay(up, z, log_density, jnp.log(jnp.full(1, 1.0)), num_leapfrog=1)
    assert chain.info.energy_error[0] < 0
    assert not bool(chain.info.is_divergent[0])


def test_start_outside_the_support(key):
    chain = hmc.run(key, jnp.array([-1.0]), half_line, jnp.zeros(3))
    assert chain.position[0] == -1.0
    assert jnp.all(chain.info.is_divergent)
    assert jnp.all(chain.info.energy_error == jnp.inf)


# --- gradients


def objective(parameters, noise, z, log_density, gradient, num_leapfrog=3):
    log_step, log_var = parameters
    chain = hmc.replay(
        noise, z, log_density, log_step, num_leapfrog=num_leapfrog,
        log_momentum_var=log_var, gradient=gradient,
    )  # fmt: skip
    return chain.log_density, chain


def frozen_score_chain(parameters, noise, z, log_density, num_leapfrog):
    """An independent chain for autodiff: momentum r ~ N(0, v), kinetic r^2 / (2 v)."""
    sg = jax.lax.stop_gradient
    score = lambda z: sg(jax.grad(log_density)(sg(z)))
    for t in range(parameters[0].shape[0]):
        e, v = jnp.exp(parameters[0][t]), jnp.exp(parameters[1][t])
        r = r0 = jnp.sqrt(v) * noise.momentum[t]
        new = z
        for i in range(num_leapfrog):
            r = r + (0.5 if i == 0 else 1.0) * e * score(new)
            new = new + e * r / v
        r = r + 0.5 * e * score(new)
        gain = log_density(new) - log_density(z) - 0.5 * jnp.sum((r**2 - r0**2) / v)
        z = jnp.where(noise.log_uniform[t] < gain, new, z)
    return log_density(z)


def setup(key, dim=2, num=4):
    keys = jax.random.split(key, 3)
    noise = hmc.draw_noise(keys[0], jnp.zeros(dim), num)
    log_step = -1.0 + 0.3 * jax.random.normal(keys[1], (num, dim))
    log_var = 0.5 * jax.random.normal(keys[2], (num, dim))
    return (log_step, log_var), noise, jnp.array([0.9, -0.4])[:dim]


def test_detached_gradient_is_autodiff_with_constant_scores():
    with jax.enable_x64(True):
        parameters, noise, z = setup(jax.random.key(1))
        f = jax.value_and_grad(objective, (0, 2), has_aux=True)
        (value, chain), slopes = f(parameters, noise, z, quartic, "detached")
        want, want_slopes = jax.value_and_grad(frozen_score_chain, (0, 2))(
            parameters, noise, z, quartic, 3
        )
        assert chain.info.is_accepted.sum() >= 3
        close(value, want, 1e-10)
        chex.assert_trees_all_close(slopes, want_slopes, rtol=1e-8, atol=1e-10)


def test_exact_gradient_is_a_finite_difference():
    with jax.enable_x64(True):
        parameters, noise, z = setup(jax.random.key(1))
        grad = jax.grad(objective, (0, 2), has_aux=True)(parameters, noise, z, quartic, "exact")[0]
        flat, unravel = jax.flatten_util.ravel_pytree((parameters, z))
        value = lambda x: objective(unravel(x)[0], noise, unravel(x)[1], quartic, "none")[0]
        h = 1e-6
        numeric = [
            (value(flat + h * e) - value(flat - h * e)) / (2 * h) for e in jnp.eye(len(flat))
        ]
        close(jax.flatten_util.ravel_pytree(grad)[0], numeric, 1e-5, 1e-7)


def test_modes_agree_bit_for_bit(key):
    run = lambda mode: jax.jit(
        lambda k: jax.vmap(
            lambda k: hmc.run(k, jnp.zeros(2), densities.dual_moon, jnp.full((6, 2), -1.0),
                              gradient=mode)
        )(jax.random.split(k, 50))
    )(key)  # fmt: skip
    none, detached, exact = map(run, ("none", "detached", "exact"))
    chex.assert_trees_all_equal(none, detached)
    chex.assert_trees_all_equal(none, exact)


def test_none_has_no_gradient(key):
    parameters, noise, z = setup(key)
    slopes = jax.grad(objective, (0, 2), has_aux=True)(parameters, noise, z, quartic, "none")[0]
    assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(slopes))


def test_data_receives_no_gradient(key):
    def f(center, mode):
        log_density = lambda z, center: quartic(z - center)
        return hmc.run(key, jnp.ones(2), log_density, jnp.zeros(2), center, gradient=mode).position[
            0
        ]

    for mode in MODES:
        assert jax.grad(f)(0.3, mode) == 0


# --- inflation


def test_inflate_forms(key):
    mean = {"a": jnp.zeros(3), "b": jnp.ones(2)}
    log_var = {"a": jnp.full(3, 0.2), "b": jnp.full(2, -0.4)}
    base = hmc.inflate(key, mean, log_var, 0.0)
    scalar = hmc.inflate(key, mean, log_var, jnp.log(2.0))
    layers = hmc.inflate(key, mean, log_var, {"a": jnp.log(2.0), "b": jnp.zeros(())})
    dims = hmc.inflate(
        key, mean, log_var, {"a": jnp.log(jnp.array([1.0, 2, 3])), "b": jnp.zeros(2)}
    )
    close(scalar["b"] - 1, 2 * (base["b"] - 1), 1e-5)
    close(layers["a"], 2 * base["a"], 1e-5)
    close(layers["b"], base["b"])
    close(dims["a"], jnp.array([1.0, 2, 3]) * base["a"], 1e-5)
    slope = jax.grad(lambda s: hmc.inflate(key, mean, log_var, s)["b"].sum())(0.3)
    close(slope, (hmc.inflate(key, mean, log_var, 0.3)["b"] - 1).sum(), 1e-5)


# --- errors


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (jnp.zeros(()), r"give \[T\] or \[T, \*\(2,\)\]"),
        (jnp.zeros((4, 3)), "the position's leaf is"),
        ({"a": jnp.zeros(4)}, "give a tree like the position or one array"),
    ],
)
def test_bad_table(key, table, match):
    with pytest.raises(ValueError, match=match):
        hmc.run(key, jnp.zeros(2), quartic, table)


def test_bad_options(key):
    z = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    density = lambda z: quartic(z["a"])
    with pytest.raises(ValueError, match="must have the same number T"):
        hmc.run(key, z, density, {"a": jnp.zeros(3), "b": jnp.zeros(4)})
    with pytest.raises(ValueError, match=r"\[3, 4\] transitions"):
        hmc.run(key, z, density, jnp.zeros(3), log_momentum_var=jnp.zeros(4))
    with pytest.raises(ValueError, match="gradient is 'full'"):
        hmc.run(key, z, density, jnp.zeros(3), gradient="full")
    with pytest.raises(ValueError, match="needs at least 1 step"):
        hmc.run(key, z, density, jnp.zeros(3), num_leapfrog=0)
    with pytest.raises(ValueError, match="give one scalar or a tree like the mean"):
        hmc.inflate(key, z, z, jnp.zeros(2))
