import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmcvae.columns import Column, Schema
from hmcvae.gaussian import kl_to_standard_normal
from hmcvae.marginal import MIN_VAR, MarginalVAEs, floored_log_var, kl_weights, widened

SCHEMA = Schema(
    (
        Column("g", "gaussian"),
        Column("c", "categorical", 4),
        Column("b", "bernoulli"),
        Column("l", "loggaussian"),
        Column("k", "categorical", 3),
    )
)


def rows(n=11, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[:, 1], x[:, 4] = rng.integers(0, 4, n), rng.integers(0, 3, n)
    x[:, 2] = rng.integers(0, 2, n)
    return jnp.asarray(x), jnp.asarray(rng.random((n, 5)) > 0.3)


def init(module, seed=0):
    x, mask = rows(2)
    d = module.schema.num_columns
    return module.init(jax.random.key(seed), x[:, :d], mask[:, :d], method="encode")["params"]


def full_init(schema, seed=0):
    module = MarginalVAEs(schema, hidden=6)
    return module, init(module, seed)


@pytest.mark.slow
def test_stack_trains_like_separate_models():
    """Ten Adam steps of the stack give every column what a model of that column alone would get."""
    module, params = full_init(SCHEMA)
    x, mask = rows()
    key = jax.random.key(3)
    beta = kl_weights(SCHEMA)
    noise = jax.random.normal(jax.random.key(3), x.shape)

    def bound(module, params, x, mask, noise, beta):
        def run(module):
            mean, log_var = module.encode(x, mask)
            z = mean + jnp.exp(0.5 * log_var) * noise
            kl = jnp.where(mask, kl_to_standard_normal(mean, log_var), 0.0)
            terms = module.log_prob(z, x, mask) - beta * kl
            return -jnp.sum(jnp.sum(terms, axis=0) / jnp.maximum(jnp.sum(mask, axis=0), 1))

        return module.apply({"params": params}, method=run)

    np.testing.assert_allclose(
        bound(module, params, x, mask, noise, beta),
        -jnp.sum(module.apply({"params": params}, key, x, mask, beta=beta, method="bound").bound),
        rtol=1e-5,
    )

    def train(module, params, columns, width):
        optimiser = optax.chain(optax.add_decayed_weights(0.01), optax.adam(1e-2))
        state = optimiser.init(params)

        @jax.jit
        def step(params, state):
            grads = jax.grad(
                lambda p: bound(
                    module, p, x[:, columns], mask[:, columns], noise[:, columns], beta[columns]
                )
            )(params)
            updates, state = optimiser.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(10):
            params, state = step(params, state)
        return params

    together = train(module, params, np.arange(5), 4)
    for i, column in enumerate(SCHEMA.columns):
        single = MarginalVAEs(Schema((column,)), hidden=6)
        c = column.num_classes
        alone = {k: v[i : i + 1] for k, v in params.items()}
        values, flag = alone["encoder_w0"][:, :c], alone["encoder_w0"][:, -1:]
        alone["encoder_w0"] = jnp.concatenate([values, flag], axis=1)
        alone["decoder_w1"] = alone["decoder_w1"][..., :c]
        alone["decoder_b1"] = alone["decoder_b1"][..., :c]
        alone = train(single, alone, np.array([i]), c)
        np.testing.assert_allclose(
            together["decoder_w1"][i : i + 1, :, :c], alone["decoder_w1"], rtol=2e-4, atol=2e-5
        )
        np.testing.assert_allclose(
            together["encoder_w1"][i : i + 1], alone["encoder_w1"], rtol=2e-4, atol=2e-5
        )


def test_nothing_under_the_mask_can_matter():
    module, params = full_init(SCHEMA)
    x, mask = rows()
    beta = kl_weights(SCHEMA)

    def loss(params, x):
        terms = module.apply(
            {"params": params}, jax.random.key(0), x, mask, beta=beta, method="bound"
        )
        return jnp.sum(terms.bound)

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    for junk in (np.nan, np.inf, 7.0):
        spoiled = jnp.where(mask, x, junk)
        clean = value_and_grad(params, jnp.where(mask, x, 0.0))
        dirty = value_and_grad(params, spoiled)
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)
        z = module.apply({"params": params}, jax.random.key(1), spoiled, mask, method="extract")
        np.testing.assert_array_equal(z[~mask], 0.0)


def test_column_that_nobody_observed_contributes_nothing():
    module, params = full_init(SCHEMA)
    x, mask = rows()
    mask = mask.at[:, 1].set(False)
    terms = module.apply(
        {"params": params}, jax.random.key(0), x, mask, beta=kl_weights(SCHEMA), method="bound"
    )
    assert terms.bound[1] == 0
    assert np.all(np.isfinite(terms.bound))


def test_initial_weights_are_bounded_by_each_columns_own_fan_in():
    _, params = full_init(SCHEMA)
    for i, column in enumerate(SCHEMA.columns):
        bound = 1 / np.sqrt(column.num_classes + 1)
        assert np.abs(params["encoder_w0"][i]).max() <= bound
    assert np.abs(params["decoder_w0"]).max() > 0.5  # fan-in of one


def test_learned_variance_has_a_floor():
    module, params = full_init(SCHEMA)
    params["raw_log_var"] = jnp.full(5, -100.0)
    log_var = module.apply({"params": params}, method=lambda m: m.log_var)
    np.testing.assert_allclose(jnp.exp(log_var), MIN_VAR, rtol=1e-5)


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_widened_variance_is_so_many_times_the_floored_one(width):
    raw = np.array([-9.0, -2.3, 1.0], np.float32)
    before, after = np.exp(floored_log_var(raw)), np.exp(floored_log_var(widened(raw, width)))
    np.testing.assert_allclose(after, before * width**2, rtol=1e-4)
