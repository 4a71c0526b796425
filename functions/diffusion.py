"""A small diffusion model of vectors: a prior over latents that samples but has no density.

Noise is mixed in along a quarter of a circle, x(a) = cos(a) x_0 + sin(a) eps for angles a from 0
(data) to pi / 2 (noise), and what is learned is the velocity dx/da, v = cos(a) eps - sin(a) x_0
(Ho et al., 2020; the angle and v of Salimans & Ho, 2022). A step of the deterministic sampler
(Song et al., 2021) is then a rotation: x(a - d) = cos(d) x - sin(d) v.

`velocity` is any function of x [..., Z] and the angle [...]; `Denoiser` is one that is learned.
Data should be standardised. Not here: densities (`functions.flows`).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

NUM_FREQUENCIES = 8  # of the angle


class Denoiser(nn.Module):
    """A residual network for the velocity, 0 until it is trained.

    Attributes:
      size: Z.
      width: of the residual stream.
      num_blocks: residual blocks of two layers.
    """

    size: int
    width: int = 256
    num_blocks: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, angle: jax.Array) -> jax.Array:
        """Maps x [..., Z] and angle [...] to the velocity [..., Z]."""
        phase = angle[..., None] * 2.0 * jnp.arange(1, NUM_FREQUENCIES + 1)  # periods up to pi
        time = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
        h = nn.Dense(self.width)(x)
        for _ in range(self.num_blocks):
            inner = nn.silu(nn.Dense(self.width)(nn.LayerNorm()(h)) + nn.Dense(self.width)(time))
            h = h + nn.Dense(self.width)(inner)
        return nn.Dense(self.size, kernel_init=nn.initializers.zeros)(nn.LayerNorm()(h))


def loss(
    key: jax.Array, velocity: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    """Returns the squared error of the velocity at random angles, averaged: what trains it.

    Args:
      key: typed PRNG key, consumed once.
      velocity: (x [B, Z], angle [B]) -> [B, Z].
      x: [B, Z] data; the angle of each is uniform.
    """
    key_angle, key_noise = jax.random.split(key)
    angle = jax.random.uniform(key_angle, x.shape[:1], maxval=0.5 * math.pi)
    eps = jax.random.normal(key_noise, x.shape)
    cosine, sine = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    predicted = velocity(cosine * x + sine * eps, angle)
    return jnp.mean(jnp.square(predicted - (cosine * eps - sine * x)))


def sample(
    key: jax.Array,
    velocity: Callable[[jax.Array, jax.Array], jax.Array],
    shape: tuple[int, ...],
    *,
    num_steps: int,
) -> jax.Array:
    """Draws samples: noise, taken back to data along the velocity in equal steps.

    Args:
      key: typed PRNG key, consumed once.
      velocity: (x [*shape], angle [*shape[:-1]]) -> [*shape].
      shape: [..., Z] of the samples.
      num_steps: evaluations of the velocity, one after another.

    Returns:
      [*shape].
    """
    step = 0.5 * math.pi / num_steps

    def body(x, angle):
        v = velocity(x, jnp.full(shape[:-1], angle))
        return math.cos(step) * x - math.sin(step) * v, None

    angles = step * jnp.arange(num_steps, 0, -1)
    return jax.lax.scan(body, jax.random.normal(key, shape), angles)[0]
