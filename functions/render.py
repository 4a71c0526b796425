"""Functions evaluated anywhere in bounded memory: from one latent to a picture of any resolution.

Coordinates are taken in chunks, one after another, so that activations of K networks exist for one
chunk at a time; what grows with the resolution is the output alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from functions import mixture
from functions.vamoh import VAMoH


class Rendering(NamedTuple):
    """One function at n coordinates; all in the units of the data."""

    mean: jax.Array  # [n, C] sum_k pi_k E[y | k]
    most_probable: jax.Array  # [n, C] E[y | k] of the most probable component
    sample: jax.Array  # [n, C] y ~ p(y | c), c ~ pi
    segment: jax.Array  # [n] int32, the most probable component
    entropy: jax.Array  # [n] nats, of p(c | x, z)


def render(
    key: jax.Array,
    model: VAMoH,
    params: dict,
    z: jax.Array,
    coords: jax.Array,
    *,
    chunk: int = 16384,
    values: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> Rendering:
    """Evaluates the function of a latent.

    Args:
      key: typed PRNG key of the samples, consumed once.
      model: the networks.
      params: their parameters.
      z: [Z].
      coords: [n, d], any points of the domain.
      chunk: coordinates at a time; activations take about 4 K (width) chunk bytes a layer.
      values: [n, C] observed values at these coordinates, or None. Where observed, components are
        weighed by their responsibilities p(c | x, y, z) instead of p(c | x, z).
      mask: [n] True = observed; needed with values.

    Returns:
      The rendering. It does not depend on `chunk` beyond rounding, but for `sample`, whose noise is
      drawn chunk by chunk.
    """
    num_points = coords.shape[0]
    chunk = min(chunk, num_points)
    num_chunks = -(-num_points // chunk)
    padding = num_chunks * chunk - num_points

    def split(array):
        padded = jnp.pad(array, ((0, padding), *((0, 0),) * (array.ndim - 1)), mode="edge")
        return padded.reshape(num_chunks, chunk, *array.shape[1:])

    seen = None if values is None else (split(values), split(mask))
    keys = jax.random.split(key, num_chunks)

    def one(inputs):
        key, coords, seen = inputs
        return _render_chunk(key, model, params, z, coords, seen)

    out = jax.lax.map(one, (keys, split(coords), seen))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num_points], out)


def _render_chunk(key, model, params, z, coords, seen):
    variables = {"params": params}
    key_component, key_value = jax.random.split(key)
    decoded = model.apply(variables, z, coords, method="decode")
    means = model.apply(variables, decoded, method="means")
    log_pi = decoded.log_pi
    if seen is not None:
        values, mask = seen
        log_lik = model.apply(variables, decoded, values, mask, method="log_lik")
        log_pi = jnp.where(mask, mixture.responsibilities(log_pi, log_lik), log_pi)
    component = mixture.sample_component(key_component, log_pi)
    chosen = mixture.select(component, decoded.logits)
    segment = jnp.argmax(log_pi, axis=0)
    return Rendering(
        mean=mixture.mean(log_pi, means),
        most_probable=mixture.select(segment, means),
        sample=model.apply(variables, key_value, chosen, component, method="draw"),
        segment=segment.astype(jnp.int32),
        entropy=mixture.entropy(log_pi),
    )
