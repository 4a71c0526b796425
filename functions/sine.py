"""A sine that vectorises: the activation of SIREN, and half of all Fourier features.

On a CPU, XLA calls a scalar routine for `jnp.sin`, about ten times dearer than everything else a
sine network does at a point. Here the argument is reduced to x - k pi in three exact steps (Cody
and Waite, 1980) and an odd polynomial of degree 9, the minimax fit on [-pi/2, pi/2], does the rest:
a handful of multiply-adds that every backend fuses with its neighbours. In single precision the
error is below 2e-7 for |x| < 10^4; other precisions take the library's functions.
"""

import math

import jax
import jax.numpy as jnp

# pi in parts of 9 and 10 significant bits and a rest, so that k times the first two is exact
PI_PARTS = (3.140625, 0.0009675025939941406, 1.5099580252808664e-07)
# (sin r - r) / r^3 in powers of r^2, relative error of the sine 6e-9 in exact arithmetic
COEFFICIENTS = (-1.666665953580e-01, 8.333065837982e-03, -1.980957093023e-04, 2.605705858976e-06)


@jax.custom_jvp
def sine(x: jax.Array) -> jax.Array:
    """Returns sin x."""
    if x.dtype != jnp.float32:
        return jnp.sin(x)
    return _alternate(x, jnp.round(x * (1 / math.pi)), 0.0)


@jax.custom_jvp
def cosine(x: jax.Array) -> jax.Array:
    """Returns cos x."""
    if x.dtype != jnp.float32:
        return jnp.cos(x)
    return _alternate(x, jnp.floor(x * (1 / math.pi)), 0.5)


sine.defjvps(lambda tangent, out, x: tangent * cosine(x))
cosine.defjvps(lambda tangent, out, x: -tangent * sine(x))


def _alternate(x, k, half):
    # sin x = (-1)^k sin(x - k pi) and cos x = -(-1)^k sin(x - (k + 1/2) pi)
    r = x
    for part in PI_PARTS:
        r = r - (k + half) * part
    square = r * r
    tail = COEFFICIENTS[-1]
    for coefficient in COEFFICIENTS[-2::-1]:
        tail = tail * square + coefficient
    sign = 1.0 - 2.0 * (k - 2.0 * jnp.floor(0.5 * k))
    return (-sign if half else sign) * (r + r * square * tail)
