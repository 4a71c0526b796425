"""The D one-column VAEs of the mixed-type models, as one stacked module trained in one step.

Column d has a scalar latent z_d ~ N(0, 1), an encoder (C_d + 1) -> hidden -> 2 that sees the
column's value and its mask, and a decoder 1 -> hidden -> C_d (Ma et al. 2020, VAEM). Every
weight carries a leading axis D, and columns with fewer than C = max_d C_d outputs leave the rest
unused, so training the stack is training D separate models.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import gaussian, likelihoods
from hmcvae.columns import Schema
from hmcvae.networks import uniform_fan_in

MIN_VAR = 1e-3  # floor of a learned observation variance, in standardised units


class MarginalLoss(NamedTuple):
    """Terms of the D bounds, each averaged over the rows in which the column is observed."""

    bound: jax.Array  # [D] log-likelihood - beta * KL
    log_likelihood: jax.Array  # [D] nats
    kl: jax.Array  # [D] nats


class MarginalVAEs(nn.Module):
    """D independent VAEs with scalar latents, for the columns of one schema.

    Attributes:
      schema: kinds of the D columns.
      hidden: width of the one hidden layer of every encoder and decoder.
      variance: initial (or, without `learn_variance`, fixed) variance of the real columns, in
        standardised units.
      learn_variance: learn one variance per real column, floored at `MIN_VAR`.
    """

    schema: Schema
    hidden: int = 32
    variance: float = 0.1
    learn_variance: bool = True

    def setup(self):
        """Creates the stacked parameters; fan-in is that of each column's own network."""
        d, c, hidden = self.schema.num_columns, self.schema.max_classes, self.hidden
        fan_in = np.array([column.num_classes + 1 for column in self.schema.columns])
        enc = uniform_fan_in(fan_in[:, None])
        enc_hidden, one = uniform_fan_in(hidden), uniform_fan_in(1)
        self.encoder_w0 = self.param("encoder_w0", _per_column(fan_in), (d, c + 1, hidden))
        self.encoder_b0 = self.param("encoder_b0", enc, (d, hidden))
        self.encoder_w1 = self.param("encoder_w1", enc_hidden, (d, hidden, 2))
        self.encoder_b1 = self.param("encoder_b1", enc_hidden, (d, 2))
        self.decoder_w0 = self.param("decoder_w0", one, (d, hidden))
        self.decoder_b0 = self.param("decoder_b0", one, (d, hidden))
        self.decoder_w1 = self.param("decoder_w1", enc_hidden, (d, hidden, c))
        self.decoder_b1 = self.param("decoder_b1", enc_hidden, (d, c))
        if self.learn_variance:
            init = nn.initializers.constant(np.log(self.variance))
            self.raw_log_var = self.param("raw_log_var", init, (d,))

    @property
    def log_var(self) -> jax.Array:
        """Log variance of the real columns' likelihoods, [D]."""
        if self.learn_variance:
            return floored_log_var(self.raw_log_var)
        return jnp.full((self.schema.num_columns,), np.log(self.variance))

    def encode(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes every column on its own.

        Args:
          x: [..., D] standardised values and codes; anything under the mask.
          mask: [..., D] True = observed.

        Returns:
          Mean and log variance of q(z_d | x_d), each [..., D].
        """
        inputs = _encoder_inputs(self.schema, x, mask)  # [..., D, C + 1]
        hidden = nn.relu(_stacked(inputs, self.encoder_w0) + self.encoder_b0)
        out = _stacked(hidden, self.encoder_w1) + self.encoder_b1
        return out[..., 0], out[..., 1]

    def extract(self, key: jax.Array, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Draws z ~ q(z | x), zero where the column is missing: [..., D] -> [..., D]."""
        mean, log_var = self.encode(x, mask)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return jnp.where(mask, mean + jnp.exp(0.5 * log_var) * noise, 0.0)

    def decode(self, z: jax.Array) -> jax.Array:
        """Decodes z [..., D] to likelihood parameters theta [..., D, C]."""
        hidden = nn.relu(z[..., None] * self.decoder_w0 + self.decoder_b0)
        return _stacked(hidden, self.decoder_w1) + self.decoder_b1

    def log_prob(self, z, x, mask, *, pos_weight=None) -> jax.Array:
        """Computes log p(x_d | z_d) [..., D] in nats, zero where missing."""
        return likelihoods.log_prob(
            self.schema, self.decode(z), x, mask, log_var=self.log_var, pos_weight=pos_weight
        )

    def bound(self, key, x, mask, *, beta, pos_weight=None) -> MarginalLoss:
        """Estimates the D evidence bounds with one draw per entry.

        For column d, the mean over the rows that observe it of
        log p(x_d | z_d) - beta_d KL(q(z_d | x_d) || N(0, 1)).

        Args:
          key: PRNG key.
          x: [B, D] standardised values and codes.
          mask: [B, D] True = observed.
          beta: [D] weight of the KL term; below one keeps discrete columns from collapsing.
          pos_weight: [D] weight of the ones of Bernoulli columns (`paper`), or None.

        Returns:
          The terms by column, each [D]; zero for a column that no row observes.
        """
        mean, log_var = self.encode(x, mask)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape, mean.dtype)
        log_lik = self.log_prob(z, x, mask, pos_weight=pos_weight)
        kl = jnp.where(mask, gaussian.kl_to_standard_normal(mean, log_var), 0.0)
        count = jnp.maximum(jnp.sum(mask, axis=0), 1)
        log_lik, kl = jnp.sum(log_lik, axis=0) / count, jnp.sum(kl, axis=0) / count
        return MarginalLoss(log_lik - jnp.asarray(beta) * kl, log_lik, kl)


def floored_log_var(raw_log_var: jax.Array) -> jax.Array:
    """Computes log(MIN_VAR + exp(raw)), a learned log variance with a floor."""
    return jnp.logaddexp(raw_log_var, np.log(MIN_VAR))


def widened(raw_log_var, width: float):
    """Returns the raw log variance whose `floored_log_var` is `width` times as many deviations."""
    variance = np.exp(floored_log_var(raw_log_var)) * width**2
    return np.log(np.maximum(variance - MIN_VAR, np.finfo(np.float32).tiny)).astype(np.float32)


def kl_weights(schema: Schema, discrete: float = 0.2) -> np.ndarray:
    """Returns beta [D]: `discrete` for Bernoulli and categorical columns, one for real columns."""
    is_discrete = [c.kind in ("bernoulli", "categorical") for c in schema.columns]
    return np.where(is_discrete, discrete, 1.0).astype(np.float32)


def _per_column(fan_in):
    def init(key, shape, dtype=jnp.float32):
        return uniform_fan_in(fan_in[:, None, None])(key, shape, dtype)

    return init


def _stacked(inputs, weights):
    # [..., D, I] x [D, I, O] -> [..., D, O]
    return jnp.einsum("...di,dio->...do", inputs, weights)


def _encoder_inputs(schema, x, mask):
    """Lays out [one-hot or value, mask] in C + 1 slots a column; nothing under the mask gets in."""
    x = jnp.where(mask, x, 0.0)
    slots = jnp.arange(schema.max_classes)
    categorical = np.array([c.kind == "categorical" for c in schema.columns])[:, None]
    one_hot = x[..., None] == slots  # [..., D, C]
    scalar = jnp.where(slots == 0, x[..., None], 0.0)
    values = jnp.where(categorical, one_hot, scalar) * mask[..., None]
    return jnp.concatenate([values, mask[..., None].astype(x.dtype)], axis=-1)
