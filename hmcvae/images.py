"""Convolutional encoder and decoder for tables whose columns are the pixels of an image.

The published networks of HH-VAE (Peis, Ma and Hernandez-Lobato 2022), channels last:

  mnist   28 x 28 x 1. Convolutions 16, 32, 32 of kernel 5 and stride 2 (14, 7, 4 pixels a side),
          ReLU after each. The decoder: hidden, 512, then transposed convolutions 32, 16, 1.
  celeba  64 x 64 x 3. Convolutions 32, 32, 64, 64 of kernel 4 and stride 2 (32, 16, 8, 4), then
          one of 512 over the whole 4 x 4; normalised, ReLU. The decoder: hidden, then the mirror.

Batch normalisation, published for celeba, is group and layer normalisation here: inside a density
that HMC samples, no row may depend on the rows beside it. Weights start as in `hmcvae.networks`.

A convolution of stride 2 is one of stride 1 on the four parities of the finer grid, gathered into
channels, and a transposed one is its adjoint. On CPUs XLA runs that form at the same speed or up to
ten times as fast as strided and dilated convolutions, gradients included.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmcvae.networks import Linear, uniform_fan_in

NUM_GROUPS = 8  # of GroupNorm; the channels that it normalises are multiples
NUM_FEATURES = 512  # of the encoder, of either kind


class Sizes(NamedTuple):
    """Layers of one kind of image."""

    side: int  # pixels
    num_colours: int
    kernel: int  # side of every kernel of stride 2
    channels: tuple[int, ...]  # of the encoder's convolutions of stride 2; the decoder's reversed
    is_normalised: bool

    @property
    def sides(self) -> list[int]:
        """Pixels a side of every map, image first."""
        return [-(-self.side // 2**i) for i in range(len(self.channels) + 1)]


KINDS = {
    "mnist": Sizes(28, 1, 5, (16, 32, 32), False),
    "celeba": Sizes(64, 3, 4, (32, 32, 64, 64), True),
}


def check(kind: str, num_columns: int) -> None:
    """Refuses, in one sentence, a table whose rows are no images of that kind."""
    if kind not in KINDS:
        raise ValueError(f"networks {kind!r} are unknown; use one of table, {', '.join(KINDS)}")
    side, colours = KINDS[kind].side, KINDS[kind].num_colours
    if num_columns != side * side * colours:
        raise ValueError(
            f"networks {kind!r} read {side * side * colours} columns ({side} x {side} x "
            f"{colours}), but the table has {num_columns}; use networks 'table'"
        )


class ImageEncoder(nn.Module):
    """Features of an image, of which masked pixels are zero."""

    kind: str

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Maps pixels [..., D], rows, columns, then channels, to features [..., 512]."""
        sizes = KINDS[self.kind]
        x = pixels.reshape(-1, sizes.side, sizes.side, sizes.num_colours)
        for i, channels in enumerate(sizes.channels):
            x = Downsample(channels, sizes.kernel, name=f"conv{i}")(x)
            if sizes.is_normalised:
                x = nn.GroupNorm(NUM_GROUPS, name=f"norm{i}")(x)
            x = nn.relu(x)
        x = x.reshape(*pixels.shape[:-1], -1)
        if sizes.is_normalised:  # a convolution over the whole map is a linear layer
            x = nn.relu(nn.LayerNorm(name="norm")(Linear(NUM_FEATURES, name="whole")(x)))
        return x


class ImageDecoder(nn.Module):
    """Logits of the pixels of an image."""

    kind: str
    hidden: int

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """Maps h [..., d_1] to logits [..., D] in the order of `ImageEncoder`."""
        sizes = KINDS[self.kind]
        channels, sides = sizes.channels[::-1], sizes.sides[::-1]
        x = Linear(self.hidden, name="hidden")(h.reshape(-1, h.shape[-1]))
        if sizes.is_normalised:
            x = nn.relu(nn.LayerNorm(name="norm")(x))
            x = _Spread(channels[0], sides[0], name="whole")(x)
        else:
            x = Linear(channels[0] * sides[0] ** 2, name="whole")(nn.relu(x))
            x = x.reshape(-1, sides[0], sides[0], channels[0])
        for i, width in enumerate((*channels[1:], sizes.num_colours)):
            if sizes.is_normalised:
                x = nn.GroupNorm(NUM_GROUPS, name=f"norm{i}")(x)
            x = Upsample(width, sizes.kernel, sides[i + 1], name=f"conv{i}")(nn.relu(x))
        return x.reshape(*h.shape[:-1], -1)


class Downsample(nn.Module):
    """Convolution of stride 2 and padding (kernel - 1) // 2 of square maps."""

    features: int
    kernel: int  # 4 or 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, n, n, C] to [N, ceil(n / 2), ceil(n / 2), features]."""
        init = uniform_fan_in(x.shape[-1] * self.kernel**2)
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        taps = _by_parity(kernel).transpose(0, 2, 1, 3, 4, 5)
        return _convolve(_fold(x), taps.reshape(3, 3, -1, self.features)) + bias


class Upsample(nn.Module):
    """Transposed convolution, the adjoint of `Downsample`, to maps of `side` pixels."""

    features: int
    kernel: int  # 4 or 5
    side: int  # 2n or 2n - 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, n, n, C] to [N, side, side, features]."""
        init = uniform_fan_in(self.features * self.kernel**2)  # as PyTorch counts it
        kernel = self.param("kernel", init, (self.kernel, self.kernel, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        # the adjoint reads the neighbours in opposite order
        taps = _by_parity(kernel)[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
        out = _convolve(x, taps.reshape(3, 3, x.shape[-1], -1))
        return _unfold(out, self.side) + bias


class _Spread(nn.Module):
    """Transposed convolution of a single pixel: [N, C] -> [N, side, side, features]."""

    features: int
    side: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_fan_in(self.features * self.side**2)
        shape = (x.shape[-1], self.side, self.side, self.features)
        kernel = self.param("kernel", init, shape)
        return jnp.einsum("nc,cijf->nijf", x, kernel) + self.param("bias", init, (self.features,))


def _by_parity(kernel):
    """Taps [k, k, C, F] as [3, 2, 3, 2, C, F]: the neighbour of a coarse pixel, and the parity.

    Tap t of the coarse pixel o reads the fine pixel 2 o + t - p = 2 (o + d) + a, so t = 2 d + a + p
    with d in -1, 0, 1 and a in 0, 1: 6 taps a side, of which 1 or 2 are zero.
    """
    size = kernel.shape[0]
    pad = (size - 1) // 2
    kernel = jnp.pad(kernel, ((2 - pad, 4 + pad - size),) * 2 + ((0, 0),) * 2)
    return kernel.reshape(3, 2, 3, 2, *kernel.shape[2:])


def _fold(x):
    """Gathers the four parities of a map into channels: [N, n, n, C] -> [N, n/2, n/2, 4 C]."""
    side, channels = x.shape[1], x.shape[-1]
    half = -(-side // 2)
    x = jnp.pad(x, ((0, 0), *((0, 2 * half - side),) * 2, (0, 0)))
    x = x.reshape(-1, half, 2, half, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, half, half, 4 * channels)


def _unfold(x, side):
    """Inverts `_fold`: [N, n, n, 4 C] -> [N, side, side, C] with side 2n or 2n - 1."""
    half, channels = x.shape[1], x.shape[-1] // 4
    x = x.reshape(-1, half, half, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, 2 * half, 2 * half, channels)[:, :side, :side]


@jax.custom_vjp
def _convolve(x, kernel):
    """Convolves maps [N, n, n, C] with 3 x 3 taps [3, 3, C, F], zeros outside: [N, n, n, F].

    The gradients are written out as convolutions in the layout of this one, because only that
    layout is fast on CPUs inside a loop, where XLA does not bring others into it.
    """
    layout = ("NHWC", "HWIO", "NHWC")
    pad = ((1, 1), (1, 1))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pad, dimension_numbers=layout)


def _convolve_forward(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _convolve_backward(saved, grad):
    x, kernel = saved
    grad_x = _convolve(grad, kernel[::-1, ::-1].swapaxes(2, 3))
    # the map is the kernel here, and the rows are its channels: [C, n, n, N] * [n, n, N, F]
    grad_kernel = _convolve(x.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3))
    return grad_x, grad_kernel.transpose(1, 2, 0, 3)


_convolve.defvjp(_convolve_forward, _convolve_backward)
