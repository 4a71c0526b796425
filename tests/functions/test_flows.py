"""Priors: round trips, volumes, total mass, draws, stored numbers and the two prior terms."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import flows
from hmcvae import gaussian

GOLDEN = Path(__file__).parents[1] / "golden"
PRIORS = {
    "normal": lambda size: flows.StandardNormal(size),
    "realnvp": lambda size: flows.RealNVP(size, num_layers=5),
    "planar": lambda size: flows.Planar(size, num_layers=4),
    "planar_paper": lambda size: flows.Planar(size, num_layers=4, paper_init=True),
}
TERMS = (flows.kl, flows.detached_cross_entropy)
ALL = pytest.mark.parametrize("name", PRIORS)
SIZES = pytest.mark.parametrize("size", [1, 5])


def perturbed(module, seed=0, scale=0.3):
    """Returns the variables of a module with noise on every parameter."""
    variables = module.init(jax.random.key(seed), jnp.zeros(module.size))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed + 1), max(len(leaves), 1))
    noisy = [x + scale * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(tree, noisy)


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(module, method, variables, x):
    return module.apply(variables, x, method=method)


@functools.partial(jax.jit, static_argnums=0)
def pass_through(module, variables, u):
    """Returns u [Z] mapped there and back, and the log probability there in two ways."""
    z = module.apply(variables, u, method="forward")
    inverse = lambda z: module.apply(variables, z, method="inverse")
    volume = jnp.linalg.slogdet(jax.jacobian(inverse)(z)).logabsdet
    expected = gaussian.standard_normal_log_prob(inverse(z)) + volume
    return z, inverse(z), module.apply(variables, z, method="log_prob"), expected


@SIZES
@ALL
def test_round_trip_and_volume(name, size):
    module = PRIORS[name](size)
    variables = perturbed(module)
    u = jax.random.normal(jax.random.key(3), (4, 3, size))
    each = functools.partial(pass_through, module, variables)
    z, back, log_prob, expected = jax.vmap(jax.vmap(each))(u)
    assert name == "normal" or abs(z - u).max() > 0.1
    np.testing.assert_allclose(back, u, atol=3e-4)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
    # leading axes are as good as vmap
    np.testing.assert_allclose(call(module, "forward", variables, u), z, rtol=1e-4, atol=1e-4)
    together = call(module, "log_prob", variables, z)
    np.testing.assert_allclose(together, log_prob, rtol=1e-4, atol=1e-4)


@SIZES
@pytest.mark.parametrize("name", ["normal", "realnvp", "planar"])
def test_starts_as_the_standard_normal(name, size):
    module = PRIORS[name](size)
    variables = module.init(jax.random.key(0), jnp.zeros(size))
    z = 2.0 * jax.random.normal(jax.random.key(1), (4, 3, size))
    log_prob, expected = (
        call(module, "log_prob", variables, z),
        gaussian.standard_normal_log_prob(z),
    )
    np.testing.assert_allclose(log_prob, expected, rtol=4e-7, atol=4e-6)
    np.testing.assert_allclose(call(module, "forward", variables, z), z, atol=4e-6)
    if name != "normal":  # and is not stuck there
        grads = jax.grad(lambda v: call(module, "log_prob", v, z + 1.0).sum())(variables)
        assert max(float(abs(g).max()) for g in jax.tree.leaves(grads)) > 0.1


def test_released_planar_start_is_far_from_normal():
    for paper_init, is_far in ((False, False), (True, True)):
        module = flows.Planar(32, num_layers=20, paper_init=paper_init)
        z = jax.random.normal(jax.random.key(0), (50, 32))
        log_prob = call(module, "log_prob", module.init(jax.random.key(1), z[0]), z).mean()
        # 46 nats from a normal base, thousands from the composition as released
        assert (log_prob < -500) == is_far


def grid(size):
    axis = np.linspace(-14.0, 14.0, 4001 if size == 1 else 701)
    points = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), -1).reshape(-1, size)
    return jnp.asarray(points, jnp.float32), (axis[1] - axis[0]) ** size


@pytest.mark.parametrize("size", [1, 2])
@ALL
def test_density_has_mass_one_and_is_that_of_the_draws(name, size):
    module = PRIORS[name](size)
    variables = perturbed(module, seed=5, scale=0.2)
    points, cell = grid(size)
    p = np.float64(np.exp(call(module, "log_prob", variables, points))) * cell
    # a planar density jumps where its leaky ReLU has its kink: an error of the order of a cell
    tolerance = 5e-3 if "planar" in name else 1e-4
    np.testing.assert_allclose(p.sum(), 1.0, atol=tolerance)
    num = 4000
    draws = module.apply(variables, jax.random.key(2), (num, 1), method="sample")
    assert draws.shape == (num, 1, size)
    for moment in (lambda z: z, np.square, np.cos, lambda z: z * z[..., ::-1]):
        values, expected = moment(np.asarray(draws)[:, 0]), p @ moment(np.asarray(points))
        error = 4 * values.std(0) / np.sqrt(num)
        assert (abs(values.mean(0) - expected) < error + tolerance * abs(expected).max() * 2).all()


def test_planar_parameter_count():
    module = flows.Planar(16, num_layers=3)
    variables = module.init(jax.random.key(0), jnp.zeros(16))
    assert sum(x.size for x in jax.tree.leaves(variables)) == 3 * (2 * 16 + 1) + 2 * 16


def test_every_latent_of_realnvp_is_moved_by_every_pair_of_couplings():
    module = flows.RealNVP(5, num_layers=2)
    forward = functools.partial(call, module, "forward", perturbed(module))
    jacobian = jax.jacobian(forward)(jnp.ones(5))
    assert (abs(jnp.diag(jacobian) - 1.0) > 1e-3).all()
    # odd places hang on even ones through the second coupling, and the reverse through the first
    assert (abs(jacobian - jnp.eye(5)) > 1e-7).sum() > 12


@SIZES
def test_no_coupling_of_realnvp_is_idle(size):
    module = flows.RealNVP(size, num_layers=4)
    variables = module.init(jax.random.key(0), jnp.zeros(size))
    z = jnp.full((3, size), 0.7)
    grads = jax.grad(lambda v: call(module, "log_prob", v, z).sum())(variables)
    for conditioner in grads["params"].values():
        last = max(conditioner)  # the layer that starts at zero
        shift, raw = jnp.split(conditioner[last]["bias"], 2)
        assert shift.any()
        assert raw.any()


def test_prior_by_name():
    assert flows.prior("normal", 3) == flows.StandardNormal(3)
    assert flows.prior("realnvp", 3, num_layers=4) == flows.RealNVP(3, num_layers=4)
    assert flows.prior("planar", 3, num_layers=2, paper_init=True).paper_init
    with pytest.raises(ValueError, match="'real_nvp' is unknown; did you mean 'realnvp'"):
        flows.prior("real_nvp", 3)
    with pytest.raises(ValueError, match="use one of normal, realnvp, planar"):
        flows.prior("xyz", 3)


@pytest.mark.parametrize("name", ["normal", "realnvp"])
def test_kl_without_a_flow_is_the_analytic_one_with_gradient(name):
    module = PRIORS[name](3)
    variables = module.init(jax.random.key(0), jnp.zeros(3))
    mean, log_var = jnp.array([0.7, -1.1, 0.2]), jnp.array([0.3, -1.0, 0.0])
    eps = jax.random.normal(jax.random.key(4), (4000, 1, 3))

    @jax.jit
    def run(mean, log_var):
        def estimate(mean, log_var, eps):
            return flows.kl(lambda z: module.apply(variables, z), mean, log_var, eps)

        each = jax.vmap(jax.value_and_grad(estimate, (0, 1)), (None, None, 0))
        return each(mean, log_var, eps), estimate(mean, log_var, eps[:, 0])

    def analytic(mean, log_var):
        return gaussian.kl_to_standard_normal(mean, log_var).sum()

    draws, together = run(mean, log_var)
    want = jax.value_and_grad(analytic, (0, 1))(mean, log_var)
    for x, expected in zip(jax.tree.leaves(draws), jax.tree.leaves(want), strict=True):
        error = 4 * np.std(x, axis=0) / np.sqrt(len(eps))
        assert (abs(x.mean(0) - expected) < error + 1e-5).all()
    assert (abs(draws[1][0].mean(0)) > 0.1).all()
    np.testing.assert_allclose(together, draws[0].mean(), rtol=1e-4)  # S samples at once


def test_detached_cross_entropy_trains_the_prior_only():
    module = flows.Planar(3, num_layers=2)
    mean, log_var = jnp.ones((2, 3)), jnp.zeros((2, 3))
    eps = jax.random.normal(jax.random.key(0), (5, 2, 3))

    @jax.jit
    def run(variables, mean, log_var):
        def total(term, *args):
            variables, mean, log_var = args
            return term(lambda z: module.apply(variables, z), mean, log_var, eps).sum()

        args = (variables, mean, log_var)
        return [jax.value_and_grad(total, (1, 2, 3))(term, *args) for term in TERMS]

    (kl, attached), (cross_entropy, detached) = run(perturbed(module), mean, log_var)
    np.testing.assert_allclose(cross_entropy - kl, 3 * (1.0 + np.log(2 * np.pi)), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(attached[0]), jax.tree.leaves(detached[0]), strict=True):
        assert a.any()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert attached[1].all()
    assert attached[2].all()
    assert not detached[1].any()
    assert not detached[2].any()


def load(name, group):
    stored = np.load(GOLDEN / f"{name}.npz")
    prefix = f"{group}."
    return {k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)}


def planar(**params):
    """Returns a planar flow with the layers given, over N(0, I) unless its base is given."""
    num_layers, size = params["u"].shape
    params = {"loc": np.zeros(size), "log_scale": np.zeros(size), **params}
    return flows.Planar(size, num_layers), {"params": jax.tree.map(jnp.asarray, params)}


@pytest.mark.golden
@pytest.mark.parametrize("group", ["d3_l4", "d2_l1", "d6_l10"])
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_planar(case, group):
    g = load("planar_flow", f"{case}.{group}")

    def close(got, want):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)

    def run(flow, method, x):
        return np.asarray(call(flow[0], method, flow[1], jnp.asarray(x)))

    with jax.enable_x64(True):
        base = jax.jit(gaussian.standard_normal_log_prob)
        states = g["states"]
        for i in range(len(g["b"])):
            layer = planar(**{k: g[k][i : i + 1] for k in ("u", "w", "b")})
            close(run(layer, "forward", states[i]), states[i + 1])
            close(run(layer, "inverse", states[i + 1]), states[i])
            close(base(states[i]) - run(layer, "log_prob", states[i + 1]), g["logdet"][i])
        layers = {k: g[k] for k in ("u", "w", "b")}
        flow = planar(**layers)
        close(run(flow, "forward", g["input"]), states[-1])
        close(run(flow, "inverse", g["data"]), g["inverse"])
        log_det = run(flow, "log_prob", g["data"]) - base(g["inverse"])
        close(log_det, g["inverse_logdet_total"])
        flow = planar(**layers, loc=g["base_loc"], log_scale=g["base_log_scale"])
        log_prob = run(flow, "log_prob", g["data"])
        close(log_prob, g["log_prob"])
        close(-log_prob.mean(), g["cross_entropy_ref"])
        close(run(flow, "forward", run(flow, "inverse", g["data"])), g["data"])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_prior_terms(case):
    g = load("mixture_elbo", f"{case}.flow_prior")
    with jax.enable_x64(True):
        module, variables = planar(u=g["u"], w=g["w"], b=g["b"])

        @jax.jit
        def run(mean, log_std, eps):
            def batch_mean(term, mean, log_std):
                log_prior = lambda z: module.apply(variables, z)
                return term(log_prior, mean, 2.0 * log_std, eps).mean()

            return [jax.value_and_grad(batch_mean, (1, 2))(term, mean, log_std) for term in TERMS]

        def close(got, name, rtol=1e-7):
            np.testing.assert_allclose(got, g[name], rtol=rtol, atol=1e-8)

        correct, published = run(*(jnp.asarray(g[k]) for k in ("z_mean", "z_log_std", "noise")))
        close(correct[0], "kl_z_correct")
        close(correct[1][0], "grad_mean_correct", 1e-5)
        close(correct[1][1], "grad_log_std_correct", 1e-5)
        close(published[0], "kl_z_ref")
        close(published[1][0], "grad_mean_ref")
