"""The hierarchy of latents and its standardised form eps (Peis et al. 2022).

Generative: eps_l ~ N(0, I), h_J = eps_J, h_l = a_l(h_{l+1}) + exp(b_l(h_{l+1}) / 2) * eps_l, with
layer 1 next to the data. All layers live in one flat vector eps = [eps_1, ..., eps_J] of size
d_tot, so that HMC moves them together in a space where the prior is standard normal. J = 1 is the
plain VAE: h_1 = eps_1.

`reparameterised=False` is the ablation in which HMC moves [h_1, ..., h_J] under the autoregressive
prior itself, h_l ~ N(a_l(h_{l+1}), exp(b_l(h_{l+1}))), and the encoder gives its residual,
q(h_l | h_{l+1}) = N(a_l + mu_l, exp(b_l + lv_l)). Everything that differs is in `TopDown`: to the
rest of the model both are latents of size d_tot with a log prior and a posterior to draw from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import gaussian, likelihoods
from hmcvae.networks import MLP, Linear


def split_layers(eps: jax.Array, layer_sizes: Sequence[int]) -> list[jax.Array]:
    """Cuts eps [..., d_tot] into its layers [..., d_l], l = 1..J."""
    return jnp.split(eps, np.cumsum(layer_sizes)[:-1], axis=-1)


def per_dimension(values: jax.Array, layer_sizes: Sequence[int]) -> jax.Array:
    """Repeats one value per layer [..., J] over that layer's dimensions: [..., d_tot]."""
    return values[..., np.repeat(np.arange(len(layer_sizes)), layer_sizes)]


class Draw(NamedTuple):
    """Latents drawn from the encoder's posterior, and the Gaussians that each layer came from."""

    latents: jax.Array  # [..., d_tot]
    mean: jax.Array  # [..., d_tot] of q(layer l | the layers drawn above it)
    log_var: jax.Array  # [..., d_tot]
    kl: jax.Array  # [..., J] KL of that q to the prior of the layer, nats

    def log_prob(self) -> jax.Array:
        """Log density of the latents under the posterior, in nats: [...]."""
        return jnp.sum(likelihoods.gaussian_log_prob(self.latents, self.mean, self.log_var), -1)


class TopDown(nn.Module):
    """The prior of the latents, how they make the layers, and how the posterior follows them down.

    Attributes:
      layer_sizes: d_1..d_J.
      hidden: width of the networks of (a_l, b_l).
      reparameterised: the latents are eps; otherwise they are the layers h themselves.
    """

    layer_sizes: Sequence[int]
    hidden: int
    reparameterised: bool = True

    def setup(self):
        """Creates one network for every layer but the top."""
        self.priors = [
            MLP((self.hidden, 2 * size), name=f"prior{i}")
            for i, size in enumerate(self.layer_sizes[:-1])
        ]

    def __call__(self, latents: jax.Array) -> list[jax.Array]:
        """Computes [h_1, ..., h_J] from the latents [..., d_tot]."""
        layers = split_layers(latents, self.layer_sizes)
        if not self.reparameterised:
            return layers
        h = [layers[-1]]
        for i in reversed(range(len(layers) - 1)):
            a, b = self._conditional(i, h[0])
            h.insert(0, a + jnp.exp(0.5 * b) * layers[i])
        return h

    def log_prob(self, latents: jax.Array) -> jax.Array:
        """Computes the log prior of the latents in nats, [..., d_tot] -> [...]."""
        if self.reparameterised:
            return gaussian.standard_normal_log_prob(latents)
        h = split_layers(latents, self.layer_sizes)
        total = gaussian.standard_normal_log_prob(h[-1])
        for i in range(len(h) - 1):
            a, b = self._conditional(i, h[i + 1])
            total += jnp.sum(likelihoods.gaussian_log_prob(h[i], a, b), axis=-1)
        return total

    def draw(self, mean: jax.Array, log_var: jax.Array, noise: jax.Array) -> Draw:
        """Draws latents from the posterior that the encoder's heads describe.

        Args:
          mean: [..., d_tot] mu of `BottomUp`.
          log_var: [..., d_tot] lv of `BottomUp`.
          noise: [..., d_tot] standard normal; zeros follow the means from the top down.

        Returns:
          Draw.
        """
        if self.reparameterised:
            latents = mean + jnp.exp(0.5 * log_var) * noise
            return Draw(latents, mean, log_var, kl_by_layer(mean, log_var, self.layer_sizes))
        mu, lv, xi = (split_layers(v, self.layer_sizes) for v in (mean, log_var, noise))
        layers = []
        for i in reversed(range(len(mu))):
            a, b = self._conditional(i, layers[0][0]) if layers else (0.0, 0.0)
            h = a + mu[i] + jnp.exp(0.5 * (b + lv[i])) * xi[i]
            # in units of the prior's scale, where the prior is N(0, I)
            kl = gaussian.kl_to_standard_normal(mu[i] * jnp.exp(-0.5 * b), lv[i])
            layers.insert(0, (h, a + mu[i], b + lv[i], jnp.sum(kl, axis=-1, keepdims=True)))
        return Draw(*(jnp.concatenate(parts, axis=-1) for parts in zip(*layers, strict=True)))

    def _conditional(self, i, above):
        """Computes a_l and b_l [..., d_l] of layer l = i + 1 from the layer above."""
        a, b = jnp.split(self.priors[i](above), 2, axis=-1)
        return a, b


class BottomUp(nn.Module):
    """Heads (mu, lv) of the Gaussian encoder: of q(eps | inputs), factorised over the layers.

    One layer: inputs -> hidden -> 2 d_1. More: features r_1 = MLP(inputs) with no activation at its
    end, r_l = relu(Linear(r_{l-1})), and a linear head per layer.
    """

    layer_sizes: Sequence[int]
    hidden: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns mean and log variance, each [..., d_tot]."""
        if len(self.layer_sizes) == 1:
            out = MLP((self.hidden, 2 * self.layer_sizes[0]), name="base")(inputs)
            mean, log_var = jnp.split(out, 2, axis=-1)
            return mean, log_var
        feature = MLP((self.hidden, self.hidden), name="base")(inputs)
        means, log_vars = [], []
        for i, size in enumerate(self.layer_sizes):
            if i:
                feature = nn.relu(Linear(self.hidden, name=f"up{i}")(feature))
            mean, log_var = jnp.split(Linear(2 * size, name=f"head{i}")(feature), 2, axis=-1)
            means.append(mean)
            log_vars.append(log_var)
        return jnp.concatenate(means, axis=-1), jnp.concatenate(log_vars, axis=-1)


def kl_by_layer(mean: jax.Array, log_var: jax.Array, layer_sizes: Sequence[int]) -> jax.Array:
    """Computes KL(q(eps_l) || N(0, I)) of every layer in nats: [..., d_tot] -> [..., J]."""
    kl = gaussian.kl_to_standard_normal(mean, log_var)
    return jnp.stack([jnp.sum(k, axis=-1) for k in split_layers(kl, layer_sizes)], axis=-1)


def kl_weights(
    kl: jax.Array,
    clock: jax.Array,
    layer_sizes: Sequence[int],
    *,
    balance_steps: int,
    anneal_steps: int,
    paper: bool = False,
) -> jax.Array:
    """Computes the weight gamma_l of every layer's KL at one moment of training.

    While `clock < balance_steps`, gamma_l is proportional to d_l times the batch mean of KL_l
    (layers that already carry information may carry more); afterwards it is one. While
    `clock < anneal_steps`, it is also multiplied by clock / anneal_steps.

    Args:
      kl: [B, J] in nats; rows with nothing observed count as zeros in `paper`.
      clock: scalar, the first step of training is 1.
      layer_sizes: d_l.
      balance_steps: length of the balancing.
      anneal_steps: length of the annealing.
      paper: the balanced weights sum to one and are differentiated, as in the published protocol;
        otherwise they average one, so that nothing jumps when balancing ends, and are constants.

    Returns:
      [J].
    """
    sizes = jnp.asarray(layer_sizes, kl.dtype)
    share = sizes * jnp.mean(kl, axis=0)
    balanced = share / jnp.maximum(jnp.sum(share), 1e-12)
    if not paper:
        balanced = jax.lax.stop_gradient(balanced) * len(layer_sizes)
    weights = jnp.where(clock < balance_steps, balanced, jnp.ones_like(balanced))
    return weights * jnp.minimum(clock / max(anneal_steps, 1), 1.0)
