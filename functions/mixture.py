"""Mixtures over the component that explains a point, summed out exactly.

One datum of VAMoH: c_n ~ Cat(pi(x_n, z)) and y_n | c_n = k comes from the k-th function, all
channels of a point sharing c_n. The number of components is small, so that

  log p(y_n | x_n, z) = logsumexp_k [log pi_nk + l_nk],  l_nk = sum_channels log p_k(y_nc),
  p(c_n = k | y_n, x_n, z) = softmax_k [log pi_nk + l_nk]

cost no more than the bound that was published, sum_k q_nk l_nk - KL(q_n || pi_n), of a network q:
the bound is below for every q and equal at the responsibilities. It stays here for parity.

Everywhere the axis of components leads and the others are free: log_pi and log_lik [K, ...] are
[K, N] for one datum. All logarithms are natural. Not here: the networks (`functions.vamoh`) and the
likelihoods l (`functions.observations`).
"""

import chex
import jax
import jax.numpy as jnp


def log_weights(logits: jax.Array, *, paper: bool = False) -> jax.Array:
    """Returns log pi, the normalised log weights of the components.

    Args:
      logits: [K, ...] outputs of a network.
      paper: bound the logits by tanh first, as released. No component can then have more than
        e / (e + (K - 1) / e): 0.79 of three, 0.45 of ten.

    Returns:
      [K, ...] whose exponentials sum to 1 over the first axis.
    """
    return jax.nn.log_softmax(jnp.tanh(logits) if paper else logits, axis=0)


def log_prob(log_pi: jax.Array, log_lik: jax.Array) -> jax.Array:
    """Returns log sum_k pi_k p_k(y) in nats: [K, ...], [K, ...] -> [...]."""
    return jax.nn.logsumexp(log_pi + log_lik, axis=0)


def responsibilities(log_pi: jax.Array, log_lik: jax.Array) -> jax.Array:
    """Returns log p(c = k | y), normalised: [K, ...], [K, ...] -> [K, ...].

    With log_lik = 0, at a point that was not observed, these are log_pi.
    """
    return jax.nn.log_softmax(log_pi + log_lik, axis=0)


def published_bound(
    log_q: jax.Array, log_pi: jax.Array, log_lik: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the two terms of the bound E_q[log p(y | c)] - KL(q(c) || pi(c)) <= `log_prob`.

    Args:
      log_q: [K, ...] normalised log weights of any distribution over components.
      log_pi: [K, ...] normalised log weights of the prior.
      log_lik: [K, ...] log p(y | c = k), summed over channels.

    Returns:
      The expected log likelihood and the divergence, [...] each, in nats.
    """
    q = jnp.exp(log_q)
    return jnp.sum(q * log_lik, axis=0), jnp.sum(q * (log_q - log_pi), axis=0)


def entropy(log_pi: jax.Array) -> jax.Array:
    """Returns -sum_k pi_k log pi_k in nats, between 0 and log K: [K, ...] -> [...]."""
    return -jnp.sum(jnp.exp(log_pi) * log_pi, axis=0)


def mean(log_pi: jax.Array, means: jax.Array) -> jax.Array:
    """Returns sum_k pi_k mean_k: [K, ...], [K, ..., C] -> [..., C]."""
    return jnp.sum(jnp.exp(log_pi)[..., None] * means, axis=0)


def most_probable(log_pi: jax.Array, means: jax.Array) -> jax.Array:
    """Returns the mean of the heaviest component: [K, ...], [K, ..., C] -> [..., C]."""
    return select(jnp.argmax(log_pi, axis=0), means)


def sample_component(key: chex.PRNGKey, log_pi: jax.Array) -> jax.Array:
    """Draws the component of every point: [K, ...] -> [...] indices."""
    return jax.random.categorical(key, log_pi, axis=0)


def select(component: jax.Array, values: jax.Array) -> jax.Array:
    """Takes the values of one component at every point: [...], [K, ..., C] -> [..., C]."""
    return jnp.take_along_axis(values, component[None, ..., None], axis=0)[0]
