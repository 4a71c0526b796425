"""Priors over the latent: invertible maps z = T(u) of u ~ N(0, I) with a tractable density.

log p(z) = log N(u; 0, I) + log |det dT^-1(z) / dz| with u = T^-1(z). `RealNVP` is the default: the
affine couplings of Dinh et al. (2017), Distrax's, started as the identity and without batch
normalisation. `Planar` is the flow of VAMoH as released (Rezende & Mohamed 2015, with the leaky
ReLU that makes it invertible in closed form). `StandardNormal` is no flow, with the same methods.

A prior is a Flax module: `prior.init(key, z)`, then `prior.apply(variables, z, method="log_prob")`
and likewise forward, inverse and sample. All take leading axes; all logarithms are natural.
`kl` and `detached_cross_entropy` are what a prior contributes to the objective. Not here: the KL
divergence to N(0, I) in closed form (`hmcvae.gaussian.kl_to_standard_normal`).
"""

import difflib
import math
from collections.abc import Callable

import chex
import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hmcvae.gaussian import standard_normal_log_prob

LOG_2PI_E = math.log(2.0 * math.pi * math.e)
LEAK = 0.2  # slope of Planar's leaky ReLU below 0, as released
MAX_LOG_SCALE = 2.0  # of one coupling of RealNVP


class _Prior(nn.Module):
    # A subclass gives forward and inverse_and_log_det.
    size: int

    def __call__(self, z: jax.Array) -> jax.Array:
        """Is `log_prob`, for `init`."""
        return self.log_prob(z)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log p(z) in nats: [..., Z] -> [...]."""
        u, log_det = self.inverse_and_log_det(z)
        return standard_normal_log_prob(u) + log_det

    def inverse(self, z: jax.Array) -> jax.Array:
        """Returns the u that `forward` maps to z: [..., Z] -> [..., Z]."""
        return self.inverse_and_log_det(z)[0]

    def sample(self, key: chex.PRNGKey, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws z ~ p(z): [*shape, Z]."""
        return self.forward(jax.random.normal(key, (*shape, self.size)))


class StandardNormal(_Prior):
    """N(0, I) of `size` dimensions; has no parameters."""

    def forward(self, u: jax.Array) -> jax.Array:
        """Returns u."""
        return u

    def inverse_and_log_det(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z and 0."""
        return z, jnp.zeros(z.shape[:-1], z.dtype)


class RealNVP(_Prior):
    """A chain of affine couplings, the identity until it is trained.

    Coupling i leaves the latents of a mask b as they are and maps the others by
    u -> shift + u exp(2 tanh(raw / 2)), where shift and raw come from a ReLU network of the former,
    whose last layer starts at zero. Couplings come in pairs with complementary masks, the even and
    the odd places of a fixed random permutation (of the identity in the first pair): permuting the
    mask instead of the latents keeps the whole chain the identity at the start. A single latent has
    nothing to be conditioned on: every coupling is then an affine map with constants.

    Attributes:
      size: Z, number of latents.
      num_layers: couplings.
      hidden: widths of each conditioning network; None is (4 Z, 4 Z).
    """

    num_layers: int = 8
    hidden: tuple[int, ...] | None = None

    def setup(self):
        """Builds the conditioning networks."""
        hidden = (4 * self.size,) * 2 if self.hidden is None else self.hidden
        self.conditioners = [_Conditioner(self.size, hidden) for _ in range(self.num_layers)]

    def forward(self, u: jax.Array) -> jax.Array:
        """Maps u ~ N(0, I) to z: [..., Z] -> [..., Z]."""
        return self._chain().forward(u)

    def inverse_and_log_det(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns u and log |det du/dz|: [..., Z] -> [..., Z], [...]."""
        return self._chain().inverse_and_log_det(z)

    def _chain(self):
        # Built where it is used: a Distrax object must not cross `vmap` or `jit`.
        masks = _coupling_masks(self.size, self.num_layers)
        couplings = [
            distrax.MaskedCoupling(mask, conditioner, _affine)
            for mask, conditioner in zip(masks, self.conditioners, strict=True)
        ]
        return distrax.Chain(couplings[::-1])  # a chain applies its last bijector first


class _Conditioner(nn.Module):
    size: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(2 * self.size, kernel_init=nn.initializers.zeros)(x)


def _affine(params):
    shift, raw = jnp.split(params, 2, axis=-1)
    return distrax.ScalarAffine(shift, log_scale=MAX_LOG_SCALE * jnp.tanh(raw / MAX_LOG_SCALE))


def _coupling_masks(size, num_layers):
    # [L, Z], True = passes unchanged. Part of the architecture, not of its state: a fixed seed.
    masks = np.zeros((num_layers, size), bool)
    if size == 1:
        return masks
    rng = np.random.default_rng(0)
    order = np.arange(size)
    for i in range(num_layers):
        if i and i % 2 == 0:
            order = rng.permutation(size)
        masks[i, order[i % 2 :: 2]] = True
    return masks


class Planar(_Prior):
    """Planar layers over a diagonal Gaussian whose location and scale are trained.

    t(x) = x + u^ h(w.x + b) with h the leaky ReLU of slope a in {0.2, 1} and
    u^ = u + (softplus(w.u) - 1 - w.u) w / |w|^2, by which w.u^ = softplus(w.u) - 1 > -1 and
    det dt/dx = 1 + a w.u^ = (1 - a) + a softplus(w.u) > 0. As the sign of w.x + b is that of
    w.t(x) + b, t(x) = y has the solution x = y - a u^ (w.y + b) / det. There are L (2 Z + 1) + 2 Z
    parameters.

    Attributes:
      size: Z, number of latents.
      num_layers: L.
      paper_init: draw u and w as released. The composition is then ill conditioned: log densities
        of 80 layers start near -1e14. The default draws w alike and takes the u of the identity,
        softplus(w.u) = 1.
    """

    num_layers: int
    paper_init: bool = False

    def setup(self):
        """Declares the layers, [L, ...], and the base."""
        shape = (self.num_layers, self.size)
        self.w = self.param("w", _uniform(math.sqrt(2.0 / self.size)), shape)
        self.u = self.param(
            "u", _uniform(math.sqrt(2.0)) if self.paper_init else self._still, shape
        )
        self.b = self.param("b", nn.initializers.zeros, (self.num_layers,))
        self.loc = self.param("loc", nn.initializers.zeros, (self.size,))
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (self.size,))

    def forward(self, u: jax.Array) -> jax.Array:
        """Maps u ~ N(0, I) to z: [..., Z] -> [..., Z]."""

        def layer(x, params):
            w, u_hat, _, b = params
            return x + nn.leaky_relu(x @ w + b, LEAK)[..., None] * u_hat, None

        return lax.scan(layer, self.loc + jnp.exp(self.log_scale) * u, self._layers())[0]

    def inverse_and_log_det(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns u and log |det du/dz|: [..., Z] -> [..., Z], [...]."""

        def layer(carry, params):
            y, log_det = carry
            w, u_hat, softplus, b = params
            pre = y @ w + b
            slope = jnp.where(pre >= 0, 1.0, LEAK)
            det = (1.0 - slope) + slope * softplus
            return (y - (slope * pre / det)[..., None] * u_hat, log_det - jnp.log(det)), None

        z = z.astype(jnp.result_type(z, self.w))  # a scan keeps the type of what it carries
        start = (z, jnp.zeros(z.shape[:-1], z.dtype))
        (x, log_det), _ = lax.scan(layer, start, self._layers(), reverse=True)
        return (x - self.loc) * jnp.exp(-self.log_scale), log_det - jnp.sum(self.log_scale)

    def _layers(self):
        # w [L, Z], u^ [L, Z], softplus(w.u) [L], b [L]
        dot = jnp.sum(self.w * self.u, axis=-1)
        softplus = jax.nn.softplus(dot)
        along = (softplus - 1.0 - dot) / jnp.sum(jnp.square(self.w), axis=-1)
        return self.w, self.u + along[:, None] * self.w, softplus, self.b

    def _still(self, key, shape):
        del key, shape  # u is a function of w
        square = jnp.sum(jnp.square(self.w), axis=-1, keepdims=True)
        return math.log(math.expm1(1.0)) * self.w / square


def _uniform(bound):
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


KINDS = {"normal": StandardNormal, "realnvp": RealNVP, "planar": Planar}


def prior(kind: str, size: int, **options) -> nn.Module:
    """Builds a prior by name.

    Args:
      kind: "normal", "realnvp" or "planar".
      size: Z, number of latents.
      **options: attributes of the module.

    Returns:
      The Flax module.

    Raises:
      ValueError: there is no such prior.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(KINDS)}"
        raise ValueError(f"prior {kind!r} is unknown; {hint}")
    return KINDS[kind](size, **options)


def kl(
    log_prior: Callable[[jax.Array], jax.Array],
    mean: jax.Array,
    log_var: jax.Array,
    eps: jax.Array,
) -> jax.Array:
    """Estimates KL(N(mean, exp(log_var)) || p) in nats, unbiased in value and gradient.

    -1/2 sum_j (1 + log 2 pi + log_var_j) - 1/S sum_s log p(z_s) with z_s = mean + exp(log_var / 2)
    eps_s. The entropy is exact, so that one sample is often enough.

    Args:
      log_prior: z [..., Z] -> log p(z) [...]; may hold parameters, which get a gradient.
      mean: [..., Z].
      log_var: [..., Z].
      eps: [S, ..., Z] standard normal noise.

    Returns:
      [...].
    """
    entropy = 0.5 * jnp.sum(LOG_2PI_E + log_var, axis=-1)
    z = mean + jnp.exp(0.5 * log_var) * eps
    return -jnp.mean(log_prior(z), axis=0) - entropy


def detached_cross_entropy(
    log_prior: Callable[[jax.Array], jax.Array],
    mean: jax.Array,
    log_var: jax.Array,
    eps: jax.Array,
) -> jax.Array:
    """Returns what VAMoH as released puts in place of the KL divergence to a flow: no divergence.

    -1/S sum_s log p(z_s) without the entropy and with constant z_s: only the prior gets a
    gradient, and the objective is no bound. Arguments and shapes are those of `kl`.
    """
    z = lax.stop_gradient(mean + jnp.exp(0.5 * log_var) * eps)
    return -jnp.mean(log_prior(z), axis=0)
