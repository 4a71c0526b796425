"""A set encoder on points: from the observed values of a function to q(z | x_O, y_O).

PointConv (Wu, Qi and Fuxin, 2019) as VAMoH uses it: around every centre j of a coarser set, the
features of its neighbours are summed with weights that a small network gives to their offsets,

  G_j = sum_{i in N(j)} m_i y_i (x) w(x_i - x_j) / sum_i m_i,   out_j = W vec(G_j) + b,

with m_i = 1 where point i is observed. Shapes are static for any number of observed points, and
nothing under the mask reaches a value or a gradient. Neighbourhoods come from `functions.domains`
as constants, or from `nearest_observed` for sets whose points differ from item to item. All modules
are written for one item; under `vmap` over items with shared tables the weight network runs once.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from functions.domains import Table
from functions.hypernet import fan_in_uniform

LEAK = 0.2  # slope of the leaky ReLU in the released encoders
INITIAL_LOG_VAR = -4.0  # narrow at first: what z says must reach the decoder before it is priced
MAX_LOG_VAR = 14.0  # a posterior wider than e^7 means nothing; keeps exp finite


class PointConv(nn.Module):
    """One level: features of n points to features of M centres."""

    num_channels: int
    weight_widths: tuple[int, ...] = (16, 16)  # of the network that weighs offsets

    @nn.compact
    def __call__(
        self, features: jax.Array, mask: jax.Array, table: Table
    ) -> tuple[jax.Array, jax.Array]:
        """Aggregates over neighbours.

        Args:
          features: [n, C]; what stands under the mask is ignored.
          mask: [n] True = observed.
          table: neighbourhoods of the M centres among the n points.

        Returns:
          Features [M, num_channels], zero where no neighbour is observed, and that mask [M].
        """
        weights = table.offset
        for i, width in enumerate(self.weight_widths):
            weights = nn.gelu(nn.Dense(width, name=f"weight_{i}")(weights))
        shown = mask[table.index]
        count = jnp.sum(shown, axis=-1)
        gathered = aggregate(features, mask, weights, table.index)
        gathered = gathered / jnp.maximum(count, 1)[:, None, None]
        # the share observed tells a mean over one neighbour from a mean over all
        share = count[:, None] / table.index.shape[-1]
        flat = jnp.concatenate([gathered.reshape(gathered.shape[0], -1), share], axis=-1)
        out = nn.gelu(nn.LayerNorm()(nn.Dense(self.num_channels)(flat)))
        return jnp.where(count[:, None] > 0, out, 0.0), count > 0


class PaperPointConv(nn.Module):
    """One level as released: weights from coordinates themselves, a sum, no normalisation.

    The weight network is a chain of dense layers with `activation` after each, or none: then it is
    affine, w(a - b) = w(a) - w(b) + w(0), and runs on n points in place of M k offsets.
    """

    num_channels: int
    weight_widths: tuple[int, ...] = (16, 16, 16, 16)
    activation: Callable[[jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(
        self, features: jax.Array, mask: jax.Array, points: jax.Array, table: Table
    ) -> jax.Array:
        """Aggregates over neighbours.

        Args:
          features: [n, C]; what stands under the mask is ignored.
          mask: [n] True = observed.
          points: [n, F] coordinates of the layer, finite under the mask too: they are those of a
            domain, which is known, and a centre may be a point that is not observed.
          table: neighbourhoods of the M centres among the n points; its offsets are not used.

        Returns:
          Features [M, num_channels].
        """
        layers = [_Dense(w, name=f"weight_{i}") for i, w in enumerate(self.weight_widths)]

        def weigh(offsets):
            for layer in layers:
                offsets = layer(offsets)
                offsets = offsets if self.activation is None else self.activation(offsets)
            return offsets

        if self.activation is None:
            at_points, at_zero = weigh(points), weigh(jnp.zeros_like(points[:1]))
            weights = at_points[table.index] - at_points[table.centre][:, None] + at_zero
        else:
            weights = weigh(points[table.index] - points[table.centre][:, None])
        gathered = aggregate(features, mask, weights, table.index)
        # a sum over k, whatever is observed: the release finds k observed neighbours
        count = jnp.sum(mask[table.index], axis=-1)
        gathered = gathered * (table.index.shape[-1] / jnp.maximum(count, 1))[:, None, None]
        return _Dense(self.num_channels, name="linear")(gathered.reshape(gathered.shape[0], -1))


class Encoder(nn.Module):
    """q(z | x_O, y_O) = N(mean, diag exp(log_var)): levels of PointConv and a linear head.

    The last level's features are flattened in the order of its centres, which belong to the domain
    and not to the set, so the result does not depend on the order of the points.
    """

    num_channels: tuple[int, ...]  # one a level
    latent_size: int
    weight_widths: tuple[int, ...] = (16, 16)

    @nn.compact
    def __call__(
        self, values: jax.Array, mask: jax.Array, tables: tuple[Table, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes one item.

        Args:
          values: [N, C]; what stands under the mask is ignored, NaN included.
          mask: [N] True = observed; any number of points, none included.
          tables: one a level, the first among the N points.

        Returns:
          mean [Z] and log_var [Z].
        """
        h = values
        for channels, table in zip(self.num_channels, tables, strict=True):
            h, mask = PointConv(channels, self.weight_widths)(h, mask, table)
        mean = nn.Dense(self.latent_size, name="mean")(h.reshape(-1))
        narrow = nn.initializers.constant(INITIAL_LOG_VAR)
        log_var = nn.Dense(self.latent_size, bias_init=narrow, name="log_var")(h.reshape(-1))
        return mean, jnp.clip(log_var, -MAX_LOG_VAR, MAX_LOG_VAR)


class PaperEncoder(nn.Module):
    """The released encoder: affine weight networks, leaky ReLU (0.2), average pooling, flat head.

    A level with None channels is a pooling level. log_var is clamped to +-70, the standard
    deviation to 10. The release gathers the observed points and searches k neighbours among them
    anew, which has no static shape; here the sum over the observed ones is scaled to k.
    """

    num_channels: tuple[int | None, ...]
    latent_size: int
    weight_widths: tuple[int, ...] = (16, 16, 16, 16)

    @nn.compact
    def __call__(
        self, values: jax.Array, mask: jax.Array, points: jax.Array, tables: tuple[Table, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes one item, as `Encoder` does; points [N, F] are its Fourier features."""
        h = values
        for channels, table in zip(self.num_channels, tables, strict=True):
            if channels is None:
                h = average(h, mask, table.index)
            else:
                h = PaperPointConv(channels, self.weight_widths)(h, mask, points, table)
                h = nn.leaky_relu(h, LEAK)
            points, mask = points[table.centre], jnp.any(mask[table.index], axis=-1)
        head = _Dense(2 * self.latent_size, name="head")
        mean, log_var = jnp.split(head(h.reshape(-1)), 2)
        return mean, jnp.clip(log_var, -70.0, 2.0 * math.log(10.0))


def aggregate(
    features: jax.Array, mask: jax.Array, weights: jax.Array, index: jax.Array
) -> jax.Array:
    """Sums observed neighbours with their weights, G_j = sum_i m_i y_i (x) w_ji.

    Args:
      features: [n, C].
      mask: [n].
      weights: [M, k, W].
      index: [M, k] among the n points.

    Returns:
      [M, C, W].
    """
    features = jnp.where(mask[:, None], features, 0.0)
    return jnp.einsum("mkc,mkw->mcw", features[index], weights)


def average(features: jax.Array, mask: jax.Array, index: jax.Array) -> jax.Array:
    """Averages observed neighbours: [n, C], [n], [M, k] -> [M, C], zero where there are none."""
    features = jnp.where(mask[:, None], features, 0.0)
    count = jnp.sum(mask[index], axis=-1)
    return jnp.sum(features[index], axis=1) / jnp.maximum(count, 1)[:, None]


def nearest_observed(
    points: jax.Array, mask: jax.Array, centres: jax.Array, num_neighbours: int, radius: float
) -> Table:
    """Finds the observed points nearest to every centre: a table for one irregular set.

    Static shapes inside `jit`; a search through all points. Where fewer points are observed than
    neighbours asked for, the rest of the table names points under the mask, which `PointConv`
    leaves out. Independent of the order of the points (equal distances aside: the first wins) and
    of padding under the mask.

    Args:
      points: [n, p]; what stands under the mask is ignored, NaN included.
      mask: [n] True = observed.
      centres: [M, p], fixed points of the domain.
      num_neighbours: k, at most n.
      radius: the distance that offsets are measured in, such as the spacing of the centres.

    Returns:
      The table; its `centre` is the nearest observed point.
    """
    points = jnp.where(mask[:, None], points, 0.0)
    gaps = points - centres[:, None]  # [M, n, p]
    distance = jnp.where(mask, jnp.sum(jnp.square(gaps), axis=-1), jnp.inf)
    _, index = jax.lax.top_k(-distance, num_neighbours)
    return Table(index[:, 0], index, (points[index] - centres[:, None]) / radius)


class _Dense(nn.Module):
    # as PyTorch initialises it
    features: int

    @nn.compact
    def __call__(self, x):
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return x @ kernel + self.param("bias", init, (self.features,))
