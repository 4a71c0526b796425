"""Filling in a partly observed function by its latent: modes of a posterior, by descent.

For decoders without an encoder of partial observations. The completion is the function f_z of a
latent that minimises

  -log p(z) + lambda sum_{n in O} |f_z(x_n) - y_n|^2,   lambda = 1 / (2 sigma^2):

the most probable latent if observations carry Gaussian noise of standard deviation sigma. Written
for one item; callers `vmap`. Not here: densities p(z), decoders.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Completion(NamedTuple):
    """Latents that explain a partly observed item, best first."""

    latents: jax.Array  # [S, Z]
    energies: jax.Array  # [S] what they minimise, nats up to a constant


def complete(
    starts: jax.Array,
    log_prior: Callable[[jax.Array], jax.Array],
    decode: Callable[[jax.Array], jax.Array],
    values: jax.Array,
    mask: jax.Array,
    *,
    noise: float,
    num_steps: int,
    learning_rate: float,
) -> Completion:
    """Descends from every start with Adam, whose rate falls to 0 as a cosine.

    Args:
      starts: [S, Z], such as draws of the prior: the posterior has several modes. In a unit in
        which learning_rate is small.
      log_prior: [Z] -> log p(z) in nats, up to a constant.
      decode: [Z] -> the function at the points of the item, [N, C].
      values: [N, C]; what stands under the mask is ignored, NaN included.
      mask: [N] True = observed.
      noise: sigma, in the unit of the values.
      num_steps: steps of Adam.
      learning_rate: of its first step.

    Returns:
      The latents, in order of their energies; those that are NaN last.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    seen = mask[:, None]
    target = jnp.where(seen, values, 0.0)

    def energy(z):
        residual = jnp.where(seen, decode(z) - target, 0.0)
        return 0.5 * jnp.sum(jnp.square(residual / noise)) - log_prior(z)

    def step(carry, _):
        z, state = carry
        updates, state = optimizer.update(jax.grad(energy)(z), state)
        return (optax.apply_updates(z, updates), state), None

    def descend(z):
        (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), length=num_steps)
        return z, energy(z)

    latents, energies = jax.vmap(descend)(starts)
    order = jnp.argsort(energies)
    return Completion(latents[order], energies[order])
