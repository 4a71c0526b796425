"""HH-VAEM and its relatives as one module: encode, decode, predict and the log joint, each once.

A mixed-type model (the names that end in M) has two levels (Peis, Ma and Hernandez-Lobato 2022): D
one-column VAEs turn a mixed-type row x into standardised latents z in R^D, and a dependency VAE
with latents eps reads z, explains z or, through the one-column decoders, x (`end_to_end`), and
predicts the target y from the imputed row. A plain model has no first level: the dependency VAE
reads and explains x itself. One latent layer makes VAE and VAEM, more make
H-VAE and H-VAEM. What else tells the ten models apart is no part of the module: the bound that
trains them is in `hmcvae.objectives`, HMC and importance resampling are in `hmcvae.predict`.

Every method works on any leading axes, so one row under `vmap` and a batch are the same code.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import images, likelihoods
from hmcvae.columns import Schema
from hmcvae.grouping import REAL, runs
from hmcvae.hierarchy import BottomUp, Draw, TopDown
from hmcvae.marginal import MarginalVAEs, floored_log_var
from hmcvae.networks import MLP


class Rows(NamedTuple):
    """Rows of a table with their masks (True = observed); nothing under a mask is ever read.

    `y = None` says that no target is observed anywhere: the predictor then drops out of the log
    joint at compile time.
    """

    x: jax.Array  # [..., D] standardised values and codes
    mask: jax.Array  # [..., D]
    z: jax.Array | None  # [..., D] marginal latents, zero where missing; None in plain models
    y: jax.Array | None  # [..., P] standardised values and codes
    y_mask: jax.Array | None  # [..., P]

    def is_observed(self) -> jax.Array:
        """True for rows in which anything is observed, [...]."""
        observed = jnp.any(self.mask, axis=-1)
        return observed if self.y_mask is None else observed | jnp.any(self.y_mask, axis=-1)


class LogJoint(NamedTuple):
    """Terms of log p(z_O, y_O, eps) in nats, each [...]; x_O in place of z_O in plain models."""

    x: jax.Array  # sum over observed columns of log p(z_d | eps), or log p(x_d | eps)
    y: jax.Array  # sum over observed targets of log p(y_p | x_hat, eps)
    prior: jax.Array  # log N(eps; 0, I)

    def total(self) -> jax.Array:
        """The log density that HMC samples, [...]."""
        return self.x + self.y + self.prior


class HVAE(nn.Module):
    """Hierarchical VAE of a mixed-type table, or of its marginal latents, with a predictor.

    Attributes:
      schema: the D feature columns.
      target: the P target columns; P = 0 leaves the predictor out.
      layer_sizes: d_1..d_J, layer 1 next to the data; one entry makes a plain VAE.
      hidden: width of every hidden layer of the dependency model.
      marginal_hidden: width of the one-column VAEs.
      variance: initial or fixed variance of every Gaussian likelihood, standardised units.
      learn_variance: learn one variance per column (features, latents z and targets).
      marginals: explain the latents z of one-column VAEs; False makes a plain model, whose decoder
        gives the likelihood parameters of every column.
      end_to_end: explain x itself, through the decoders of the one-column VAEs, which stage 2
        goes on training; False explains draws of z by a Gaussian, as published.
      reparameterised: the latents eps are standard normal; False is the ablation of
        `hmcvae.hierarchy` in which they are the layers h, and `eps` below stands for h.
      networks: "table", or the kind of image of `hmcvae.images` whose convolutions take the place
        of the first and the last layers (plain models).
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
    marginals: bool = True
    end_to_end: bool = True
    reparameterised: bool = True
    networks: str = "table"
    paper: bool = False

    def setup(self):
        """Creates the networks; their names are the parameter groups."""
        d, p = self.schema.num_columns, self.target.num_columns
        self.encoder = BottomUp(self.layer_sizes, self.hidden)
        self.hierarchy = TopDown(self.layer_sizes, self.hidden, self.reparameterised)
        if self.marginals:
            self.marginal = MarginalVAEs(
                self.schema, self.marginal_hidden, self.variance, self.learn_variance
            )
        if self.networks != "table":
            self.features = images.ImageEncoder(self.networks)
            self.decoder = images.ImageDecoder(self.networks, self.hidden)
        else:
            width = d if self.marginals else d * self.schema.max_classes
            self.decoder = MLP((self.hidden, width))
        if p:
            self.predictor = MLP((self.hidden, p * self.target.max_classes))
        if self.learn_variance:
            init = nn.initializers.constant(np.log(self.variance))
            if not self.marginals:
                self.raw_log_var = self.param("raw_log_var_x", init, (d,))
            elif not self.end_to_end:
                self.raw_log_var = self.param("raw_log_var_z", init, (d,))
            if p:
                self.raw_log_var_y = self.param("raw_log_var_y", init, (p,))

    @property
    def num_latents(self) -> int:
        """d_tot, the size of eps."""
        return sum(self.layer_sizes)

    @property
    def log_var_z(self) -> jax.Array:
        """Log variance of what the decoder explains: p(z | eps), or the reals of x, [D]."""
        if self.learn_variance:
            return floored_log_var(self.raw_log_var)
        return jnp.full((self.schema.num_columns,), np.log(self.variance))

    @property
    def log_var_x(self) -> jax.Array:
        """Log variance of p(x_d | theta_d) for real columns, [D]."""
        return self.marginal.log_var if self.marginals else self.log_var_z

    @property
    def log_var_y(self) -> jax.Array:
        """Log variance of p(y | x_hat, eps) for real targets, [P]."""
        if self.learn_variance:
            return floored_log_var(self.raw_log_var_y)
        return jnp.full((self.target.num_columns,), np.log(self.variance))

    def blank_row(self) -> Rows:
        """Returns one row with nothing observed, to create the parameters from."""
        x, y = jnp.zeros((1, self.schema.num_columns)), jnp.zeros((1, self.target.num_columns))
        z = x if self.marginals else None
        if not self.target.num_columns:
            return Rows(x, x > 0, z, None, None)
        return Rows(x, x > 0, z, y, y > 0)

    def __call__(self, rows: Rows) -> LogJoint:
        """Runs every network once; used to create the parameters."""
        if self.marginals:
            self.marginal.encode(rows.x, rows.mask)
        mean, _ = self.encode(rows)
        return self.log_joint(mean, rows)

    def marginal_bound(self, key, x, mask, *, beta, pos_weight=None):
        """Stage 1: see `MarginalVAEs.bound`."""
        return self.marginal.bound(key, x, mask, beta=beta, pos_weight=pos_weight)

    def extract(self, key, x, mask) -> jax.Array | None:
        """Draws the marginal latents z ~ q(z | x), see `MarginalVAEs.extract`; None if plain."""
        return self.marginal.extract(key, x, mask) if self.marginals else None

    def encode(self, rows: Rows) -> tuple[jax.Array, jax.Array]:
        """Computes the encoder's heads, each [..., d_tot].

        They are mean and log variance of q(eps | z_O, y_O); in the ablation they need `draw`.
        """
        if self.marginals:
            x = jnp.where(rows.mask, rows.z, 0.0)
        else:
            x = _encode_observed(self.schema, rows.x, rows.mask, one_hot=not self.paper)
        if self.networks != "table":
            x = self.features(x)
        num_y = self.target.num_columns
        if rows.y is None:
            y_width = num_y if self.paper else likelihoods.flat_width(self.target)
            y = jnp.zeros((*x.shape[:-1], y_width), x.dtype)
            y_mask = jnp.zeros((*x.shape[:-1], num_y), x.dtype)
        else:
            y = _encode_observed(self.target, rows.y, rows.y_mask, one_hot=not self.paper)
            y_mask = rows.y_mask.astype(x.dtype)
        mask = rows.mask.astype(x.dtype)
        return self.encoder(jnp.concatenate([x, mask, y, y_mask], axis=-1))

    def draw(self, key, mean: jax.Array, log_var: jax.Array) -> Draw:
        """Draws latents from the posterior with these heads; `key=None` follows its means."""
        if key is None:
            return self.hierarchy.draw(mean, log_var, jnp.zeros_like(mean))
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return self.hierarchy.draw(mean, log_var, noise)

    def decode(self, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes h_1 and what the decoder says of the columns.

        Args:
          eps: [..., d_tot].

        Returns:
          h_1 [..., d_1] and the mean of p(z | eps) [..., D], or in a plain model the likelihood
          parameters theta [..., D, C]: in both, what `decode_columns` takes.
        """
        h = self.hierarchy(eps)[0]
        out = self.decoder(h)
        if self.marginals:
            return h, out
        return h, out.reshape(*h.shape[:-1], self.schema.num_columns, self.schema.max_classes)

    def decode_columns(self, out: jax.Array, noise=None) -> jax.Array:
        """Computes the likelihood parameters of every column.

        Args:
          out: from `decode`.
          noise: [..., D] standard normal, to draw z from p(z | eps); None plugs in its mean.
            Ignored where z has no noise: in plain models, and end to end.

        Returns:
          theta [..., D, C].
        """
        if not self.marginals:
            return out
        z = out if noise is None or self.end_to_end else out + jnp.exp(0.5 * self.log_var_z) * noise
        return self.marginal.decode(z)

    def predict(self, rows: Rows, h: jax.Array, theta: jax.Array) -> jax.Array:
        """Computes the likelihood parameters of y from the imputed row.

        Args:
          rows: the observed part of the row; its targets are not used.
          h: [..., d_1] first layer of the hierarchy.
          theta: [..., D, C] likelihood parameters from which missing columns are filled in.

        Returns:
          [..., P, C_y].
        """
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

        log p = sum_{d in O} log p(x_d | theta_d) + sum_{p in O} log p(y_p | x_hat, h_1)
        + log N(eps; 0, I); h_1 from `hierarchy`, x_hat from `predict`; theta_d is the decoder's in
        plain models, and that of the one-column VAE at z_d = f_d(h_1) otherwise. Without
        `end_to_end` the first sum is log N(z_d; f_d(h_1), v_d).

        Args:
          eps: [..., d_tot].
          rows: observed data.
          noise: [..., D] standard normal noise of z inside the imputed row (`paper`), or None for
            the mean, which makes the density deterministic.
          pos_weight_y: [P] weight of the ones of Bernoulli targets (`paper`), or None.

        Returns:
          The three terms, each [...].
        """
        h, out = self.decode(eps)
        x_term = jnp.sum(self._log_prob_explained(out, rows), axis=-1)
        prior = self.hierarchy.log_prob(eps)
        if self.paper:
            prior = jnp.where(rows.is_observed(), prior, 0.0)
        if rows.y is None:
            return LogJoint(x_term, jnp.zeros_like(x_term), prior)
        theta_y = self.predict(rows, h, self.decode_columns(out, noise))
        y_term = self.log_prob_y(theta_y, rows.y, rows.y_mask, pos_weight_y)
        return LogJoint(x_term, jnp.sum(y_term, axis=-1), prior)

    def log_prob_y(self, theta, y, y_mask, pos_weight=None) -> jax.Array:
        """Computes log p(y_p | theta) [..., P] in nats of standardised units, zero where hidden."""
        return likelihoods.log_prob(
            self.target, theta, y, y_mask, log_var=self.log_var_y, pos_weight=pos_weight
        )

    def log_prob_x(self, theta, x, mask, pos_weight=None) -> jax.Array:
        """Computes log p(x_d | theta_d) [..., D], nats of standardised units, zero if masked."""
        return likelihoods.log_prob(
            self.schema, theta, x, mask, log_var=self.log_var_x, pos_weight=pos_weight
        )

    def _log_prob_explained(self, out, rows):
        """Log density of x_O given the decoder, or of z_O: [..., D], 0 if hidden."""
        if not self.marginals or self.end_to_end:
            return self.log_prob_x(self.decode_columns(out), rows.x, rows.mask)
        z = jnp.where(rows.mask, rows.z, 0.0)
        return jnp.where(rows.mask, likelihoods.gaussian_log_prob(z, out, self.log_var_z), 0.0)


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
