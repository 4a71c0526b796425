"""The hierarchy of latents and its standardised form eps (Peis et al. 2022).

Generative: eps_l ~ N(0, I), h_J = eps_J, h_l = a_l(h_{l+1}) + exp(b_l(h_{l+1}) / 2) * eps_l, with
layer 1 next to the data. All layers live in one flat vector eps = [eps_1, ..., eps_J] of size
d_tot, so that HMC moves them together in a space where the prior is standard normal. J = 1 is the
plain VAE: h_1 = eps_1.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import gaussian
from hmcvae.networks import MLP, Linear


def split_layers(eps: jax.Array, layer_sizes: Sequence[int]) -> list[jax.Array]:
    """Cuts eps [..., d_tot] into its layers [..., d_l], l = 1..J."""
    return jnp.split(eps, np.cumsum(layer_sizes)[:-1], axis=-1)


def per_dimension(values: jax.Array, layer_sizes: Sequence[int]) -> jax.Array:
    """Repeats one value per layer [..., J] over that layer's dimensions: [..., d_tot]."""
    return values[..., np.repeat(np.arange(len(layer_sizes)), layer_sizes)]


class TopDown(nn.Module):
    """Maps standardised latents to the layers of the hierarchy."""

    layer_sizes: Sequence[int]
    hidden: int

    @nn.compact
    def __call__(self, eps: jax.Array) -> list[jax.Array]:
        """Computes [h_1, ..., h_J] from eps [..., d_tot]."""
        layers = split_layers(eps, self.layer_sizes)
        h = [layers[-1]]
        for i in reversed(range(len(layers) - 1)):
            out = MLP((self.hidden, 2 * self.layer_sizes[i]), name=f"prior{i}")(h[0])
            a, b = jnp.split(out, 2, axis=-1)
            h.insert(0, a + jnp.exp(0.5 * b) * layers[i])
        return h


class BottomUp(nn.Module):
    """Gaussian encoder q(eps | inputs), factorised over the layers.

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
