import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import objectives
from hmcvae.model import Rows
from tests.hmcvae.test_model import exact_posterior, linear_gaussian, mixed_model, mixed_rows

SCHEDULE = objectives.Schedule(num_leapfrog=3, num_chains_stein=4, stein_every=2)


def with_hmc(paper=False):
    model, params = mixed_model(paper)
    return model, {**params, "hmc": objectives.init_hmc(jax.random.key(9), model, 2)}


def test_random_mask_is_a_subset_with_the_stated_rate():
    base, base_y = jnp.ones((4000, 5), bool).at[:, 0].set(False), jnp.ones((4000, 2), bool)
    mask, y_mask = objectives.random_mask(jax.random.key(0), base, base_y, max_missing=0.99)
    assert not np.any(mask[:, 0])
    kept = np.concatenate([mask[:, 1:], y_mask], axis=1)
    # rho ~ U(0, 0.99): the mean rate is 0.495, and entries of a row share rho
    np.testing.assert_allclose(1 - kept.mean(), 0.495, atol=0.02)
    covariance = np.cov(kept[:, 0], kept[:, 5])[0, 1]
    np.testing.assert_allclose(covariance, 0.99**2 / 12, atol=0.015)


def test_bound_is_below_the_evidence_and_tight_at_the_exact_posterior():
    model, params, weight, bias = linear_gaussian(num_latents=1)
    x, mask = np.array([0.4, -1.0, 0.7]), np.array([True, False, True])
    mean, cov, evidence = exact_posterior(x, mask, weight, bias, 0.1)
    rows = jax.tree.map(
        lambda a: jnp.broadcast_to(jnp.asarray(a), (20_000, 3)), Rows(x, mask, x, None, None)
    )
    rows = rows._replace(y=None, y_mask=None)

    @jax.jit
    def bound(params):
        loss, _ = objectives.elbo_loss(jax.random.key(1), model, params, rows, 0, schedule=SCHEDULE)
        return -loss

    assert bound(params) < evidence
    base = params["encoder"]["base"]
    base["layer1"]["affine"]["kernel"] = jnp.zeros_like(base["layer1"]["affine"]["kernel"])
    base["layer1"]["affine"]["bias"] = jnp.array([mean[0], np.log(cov[0, 0])], jnp.float32)
    np.testing.assert_allclose(bound(params), evidence, atol=0.02)


@pytest.mark.parametrize("paper", [False, True])
def test_each_group_gets_the_gradient_of_its_own_loss(paper):
    model, params = with_hmc(paper)
    rows = mixed_rows()
    key = jax.random.key(4)

    @jax.jit
    @jax.grad
    def gradient(params, step):
        return objectives.hmc_loss(key, model, params, rows, step, schedule=SCHEDULE)[0]

    on, off = gradient(params, 0), gradient(params, 1)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(on))
    # marginal VAEs are frozen, the inflation moves only on the steps of the Stein discrepancy
    assert not any(np.any(g) for g in jax.tree.leaves(on["marginal"]))
    assert np.any(on["hmc"]["log_inflation"])
    assert not np.any(off["hmc"]["log_inflation"])
    for name in ("encoder", "decoder", "hierarchy", "predictor"):
        jax.tree.map(np.testing.assert_array_equal, on[name], off[name])
        assert any(np.any(g) for g in jax.tree.leaves(on[name]))
    assert np.any(on["hmc"]["log_step_size"])

    # the encoder's gradient is that of the bound alone
    settled = SCHEDULE._replace(balance_steps=0, anneal_steps=0)
    key_elbo = jax.random.split(key, 4)[0]
    bound = lambda p: objectives.elbo_loss(key_elbo, model, p, rows, 0, schedule=settled)[0]
    expected = jax.jit(jax.grad(bound))(params)["encoder"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        on["encoder"],
        expected,
    )


def test_exact_gradient_reaches_the_step_sizes_too_and_differs():
    model, params = with_hmc()
    rows = mixed_rows()

    def grad(mode):
        schedule = SCHEDULE._replace(gradient=mode)
        loss = lambda p: objectives.hmc_loss(
            jax.random.key(4), model, p, rows, 1, schedule=schedule
        )[0]
        return jax.jit(jax.grad(loss))(params)

    detached, exact = grad("detached"), grad("exact")
    for name in ("encoder", "decoder", "predictor"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            detached[name],
            exact[name],
        )
    assert np.any(detached["hmc"]["log_step_size"] != exact["hmc"]["log_step_size"])


def test_hidden_entries_cannot_change_any_loss_or_gradient():
    model, params = with_hmc()
    rows = mixed_rows()
    spoiled = rows._replace(
        x=jnp.where(rows.mask, rows.x, jnp.nan),
        z=jnp.where(rows.mask, rows.z, jnp.nan),
        y=jnp.where(rows.y_mask, rows.y, jnp.nan),
    )

    @jax.jit
    def value(params, rows):
        return jax.value_and_grad(
            lambda p: objectives.hmc_loss(jax.random.key(4), model, p, rows, 0, schedule=SCHEDULE)[
                0
            ]
        )(params)

    jax.tree.map(np.testing.assert_array_equal, value(params, rows), value(params, spoiled))


def test_labels_name_every_group():
    _, params = with_hmc()
    labels = objectives.labels(params)
    assert labels["hmc"] == {"log_step_size": "step", "log_inflation": "scale"}
    assert set(jax.tree.leaves(labels["marginal"])) == {"marginal"}
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    for name in ("decoder", "hierarchy", "predictor", "raw_log_var_y", "raw_log_var_z"):
        assert set(jax.tree.leaves(labels[name])) == {"generative"}
