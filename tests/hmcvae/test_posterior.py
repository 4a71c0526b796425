import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import objectives, predict
from hmcvae.model import Rows
from hmcvae.posterior import init_hmc, resample, sample_chain, sample_eps
from tests.hmcvae.test_model import exact_posterior, linear_gaussian, mixed_model, mixed_rows

SCHEDULE = objectives.Schedule(num_leapfrog=5)
IW = SCHEDULE._replace(bound="iw", num_proposals=300)


def test_hmc_posterior_of_the_linear_gaussian_model_is_exact():
    """A poor encoder is mended by the chain: moments within four standard errors."""
    model, params, weight, bias = linear_gaussian()
    x = jnp.array([[0.4, -1.0, 0.7], [1.0, 0.0, 0.0]], jnp.float32)
    mask = jnp.array([[True, False, True], [False, False, False]])
    steps = jnp.log(jnp.full((30, 2), 0.18))
    params = {**params, "hmc": {"log_step_size": steps, "log_inflation": jnp.zeros(1)}}
    num = 4000
    posterior = jax.jit(
        lambda key: predict.sample_posterior(
            key, model, params, x, mask, num_samples=num, schedule=SCHEDULE
        )
    )(jax.random.key(0))
    assert posterior.eps.shape == (num, 2, 2)
    for row in range(2):
        mean, cov, _ = exact_posterior(np.asarray(x[row]), np.asarray(mask[row]), weight, bias, 0.1)
        draws = np.asarray(posterior.eps[:, row], np.float64)
        error = 4 * np.sqrt(np.diag(cov) / num)
        assert np.all(np.abs(draws.mean(axis=0) - mean) < error)
        np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.1 * np.diag(cov).max())
    assert np.all(posterior.divergence == 0)


def test_gaussian_posterior_is_used_when_there_is_no_chain():
    model, params, *_ = linear_gaussian()
    x, mask = jnp.zeros((2, 3)), jnp.ones((2, 3), bool)
    posterior = predict.sample_posterior(
        jax.random.key(0), model, params, x, mask, num_samples=2000, schedule=SCHEDULE
    )
    rows = Rows(x, mask, x, None, None)
    mean, log_var = model.apply({"params": params}, rows, method="encode")
    error = 5 * np.exp(0.5 * np.asarray(log_var)) / np.sqrt(2000)
    assert np.all(np.abs(posterior.eps.mean(axis=0) - mean) < error)
    np.testing.assert_array_equal(posterior.acceptance, 1.0)


def test_importance_resampling_mends_a_poor_encoder():
    model, params, weight, bias = linear_gaussian()
    # posterior far from the encoder, in reach of a few hundred proposals
    x, mask = np.array([0.4, -1.0, 0.7]), np.array([True, False, False])
    mean, cov, _ = exact_posterior(x, mask, weight, bias, 0.1)
    batch = [jnp.asarray(a)[None] for a in (x.astype(np.float32), mask)]
    num = 2000

    @jax.jit
    def draw(key):
        return predict.sample_posterior(key, model, params, *batch, num_samples=num, schedule=IW)

    draws = np.asarray(draw(jax.random.key(0)).eps[:, 0], np.float64)
    error = 4 * np.sqrt(np.diag(cov) / num)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < error)
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.1 * np.diag(cov).max())


def test_resampling_picks_one_of_the_encoders_draws_by_weight():
    model, params = mixed_model(marginals=False)
    row = jax.tree.map(lambda a: a[3], mixed_rows()._replace(z=None))
    apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
    mean, log_var = apply("encode", row)
    key = jax.random.key(6)
    log_weight, draws = [], []
    for k in jax.random.split(key, 4):
        key_eps, key_pick = jax.random.split(k)
        noise = jax.random.normal(key_eps, mean.shape)
        eps = mean + jnp.exp(0.5 * log_var) * noise
        log_q = -0.5 * jnp.sum(noise**2 + log_var + np.log(2 * np.pi))
        log_weight.append(
            apply("log_joint", eps, row).total() - log_q + jax.random.gumbel(key_pick)
        )
        draws.append(eps)
    ours = resample(key, model, params, row, (mean, log_var), num_proposals=4)
    np.testing.assert_allclose(ours, draws[int(np.argmax(log_weight))], rtol=1e-5)
    one = resample(key, model, params, row, (mean, log_var), num_proposals=1)
    k = jax.random.split(jax.random.split(key, 1)[0])[0]
    np.testing.assert_allclose(one, apply("draw", k, mean, log_var).latents, rtol=1e-6)


@pytest.mark.parametrize("layer_sizes", [(3, 2), (3, 2, 2)])
@pytest.mark.parametrize("reparameterised", [True, False])
def test_a_chain_without_transitions_is_the_encoder(layer_sizes, reparameterised):
    model, params = mixed_model(layer_sizes=layer_sizes, reparameterised=reparameterised)
    params = {**params, "hmc": init_hmc(jax.random.key(5), model, 0)}
    row = jax.tree.map(lambda a: a[3], mixed_rows())
    heads = model.apply({"params": params}, row, method="encode")
    encoder = model.apply({"params": params}, None, *heads, method="draw")

    @jax.jit
    @jax.vmap
    def draw(key):
        return sample_eps(key, model, params, row, schedule=SCHEDULE)

    eps, acceptance, divergence = draw(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_array_equal(acceptance, 1.0)
    np.testing.assert_array_equal(divergence, 0.0)
    noise = np.asarray((eps - encoder.mean) * jnp.exp(-0.5 * encoder.log_var))
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=4 / np.sqrt(len(noise)))
    np.testing.assert_allclose(np.cov(noise.T), np.eye(len(noise.T)), atol=0.1)


@pytest.mark.slow
def test_ablation_and_reparameterised_model_have_the_same_posterior():
    """HMC in h and in eps give the same h_1 and h_2, in mean and spread."""
    model, params = mixed_model(layer_sizes=(2, 1), marginals=False)
    row = jax.tree.map(lambda a: a[3:4], mixed_rows())
    tables = {"log_step_size": jnp.log(jnp.full((15, 3), 0.15)), "log_inflation": jnp.zeros(2)}
    params = {**params, "hmc": tables}

    def layers(model):
        draw = lambda key: predict.sample_posterior(
            key, model, params, row.x, row.mask, num_samples=3000, schedule=SCHEDULE
        )
        eps = jax.jit(draw)(jax.random.key(0)).eps[:, 0]
        to_layers = lambda m: jnp.concatenate(m.hierarchy(eps), axis=-1)
        return np.asarray(model.apply({"params": params}, method=to_layers))

    ours, expected = layers(model.clone(reparameterised=False)), layers(model)
    spread = expected.std(axis=0)
    assert np.all(np.abs(ours.mean(axis=0) - expected.mean(axis=0)) < 5 * spread / np.sqrt(1000))
    np.testing.assert_allclose(ours.std(axis=0), spread, rtol=0.1)


def test_preconditioned_steps_are_in_units_of_the_encoders_deviations():
    model, params = mixed_model()
    params = {**params, "hmc": init_hmc(jax.random.key(9), model, 2)}
    row = jax.tree.map(lambda leaf: leaf[1], mixed_rows())
    mean, log_var = jnp.zeros(5), jnp.linspace(-3.0, 0.0, 5)

    def end(params, precondition):
        chain = sample_chain(
            jax.random.key(0), model, params, row, mean, log_var,
            schedule=SCHEDULE._replace(precondition=precondition), gradient="none",
        )  # fmt: skip
        return chain.position

    scaled = params["hmc"]["log_step_size"] + 0.5 * log_var
    by_hand = {**params, "hmc": {**params["hmc"], "log_step_size": scaled}}
    np.testing.assert_allclose(end(params, True), end(by_hand, False), rtol=1e-6)
    assert np.any(end(params, True) != end(params, False))
