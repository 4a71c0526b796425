"""Encodings of coordinates: random Fourier features (Tancik et al. 2020), as in VAMoH.

gamma(x) = [cos(2 pi B x), sin(2 pi B x)]. The m rows of B are frequencies, their entries drawn once
from N(0, std^2) and never trained. Two points at distance r differ by

  E |gamma(x) - gamma(x')|^2 = 2 m (1 - exp(-2 pi^2 std^2 r^2)),

so that they look unrelated beyond a distance of about 1 / (pi std).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from functions.sine import cosine, sine


def frequencies(num: int, dim: int, *, std: float = 2.0, seed: int = 0) -> np.ndarray:
    """Draws the constant B.

    The same arguments give the same numbers as long as NumPy keeps its stream, so a checkpoint
    meant to outlive that stores B.

    Args:
      num: m, 128 in all published experiments.
      dim: d, columns of the coordinates.
      std: standard deviation in cycles per unit of coordinate, 2 in all published experiments.
      seed: of NumPy's generator.

    Returns:
      [num, dim] float32.
    """
    return (std * np.random.default_rng(seed).standard_normal((num, dim))).astype(np.float32)


def fourier_features(frequencies: np.ndarray, coords: jax.Array) -> jax.Array:
    """Encodes coordinates as [cos(2 pi B x), sin(2 pi B x)], cosines first.

    Args:
      frequencies: [m, d].
      coords: [..., d].

    Returns:
      [..., 2 m] in the precision of its arguments.
    """
    # phases reach tens of radians, which the default (reduced) precision of a GPU or TPU blurs
    phase = jnp.matmul(coords, frequencies.T, precision=lax.Precision.HIGHEST)
    phase = 2 * jnp.pi * phase
    return jnp.concatenate([cosine(phase), sine(phase)], axis=-1)
