"""What is observed of a function and what has to be filled in; paths between latents.

Masks are [N] booleans over the points of a domain, True = observed: a hole (in-painting), only the
hole (out-painting), one half, or points kept at random. Boxes and halves have the sizes of VAMoH
(Koyuncu et al., 2023); `paper` gives the hole exactly where the released code puts it.

Super-resolution is no mask: render at the coordinates of `domains.resized` or
`domains.interleaved`. Not here: scores (`functions.metrics`), filling in (the models).
"""

import difflib
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from functions.domains import Domain

PAPER_CORNER = 5  # first index of the released hole on every axis
SIDES = {"left": (-1, True), "right": (-1, False), "top": (-2, True), "bottom": (-2, False)}


def inpaint(domain: Domain, *, paper: bool = False) -> np.ndarray:
    """Observes all but a centred box of a third of every axis.

    A square, a cube, a box of latitudes and longitudes, an interval; for video the same square in
    every frame, so that no other frame shows what it hides.

    Args:
      domain: where the points are.
      paper: put the box at [5, 5 + R_0 // 3) of every axis, R_0 the first size, cut at the edges.

    Returns:
      [N] bool, True = observed.
    """
    return ~outpaint(domain, paper=paper)


def outpaint(domain: Domain, *, paper: bool = False) -> np.ndarray:
    """Observes only the box that `inpaint` hides, with the same arguments."""
    sizes = domain.shape[1:] if domain.kind == "video" else domain.shape
    if paper:
        box = [slice(PAPER_CORNER, PAPER_CORNER + sizes[0] // 3)] * len(sizes)
    else:
        box = [
            slice((size - size // 3) // 2, (size - size // 3) // 2 + size // 3) for size in sizes
        ]
    mask = np.zeros(domain.shape, bool)
    mask[(..., *box)] = True
    if not mask.any():
        least = PAPER_CORNER + 1 if paper else 3
        raise ValueError(
            f"domain of shape {domain.shape} has no room for the box of in-painting; give at least "
            f"{least} points an axis"
        )
    return mask.ravel()


def half(domain: Domain, side: str, *, paper: bool = False) -> np.ndarray:
    """Observes one half; opposite sides share no point and together are everything.

    Left and right cut the last axis, top and bottom the one before it, first indices left and top;
    an odd axis gives its middle to the right and bottom. On the sphere the four are the western,
    eastern, northern and southern hemispheres; the equator is southern, Greenwich eastern.

    Args:
      domain: where the points are; a series has left and right only.
      side: "left", "right", "top" or "bottom", the half that is observed.
      paper: cut longitudes by their index too, as the released code does, so that the left half of
        a sphere is the eastern one.

    Returns:
      [N] bool, True = observed.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}, but it must be one of {', '.join(SIDES)}")
    axis, is_first = SIDES[side]
    if len(domain.shape) < -axis:
        raise ValueError(f"a {domain.kind} has no {side}; use 'left' or 'right'")
    size = domain.shape[axis]
    first = np.arange(size) < size // 2
    if domain.kind == "sphere" and axis == -1 and not paper:
        first = np.arange(size) >= (size + 1) // 2  # 180 degrees east and beyond is west
    kept = first if is_first else ~first
    trailing = (1,) * (-1 - axis)
    return np.broadcast_to(kept.reshape(-1, *trailing), domain.shape).ravel()


def drop(key: chex.PRNGKey, domain: Domain, rate: float) -> jax.Array:
    """Drops every point with probability `rate`, independently; not an exact share.

    Args:
      key: typed PRNG key.
      domain: where the points are.
      rate: probability of dropping, in [0, 1].

    Returns:
      [N] bool, True = observed.
    """
    _check_rate("rate", rate)
    return jax.random.bernoulli(key, 1.0 - rate, (math.prod(domain.shape),))


def drop_per_item(key: chex.PRNGKey, num_points: int, max_rate: float, batch: int) -> jax.Array:
    """Draws training masks: rho ~ U(0, max_rate) for every item, points kept with 1 - rho.

    The released code draws one rate and one mask for a whole batch. No point is forced to stay: a
    small item may come out empty, and encoders must take that.

    Args:
      key: typed PRNG key.
      num_points: N.
      max_rate: largest rate of dropping, in [0, 1].
      batch: B.

    Returns:
      [B, N] bool, True = observed.
    """
    _check_rate("max_rate", max_rate)
    rate_key, point_key = jax.random.split(key)
    rate = max_rate * jax.random.uniform(rate_key, (batch, 1))
    return jax.random.uniform(point_key, (batch, num_points)) >= rate


def box_per_item(key: chex.PRNGKey, domain: Domain, batch: int) -> jax.Array:
    """Draws training masks that in-painting, out-painting and halves resemble.

    Every item has a box of its own, whose two ends on each axis are uniform, and sees either its
    inside or its outside, with probability 1/2 each. An encoder that was only ever shown points
    dropped at random makes little of a contiguous hole.

    Args:
      key: typed PRNG key.
      domain: where the points are; boxes are of indices along its axes.
      batch: B.

    Returns:
      [B, N] bool, True = observed.
    """
    keys = jax.random.split(key, len(domain.shape) + 1)
    inside = jnp.ones((batch, *(1,) * len(domain.shape)), bool)
    for axis, (axis_key, size) in enumerate(zip(keys[1:], domain.shape, strict=True)):
        ends = jnp.sort(jax.random.randint(axis_key, (batch, 2), 0, size), axis=-1)
        place = jnp.arange(size)
        line = (ends[:, :1] <= place) & (place <= ends[:, 1:])  # [B, size]
        shape = [1] * len(domain.shape)
        shape[axis] = size
        inside = inside & line.reshape(batch, *shape)
    sees_inside = jax.random.bernoulli(keys[0], 0.5, (batch, 1))
    return inside.reshape(batch, -1) == sees_inside


def subset(key: chex.PRNGKey, num_points: int, num: int) -> jax.Array:
    """Draws `num` of `num_points` points, every subset equally likely.

    Voxels train on 4096 of their 32768 points; unlike a mask, indices save the work on the others.

    Args:
      key: typed PRNG key.
      num_points: N.
      num: how many to draw, without replacement.

    Returns:
      [num] int32 indices, in random order.
    """
    if num > num_points:
        raise ValueError(
            f"num is {num}, but there are {num_points} points; draw at most all of them"
        )
    return jax.random.permutation(key, jnp.arange(num_points, dtype=jnp.int32))[:num]


def interpolate(u0: jax.Array, u1: jax.Array, num: int) -> jax.Array:
    """Walks from u0 to u1 along a great circle, at equal angles (Shoemake, 1985).

    For the base space of a flow, whose density is N(0, I): its mass lies near |u| = sqrt(Z), which
    the circle keeps; the middle of the straight line between two draws has sqrt(Z / 2), where for
    more than a few dimensions no draw is. Map latents there by the flow's `inverse` and back by
    `forward`; under a prior N(0, I) the latents are u already. Parallel and opposite ends, which
    define no circle, are joined by the line.

    Args:
      u0: [Z] start, returned first.
      u1: [Z] end, returned last.
      num: number of steps, ends included.

    Returns:
      [num, Z].
    """
    tiny = jnp.finfo(u0.dtype).tiny
    a, b = (u / jnp.maximum(jnp.linalg.norm(u), tiny) for u in (u0, u1))
    # accurate at every angle, where the arc cosine of a . b loses small ones
    angle = 2.0 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b))
    sine = jnp.sin(angle)
    t = jnp.linspace(0.0, 1.0, num, dtype=u0.dtype)[:, None]
    weights = jnp.stack([1.0 - t, t])
    is_line = sine < 1e-5
    arc = jnp.sin(weights * angle) / jnp.where(is_line, 1.0, sine)
    start, end = jnp.where(is_line, weights, arc)
    return start * u0 + end * u1


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} is {rate}, but a probability lies in [0, 1]; 30 % is 0.3")


def _half_task(side: str) -> Callable:
    return lambda key, domain, paper=False: half(domain, side, paper=paper)


def _drop_task(percent: int) -> Callable:
    return lambda key, domain, paper=False: drop(key, domain, percent / 100)


# What programs ask for by name: functions of (key, domain) to a mask; the key is for `drop`.
TASKS: dict[str, Callable[..., chex.Array]] = {
    "inpaint": lambda key, domain, paper=False: inpaint(domain, paper=paper),
    "outpaint": lambda key, domain, paper=False: outpaint(domain, paper=paper),
    **{side: _half_task(side) for side in SIDES},
    **{f"drop{percent}": _drop_task(percent) for percent in (10, 30, 50, 70, 90)},
}


def mask(name: str, key: chex.PRNGKey, domain: Domain, *, paper: bool = False) -> chex.Array:
    """Makes the mask of a completion task by its name.

    Args:
      name: one of `TASKS`: "inpaint", "outpaint", the observed half, or "drop" and a percentage.
      key: typed PRNG key; only "drop" draws.
      domain: where the points are.
      paper: the released geometry, see `inpaint` and `half`.

    Returns:
      [N] bool, True = observed.

    Raises:
      ValueError: unknown name, or a domain on which the task has no meaning.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; use one of {', '.join(TASKS)}"
        raise ValueError(f"task {name!r} is unknown{hint}")
    return TASKS[name](key, domain, paper=paper)
