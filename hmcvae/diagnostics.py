"""Effective sample size of correlated chains.

Equations: Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), "Rank-normalization, folding, and
localization", section 3, with Geyer's initial monotone sequence.
"""

import jax
import jax.numpy as jnp


def effective_sample_size(draws: jax.Array) -> jax.Array:
    """Estimate how many independent draws have the same error of the mean.

    Args:
      draws: [C, N, d], N consecutive draws of each of C chains, warm-up removed. N >= 4.

    Returns:
      [d], between 1 and about C N log10(C N); lower for chains that disagree with one another.
    """
    if draws.ndim != 3 or draws.shape[1] < 4:
        raise ValueError(
            f"draws have shape {draws.shape}, but must be [chains, draws, d] with 4 draws or more"
        )
    num_chains, num_draws, _ = draws.shape
    means = jnp.mean(draws, axis=1)
    centred = draws - means[:, None]
    size = 1 << (2 * num_draws - 1).bit_length()
    spectrum = jnp.abs(jnp.fft.rfft(centred, size, axis=1)) ** 2
    covariance = jnp.fft.irfft(spectrum, size, axis=1)[:, :num_draws] / num_draws  # [C, N, d]
    covariance = jnp.mean(covariance, axis=0)  # [N, d]
    within = covariance[0] * num_draws / (num_draws - 1)
    between = jnp.var(means, axis=0, ddof=1) if num_chains > 1 else 0.0
    total = covariance[0] + between
    correlation = 1.0 - (within - covariance * num_draws / (num_draws - 1)) / total
    correlation = correlation.at[0].set(1.0)
    even = num_draws - num_draws % 2
    pairs = correlation[:even].reshape(even // 2, 2, -1).sum(axis=1)
    positive = jnp.cumprod(pairs > 0, axis=0)  # Geyer: up to the first negative pair
    pairs = jax.lax.cummin(jnp.where(positive, pairs, 0.0), axis=0)
    time = -1.0 + 2.0 * jnp.sum(pairs, axis=0)
    num = num_chains * num_draws
    return num / jnp.maximum(time, 1.0 / jnp.log10(num))
