"""GASP: an adversarial model of functions (Dupont, Teh and Doucet, 2021).

A hypernetwork maps z ~ N(0, I) to the weights theta of a function representation, whose outputs
are brought to the range of the data scaled to [-1, 1],

  y(x) = tanh f_theta(x),   theta = g(z),

and a PointConv network D tells sets of points {(x_n, y_n)} of generated functions from those of
observed ones. With logits D, Goodfellow's losses and the penalty R1 (Mescheder et al., 2018) are

  L_D = E softplus(-D(y)) + E softplus(D(y_z)) + gamma/2 E |dD(y)/dy|^2,
  L_G = E softplus(-D(y_z)).

Generated sets have the points of the observed ones; what stands under a mask reaches neither
network. `look` tells a lost game from one that goes on.

Deliberately different from the released code: the penalty is of the logit, where theirs, of the
probability, vanishes as D saturates (`paper=True`), and is taken every few steps with as much more
weight (Karras et al., 2020); no batch norm, with `paper` neither; generated items come from an
average of the generator. Modules are written for one item; callers `vmap` over items with shared
coordinates. Not here: steps of the optimisers, completions (`functions.completion`), scores.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from functions import siren
from functions.domains import Table
from functions.hypernet import HyperNetwork
from functions.pointconv import LEAK, PaperPointConv, PointConv, average

BALANCE = 2.0 * float(np.log(2.0))  # loss of a discriminator that cannot tell


class Geometry(NamedTuple):
    """What all items of a data set share."""

    coords: jax.Array  # [N, d]
    tables: tuple[Table, ...]  # neighbourhoods of the discriminator's levels


class Generator(nn.Module):
    """A latent [Z] to a function, evaluated at coords [n, d]: [n, C] in (-1, 1)."""

    representation: nn.Module  # f: one coordinate [d] to outputs [C]
    coord_size: int  # d
    latent_size: int  # Z
    hyper_widths: tuple[int, ...]
    raw: bool = False  # the hypernetwork emits weights themselves, as released

    def setup(self):
        """Makes the hypernetwork."""
        self.hyper = HyperNetwork(
            self.representation, self.coord_size, widths=self.hyper_widths, raw=self.raw
        )

    def __call__(self, z: jax.Array, coords: jax.Array) -> jax.Array:
        """Returns the function of a latent at coords [n, d]."""
        theta = jax.tree.map(lambda leaf: leaf[0], self.hyper(z))
        represent = self.representation.clone(parent=None, name=None)
        return jnp.tanh(siren.evaluate(represent, theta, coords))


class Discriminator(nn.Module):
    """The logit of a set being observed: levels of `PointConv` and a linear head."""

    num_channels: tuple[int, ...]  # one a level
    weight_widths: tuple[int, ...] = (16, 16)

    @nn.compact
    def __call__(self, values: jax.Array, mask: jax.Array, geometry: Geometry) -> jax.Array:
        """Judges one item.

        Args:
          values: [N, C]; what stands under the mask is ignored, NaN included.
          mask: [N] True = observed.
          geometry: has one table a level, the first among the N points.

        Returns:
          Scalar, positive where the item looks observed.
        """
        h = values
        for channels, table in zip(self.num_channels, geometry.tables, strict=True):
            h, mask = PointConv(channels, self.weight_widths)(h, mask, table)
        return nn.Dense(1, name="logit")(h.reshape(-1))[0]


class PaperDiscriminator(nn.Module):
    """The released network without its batch norm: leaky weight networks, sums, average pooling.

    A level with None channels pools. The last has one centre and one channel, the logit. The
    release searches neighbours anew in every set; here tables belong to the domain.
    """

    num_channels: tuple[int | None, ...]
    weight_widths: tuple[int, ...] = (16, 16, 16, 16)

    @nn.compact
    def __call__(self, values: jax.Array, mask: jax.Array, geometry: Geometry) -> jax.Array:
        """Judges one item, as `Discriminator` does."""
        h, points = values, geometry.coords
        leaky = lambda x: nn.leaky_relu(x, LEAK)
        for i, channels in enumerate(self.num_channels):
            table = geometry.tables[i]
            if channels is None:
                h = average(h, mask, table.index)
            else:
                h = leaky(h) if i and self.num_channels[i - 1] is not None else h
                h = PaperPointConv(channels, self.weight_widths, leaky)(h, mask, points, table)
            points, mask = points[table.centre], jnp.any(mask[table.index], axis=-1)
        return h[0, 0]


def init(
    key: chex.PRNGKey,
    generator: Generator,
    discriminator: nn.Module,
    geometry: Geometry,
    num_channels: int,
) -> dict:
    """Initialises {"generator", "discriminator", "average"}; the last starts as the first."""
    key_generator, key_discriminator = jax.random.split(key)
    z = jnp.zeros(generator.latent_size)
    made = generator.init(key_generator, z, geometry.coords[:1])["params"]
    num_points = geometry.coords.shape[0]
    item = jnp.zeros((num_points, num_channels)), jnp.ones(num_points, bool), geometry
    judge = discriminator.init(key_discriminator, *item)["params"]
    return {"generator": made, "discriminator": judge, "average": made}


def render(
    generator: Generator, params: dict, z: jax.Array, coords: jax.Array, *, chunk: int = 16384
) -> jax.Array:
    """Evaluates the function of a latent in bounded memory.

    Args:
      generator: the module.
      params: its parameters.
      z: [Z].
      coords: [n, d], any points of the domain.
      chunk: coordinates at a time.

    Returns:
      [n, C] in (0, 1), the unit of the data: (1 + y) / 2.
    """

    def one(x):
        return 0.5 * (1.0 + generator.apply({"params": params}, z, x[None])[0])

    return jax.lax.map(one, coords, batch_size=min(chunk, coords.shape[0]))


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Returns the loss of D in nats, without the penalty.

    Args:
      real: [B] logits of observed items.
      fake: [B] logits of generated items.
    """
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_loss(fake: jax.Array) -> jax.Array:
    """Returns the loss of G in nats, the one that does not saturate, given logits [B]."""
    return jnp.mean(jax.nn.softplus(-fake))


def r1(
    logit: Callable[[jax.Array], jax.Array], values: jax.Array, *, paper: bool = False
) -> jax.Array:
    """Returns |d logit / d values|^2 of one observed item, summed over points and channels.

    Args:
      logit: values -> scalar.
      values: [N, C].
      paper: take the gradient of the probability sigma(logit), as released.

    Returns:
      Scalar >= 0; the loss takes gamma / 2 times its mean over items.
    """
    output = (lambda values: jax.nn.sigmoid(logit(values))) if paper else logit
    return jnp.sum(jnp.square(jax.grad(output)(values)))


def lazily(step: jax.Array, every: int, gradient: Callable[[], chex.ArrayTree]) -> chex.ArrayTree:
    """Returns `every` times a gradient in one step of `every`, and zeros in the others.

    Over `every` steps the sum is that of a gradient taken every time, at a fraction of the work.

    Args:
      step: counts from 0; the first step takes it.
      every: k, at least 1.
      gradient: makes the tree; not run in the other steps, unless under `vmap`.
    """
    zeros = lambda: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradient))
    scaled = lambda: jax.tree.map(lambda a: every * a, gradient())
    return jax.lax.cond(step % every == 0, scaled, zeros)


def follow(
    step: jax.Array, averaged: chex.ArrayTree, new: chex.ArrayTree, decay: float
) -> chex.ArrayTree:
    """Moves averaged weights after a step: d averaged + (1 - d) new, d = min(decay, (1+t)/(10+t)).

    Args:
      step: t, from 0. The first averages forget fast: they began as random weights.
      averaged: the average so far.
      new: weights after the step.
      decay: in [0, 1); about 1 / (1 - decay) steps count.
    """
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(new, averaged, rate)


def spread(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns how far items are from their mean, root mean square over what is observed.

    Args:
      values: [B, N, C]; what stands under the mask is ignored, NaN included.
      mask: [B, N] True = observed.
    """
    mask = mask[..., None]
    values = jnp.where(mask, values, 0.0)
    mean = jnp.sum(values, axis=0) / jnp.maximum(jnp.sum(mask, axis=0), 1)
    total = jnp.sum(jnp.where(mask, jnp.square(values - mean), 0.0))
    return jnp.sqrt(total / jnp.maximum(jnp.sum(mask) * values.shape[-1], 1))


class Watch(NamedTuple):
    """Four numbers a game is judged by: of one step, their running means, or limits of these.

    A game is lost when the mean of one of the first three falls to its limit, or the last rises to
    it.
    """

    loss: jax.Array  # of D, without the penalty; nats. 0: D is sure of everything
    contrast: jax.Array  # standard deviation of logits, of both kinds. 0: D sees nothing
    variety: jax.Array  # spread of generated items over that of observed ones. 0: they are one
    norm: jax.Array  # the larger of the two gradient norms


def watch() -> Watch:
    """Returns the means to begin with: those of a sound game, which bad ones must wear down."""
    return Watch(*map(jnp.asarray, (BALANCE, 1.0, 1.0, 0.0)))


def look(means: Watch, seen: Watch, limits: Watch, *, horizon: int) -> tuple[Watch, Watch]:
    """Takes in one step, and says whether the game is lost.

    Means are over about the last `horizon` steps. Networks recover from a bad while, so that a
    single step proves nothing; NaN and infinity prove it at once. A discriminator at chance is no
    alarm of its own: it is what a perfect generator leaves. One that gives every item the same
    logit is, for it teaches nothing.

    Args:
      means: of the steps before.
      seen: in this step.
      limits: of the means, more than 0.
      horizon: steps, at least 1.

    Returns:
      The new means, and alarms: how near the limits are, below 1, and inf once one is reached.
    """
    means = jax.tree.map(lambda mean, x: mean + (x - mean) / horizon, means, seen)
    near = Watch(*(limit / mean for limit, mean in zip(limits, means, strict=True)))
    near = near._replace(norm=means.norm / limits.norm)
    return means, jax.tree.map(lambda ratio: jnp.where(ratio < 1.0, ratio, jnp.inf), near)
