"""HH-VAEM and its relatives as one module: encode, decode, predict and the log joint, each once.

The model has two levels (Peis, Ma and Hernandez-Lobato 2022): D
one-column VAEs turn a mixed-type row x into standardised latents z in R^D, and a dependency VAE
with latents eps explains z and predicts the target y from the imputed row. One latent layer and a
Gaussian posterior make it VAEM; two layers and HMC make it HH-VAEM. HMC itself is in `hmcvae.hmc`,
the training objectives in `hmcvae.objectives`.

Every method works on any leading axes, so one row under `vmap` and a batch are the same code.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import gaussian, likelihoods
from hmcvae.columns import Schema
from hmcvae.grouping import REAL, runs
from hmcvae.hierarchy import BottomUp, TopDown
from hmcvae.marginal import MarginalVAEs, floored_log_var
from hmcvae.networks import MLP


class Rows(NamedTuple):
    """Rows of a table with their masks (True = observed); nothing under a mask is ever read.

    `y = None` says that no target is observed anywhere: the predictor then drops out of the log
    joint at compile time.
    """

    x: jax.Array  # [..., D] standardised values and codes
    mask: jax.Array  # [..., D]
    z: jax.Array  # [..., D] marginal latents, zero where missing
    y: jax.Array | None  # [..., P] standardised values and codes
    y_mask: jax.Array | None  # [..., P]

    def is_observed(self) -> jax.Array:
        """True for rows in which anything is observed, [...]."""
        observed = jnp.any(self.mask, axis=-1)
        return observed if self.y_mask is None else observed | jnp.any(self.y_mask, axis=-1)


class LogJoint(NamedTuple):
    """Terms of log p(z_O, y_O, eps) in nats, each [...]."""

    x: jax.Array  # sum over observed columns of log p(z_d | eps)
    y: jax.Array  # sum over observed targets of log p(y_p | x_hat, eps)
    prior: jax.Array  # log N(eps; 0, I)

    def total(self) -> jax.Array:
        """The log density that HMC samples, [...]."""
        return self.x + self.y + self.prior


class HVAE(nn.Module):
    """Hierarchical VAE over the marginal latents of a mixed-type table, with a predictor.

    Attributes:
      schema: the D feature columns.
      target: the P target columns; P = 0 leaves the predictor out.
      layer_sizes: d_1..d_J, layer 1 next to the data; one entry makes a plain VAE.
      hidden: width of every hidden layer of the dependency model.
      marginal_hidden: width of the one-column VAEs.
      variance: initial or fixed variance of every Gaussian likelihood, standardised units.
      learn_variance: learn one variance per column (features, latents z and targets).
      paper: the published inputs: integer codes instead of one-hot, rounded imputations, z drawn
        with noise inside the imputed row, and no prior for rows with nothing observed.
    """

    schema: Schema
    target: Schema
    layer_sizes: tuple[int, ...] = (10, 5)
    hidden: int = 256
    marginal_hidden: int = 32
    variance: float = 0.1
    learn_variance: bool = True
    paper: bool = False

    def setup(self):
        """Creates the networks; their names are the parameter groups."""
        d, p = self.schema.num_columns, self.target.num_columns
        self.marginal = MarginalVAEs(
            self.schema, self.marginal_hidden, self.variance, self.learn_variance
        )
        self.encoder = BottomUp(self.layer_sizes, self.hidden)
        self.hierarchy = TopDown(self.layer_sizes, self.hidden)
        self.decoder = MLP((self.hidden, d))
        if p:
            self.predictor = MLP((self.hidden, p * self.target.max_classes))
        if self.learn_variance:
            init = nn.initializers.constant(np.log(self.variance))
            self.raw_log_var_z = self.param("raw_log_var_z", init, (d,))
            if p:
                self.raw_log_var_y = self.param("raw_log_var_y", init, (p,))

    @property
    def num_latents(self) -> int:
        """d_tot, the size of eps."""
        return sum(self.layer_sizes)

    @property
    def log_var_z(self) -> jax.Array:
        """Log variance of p(z | eps), [D]."""
        if self.learn_variance:
            return floored_log_var(self.raw_log_var_z)
        return jnp.full((self.schema.num_columns,), np.log(self.variance))

    @property
    def log_var_y(self) -> jax.Array:
        """Log variance of p(y | x_hat, eps) for real targets, [P]."""
        if self.learn_variance:
            return floored_log_var(self.raw_log_var_y)
        return jnp.full((self.target.num_columns,), np.log(self.variance))

    def blank_row(self) -> Rows:
        """Returns one row with nothing observed, to create the parameters from."""
        x, y = jnp.zeros((1, self.schema.num_columns)), jnp.zeros((1, self.target.num_columns))
        if not self.target.num_columns:
            return Rows(x, x > 0, x, None, None)
        return Rows(x, x > 0, x, y, y > 0)

    def __call__(self, rows: Rows) -> LogJoint:
        """Runs every network once; used to create the parameters."""
        self.marginal.encode(rows.x, rows.mask)
        mean, _ = self.encode(rows)
        return self.log_joint(mean, rows)

    def marginal_bound(self, key, x, mask, *, beta, pos_weight=None):
        """Stage 1: see `MarginalVAEs.bound`."""
        return self.marginal.bound(key, x, mask, beta=beta, pos_weight=pos_weight)

    def extract(self, key, x, mask) -> jax.Array:
        """Draws the marginal latents z ~ q(z | x): see `MarginalVAEs.extract`."""
        return self.marginal.extract(key, x, mask)

    def encode(self, rows: Rows) -> tuple[jax.Array, jax.Array]:
        """Computes mean and log variance of q(eps | z_O, y_O), each [..., d_tot]."""
        num_y = self.target.num_columns
        y_width = num_y if self.paper else likelihoods.flat_width(self.target)
        if rows.y is None:
            y = jnp.zeros((*rows.z.shape[:-1], y_width), rows.z.dtype)
            y_mask = jnp.zeros((*rows.z.shape[:-1], num_y), rows.z.dtype)
        else:
            y = _encode_observed(self.target, rows.y, rows.y_mask, one_hot=not self.paper)
            y_mask = rows.y_mask.astype(rows.z.dtype)
        z = jnp.where(rows.mask, rows.z, 0.0)
        mask = rows.mask.astype(rows.z.dtype)
        return self.encoder(jnp.concatenate([z, mask, y, y_mask], axis=-1))

    def decode(self, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes h_1 [..., d_1] and the mean of p(z | eps) [..., D]."""
        h = self.hierarchy(eps)[0]
        return h, self.decoder(h)

    def decode_columns(self, z: jax.Array) -> jax.Array:
        """Computes the likelihood parameters of every column from z: [..., D] -> [..., D, C]."""
        return self.marginal.decode(z)

    def predict(self, rows: Rows, h: jax.Array, z: jax.Array) -> jax.Array:
        """Computes the likelihood parameters of y from the imputed row.

        Args:
          rows: the observed part of the row; its targets are not used.
          h: [..., d_1] first layer of the hierarchy.
          z: [..., D] marginal latents from which the missing columns are filled in.

        Returns:
          [..., P, C_y].
        """
        theta = self.marginal.decode(z)
        observed = _encode_observed(self.schema, rows.x, rows.mask, one_hot=not self.paper)
        if self.paper:
            x_hat = jnp.where(rows.mask, observed, likelihoods.mode(self.schema, theta))
        else:
            shown = likelihoods.repeat_columns(self.schema, rows.mask)
            x_hat = jnp.where(shown, observed, _expected_one_hot(self.schema, theta))
        missing = (~rows.mask).astype(h.dtype)
        out = self.predictor(jnp.concatenate([h, x_hat, missing], axis=-1))
        return out.reshape(*h.shape[:-1], self.target.num_columns, self.target.max_classes)

    def log_joint(self, eps, rows: Rows, *, noise=None, pos_weight_y=None) -> LogJoint:
        """Computes log p(z_O, y_O, eps), the density that HMC samples.

        log p = sum_{d in O} log N(z_d; f_d(h_1), v_d) + sum_{p in O} log p(y_p | x_hat, h_1)
        + log N(eps; 0, I); h_1 from `hierarchy`, x_hat from `predict`.

        Args:
          eps: [..., d_tot].
          rows: observed data.
          noise: [..., D] standard normal noise of z inside the imputed row (`paper`), or None for
            the mean, which makes the density deterministic.
          pos_weight_y: [P] weight of the ones of Bernoulli targets (`paper`), or None.

        Returns:
          The three terms, each [...].
        """
        h, z_mean = self.decode(eps)
        filled = jnp.where(rows.mask, rows.z, 0.0)
        x_term = likelihoods.gaussian_log_prob(filled, z_mean, self.log_var_z)
        x_term = jnp.where(rows.mask, x_term, 0.0)
        prior = gaussian.standard_normal_log_prob(eps)
        if self.paper:
            prior = jnp.where(rows.is_observed(), prior, 0.0)
        x_term = jnp.sum(x_term, axis=-1)
        if rows.y is None:
            return LogJoint(x_term, jnp.zeros_like(x_term), prior)
        z = z_mean if noise is None else z_mean + jnp.exp(0.5 * self.log_var_z) * noise
        y_term = self.log_prob_y(self.predict(rows, h, z), rows.y, rows.y_mask, pos_weight_y)
        return LogJoint(x_term, jnp.sum(y_term, axis=-1), prior)

    def log_prob_y(self, theta, y, y_mask, pos_weight=None) -> jax.Array:
        """Computes log p(y_p | theta) [..., P] in nats of standardised units, zero where hidden."""
        return likelihoods.log_prob(
            self.target, theta, y, y_mask, log_var=self.log_var_y, pos_weight=pos_weight
        )

    def log_prob_x(self, theta, x, mask, pos_weight=None) -> jax.Array:
        """Computes log p(x_d | theta_d) [..., D], nats of standardised units, zero if masked."""
        return likelihoods.log_prob(
            self.schema, theta, x, mask, log_var=self.marginal.log_var, pos_weight=pos_weight
        )


def _encode_observed(schema, values, mask, *, one_hot):
    """Zeroes what is masked; codes stay numbers (`paper`) or become one-hot."""
    if one_hot:
        return likelihoods.one_hot(schema, values, mask)
    return jnp.where(mask, values, 0.0)


def _expected_one_hot(schema, theta):
    """Expectation of `likelihoods.one_hot` under theta [..., D, C]: means and probabilities."""
    probs = likelihoods.probs(schema, theta)
    parts = []
    for start, stop, kinds in runs(schema):
        if kinds == ("categorical",):
            parts += [probs[..., i, : schema.columns[i].num_classes] for i in range(start, stop)]
        else:
            parts.append((theta if kinds == REAL else probs)[..., start:stop, 0])
    return jnp.concatenate(parts, axis=-1)
