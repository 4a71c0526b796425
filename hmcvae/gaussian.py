"""Diagonal Gaussians, as Distrax distributions that are safe inside `jit`, `vmap` and `grad`.

`distrax.MultivariateNormalDiag` is avoided on purpose: it loses the gradient of its scale when
the object itself is differentiated and retraces when it is passed to a compiled function.
"""

import distrax
import jax
import jax.numpy as jnp


def diag_normal(mean: jax.Array, log_var: jax.Array) -> distrax.Independent:
    """Builds N(mean, diag exp(log_var)) over the last axis; build and use it in one function."""
    return distrax.Independent(distrax.Normal(mean, jnp.exp(0.5 * log_var)), 1)


def standard_normal_log_prob(eps: jax.Array) -> jax.Array:
    """Computes log N(eps; 0, I) in nats, summed over the last axis: [..., d] -> [...]."""
    return -0.5 * jnp.sum(eps**2 + jnp.log(2 * jnp.pi), axis=-1)


def kl_to_standard_normal(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Computes KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension in nats: [..., d]."""
    return 0.5 * (mean**2 + jnp.exp(log_var) - log_var - 1.0)
