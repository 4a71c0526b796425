"""What rows borrow from exemplars: whom, how often, and what of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import exemplars, likelihoods
from hmcvae.columns import Column, Schema
from hmcvae.fitting import ROUND
from hmcvae.model import HVAE

SCHEMA = Schema((Column("a", "gaussian"), Column("b", "bernoulli"), Column("c", "gaussian")))
ROUNDS = 400


@pytest.fixture(scope="module")
def model():
    model = HVAE(SCHEMA, Schema(()), layer_sizes=(2,), hidden=4, marginal_hidden=3)
    return model, model.init(jax.random.key(0), model.blank_row())["params"]


@pytest.fixture(scope="module")
def theta():
    """Parameters of six exemplars."""
    return np.random.default_rng(0).normal(size=(6, 3, 1)).astype(np.float32)


def ask(model, theta, x, mask, *, of_draws=1.0, rounds=ROUNDS):
    model, params = model
    keys = jax.random.split(jax.random.key(1), len(x))
    found = [
        exemplars.borrow(keys, params, theta, x, mask, n, of_draws, model=model)
        for n in range(rounds)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def test_exemplars_are_drawn_in_proportion_to_the_likelihood_of_what_is_observed(model, theta):
    x = jnp.asarray([[0.3, 1.0, -0.2], [0.0, 0.0, 0.0]], jnp.float32)
    mask = jnp.asarray([[True, True, False], [False, False, False]])
    got = ask(model, theta, x, mask)
    log_var = model[0].apply({"params": model[1]}, method=lambda m: m.log_var_x)
    every = (jnp.broadcast_to(x[0], (6, 3)), jnp.broadcast_to(mask[0], (6, 3)))
    log_prob = likelihoods.log_prob(SCHEMA, theta, *every, log_var=log_var)
    for b, expected in enumerate([jax.nn.softmax(log_prob.sum(axis=-1)), np.full(6, 1 / 6)]):
        frequency = np.bincount(got.index[:, b], minlength=6) / (ROUNDS * ROUND)
        error = np.sqrt(expected * (1 - expected) / (ROUNDS * ROUND))
        assert (np.abs(frequency - expected) < 4.5 * error + 1e-6).all()
    residual = got.draws[:, 0, 2] - theta[got.index[:, 0], 2, 0]
    assert abs(residual.std() / np.exp(0.5 * log_var[2]) - 1) < 0.05
    assert set(np.unique(got.draws[..., 1])) == {0.0, 1.0}


@pytest.mark.parametrize("of_draws", [0.0, 0.5, 1.0])
def test_share_of_the_draws_is_as_told(model, theta, of_draws):
    got = ask(model, theta, np.zeros((1, 3), np.float32), np.zeros((1, 3), bool), of_draws=of_draws)
    assert abs(got.is_used.mean() - of_draws) < 4.5 * np.sqrt(0.25 / (ROUNDS * ROUND))
    assert of_draws == 0.5 or (got.is_used == of_draws).all()


def test_what_a_row_borrows_depends_on_the_row_and_its_key_alone(model, theta):
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    x[:, 1] = 1
    mask = np.array([[True, False, False], [True, True, True]])
    both = ask(model, theta, x, mask, rounds=3)
    changed = ask(model, theta, np.stack([x[0], -x[1]]), mask, rounds=3)
    hidden = ask(model, theta, np.where(mask, x, np.nan), mask, rounds=3)
    for other in (changed, hidden):
        np.testing.assert_array_equal(both.index[:, 0], other.index[:, 0])
        np.testing.assert_array_equal(both.draws[:, 0], other.draws[:, 0])


def test_wide_tables_keep_fewer_exemplars():
    narrow = Schema(tuple(Column(str(i), "gaussian") for i in range(10)))
    wide = Schema((*narrow.columns[:9], Column("w", "categorical", 1000)))
    assert exemplars.most(narrow) == exemplars.MOST
    assert 10 * 1000 * exemplars.most(wide) <= exemplars.MOST_NUMBERS
    huge = Schema(tuple(Column(str(i), "categorical", 10**6) for i in range(9)))
    assert exemplars.most(huge) == 1
