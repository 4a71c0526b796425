"""The likelihood of a value of a function given what its networks say at that point.

A network gives one logit for each point and channel; a kind of likelihood reads it as follows, with
sigma the logistic function and s = exp(log_scale):

  logistic             logistic density around `location`, scale s, in bins of [0, 1]
  gaussian             N(logit, s^2)
  continuous_bernoulli density on [0, 1] with natural parameter logit
  bernoulli            probability sigma(logit) of 1

The densities are those of `hmcvae.likelihoods`; here is the choice among them. `paper=True` gives
the logistic likelihood of VAMoH as released, whose bins leave gaps; there s is 0.1 and not learned.
Not here: mixtures of components (`functions.mixture`), bits per dimension (`functions.metrics`).
"""

import difflib

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import likelihoods

KINDS = ("logistic", "gaussian", "continuous_bernoulli", "bernoulli")
MARGIN = 0.25  # by which the location of a logistic density may leave [0, 1]
PAPER_LOGISTIC = {"half_width": 1 / 512, "edge_bins": False, "floor": 1e-7}


def log_prob(
    kind: str,
    y: jax.Array,
    logits: jax.Array,
    log_scale: jax.Array,
    *,
    mask: jax.Array | None = None,
    num_levels: int = 256,
    paper: bool = False,
) -> jax.Array:
    """Returns the log probability (bernoulli, logistic) or density of every value.

    Args:
      kind: one of `KINDS`.
      y: [..., N, C] values, in [0, 1] except for gaussian.
      logits: outputs of the networks, [K, N, C] say, broadcast against y.
      log_scale: log s, of a shape that broadcasts: [C], or [K, 1, C]. Ignored by the last two
        kinds.
      mask: [..., N] True = observed. What y holds elsewhere, NaN included, reaches neither the
        result nor a gradient. None is all observed.
      num_levels: how many levels k / (num_levels - 1) the values of a logistic likelihood have.
      paper: the logistic likelihood as released; no other kind differs.

    Returns:
      Nats of the broadcast shape, exactly 0 where missing.
    """
    _check_kind(kind)
    if mask is None:
        return _log_prob(kind, y, logits, log_scale, num_levels, paper)
    # Channels before points, within: a mask spread over a short innermost axis keeps XLA from
    # vectorising all that is fused with it, and more than doubles the time that a CPU takes.
    y, logits, log_scale = _swap(y), _swap(logits), _swap(log_scale)
    mask = mask[..., None, :]  # [..., 1, N]
    y = jnp.where(mask, y, likelihoods.FILLER)
    out = _log_prob(kind, y, logits, log_scale, num_levels, paper)
    return _swap(jnp.where(mask, out, 0.0))


def mean(kind: str, logits: jax.Array, log_scale: jax.Array, *, paper: bool = False) -> jax.Array:
    """Returns the expected value at every point.

    Args:
      kind: one of `KINDS`.
      logits: outputs of the networks, of any shape.
      log_scale: log s, broadcast against logits.
      paper: sigma(logit) for logistic, as released. The default is the mean of the clipped
        logistic variable, nearer to 1/2 where much of the density lies outside [0, 1].

    Returns:
      Means of the broadcast shape.
    """
    _check_kind(kind)
    if kind == "gaussian":
        return logits
    if kind == "continuous_bernoulli":
        return likelihoods.continuous_bernoulli_mean(logits)
    if kind == "bernoulli" or paper:
        return jax.nn.sigmoid(logits)
    return likelihoods.discretised_logistic_mean(location(logits), log_scale)


def location(logits: jax.Array, *, paper: bool = False) -> jax.Array:
    """Returns where the logistic density lies: (1 + 2 m) sigma(logit) - m with a margin m of 1/4.

    Beyond [0, 1] the end bins can take nearly all mass whatever the scale: black and white are
    common in images. The released code has m = 0, `paper`, and no end bins.
    """
    margin = 0.0 if paper else MARGIN
    return (1.0 + 2.0 * margin) * jax.nn.sigmoid(logits) - margin


def sample(
    key: chex.PRNGKey,
    kind: str,
    logits: jax.Array,
    log_scale: jax.Array,
    *,
    num_levels: int = 256,
    paper: bool = False,
) -> jax.Array:
    """Draws a value at every point.

    Args:
      key: typed PRNG key, consumed once.
      kind: one of `KINDS`.
      logits: outputs of the networks, of any shape.
      log_scale: log s, of a shape that broadcasts to that of logits.
      num_levels: levels of a logistic likelihood.
      paper: the location as released. The released code does not draw: it rounds the mean.

    Returns:
      Values shaped as logits: levels k / (num_levels - 1) (logistic), reals, numbers in [0, 1], or
      0 and 1. No gradient flows through levels and bits.
    """
    _check_kind(kind)
    if kind == "logistic":
        return likelihoods.discretised_logistic_sample(
            key, location(logits, paper=paper), log_scale, num_levels=num_levels
        )
    if kind == "gaussian":
        return logits + jnp.exp(log_scale) * jax.random.normal(key, logits.shape, logits.dtype)
    if kind == "continuous_bernoulli":
        return likelihoods.continuous_bernoulli_sample(key, logits)
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    return (logits + noise > 0).astype(logits.dtype)


def check(kind: str, values: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Raises a ValueError unless every observed value is one that the likelihood allows.

    Args:
      kind: one of `KINDS`.
      values: [..., N, C] as `log_prob` will see them: scaled, levels of 255 divided by 255.
      mask: [..., N] True = observed; None is all observed.
    """
    _check_kind(kind)
    values = np.asarray(values)
    if kind == "gaussian":
        is_legal, expected = np.isfinite(values), "finite numbers"
        remedy = "mask the missing points"
    elif kind == "bernoulli":
        is_legal, expected = (values == 0) | (values == 1), "0 or 1"
        remedy = "threshold them, or use 'continuous_bernoulli' for values between"
    else:
        is_legal, expected = (values >= 0) & (values <= 1), "numbers in [0, 1]"
        remedy = "rescale them and mask the missing points, or use 'gaussian'"
    is_wrong = ~is_legal if mask is None else ~is_legal & np.asarray(mask, bool)[..., None]
    if is_wrong.any():
        index = tuple(int(i) for i in np.unravel_index(is_wrong.argmax(), is_wrong.shape))
        raise ValueError(
            f"values{list(index)} is {values[index]} and observed, but likelihood {kind!r} "
            f"expects {expected}; {remedy}"
        )


def _log_prob(kind, y, logits, log_scale, num_levels, paper):
    if kind == "gaussian":
        return likelihoods.gaussian_log_prob(y, logits, 2.0 * log_scale)
    if kind == "continuous_bernoulli":
        return likelihoods.continuous_bernoulli_log_prob(y, logits)
    if kind == "bernoulli":
        return likelihoods.bernoulli_log_prob(y, logits)
    # Evaluated B K N C times a step. An element costs two exponentials (sigma and the mass) and one
    # logarithm; what depends on the scale alone has its small shape.
    options = PAPER_LOGISTIC if paper else {}
    return likelihoods.discretised_logistic_log_prob(
        y, location(logits, paper=paper), log_scale, num_levels=num_levels, **options
    )


def _swap(x):
    # [..., N, C] <-> [..., C, N]; a scale may lack the axis of points
    return jnp.swapaxes(jnp.atleast_2d(x), -1, -2)


def _check_kind(kind):
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(KINDS)}"
        raise ValueError(f"likelihood {kind!r} is unknown; {hint}")
