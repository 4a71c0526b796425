"""Function representations: small networks f(x) from a coordinate to the outputs at it.

Their parameters are what a hypernetwork emits; callers `vmap` over components and items. Features
lead: a module maps x [d] to [C], and as well [d, N] to [C, N], so that coordinates shared by many
networks enter one matrix product and no layer transposes its activations [width, N]. SIREN:
Sitzmann et al. (2020). Fourier features and an MLP: Tancik et al. (2020), the data generator of
VAMoH as released.
Not here: the emission of parameters (`functions.hypernet`), likelihoods of the outputs.
"""

import math

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from functions import encodings
from functions.sine import sine

LEAK = 0.1  # slope of the leaky ReLU in every MLP of VAMoH and of GASP's generator


def uniform(bound: float) -> nn.initializers.Initializer:
    """Returns an initialiser that draws from U(-bound, bound)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


class Representation(nn.Module):
    """Marks a module that takes [d, N] at once; any other Flax module is mapped over points."""


def evaluate(module: nn.Module, params: chex.ArrayTree, coords: jax.Array) -> jax.Array:
    """Evaluates one function at many points.

    Args:
      module: the representation, a map of one coordinate [d] to outputs [C].
      params: its parameters.
      coords: [N, d].

    Returns:
      [N, C].
    """
    if isinstance(module, Representation):
        return module.apply({"params": params}, coords.T).T
    return jax.vmap(lambda x: module.apply({"params": params}, x))(coords)


class Affine(nn.Module):
    """W^T x + b, with kernel [in, features]; x is [in] or [in, N]."""

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    precision: jax.lax.Precision = jax.lax.Precision.DEFAULT  # of the product

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the affine map, [features] or [features, N]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[0], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        bias = bias.reshape(-1, *(1,) * (x.ndim - 1))
        product = jax.lax.dot_general(kernel, x, (((0,), (0,)), ((), ())), self.precision)
        return product + bias


class Siren(Representation):
    """Sine network: h_0 = x, h_l = sin(W_l^T h_{l-1} + b_l), f(x) = W^T h_L + b.

    The frequency factor omega of Sitzmann et al. (2020) is inside the weights: the first kernel is
    U(-omega / d, omega / d), the others U(-sqrt(6 / in), sqrt(6 / in)). The initial hidden layers
    are the same, and every kernel but the first has the usual fan-in variance 2 / in, which is the
    scale at which a hypernetwork emits. So has the last one: outputs start of order 1, where those
    of the paper are of order 1 / omega.
    """

    widths: tuple[int, ...]  # of the hidden layers
    num_outputs: int
    omega: float = 30.0  # radians per unit of a coordinate: a domain is 2 units wide

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps a coordinate [d] to outputs [num_outputs], or [d, N] to [num_outputs, N]."""
        # The first phases reach tens of radians, and the pixels of a large picture are closer than
        # the default (reduced) precision of a GPU or TPU can tell apart.
        first = Affine(
            self.widths[0], uniform(self.omega / x.shape[0]), uniform(math.pi),
            jax.lax.Precision.HIGHEST, name="layer_0",
        )  # fmt: skip
        h = sine(first(x))
        for i, width in enumerate(self.widths[1:], start=1):
            init = uniform(math.sqrt(6.0 / h.shape[0]))
            h = sine(Affine(width, init, name=f"layer_{i}")(h))
        bound = math.sqrt(6.0 / h.shape[0])
        return Affine(self.num_outputs, uniform(bound), name="output")(h)


class FourierMLP(Representation):
    """MLP with leaky ReLU on random Fourier features [cos 2 pi B x, sin 2 pi B x] of a coordinate.

    B holds `num_frequencies` draws of N(0, std^2), a constant made from `seed`, not a parameter.
    """

    widths: tuple[int, ...]  # of the hidden layers
    num_outputs: int
    num_frequencies: int = 128
    std: float = 2.0
    seed: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps a coordinate [d] to outputs [num_outputs], or [d, N] to [num_outputs, N]."""
        table = encodings.frequencies(
            self.num_frequencies, x.shape[0], std=self.std, seed=self.seed
        )
        h = encodings.fourier_features(table.astype(x.dtype), jnp.moveaxis(x, 0, -1))
        h = jnp.moveaxis(h, -1, 0)
        return _leaky_mlp(h, self.widths, self.num_outputs)


class CoordinateMLP(Representation):
    """MLP with leaky ReLU on a coordinate itself: the published choice of GASP for voxels."""

    widths: tuple[int, ...]  # of the hidden layers
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps a coordinate [d] to outputs [num_outputs], or [d, N] to [num_outputs, N]."""
        return _leaky_mlp(x, self.widths, self.num_outputs)


def _leaky_mlp(h, widths, num_outputs):
    """Adds the layers to the module that is being called."""
    for i, width in enumerate(widths):
        init = uniform(math.sqrt(6.0 / h.shape[0]))
        h = nn.leaky_relu(Affine(width, init, name=f"layer_{i}")(h), LEAK)
    return Affine(num_outputs, uniform(math.sqrt(3.0 / h.shape[0])), name="output")(h)
