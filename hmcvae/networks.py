"""The layers that every network of the tabular models is made of.

Weights and biases start from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the initialisation under which
the published results were obtained (the default of PyTorch's linear layers).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform_fan_in(fan_in):
    """Returns an initialiser U(+-1/sqrt(fan_in)); `fan_in` broadcasts against the shape."""

    def init(key, shape, dtype=jnp.float32):
        bound = 1.0 / jnp.sqrt(jnp.asarray(fan_in, dtype))
        return bound * jax.random.uniform(key, shape, dtype, -1.0, 1.0)

    return init


class Linear(nn.Module):
    """Affine map of the last axis, [..., fan_in] -> [..., features]."""

    features: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the map."""
        init = uniform_fan_in(inputs.shape[-1])
        return nn.Dense(self.features, kernel_init=init, bias_init=init, name="affine")(inputs)


class MLP(nn.Module):
    """Linear layers with a ReLU between them and none after the last."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [..., fan_in] to [..., features[-1]]."""
        for i, width in enumerate(self.features):
            inputs = Linear(width, name=f"layer{i}")(nn.relu(inputs) if i else inputs)
        return inputs
