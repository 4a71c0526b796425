from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import gaussian, hierarchy
from hmcvae.networks import MLP
from tests.hmcvae import affine

GOLDEN = Path(__file__).parents[1] / "golden"


def load(name, case):
    with np.load(GOLDEN / f"{name}.npz") as z:
        start = case + "."
        return {k[len(start) :]: z[k] for k in z.files if k.startswith(start)}


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_kl_and_its_schedule_match_the_reference(case):
    with jax.enable_x64(True):
        g = load("hhvaem_kl", case)
        kl = gaussian.kl_to_standard_normal(g["standard.mu"], g["standard.logvar"]).sum(axis=-1)
        kl *= g["standard.row_observed"][:, 0]  # the stored values leave empty rows out
        np.testing.assert_allclose(kl, g["standard.kl_correct"], rtol=1e-10)

        sizes = tuple(int(n) for n in g["hierarchical.dims"])
        mean = np.concatenate([g[f"hierarchical.mu{i}"] for i in range(len(sizes))], axis=-1)
        log_var = np.concatenate([g[f"hierarchical.logvar{i}"] for i in range(len(sizes))], axis=-1)
        kl = hierarchy.kl_by_layer(mean, log_var, sizes) * g["hierarchical.row_observed"]
        np.testing.assert_allclose(kl.T, g["hierarchical.kl_raw"], rtol=1e-10)
        for step, coef in zip(g["hierarchical.steps"], g["hierarchical.coef_ref"], strict=True):
            weights = hierarchy.kl_weights(
                kl,
                step,
                sizes,
                balance_steps=int(g["hierarchical.balance_steps"]),
                anneal_steps=int(g["hierarchical.anneal_steps"]),
                paper=True,
            )
            np.testing.assert_allclose(weights, coef, rtol=1e-10)


def test_printed_values_of_the_schedule():
    mean = np.array([[0.5, -1, 0, 0.2, 0.1], [1, 1, 1, -0.3, 0]], np.float32)
    log_var = np.array([[0, -1, -2, -0.1, 0], [-0.5, -0.5, -0.5, 0.2, -0.2]], np.float32)
    kl = hierarchy.kl_by_layer(mean, log_var, (3, 2))
    for clock, expected in ((1, 0.00148891), (500, 0.744454), (1000, 1.564445)):
        weights = hierarchy.kl_weights(
            kl, clock, (3, 2), balance_steps=1000, anneal_steps=1000, paper=True
        )
        np.testing.assert_allclose(jnp.mean(kl @ weights), expected, rtol=2e-6)


def test_balanced_weights_average_one_and_are_constants():
    kl = jnp.array([[1.0, 3.0], [2.0, 0.5]])

    def weights(kl):
        return hierarchy.kl_weights(kl, 999.0, (4, 2), balance_steps=1000, anneal_steps=1)

    np.testing.assert_allclose(jnp.mean(weights(kl)), 1.0, rtol=1e-6)
    gradient = jax.grad(lambda kl: weights(kl)[0])(kl)
    np.testing.assert_array_equal(gradient, 0.0)
    after = hierarchy.kl_weights(kl, 1000.0, (4, 2), balance_steps=1000, anneal_steps=1)
    np.testing.assert_array_equal(after, 1.0)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_bottom_up_encoder_matches_the_reference(case):
    with jax.enable_x64(True):
        g = load("hhvaem_hierarchy", case)
        sizes = tuple(int(n) for n in g["target.dims"])
        width = g["encoder.input_w"].shape[0]
        hidden = 2 * width
        spare = hidden - width
        base = affine.mlp(g["encoder.input_w"], g["encoder.input_b"], hidden)
        base["layer1"]["affine"] = {
            "kernel": np.pad(base["layer1"]["affine"]["kernel"], ((0, 0), (0, spare))),
            "bias": np.pad(base["layer1"]["affine"]["bias"], (0, spare)),
        }
        params = {"base": base}
        for i in range(len(sizes)):
            head = np.pad(g[f"encoder.head{i}_w"], ((0, 0), (0, spare)))
            params[f"head{i}"] = affine.linear(head, g[f"encoder.head{i}_b"])
            if i:
                up = np.pad(g[f"encoder.up{i}_w"], ((0, spare), (0, spare)))
                params[f"up{i}"] = affine.linear(up, np.pad(g[f"encoder.up{i}_b"], (0, spare)))
        mean, log_var = hierarchy.BottomUp(sizes, hidden).apply(
            {"params": params}, g["encoder.input"]
        )
        expected = np.concatenate([g[f"encoder.mu{i}_ref"] for i in range(len(sizes))], axis=-1)
        np.testing.assert_allclose(mean, expected, rtol=1e-8, atol=1e-8)
        log_q = gaussian.diag_normal(mean[:, None], log_var[:, None]).log_prob(g["target.eps"])
        seen = g["target.row_observed"].astype(bool)  # the reference has 0 for empty rows
        np.testing.assert_allclose(log_q[seen], g["encoder.logq_ref"][seen], rtol=1e-8, atol=1e-8)


def test_one_layer_hierarchy_is_the_plain_prior():
    eps = jnp.arange(6.0).reshape(2, 3)
    module = hierarchy.TopDown((3,), 7)
    params = module.init(jax.random.key(0), eps)
    np.testing.assert_array_equal(module.apply(params, eps)[0], eps)
    assert not jax.tree.leaves(params)


def test_standardised_latents_map_to_the_conditional_prior():
    """h_1 given h_2 is N(a, exp(b)) when eps_1 is standard normal."""
    module = hierarchy.TopDown((3, 2), 5)
    key = jax.random.key(1)
    params = module.init(key, jnp.zeros(5))
    eps_2 = jnp.array([0.3, -1.2])
    eps_1 = jax.random.normal(key, (20_000, 3))
    h_1, h_2 = jax.vmap(lambda e: module.apply(params, jnp.concatenate([e, eps_2])))(eps_1)
    np.testing.assert_array_equal(h_2, jnp.broadcast_to(eps_2, h_2.shape))
    a = module.apply(params, jnp.concatenate([jnp.zeros(3), eps_2]))[0]
    scale = module.apply(params, jnp.concatenate([jnp.ones(3), eps_2]))[0] - a
    assert np.all(scale > 0)
    error = 4 * np.asarray(scale) / np.sqrt(len(eps_1))
    assert np.all(np.abs(h_1.mean(axis=0) - a) < error)
    np.testing.assert_allclose(h_1.std(axis=0), scale, rtol=0.03)


def ablation(sizes=(3, 2, 2), seed=3):
    """TopDown in both forms with the same parameters, and latents to try them on."""
    key, key_eps = jax.random.split(jax.random.key(seed))
    reparameterised = hierarchy.TopDown(sizes, 5)
    params = reparameterised.init(key, jnp.zeros(sum(sizes)))
    eps = jax.random.normal(key_eps, (4000, sum(sizes)))
    return reparameterised, hierarchy.TopDown(sizes, 5, reparameterised=False), params, eps


@pytest.mark.parametrize("sizes", [(3,), (3, 2), (3, 2, 2)])
def test_density_of_the_layers_is_that_of_eps_over_the_volume_it_is_mapped_to(sizes):
    reparameterised, plain, params, eps = ablation(sizes)
    to_layers = lambda eps: jnp.concatenate(reparameterised.apply(params, eps))
    h = jax.vmap(to_layers)(eps[:20])
    _, log_det = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(to_layers))(eps[:20]))
    log_prob = [
        m.apply(params, v, method="log_prob") for m, v in ((reparameterised, eps[:20]), (plain, h))
    ]
    np.testing.assert_allclose(log_prob[1], log_prob[0] - log_det, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(jnp.concatenate(plain.apply(params, h), axis=-1), h)


def test_heads_of_zero_draw_from_the_prior_in_both_forms():
    reparameterised, plain, params, eps = ablation()
    zeros = jnp.zeros_like(eps)
    draws = [m.apply(params, zeros, zeros, eps, method="draw") for m in (reparameterised, plain)]
    layers = [
        jnp.concatenate(m.apply(params, d.latents), -1)
        for m, d in zip((reparameterised, plain), draws, strict=True)
    ]
    np.testing.assert_allclose(*layers, rtol=1e-5, atol=1e-5)
    for drawn in draws:
        np.testing.assert_allclose(drawn.kl, 0.0, atol=1e-6)


@pytest.mark.parametrize("form", [0, 1])
def test_kl_is_the_mean_log_ratio_of_posterior_and_prior(form):
    *modules, params, noise = ablation()
    module = modules[form]
    mean, log_var = jnp.linspace(-1.0, 0.8, 7), jnp.linspace(-1.5, 0.4, 7)
    heads = (jnp.broadcast_to(v, noise.shape) for v in (mean, log_var))
    drawn = module.apply(params, *heads, noise, method="draw")
    log_ratio = drawn.log_prob() - module.apply(params, drawn.latents, method="log_prob")
    gap = np.asarray(log_ratio - drawn.kl.sum(axis=-1))
    assert gap.std() > 0.1
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))


def test_a_draw_without_noise_follows_the_means_from_the_top():
    """The ablation's chain starts around a_l(h_{l+1}) + mu_l with variance exp(b_l + lv_l)."""
    _, plain, params, _ = ablation((3, 2))
    mean, log_var = jnp.linspace(-1.0, 0.8, 5), jnp.linspace(-1.5, 0.4, 5)
    drawn = plain.apply(params, mean, log_var, jnp.zeros(5), method="draw")
    np.testing.assert_array_equal(drawn.latents, drawn.mean)
    np.testing.assert_array_equal(drawn.mean[3:], mean[3:])
    np.testing.assert_array_equal(drawn.log_var[3:], log_var[3:])
    out = MLP((5, 6)).apply({"params": params["params"]["prior0"]}, mean[3:])
    np.testing.assert_allclose(drawn.mean[:3], out[:3] + mean[:3], rtol=1e-6)
    np.testing.assert_allclose(drawn.log_var[:3], out[3:] + log_var[:3], rtol=1e-6)
