"""Posterior samples, imputation, prediction and test scores of a trained model.

Scores come in two definitions, side by side (docs/hhvaem.md). `paper` is the published one:
the mean over a row's missing columns is taken inside the log-mean-exp over samples, z is plugged
in at its mean, Bernoulli columns are weighted. `proper` is a log probability: the joint density of
a row's missing columns with z drawn from p(z | eps), divided by their number, without weights.

Scores stream over posterior samples in chunks, so memory does not grow with their number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import columns, likelihoods
from hmcvae.columns import Scaler
from hmcvae.model import HVAE, Rows
from hmcvae.objectives import Schedule
from hmcvae.posterior import sample_eps


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
    theta_plugin: jax.Array  # [S, B, D, C] at the mean of p(z | eps); theta itself in plain models
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
    """Draws eps from q(eps | x_O, y_O), each with its own draw of z (`posterior.sample_eps`).

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      x: [B, D] standardised values and codes.
      mask: [B, D] True = observed.
      num_samples: S, chains per row; memory grows with S * B.
      schedule: leapfrog steps of a transition, number of importance samples.
      y: [B, P] observed targets, or None.
      y_mask: [B, P].

    Returns:
      Posterior.
    """
    key_z, key = jax.random.split(key)
    keys = jax.random.split(key, num_samples)
    return _sample(key_z, keys, model, params, Rows(x, mask, None, y, y_mask), schedule)


def _sample(key_z, keys, model, params, rows, schedule):
    """Draws one sample of every row for each of the keys [S]; `rows.z` is not used."""

    def one(key, key_z, row):
        key_z, key_chain = (key_z, key) if model.paper else jax.random.split(key)
        z = model.apply({"params": params}, key_z, row.x, row.mask, method="extract")
        return sample_eps(key_chain, model, params, row._replace(z=z), schedule=schedule)

    # the published sampler draws z once per row, shared by that row's chains
    num_rows = rows.mask.shape[0]
    keys_z = jax.random.split(key_z, num_rows)
    keys = jax.vmap(lambda key: jax.random.split(key, num_rows))(keys)
    every_row = jax.vmap(one)
    draw = jax.vmap(every_row, in_axes=(0, None, None))
    eps, acceptance, divergence = draw(keys, keys_z, rows)
    return Posterior(eps, jnp.mean(acceptance, axis=0), jnp.mean(divergence, axis=0))


def decode_posterior(key, model: HVAE, params, x, mask, eps) -> Decoded:
    """Decodes posterior samples eps [S, B, d_tot] to columns and targets."""
    return _decode(jax.random.split(key, len(eps)), model, params, x, mask, eps)


def _decode(keys, model, params, x, mask, eps):
    """As `decode_posterior`, with one key for each sample [S]."""
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape))(keys)  # [S, B, D]

    def one(eps, noise, x, mask):
        def decode(model):
            h, out = model.decode(eps)
            plugin = model.decode_columns(out)
            theta_y = None
            if model.target.num_columns:
                theta_y = model.predict(Rows(x, mask, None, None, None), h, plugin)
            return Decoded(model.decode_columns(out, noise), plugin, theta_y)

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
    log_var = model.apply({"params": params}, method=lambda m: m.log_var_x)
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
    num_draws: int = 0,
    pos_weight_x=None,
    pos_weight_y=None,
    weighted_target: bool = False,
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
      schedule: leapfrog steps of a transition, number of importance samples.
      num_draws: M, how many of the samples of x and y to keep; memory grows with M * B * D.
      pos_weight_x: [D] weights of the `paper` score, or None.
      pos_weight_y: [P] the same for targets.
      weighted_target: the predictor was trained with these weights (`paper` models always are).

    Returns:
      By row: log scores in nats of standardised units ("paper_x" [B], "joint_x" [B], "marginal_x"
      [B, D], the same with "_observed" for the columns shown, "paper_y", "joint_y" [B]), averages
      over samples ("x_mean", "x_square" [B, D] raw units; "theta", "probs" [B, D, C]; "y_mean"
      [B, P] raw units, "y_probs" [B, P, C_y]), "acceptance", "divergence" [B], draws in raw units
      ("x_draws" [B, M, D], "y_draws" [B, M, P]; M at most the number of samples). Without targets
      the entries of y are absent.
    """
    num_chunks = -(-num_samples // chunk)
    num_kept = min(-(-num_draws // num_chunks), chunk)  # draws kept of every chunk
    missing = rows.known & ~rows.shown
    seen = rows.known & rows.shown
    shown = Rows(rows.x, rows.shown, None, None, None)
    key_z, key = jax.random.split(key)
    sample_columns = jax.vmap(likelihoods.sample, in_axes=(0, None, 0, None))

    def apply(method, *args):
        return model.apply({"params": params}, *args, method=method)

    def one_chunk(keys):
        # one key a sample, so that the size of a chunk changes nothing but memory
        split = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)
        keys_eps, keys_decode, keys_x, keys_y = split(keys)
        posterior = _sample(key_z, keys_eps, model, params, shown, schedule)
        out = _decode(keys_decode, model, params, rows.x, rows.shown, posterior.eps)
        proper = apply("log_prob_x", out.theta, rows.x, rows.known, None)
        plugin = out.theta_plugin
        if pos_weight_x is not None and not model.paper:
            plugin = scale_odds(model.schema, plugin, pos_weight_x)
        plugin = apply("log_prob_x", plugin, rows.x, rows.known, pos_weight_x)
        log_scores = row_log_scores(plugin, proper, missing, seen)
        x = sample_columns(keys_x, model.schema, out.theta, apply(lambda m: m.log_var_x))
        x = columns.inverse(model.schema, scaler, x)
        averages = {
            "theta": out.theta_plugin,
            "probs": likelihoods.probs(model.schema, out.theta),
            "x_mean": x,
            "x_square": x**2,
        }
        draws = {"x_draws": x[:num_kept]}
        if model.target.num_columns:
            theta_y = weighted_y = out.theta_y
            if pos_weight_y is not None and not model.paper:
                if weighted_target:
                    theta_y = scale_odds(model.target, theta_y, 1 / pos_weight_y)
                else:
                    weighted_y = scale_odds(model.target, theta_y, pos_weight_y)
            weighted_y = apply("log_prob_y", weighted_y, rows.y, rows.y_known, pos_weight_y)
            proper_y = apply("log_prob_y", theta_y, rows.y, rows.y_known, None)
            log_scores["paper_y"] = jnp.sum(weighted_y, axis=-1)
            log_scores["joint_y"] = jnp.sum(proper_y, axis=-1)
            y = likelihoods.mean(model.target, theta_y)
            averages["y_mean"] = columns.inverse(model.target, scaler_y, y, floor=False)
            averages["y_probs"] = likelihoods.probs(model.target, theta_y)
            kept = theta_y[:num_kept]
            y = sample_columns(keys_y[:num_kept], model.target, kept, apply(lambda m: m.log_var_y))
            draws["y_draws"] = columns.inverse(model.target, scaler_y, y, floor=False)
        averages = jax.tree.map(lambda v: jnp.mean(v, axis=0), averages)
        averages |= {"acceptance": posterior.acceptance, "divergence": posterior.divergence}
        return {k: log_mean_exp(v) for k, v in log_scores.items()}, averages, draws

    keys = jax.random.split(key, (num_chunks, chunk))
    log_scores, averages, draws = _stream(one_chunk, keys)
    if not num_draws:
        return log_scores | averages
    by_row = lambda v: jnp.moveaxis(v.reshape(-1, *v.shape[2:])[:num_draws], 0, 1)
    return log_scores | averages | {k: by_row(v) for k, v in draws.items()}


def _stream(one_chunk, keys):
    """Combines (log means, means, draws) of every chunk, one chunk in memory at a time.

    Args:
      one_chunk: keys [chunk] -> three dicts of arrays.
      keys: [chunks, chunk].

    Returns:
      Log means and means over all chunks, and the draws stacked, [chunks, ...].
    """

    def body(totals, keys):
        logs, means, draws = one_chunk(keys)
        totals = (
            jax.tree.map(jnp.logaddexp, totals[0], logs),
            jax.tree.map(jnp.add, totals[1], means),
        )
        return totals, draws

    logs, means, _ = jax.eval_shape(one_chunk, keys[0])
    start = (
        jax.tree.map(lambda s: jnp.full(s.shape, -jnp.inf, s.dtype), logs),
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), means),
    )
    (logs, means), draws = jax.lax.scan(body, start, keys)
    log_count = np.log(len(keys))
    return (
        jax.tree.map(lambda v: v - log_count, logs),
        jax.tree.map(lambda v: v / len(keys), means),
        draws,
    )


def scale_odds(schema, theta, factor):
    """Multiplies the odds of Bernoulli columns.

    Where ones count w times, as in the `paper` score, the best report of a probability p has the
    odds w p / (1 - p). So the odds of a model trained without weights are scaled by w for that
    score, and those of one trained with them by 1 / w for all others. `paper` models are scored as
    published, in both definitions as they are.

    Args:
      schema: of the columns.
      theta: [..., D, C] likelihood parameters.
      factor: [D].

    Returns:
      [..., D, C].
    """
    shift = jnp.where(schema.is_kind("bernoulli"), jnp.log(factor), 0.0)
    return theta + shift[:, None]


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
