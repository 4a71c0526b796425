"""Posterior samples, imputation, prediction and test scores of a trained model.

Scores come in two definitions, side by side (docs/hhvaem.md). `paper` is the published one:
the mean over a row's missing columns is taken inside the log-mean-exp over samples, z is plugged
in at its mean, Bernoulli columns are weighted. `proper` is a log probability: the joint density of
a row's missing columns with z drawn from p(z | eps), divided by their number, without weights.

Everything streams over posterior samples in chunks, so memory does not grow with their number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import columns, likelihoods
from hmcvae.columns import Scaler
from hmcvae.gaussian import diag_normal
from hmcvae.model import HVAE, Rows
from hmcvae.objectives import Schedule, sample_chain


class Posterior(NamedTuple):
    """Samples of q(eps | observed) for a batch of rows."""

    eps: jax.Array  # [S, B, d_tot]
    acceptance: (
        jax.Array
    )  # [B] mean acceptance probability over chains and transitions; 1 without HMC
    divergence: jax.Array  # [B] fraction of divergent transitions


class Decoded(NamedTuple):
    """Likelihood parameters at posterior samples."""

    theta: jax.Array  # [S, B, D, C] at z ~ p(z | eps)
    theta_plugin: jax.Array  # [S, B, D, C] at the mean of p(z | eps)
    theta_y: jax.Array | None  # [S, B, P, C_y]; None if the model has no target


class TestRows(NamedTuple):
    """Rows to be scored: what is shown to the model, and what is true."""

    x: jax.Array  # [B, D] standardised values and codes
    shown: jax.Array  # [B, D] shown to the encoder
    known: jax.Array  # [B, D] recorded in the table; scored where not shown
    y: jax.Array  # [B, P] standardised values and codes, never shown
    y_known: jax.Array  # [B, P]


def sample_posterior(
    key, model: HVAE, params, x, mask, *, num_samples: int, schedule: Schedule, y=None, y_mask=None
) -> Posterior:
    """Draws eps from q(eps | x_O, y_O), by HMC if the parameters hold a tuned chain.

    Args:
      key: PRNG key.
      model: the module.
      params: parameters; a group "hmc" makes it HMC, otherwise the encoder's Gaussian is used.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed.
      num_samples: S, chains per row; memory grows with S * B.
      schedule: leapfrog steps of a transition.
      y: [B, P] observed targets, or None.
      y_mask: [B, P].

    Returns:
      Posterior.
    """

    def one(key, key_z, x, mask, y, y_mask):
        key_z, key_chain = (key_z, key) if model.paper else jax.random.split(key)
        z = model.apply({"params": params}, key_z, x, mask, method="extract")
        row = Rows(x, mask, z, y, y_mask)
        return sample_eps(key_chain, model, params, row, schedule=schedule)

    # the published sampler draws z once per row, shared by that row's chains
    key_z, key = jax.random.split(key)
    keys_z = jax.random.split(key_z, x.shape[0])
    keys = jax.random.split(key, (num_samples, x.shape[0]))
    rows = jax.vmap(one)
    eps, acceptance, divergence = jax.vmap(rows, in_axes=(0, None, None, None, None, None))(
        keys, keys_z, x, mask, y, y_mask
    )
    return Posterior(eps, jnp.mean(acceptance, axis=0), jnp.mean(divergence, axis=0))


def sample_eps(key, model: HVAE, params, row: Rows, *, schedule: Schedule):
    """Draws eps once from q(eps | z_O, y_O) of one row whose marginal latents are given.

    Returns:
      eps [d_tot], mean acceptance probability [] and fraction of divergent transitions [] of its
      chain (1 and 0 where the parameters hold no chain).
    """
    mean, log_var = model.apply({"params": params}, row, method="encode")
    if "hmc" not in params:
        return diag_normal(mean, log_var).sample(seed=key), jnp.ones(()), jnp.zeros(())
    chain = sample_chain(key, model, params, row, mean, log_var, schedule=schedule, gradient="none")
    divergent = chain.info.is_divergent.astype(jnp.float32)
    return chain.position, jnp.mean(chain.info.accept_prob), jnp.mean(divergent)


def decode_posterior(key, model: HVAE, params, x, mask, eps) -> Decoded:
    """Decodes posterior samples eps [S, B, d_tot] to columns and targets."""
    noise = jax.random.normal(key, (*eps.shape[:-1], x.shape[-1]))

    def one(eps, noise, x, mask):
        def decode(model):
            h, z_mean = model.decode(eps)
            z = z_mean + jnp.exp(0.5 * model.log_var_z) * noise
            theta_y = None
            if model.target.num_columns:
                theta_y = model.predict(Rows(x, mask, z_mean, None, None), h, z_mean)
            return Decoded(model.decode_columns(z), model.decode_columns(z_mean), theta_y)

        return model.apply({"params": params}, method=decode)

    return jax.vmap(jax.vmap(one), in_axes=(0, 0, None, None))(eps, noise, x, mask)


def impute(
    key, model: HVAE, params, scaler: Scaler, x_raw, mask, *, num_samples: int, schedule: Schedule
) -> jax.Array:
    """Draws the missing entries given the observed ones.

    x_U ~ p(x_U | x_O): eps from `sample_posterior`, z ~ p(z | eps), x ~ p(x | z).

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      scaler: standardisation of the training rows.
      x_raw: [B, D] in raw units, codes of discrete columns; anything under the mask.
      mask: [B, D] True = observed.
      num_samples: S.
      schedule: leapfrog steps of a transition.

    Returns:
      [S, B, D] in raw units; observed entries are returned unchanged, bit for bit.
    """
    key_eps, key_decode, key_x = jax.random.split(key, 3)
    x = columns.transform(model.schema, scaler, x_raw, mask)
    posterior = sample_posterior(
        key_eps, model, params, x, mask, num_samples=num_samples, schedule=schedule
    )
    theta = decode_posterior(key_decode, model, params, x, mask, posterior.eps).theta
    log_var = model.apply({"params": params}, method=lambda m: m.marginal.log_var)
    draws = likelihoods.sample(key_x, model.schema, theta, log_var)
    return jnp.where(mask, x_raw, columns.inverse(model.schema, scaler, draws))


def score(
    key,
    model: HVAE,
    params,
    scaler: Scaler,
    scaler_y: Scaler,
    rows: TestRows,
    *,
    num_samples: int,
    chunk: int,
    schedule: Schedule,
    pos_weight_x=None,
    pos_weight_y=None,
) -> dict[str, jax.Array]:
    """Scores every row under the posterior given what is shown of it, targets never shown.

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      scaler: standardisation of the features.
      scaler_y: standardisation of the targets.
      rows: [B, ...].
      num_samples: S; rounded up to whole chunks.
      chunk: samples drawn at a time; memory grows with chunk * B.
      schedule: leapfrog steps of a transition.
      pos_weight_x: [D] weights of the `paper` score, or None.
      pos_weight_y: [P] the same for targets.

    Returns:
      By row: log scores in nats of standardised units ("paper_x" [B], "joint_x" [B], "marginal_x"
      [B, D], the same with "_observed" for the columns shown, "paper_y", "joint_y" [B]), averages
      over samples ("x_mean", "x_square" [B, D] raw units; "theta", "probs" [B, D, C]; "y_mean"
      [B, P] raw units, "y_probs" [B, P, C_y]), "acceptance", "divergence" [B]. Without targets
      the entries of y are absent.
    """
    num_chunks = -(-num_samples // chunk)
    missing = rows.known & ~rows.shown
    seen = rows.known & rows.shown

    def one_chunk(key):
        key_eps, key_decode, key_x = jax.random.split(key, 3)
        posterior = sample_posterior(
            key_eps, model, params, rows.x, rows.shown, num_samples=chunk, schedule=schedule
        )
        out = decode_posterior(key_decode, model, params, rows.x, rows.shown, posterior.eps)

        def log_prob(method, theta, values, known, weight):
            return model.apply({"params": params}, theta, values, known, weight, method=method)

        proper = log_prob("log_prob_x", out.theta, rows.x, rows.known, None)
        plugin = log_prob("log_prob_x", out.theta_plugin, rows.x, rows.known, pos_weight_x)
        log_scores = row_log_scores(plugin, proper, missing, seen)
        log_var = model.apply({"params": params}, method=lambda m: m.marginal.log_var)
        draws = likelihoods.sample(key_x, model.schema, out.theta, log_var)
        x = columns.inverse(model.schema, scaler, draws)
        averages = {
            "theta": out.theta_plugin,
            "probs": likelihoods.probs(model.schema, out.theta),
            "x_mean": x,
            "x_square": x**2,
        }
        if model.target.num_columns:
            weighted_y = log_prob("log_prob_y", out.theta_y, rows.y, rows.y_known, pos_weight_y)
            proper_y = log_prob("log_prob_y", out.theta_y, rows.y, rows.y_known, None)
            log_scores["paper_y"] = jnp.sum(weighted_y, axis=-1)
            log_scores["joint_y"] = jnp.sum(proper_y, axis=-1)
            y = likelihoods.mean(model.target, out.theta_y)
            averages["y_mean"] = columns.inverse(model.target, scaler_y, y, floor=False)
            averages["y_probs"] = likelihoods.probs(model.target, out.theta_y)
        averages = jax.tree.map(lambda v: jnp.mean(v, axis=0), averages)
        averages |= {"acceptance": posterior.acceptance, "divergence": posterior.divergence}
        return {k: log_mean_exp(v) for k, v in log_scores.items()}, averages

    log_scores, averages = jax.lax.map(one_chunk, jax.random.split(key, num_chunks))
    averages = jax.tree.map(lambda v: jnp.mean(v, axis=0), averages)
    return {k: log_mean_exp(v) for k, v in log_scores.items()} | averages


def row_log_scores(plugin, proper, missing, seen) -> dict[str, jax.Array]:
    """Combines log densities of columns into log scores of rows, sample by sample.

    Args:
      plugin: [S, B, D] nats, z at its mean, weighted: the `paper` density of every column.
      proper: [S, B, D] nats, z drawn, no weights.
      missing: [B, D] columns that were hidden and are known.
      seen: [B, D] columns that were shown.

    Returns:
      By name, [S, B] or [S, B, D]: averaging their exponentials over S gives the scores.
    """
    return {
        "paper_x": row_mean(plugin, missing),
        "paper_x_observed": row_mean(plugin, seen),
        "joint_x": jnp.sum(proper, axis=-1, where=missing),
        "joint_x_observed": jnp.sum(proper, axis=-1, where=seen),
        "marginal_x": proper,
    }


def row_mean(values, where):
    """Mean over the last axis of the selected entries; zero where a row has none."""
    count = jnp.sum(where, axis=-1)
    return jnp.sum(values, axis=-1, where=where) / jnp.maximum(count, 1)


def log_mean_exp(values):
    """log(1/S sum_s exp(values_s)) over the first axis, stable in float32."""
    return jax.nn.logsumexp(values, axis=0) - np.log(values.shape[0])
