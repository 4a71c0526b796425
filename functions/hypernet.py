"""A hypernetwork: from a latent z to the parameter trees of any Flax module, K of them at once.

theta_k = theta_k^0 + s * g_k(z): every component has learned base weights, which start as the
target module initialises them, and the network emits offsets scaled by fan-in, so that the emitted
function starts where its own initialisation would put it. The released VAMoH emits the weights
themselves from K separate networks, `raw=True`.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from functions.siren import LEAK, uniform


class HyperNetwork(nn.Module):
    """Maps a latent [Z] to parameters of `target`: its tree with leaves [K, *shape].

    An MLP with leaky ReLU (0.1) and one linear emission [K, P, width], P the number of parameters
    of one target. `emission_kernel` holds nearly all weights of a large model: shard it along K or
    width.
    """

    target: nn.Module  # any module whose parameters are to be emitted
    num_inputs: int  # d: size of the target's input
    num_components: int = 1  # K
    widths: tuple[int, ...] = (64, 128)  # of the hidden layers
    share_trunk: bool = True  # one MLP for all components, each with its own emission
    raw: bool = False  # emit weights, not offsets, initialised as the released model

    @nn.compact
    def __call__(self, z: jax.Array) -> chex.ArrayTree:
        """Returns the parameter tree of the target, leaves [K, *shape]."""
        template = self.template()
        shapes = [leaf.shape for leaf in jax.tree.leaves(template)]
        sizes = [math.prod(shape) for shape in shapes]
        num_trunks = 1 if self.share_trunk else self.num_components
        h = jnp.broadcast_to(z, (num_trunks, *z.shape))
        for i, width in enumerate(self.widths):
            h = _Stack(width, self.raw, name=f"trunk_{i}")(h)
            h = nn.leaky_relu(h, LEAK)
        h = jnp.broadcast_to(h, (self.num_components, h.shape[-1]))
        # [K, P, width] and the kernel on the left: a CPU reads it in order, in both directions
        shape = (self.num_components, sum(sizes), h.shape[-1])
        if self.raw:
            kernel_init = base_init = fan_in_uniform(h.shape[-1])
            scale = 1.0
        else:
            kernel_init = nn.initializers.variance_scaling(
                0.1, "fan_in", "normal", in_axis=-1, out_axis=-2, batch_axis=0
            )
            base_init, scale = self._base_init, offset_scale(shapes)
        kernel = self.param("emission_kernel", kernel_init, shape)
        base = self.param("emission_bias", base_init, shape[:2])
        flat = base + scale * jnp.einsum("kph,kh->kp", kernel, h)
        parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=-1)
        leaves = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def template(self) -> chex.ArrayTree:
        """Returns shapes and types of one target's parameters."""
        return jax.eval_shape(self._target_init, jax.random.key(0))

    def _target_init(self, key):
        return self.target.init(key, jnp.zeros(self.num_inputs))["params"]

    def _base_init(self, key, shape, dtype=jnp.float32):
        keys = jax.random.split(key, self.num_components)
        leaves = jax.tree.leaves(jax.vmap(self._target_init)(keys))
        return jnp.concatenate([leaf.reshape(shape[0], -1) for leaf in leaves], axis=-1)


def offset_scale(shapes: list[tuple[int, ...]]) -> np.ndarray:
    """Returns the scale s [P] of offsets: 1 / sqrt(fan-in) for kernels [..., in, out], else 1."""
    scales = [1.0 / math.sqrt(math.prod(s[:-1])) if len(s) > 1 else 1.0 for s in shapes]
    return np.concatenate(
        [np.full(math.prod(s), c, np.float32) for s, c in zip(shapes, scales, strict=True)]
    )


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Returns U(-1/sqrt(in), 1/sqrt(in)), of kernels and biases in the released models."""
    return uniform(1.0 / math.sqrt(fan_in))


class _Stack(nn.Module):
    """Separate dense layers: [S, in] -> [S, features] with kernel [S, in, features]."""

    features: int
    raw: bool

    @nn.compact
    def __call__(self, h):
        kernel_init, bias_init = nn.initializers.he_normal(batch_axis=0), nn.initializers.zeros
        if self.raw:
            kernel_init = bias_init = fan_in_uniform(h.shape[1])
        kernel = self.param("kernel", kernel_init, (h.shape[0], h.shape[1], self.features))
        bias = self.param("bias", bias_init, (h.shape[0], self.features))
        return jnp.einsum("si,sio->so", h, kernel) + bias
