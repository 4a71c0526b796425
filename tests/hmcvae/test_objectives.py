import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import objectives
from hmcvae.model import Rows
from hmcvae.posterior import init_hmc, resample, sample_chain
from tests.hmcvae.test_model import exact_posterior, linear_gaussian, mixed_model, mixed_rows

SCHEDULE = objectives.Schedule(num_leapfrog=3, num_chains_stein=4, stein_every=2)


def with_hmc(paper=False, **options):
    model, params = mixed_model(paper, **options)
    return model, {**params, "hmc": init_hmc(jax.random.key(9), model, 2)}


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"paper": True},
        {"marginals": False, "layer_sizes": (3, 2, 2)},
        {"reparameterised": False, "layer_sizes": (3, 2, 2)},
    ],
    ids=["default", "paper", "plain", "ablation"],
)
def test_each_group_gets_the_gradient_of_its_own_loss(options):
    model, params = with_hmc(**options)
    rows = mixed_rows()
    key = jax.random.key(4)

    @jax.jit
    @jax.grad
    def gradient(params, step):
        return objectives.hmc_loss(key, model, params, rows, step, schedule=SCHEDULE)[0]

    on, off = gradient(params, 0), gradient(params, 1)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(on))
    # one-column VAEs are constant, the inflation moves only on the steps of the Stein discrepancy
    assert not any(np.any(g) for g in jax.tree.leaves(on.get("marginal")))
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_pull_lengthens_steps_accepted_too_often_and_shortens_the_others():
    model, params = with_hmc()

    def slope(target):
        schedule = SCHEDULE._replace(accept_target=target)

        @jax.jit
        def grad(params, rows):
            loss = lambda params: objectives.hmc_loss(
                jax.random.key(4), model, params, rows, 1, schedule=schedule
            )
            (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
            return value, metrics["acceptance"], grads["hmc"]["log_step_size"]

        return grad(params, mixed_rows())

    value, acceptance, base = slope(0.0)
    for target in (0.5 * acceptance, 0.5 * (1 + acceptance)):
        same, _, pulled = slope(float(target))
        np.testing.assert_allclose(same, value, rtol=1e-6)  # a force, not a term of the objective
        direction = -(pulled - base).mean(axis=-1)  # [T]; descent goes against the gradient
        np.testing.assert_allclose(direction.sum(), (acceptance - target) * 2 / 5, rtol=1e-3)


@pytest.mark.slow
def test_discrepancy_of_some_rows_leaves_the_others_out():
    model, params = with_hmc()
    rows = mixed_rows()
    changed = rows._replace(mask=rows.mask.at[3:].set(False))
    schedule = SCHEDULE._replace(num_rows_stein=3)

    @jax.jit
    @jax.grad
    def gradient(params, rows):
        return objectives.hmc_loss(jax.random.key(4), model, params, rows, 0, schedule=schedule)[0]

    slopes = [gradient(params, r)["hmc"] for r in (rows, changed)]
    np.testing.assert_allclose(slopes[0]["log_inflation"], slopes[1]["log_inflation"], rtol=1e-5)
    assert np.any(slopes[0]["log_step_size"] != slopes[1]["log_step_size"])


@pytest.mark.slow
@pytest.mark.parametrize("marginals", [True, False])
def test_hidden_entries_cannot_change_any_loss_or_gradient(marginals):
    model, params = with_hmc(marginals=marginals)
    rows = mixed_rows()
    spoiled = rows._replace(
        x=jnp.where(rows.mask, rows.x, jnp.nan),
        z=jnp.where(rows.mask, rows.z, jnp.nan),
        y=jnp.where(rows.y_mask, rows.y, jnp.nan),
    )

    @jax.jit
    @jax.value_and_grad
    def value(params, rows):
        key, schedule = jax.random.key(4), SCHEDULE._replace(num_importance=3)
        losses = (objectives.hmc_loss, objectives.iw_loss, objectives.wake_loss)
        return sum(loss(key, model, params, rows, 0, schedule=schedule)[0] for loss in losses)

    jax.tree.map(np.testing.assert_array_equal, value(params, rows), value(params, spoiled))


def test_labels_name_every_group():
    _, params = with_hmc()
    labels = objectives.labels(params)
    assert labels["hmc"] == {"log_step_size": "step", "log_inflation": "scale"}
    marginal = labels["marginal"]
    encoder = {name for name in marginal if name.startswith("encoder")}
    assert {marginal[name] for name in encoder} == {"marginal"}
    assert {marginal[name] for name in set(marginal) - encoder} == {"marginal_decoder"}
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    for name in ("decoder", "hierarchy", "predictor", "raw_log_var_y"):
        assert set(jax.tree.leaves(labels[name])) == {"generative"}
    assert objectives.labels({"features": {"kernel": 0.0}}) == {"features": {"kernel": "encoder"}}


def mlp(params, inputs):
    (w0, b0), (w1, b1) = (
        (params[f"layer{i}"]["affine"]["kernel"], params[f"layer{i}"]["affine"]["bias"])
        for i in range(2)
    )
    return np.maximum(inputs @ np.float64(w0) + b0, 0.0) @ np.float64(w1) + b1


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(code, num, mask):
    return np.eye(num)[code.astype(int)] * mask[:, None]


def flat_vae_elbo(params, rows, noise):
    """The evidence bound of a one-layer VAE on the columns of `mixed_model`, written out."""
    x, mask, y, y_mask = (np.asarray(a) for a in (rows.x, rows.mask, rows.y, rows.y_mask))
    seen = np.where(mask, x, 0.0)
    flat = [seen[:, :1], one_hot(seen[:, 1], 4, mask[:, 1]), seen[:, 2:]]
    label = np.where(y_mask, y, 0)[:, 0]
    inputs = [*flat, mask, one_hot(label, 3, y_mask[:, 0]), y_mask]
    mean, log_var = np.split(
        mlp(params["encoder"]["base"], np.concatenate(inputs, axis=1)), 2, axis=1
    )
    h = mean + np.exp(0.5 * log_var) * noise
    theta = mlp(params["decoder"], h).reshape(-1, 4, 4)
    var_x = 1e-3 + np.exp(np.float64(params["raw_log_var_x"]))
    normal = -0.5 * (np.log(2 * np.pi * var_x) + (x - theta[:, :, 0]) ** 2 / var_x)
    log_p = np.where(np.arange(4) % 3 == 0, normal, 0.0)  # columns 0 and 3 are real
    classes, one = softmax(theta[:, 1]), 1 / (1 + np.exp(-theta[:, 2, 0]))
    log_p[:, 1] = np.log(classes[np.arange(len(x)), x[:, 1].astype(int)])
    log_p[:, 2] = np.log(np.where(x[:, 2] == 1, one, 1 - one))
    guess = [theta[:, :1, 0], classes, one[:, None], theta[:, 3:, 0]]
    shown = [mask[:, :1], np.repeat(mask[:, 1:2], 4, axis=1), mask[:, 2:3], mask[:, 3:]]
    parts = [*flat[:2], seen[:, 2:3], seen[:, 3:]]
    x_hat = [np.where(m, v, g) for m, v, g in zip(shown, parts, guess, strict=True)]
    logits = mlp(params["predictor"], np.concatenate([h, *x_hat, ~mask], axis=1))
    log_y = np.log(softmax(logits)[np.arange(len(x)), label.astype(int)])
    kl = 0.5 * (mean**2 + np.exp(log_var) - log_var - 1).sum(axis=1)
    return np.mean((log_p * mask).sum(axis=1) + log_y * y_mask[:, 0] - kl)


def test_hierarchy_of_one_layer_is_a_flat_vae():
    model, params = mixed_model(layer_sizes=(3,), marginals=False)
    rows, key = mixed_rows(), jax.random.key(5)
    # at any moment of training: there is nothing to balance or to anneal
    for step in (0, 10_000):
        loss, _ = objectives.elbo_loss(key, model, params, rows, step, schedule=SCHEDULE)
        noise = jax.random.normal(jax.random.split(key)[0], (7, 3))
        np.testing.assert_allclose(-loss, flat_vae_elbo(params, rows, np.asarray(noise)), rtol=1e-5)


def repeated_row(num):
    """One row of the linear-Gaussian model `num` times, and the evidence of its observed part."""
    model, params, weight, bias = linear_gaussian()
    x, mask = np.array([0.4, -1.0, 0.7], np.float32), np.array([True, False, True])
    mean, cov, evidence = exact_posterior(x, mask, weight, bias, 0.1)
    # an encoder that overlaps with the posterior without being it
    last = params["encoder"]["base"]["layer1"]["affine"]
    last["kernel"] = jnp.zeros_like(last["kernel"])
    heads = [mean + 0.5 * np.sqrt(np.diag(cov)), np.log(2 * np.diag(cov))]
    last["bias"] = jnp.asarray(np.concatenate(heads), jnp.float32)
    rows = [jnp.broadcast_to(jnp.asarray(a), (num, 3)) for a in (x, mask, x)]
    return model, params, Rows(*rows, None, None), evidence


def iw_bound(model, params, rows, num):
    schedule = SCHEDULE._replace(num_importance=num)
    loss = lambda p: objectives.iw_loss(jax.random.key(1), model, p, rows, 0, schedule=schedule)[0]
    return -jax.jit(loss)(params)


@pytest.mark.slow
def test_importance_weighted_bound_rises_from_the_elbo_to_the_evidence():
    model, params, rows, evidence = repeated_row(4000)
    elbo, _ = objectives.elbo_loss(jax.random.key(2), model, params, rows, 0, schedule=SCHEDULE)
    bounds = [iw_bound(model, params, rows, num) for num in (1, 4, 200)]
    np.testing.assert_allclose(bounds[0], -elbo, rtol=0.02)
    assert bounds[0] + 0.1 < bounds[1] < bounds[2] - 0.05
    np.testing.assert_allclose(bounds[2], evidence, atol=0.03)


def test_one_importance_sample_is_the_elbo_with_its_noise():
    model, params = mixed_model()
    rows, key = mixed_rows(), jax.random.key(3)
    schedule = SCHEDULE._replace(num_importance=1)
    loss, ours = objectives.iw_loss(key, model, params, rows, 0, schedule=schedule)
    _, expected = objectives.elbo_loss(
        jax.random.split(key, 1)[0], model, params, rows, 10_000, schedule=schedule
    )
    for name in ("log_lik_x", "log_lik_y"):
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-6)
    # what is left is log q - log p at the draw, of which the KL term is the expectation
    key_eps, _ = jax.random.split(jax.random.split(key, 1)[0])
    apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
    mean, log_var = (np.asarray(v) for v in apply("encode", rows))
    noise = np.asarray(jax.random.normal(key_eps, mean.shape))
    eps = mean + np.exp(0.5 * log_var) * noise
    log_ratio = 0.5 * (eps**2 - noise**2 - log_var).sum(axis=1)
    bound = expected["log_lik_x"] + expected["log_lik_y"] - log_ratio.mean()
    np.testing.assert_allclose(-loss, bound, rtol=1e-5)


def test_wake_sleep_climbs_the_evidence_and_fits_the_marginals_of_the_posterior():
    model, params, rows, evidence = repeated_row(4000)
    _, _, weight, bias = linear_gaussian()
    x, mask = np.asarray(rows.x[0]), np.asarray(rows.mask[0])
    mean, cov, _ = exact_posterior(x, mask, weight, bias, 0.1)
    schedule = SCHEDULE._replace(num_importance=200)

    @jax.jit
    @jax.value_and_grad
    def value(params):
        key = jax.random.key(1)
        return objectives.wake_loss(key, model, params, rows, 0, schedule=schedule)[0]

    def at(heads):
        heads = jnp.asarray(np.concatenate(heads), jnp.float32)
        changed = jax.tree.map(lambda leaf: leaf, params)
        changed["encoder"]["base"]["layer1"]["affine"]["bias"] = heads
        loss, grad = value(changed)
        bias_of = lambda network: -network["layer1"]["affine"]["bias"]
        return -loss, bias_of(grad["decoder"]), bias_of(grad["encoder"]["base"])

    # an encoder with the marginal means and variances of the posterior: nothing is left to gain
    bound, decoder, encoder = at((mean, np.log(np.diag(cov))))
    np.testing.assert_allclose(bound, evidence, atol=0.02)
    log_evidence = lambda bias: exact_posterior(x, mask, weight, bias, 0.1)[2]
    steps = 1e-5 * np.eye(3)
    slope = [(log_evidence(bias + h) - log_evidence(bias - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(decoder, slope, rtol=0.05, atol=0.05)
    np.testing.assert_allclose(encoder, 0.0, atol=0.05)
    # a narrower one, such as the evidence bound would prefer, is told to widen
    _, _, encoder = at((mean, np.log(0.3 * np.diag(cov))))
    assert np.all(encoder[2:] > 0.2)


@pytest.mark.slow
def test_chains_of_wake_sleep_start_at_resampled_draws_and_need_no_inflation():
    model, params = with_hmc()
    rows, key = mixed_rows(), jax.random.key(3)
    schedule = SCHEDULE._replace(bound="wake", num_proposals=7)
    row = jax.tree.map(lambda leaf: leaf[2], rows)
    heads = model.apply({"params": params}, row, method="encode")
    still = {**params, "hmc": init_hmc(key, model, 0)}
    args = dict(schedule=schedule, gradient="none")
    chain = sample_chain(key, model, still, row, *heads, **args)
    key_start = jax.random.split(key, 3)[0]
    start = resample(key_start, model, params, row, heads, num_proposals=7)
    np.testing.assert_array_equal(chain.position, start)

    def loss(params):
        return objectives.hmc_loss(key, model, params, rows, 0, schedule=schedule)[0]

    grads = jax.jit(jax.grad(loss))(params)["hmc"]
    np.testing.assert_array_equal(grads["log_inflation"], 0.0)
    assert np.any(grads["log_step_size"] != 0.0)


def test_published_importance_weighted_bound_leaves_out_a_constant_only():
    model, params, rows, _ = repeated_row(50)
    ours, published = (
        jax.jit(jax.value_and_grad(lambda p, m=m: iw_bound(m, p, rows, 5)))(params)
        for m in (model, model.clone(paper=True))
    )
    np.testing.assert_allclose(published[0], ours[0] + np.log(5), rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours[1], published[1]
    )
