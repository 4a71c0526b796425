"""What an incomplete row borrows from the training rows that resemble it.

The decoder of a trained model serves any prior of its latents. The posteriors of the training rows
make one, p(eps) = 1/M sum_m delta(eps - eps_m), which puts its mass where rows are and where
N(0, I) sees but a smooth cloud: tables of designs that were measured several times, or of values
that repeat (the aggregate posterior of Tomczak and Welling 2018; exemplars, Norouzi et al. 2020).
Under it the posterior of a row needs no chain: exemplar m has the weight p(x_O | eps_m). A missing
cell is decoded from the exemplar, or takes the value that the exemplar's own row has there.

How much to borrow is for rows to say that neither training nor the exemplars have seen.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from hmcvae import likelihoods
from hmcvae.columns import Schema
from hmcvae.compiling import RUN_BRIEFLY
from hmcvae.fitting import ROUND
from hmcvae.model import HVAE

MOST = 4096  # exemplars, M
MOST_NUMBERS = 2**22  # of theta, M x D x C


class Bank(NamedTuple):
    """The exemplars."""

    # likelihood parameters [M, D, C], at a posterior sample of a training row
    theta: np.ndarray = np.zeros((0, 0, 0), np.float32)
    # that row [M, D] in raw units and codes, NaN where it has a hole
    values: np.ndarray = np.zeros((0, 0))


class Share(NamedTuple):
    """How much is borrowed."""

    of_draws: float = 0.0  # the others are draws of the chain
    is_exact: bool = False  # take values, not decoded ones, where the exemplar has them


CHOICES = (Share(), Share(0.5), Share(0.5, True))


class Borrowed(NamedTuple):
    """Draws for a block of rows."""

    index: jax.Array  # [ROUND, B] exemplars
    is_used: jax.Array  # [ROUND, B] in place of the draw of the chain
    draws: jax.Array  # [ROUND, B, D] standardised values and codes, decoded


def most(schema: Schema) -> int:
    """Returns how many exemplars of a table are kept: wide ones have fewer."""
    return min(MOST, max(MOST_NUMBERS // (schema.num_columns * schema.max_classes), 1))


@functools.partial(jax.jit, static_argnames="model", compiler_options=RUN_BRIEFLY)
def borrow(keys, params, theta, x, mask, number, of_draws, *, model: HVAE) -> Borrowed:
    """Draws exemplars in proportion to p(x_O | eps_m), one round.

    Args:
      keys: [B] PRNG keys, those of `fitting.answer`.
      params: from `fitting.fit`.
      theta: [M, D, C] of the bank.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed; a row without any takes all exemplars alike.
      number: of the round, from 0.
      of_draws: probability that a draw is used.
      model: the module.

    Returns:
      Borrowed.
    """
    log_var = model.apply({"params": params}, method=lambda m: m.log_var_x)

    def one(key, x, mask):
        # `answer` folds in 0, 1, ..., which these never meet
        key_pick, key_use, key_x = jax.random.split(jax.random.fold_in(key, ~number), 3)
        log_prob = model.apply({"params": params}, theta, x, mask, method="log_prob_x")
        index = jax.random.categorical(key_pick, log_prob.sum(axis=-1), shape=(ROUND,))
        is_used = jax.random.bernoulli(key_use, of_draws, (ROUND,))
        draws = likelihoods.sample(key_x, model.schema, theta[index], log_var)
        return Borrowed(index, is_used, draws)

    return jax.vmap(one, out_axes=1)(keys, x, mask)
