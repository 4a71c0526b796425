"""Mixtures: brute force, bounds and symmetries, and stored numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import mixture, observations
from hmcvae import gaussian

GOLDEN = Path(__file__).parents[1] / "golden"
K, N, C = 3, 7, 2
KINDS = {"logistic": "logistic", "cb": "continuous_bernoulli", "ber": "bernoulli"}


@pytest.fixture
def tables(key):
    keys = jax.random.split(key, 3)
    log_pi, log_q = (mixture.log_weights(2.0 * jax.random.normal(k, (K, N))) for k in keys[:2])
    return log_pi, log_q, 3.0 * jax.random.normal(keys[2], (K, N))


def test_marginal_and_responsibilities_are_those_of_bayes(tables):
    log_pi, _, log_lik = (np.float64(t) for t in tables)
    joint = np.exp(log_pi + log_lik)
    np.testing.assert_allclose(
        mixture.log_prob(tables[0], tables[2]), np.log(joint.sum(0)), rtol=1e-5
    )
    r = np.exp(mixture.responsibilities(tables[0], tables[2]))
    np.testing.assert_allclose(r, joint / joint.sum(0), rtol=1e-4)
    unobserved = mixture.responsibilities(tables[0], jnp.zeros((K, N)))
    np.testing.assert_allclose(unobserved, tables[0], atol=1e-6)


def test_published_bound_is_below_and_tight_at_the_responsibilities(tables):
    log_pi, log_q, log_lik = tables
    exact = mixture.log_prob(log_pi, log_lik)

    def bound(log_q):
        expected, kl = mixture.published_bound(log_q, log_pi, log_lik)
        assert (kl > -1e-6).all()
        return expected - kl

    assert (bound(log_q) < exact).all()
    best = mixture.responsibilities(log_pi, log_lik)
    np.testing.assert_allclose(bound(best), exact, atol=5e-6)
    # what is lost is the divergence to the responsibilities
    lost = jnp.sum(jnp.exp(log_q) * (log_q - best), axis=0)
    np.testing.assert_allclose(exact - bound(log_q), lost, atol=5e-6)
    np.testing.assert_allclose(mixture.published_bound(log_pi, log_pi, log_lik)[1], 0.0, atol=1e-6)


def test_the_order_of_components_does_not_matter(tables):
    log_pi, _, log_lik = tables
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(
        mixture.log_prob(log_pi[order], log_lik[order]),
        mixture.log_prob(log_pi, log_lik),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        mixture.responsibilities(log_pi[order], log_lik[order]),
        mixture.responsibilities(log_pi, log_lik)[order],
        rtol=1e-5,
        atol=1e-6,
    )


def test_one_component_is_the_plain_model(key):
    log_pi = mixture.log_weights(jax.random.normal(key, (1, N)))
    log_lik = jax.random.normal(key, (1, N))
    means = jax.random.normal(key, (1, N, C))
    np.testing.assert_array_equal(mixture.log_prob(log_pi, log_lik), log_lik[0])
    np.testing.assert_array_equal(mixture.responsibilities(log_pi, log_lik), 0.0)
    np.testing.assert_array_equal(mixture.mean(log_pi, means), means[0])
    np.testing.assert_array_equal(mixture.most_probable(log_pi, means), means[0])
    np.testing.assert_array_equal(mixture.entropy(log_pi), 0.0)


@pytest.mark.parametrize(("num", "cap"), [(3, 0.787), (4, 0.711), (5, 0.649), (10, 0.451)])
def test_released_logits_cannot_be_sure(num, cap):
    logits = jnp.where(jnp.arange(num) == 1, 50.0, -50.0)
    released = jnp.exp(mixture.log_weights(logits, paper=True))
    np.testing.assert_allclose(released[1], cap, atol=5e-4)
    np.testing.assert_allclose(released.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(mixture.log_weights(logits)[1]), 1.0, rtol=1e-6)


def test_draws_and_means_follow_the_weights(key, tables):
    log_pi, num = tables[0], 4000
    pi = np.exp(log_pi)
    draws = mixture.sample_component(key, jnp.broadcast_to(log_pi[:, None], (K, num, N)))
    assert draws.shape == (num, N)
    means = jax.random.normal(key, (K, N, C))
    seen = np.stack([(draws == k).mean(0) for k in range(K)])
    assert (abs(seen - pi) < 4 * np.sqrt(pi * (1 - pi) / num) + 1e-6).all()
    chosen = mixture.select(draws, jnp.broadcast_to(means[:, None], (K, num, N, C)))
    assert chosen.shape == (num, N, C)
    error = 4 * np.std(chosen, axis=0) / np.sqrt(num)
    assert (abs(chosen.mean(0) - mixture.mean(log_pi, means)) < error + 1e-6).all()


def test_select_takes_each_point_from_its_own_component(key):
    values = jax.random.normal(key, (K, N, C))
    component = np.array([0, 2, 1, 1, 0, 2, 2])
    expected = np.stack([values[k, n] for n, k in enumerate(component)])
    np.testing.assert_array_equal(mixture.select(jnp.asarray(component), values), expected)


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_elbo(case, kind):
    stored = np.load(GOLDEN / "mixture_elbo.npz")
    with jax.enable_x64(True):
        g = {
            name.split(".")[2]: jnp.asarray(stored[name])
            for name in stored.files
            if name.startswith(f"{case}.{kind}.")
        }

        def item(y, mask, logits, qc_logits, pc_logits):
            # [N, C, K] -> [K, N, C]; the stored component logits belong to observed points
            table = observations.log_prob(
                KINDS[kind], y, jnp.moveaxis(logits, -1, 0), jnp.log(0.1), mask=mask, paper=True
            )
            log_lik = table.sum(-1)[:, seen]
            log_q, log_pi = mixture.log_weights(qc_logits.T), mixture.log_weights(pc_logits.T)
            rec, kl_c = mixture.published_bound(log_q, log_pi, log_lik)
            exact = mixture.log_prob(log_pi, log_lik)
            r = jnp.exp(mixture.responsibilities(log_pi, log_lik)).T
            return table, rec.sum(), kl_c.sum(), exact.sum(), r

        (seen,) = np.nonzero(np.asarray(g["mask"])[0])  # one mask for the batch
        inputs = (g[k] for k in ("x", "mask", "logits", "qc_logits", "pc_logits"))
        table, rec, kl_c, exact, r = jax.vmap(item)(*inputs)
        kl_z = gaussian.kl_to_standard_normal(g["z_mean"], 2.0 * jnp.log(g["z_std"])).sum(-1)

        def close(got, name):
            np.testing.assert_allclose(got, g[name], rtol=1e-7, atol=1e-8)

        want = jnp.moveaxis(g["log_lik_table"], -1, 1)[:, :, seen]
        np.testing.assert_allclose(table[:, :, seen], want, rtol=1e-7, atol=1e-8)
        close(rec, "rec_per_item")
        close(kl_c, "kl_c_per_item")
        close(kl_z, "kl_z_per_item")
        close(exact, "exact_marginal_per_item")
        close(r, "exact_responsibilities")
        elbo = rec - g["beta_z"] * kl_z - g["beta_c"] * kl_c
        close(elbo.mean(), "elbo_ref")
        assert (rec - kl_c <= exact).all()


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_pictures(case, kind):
    stored = np.load(GOLDEN / "hypernet.npz")

    def load(name):
        return jnp.asarray(stored[f"{case}.render_{kind}.{name}"])

    with jax.enable_x64(True):

        def render(logits, component_logits):
            log_pi = mixture.log_weights(component_logits.T)
            means = observations.mean(KINDS[kind], jnp.moveaxis(logits, -1, 0), 0.0, paper=True)
            mean, best = mixture.mean(log_pi, means), mixture.most_probable(log_pi, means)
            return mean, best, mixture.entropy(log_pi)[:, None]

        got = jax.vmap(render)(load("logits"), load("component_logits"))
        for x, name in zip(got, ("mean", "mean_of_argmax", "entropy"), strict=True):
            want = load(name)  # [B, channels, H, W]
            image = jnp.moveaxis(x, -1, 1).reshape(want.shape)
            np.testing.assert_allclose(image, want, rtol=1e-8, atol=1e-8)
