"""VAMoH: a variational mixture of hypergenerators (Koyuncu et al., 2023).

For one function, observed as values y_n at coordinates x_n,

  z ~ p(z),   c_n | z ~ Cat(pi(x_n, z)),   y_n | c_n = k, z ~ p(. | f_{theta_k}(x_n)),
  theta_k = g_k(z),   q(z | x_O, y_O) from a set encoder of the observed points O.

The component is summed out exactly, log p(y_n | z) = logsumexp_k [log pi_k + log p(y_n | k, z)];
the published bound with q(c | x, y, z) is `bound="published"`. The prior is a flow whose KL keeps
its entropy and its gradient to the encoder. `paper=True` restores what the released code does: tanh
on component logits, weights emitted raw, affine weight networks in the encoder, a fixed scale of
0.1 and a floor in the likelihood.

Everything is a function of (key, params, data) for one item; callers `vmap` over items with shared
coordinates, under which the first layer of all B K generated networks is one matrix product.
Not here: rendering in bounded memory (`functions.render`), masks (`functions.tasks`).
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from functions import blockwise, encodings, flows, mixture, observations, siren
from functions.domains import Table
from functions.hypernet import HyperNetwork, fan_in_uniform
from functions.pointconv import Encoder, PaperEncoder
from hmcvae.gaussian import kl_to_standard_normal
from hmcvae.likelihoods import gaussian_log_prob

BOUNDS = ("exact", "published")
POINTWISE = ("gate", "posterior_gate", "log_scale")  # parameters that act at points
LOG_SCALES = (math.log(1 / 1024), 0.0)  # bounds of a learned scale, in units of the data's range
INITIAL_LOG_SCALE = math.log(0.1)  # the published constant


class Geometry(NamedTuple):
    """What all items of a data set share."""

    coords: jax.Array  # [N, d]; may be NaN where no item is observed
    tables: tuple[Table, ...]  # neighbourhoods of the encoder's levels
    features: jax.Array | None  # [N, F] Fourier features, for the released encoder only


class Decoded(NamedTuple):
    """The mixture at n coordinates."""

    logits: jax.Array  # [K, n, C] outputs of the generated networks
    log_pi: jax.Array  # [K, n] log p(c | x, z)


class Embedded(NamedTuple):
    """What the first layers of the gates make of coordinates; None where there is no gate."""

    prior: jax.Array | None  # [n, width]
    posterior: jax.Array | None  # [n, width]


class Terms(NamedTuple):
    """The parts of the bound for one item, in nats; elbo = log_lik - kl_z - kl_c.

    The gradient of log_lik - kl_c is right, not those of the two apart.
    """

    log_lik: jax.Array  # sum over observed points
    kl_z: jax.Array  # of q(z | x_O, y_O) to the prior, one reparameterised draw (or analytic)
    kl_c: jax.Array  # sum over observed points; 0 where the component is summed out


class Gate(nn.Module):
    """log p(c | x, z), or q(c | x, y, z): an MLP on [gamma(x), y, z] for all points of one item.

    The first layer is split into the parts of its input, so that gamma(x) is multiplied once for
    all items.
    """

    num_components: int
    widths: tuple[int, ...]
    latent_size: int
    num_channels: int = 0  # of y, where it is given
    num_frequencies: int = 128
    std: float = 2.0
    bounded: bool = False  # as released: tanh on the logits (no component can exceed a cap), init

    def setup(self):
        """Makes the layers."""
        fan_in = 2 * self.num_frequencies + self.latent_size + self.num_channels
        first = self.widths[0]
        self.layer_0 = self._dense(first, fan_in)
        self.layer_0_z = self._dense(first, fan_in, use_bias=False)
        if self.num_channels:
            self.layer_0_y = self._dense(first, fan_in, use_bias=False)
        pairs = zip(self.widths[1:], self.widths[:-1], strict=True)
        self.hidden = [self._dense(width, before) for width, before in pairs]
        self.output = self._dense(self.num_components, self.widths[-1])

    def embed(self, coords: jax.Array) -> jax.Array:
        """Returns what the first layer makes of coords [n, d] alone, [n, width]."""
        table = encodings.frequencies(self.num_frequencies, coords.shape[-1], std=self.std)
        return self.layer_0(encodings.fourier_features(table.astype(coords.dtype), coords))

    def __call__(self, z: jax.Array, embedded: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """Returns log probabilities [K, n] at embedded points, given y [n, C] or not."""
        h = embedded + self.layer_0_z(z)
        if y is not None:
            h = h + self.layer_0_y(y)
        for layer in self.hidden:
            h = layer(nn.leaky_relu(h, siren.LEAK))
        logits = self.output(nn.leaky_relu(h, siren.LEAK))
        return mixture.log_weights(logits.T, paper=self.bounded)

    def _dense(self, features, fan_in, **options):
        if self.bounded:
            init = fan_in_uniform(fan_in)
            options |= {"kernel_init": init, "bias_init": init}
        return nn.Dense(features, **options)


class VAMoH(nn.Module):
    """The networks of the model; its methods take one item."""

    representation: nn.Module  # f: one coordinate [d] to outputs [C]
    coord_size: int  # d
    num_channels: int  # C
    latent_size: int  # Z
    num_components: int  # K
    encoder_channels: tuple[int | None, ...]  # one a level; None pools (`paper` only)
    hyper_widths: tuple[int, ...]
    gate_widths: tuple[int, ...] = (32, 32)
    encoder_weight_widths: tuple[int, ...] = (16, 16)
    share_trunk: bool = True
    num_frequencies: int = 128  # Fourier features of the gate
    frequency_std: float = 2.0  # of them, in cycles per unit of a coordinate
    prior: str = "realnvp"  # a kind of `flows.prior`
    prior_layers: int = 8
    likelihood: str = "logistic"  # a kind of `observations`
    num_levels: int = 256  # of the discretised logistic
    bound: str = "exact"  # one of `BOUNDS`
    paper: bool = False

    def setup(self):
        """Makes the submodules."""
        if self.bound not in BOUNDS:
            raise ValueError(f"bound is {self.bound!r}, but it must be one of {', '.join(BOUNDS)}")
        make_encoder = PaperEncoder if self.paper else Encoder
        self.encoder = make_encoder(
            self.encoder_channels, self.latent_size, self.encoder_weight_widths
        )
        self.hyper = HyperNetwork(
            self.representation, self.coord_size, self.num_components, self.hyper_widths,
            share_trunk=self.share_trunk, raw=self.paper,
        )  # fmt: skip
        gate = lambda num_channels: Gate(
            self.num_components, self.gate_widths, self.latent_size, num_channels,
            self.num_frequencies, self.frequency_std, bounded=self.paper,
        )  # fmt: skip
        if self.num_components > 1:
            self.gate = gate(0)
            if self.bound == "published":
                self.posterior_gate = gate(self.num_channels)
        layers = {} if self.prior == "normal" else {"num_layers": self.prior_layers}
        if self.prior == "planar":
            layers["paper_init"] = self.paper
        self.flow = flows.prior(self.prior, self.latent_size, **layers)
        if not self.paper:
            init = nn.initializers.constant(INITIAL_LOG_SCALE)
            shape = (self.num_components, 1, self.num_channels)
            self.log_scale = self.param("log_scale", init, shape)

    def encode(
        self, values: jax.Array, mask: jax.Array, geometry: Geometry
    ) -> tuple[jax.Array, jax.Array]:
        """Returns mean and log_var [Z] of q(z | x_O, y_O); values [N, C], mask [N]."""
        where = (geometry.features,) if self.paper else ()
        return self.encoder(values, mask, *where, geometry.tables)

    def decode(self, z: jax.Array, coords: jax.Array) -> Decoded:
        """Returns the mixture at coords [n, d] for a latent [Z]."""
        return self.mix(self.emit(z), z, coords, self.embed(coords))

    def emit(self, z: jax.Array) -> chex.ArrayTree:
        """Returns the parameters theta of the K functions of a latent, leaves [K, ...]."""
        return self.hyper(z)

    def embed(self, coords: jax.Array) -> Embedded:
        """Returns what the gates make of coords [n, d] alone: the same for all items."""
        if self.num_components == 1:
            return Embedded(None, None)
        is_published = self.bound == "published"
        return Embedded(
            self.gate.embed(coords), self.posterior_gate.embed(coords) if is_published else None
        )

    def mix(
        self, theta: chex.ArrayTree, z: jax.Array, coords: jax.Array, embedded: Embedded
    ) -> Decoded:
        """Returns the mixture of given functions at coords [n, d]."""
        represent = self.representation.clone(parent=None, name=None)
        logits = jax.vmap(lambda theta: siren.evaluate(represent, theta, coords))(theta)
        if self.num_components == 1:
            return Decoded(logits, jnp.zeros((1, coords.shape[0]), z.dtype))
        return Decoded(logits, self.gate(z, embedded.prior))

    def log_q(self, z: jax.Array, embedded: Embedded, values: jax.Array) -> jax.Array:
        """Returns the published amortised log q(c | x, y, z), [K, n]."""
        if self.num_components == 1:
            return jnp.zeros((1, values.shape[0]), z.dtype)
        return self.posterior_gate(z, embedded.posterior, values)

    def scale(self) -> jax.Array:
        """Returns the log scale of the likelihood, [K, 1, C] or a constant."""
        if self.paper:
            return jnp.float32(INITIAL_LOG_SCALE)
        return jnp.clip(self.log_scale, *LOG_SCALES)

    def log_lik(self, decoded: Decoded, values: jax.Array, mask: jax.Array) -> jax.Array:
        """Returns log p(y_n | c_n = k, z), summed over channels: [K, n], 0 under the mask."""
        elementwise = observations.log_prob(
            self.likelihood, values, decoded.logits, self.scale(),
            num_levels=self.num_levels, mask=mask, paper=self.paper,
        )  # fmt: skip
        return jnp.sum(elementwise, axis=-1)

    def means(self, decoded: Decoded) -> jax.Array:
        """Returns the mean of y under every component, [K, n, C]."""
        return observations.mean(self.likelihood, decoded.logits, self.scale(), paper=self.paper)

    def draw(self, key: jax.Array, logits: jax.Array, component: jax.Array) -> jax.Array:
        """Draws y [n, C] given the outputs [n, C] of each point's component [n]."""
        log_scale = jnp.broadcast_to(self.scale(), (self.num_components, 1, self.num_channels))
        return observations.sample(
            key, self.likelihood, logits, log_scale[component, 0],
            num_levels=self.num_levels, paper=self.paper,
        )  # fmt: skip

    def prior_log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log p(z); z [..., Z]."""
        return self.flow.log_prob(z)

    def prior_forward(self, u: jax.Array) -> jax.Array:
        """Maps base noise [..., Z] to latents."""
        return self.flow.forward(u)

    def prior_inverse(self, z: jax.Array) -> jax.Array:
        """Maps latents [..., Z] to base noise."""
        return self.flow.inverse(z)

    def everything(self, values, mask, geometry):
        """Touches every parameter once, for `init`."""
        z, _ = self.encode(values, mask, geometry)
        decoded = self.decode(z, geometry.coords[:1])
        if self.bound == "published":
            self.log_q(z, self.embed(geometry.coords[:1]), values[:1])
        return self.log_lik(decoded, values[:1], mask[:1]), self.prior_log_prob(z)


def init(key: jax.Array, model: VAMoH, geometry: Geometry) -> dict:
    """Initialises the parameters of a model on a domain."""
    num_points = geometry.coords.shape[0]
    values = jnp.full((num_points, model.num_channels), 0.5)
    mask = jnp.ones(num_points, bool)
    return model.init(key, values, mask, geometry, method="everything")["params"]


def elbo(
    key: jax.Array,
    model: VAMoH,
    params: dict,
    values: jax.Array,
    mask: jax.Array,
    geometry: Geometry,
    *,
    points: jax.Array | None = None,
    chunk: int = 0,
    is_uniform: jax.Array | bool = False,
    is_standard: jax.Array | bool = False,
    is_bound: bool = False,
) -> Terms:
    """Estimates the evidence lower bound of one item with one draw of z.

    Args:
      key: typed PRNG key, consumed once.
      model: the networks.
      params: their parameters.
      values: [N, C]; what stands under the mask is ignored, NaN included.
      mask: [N] True = observed.
      geometry: coordinates and neighbourhoods.
      points: [n] a uniform subset of the points, to decode only these; the likelihood is rescaled
        by N / n, an unbiased estimate, but not with `model.paper`. None decodes all.
      chunk: decode so many points of one item at a time, with their gradient
        (`functions.blockwise`): for CPUs, and where memory is short. 0 takes all points of all
        items together.
      is_uniform: let p(c | x, z) be uniform (the published warm-up of the components).
      is_standard: take the KL to N(0, I) whatever the prior (the published first stage).
      is_bound: take the KL to the prior itself with `model.paper` too, where the released second
        stage leaves out the entropy and the terms are no bound.

    Returns:
      The terms, in nats.
    """
    variables = {"params": params}
    mean, log_var = model.apply(variables, values, mask, geometry, method="encode")
    eps = jax.random.normal(key, mean.shape, mean.dtype)
    z = mean + jnp.exp(0.5 * log_var) * eps
    coords, rescale = _finite(geometry.coords), 1.0
    if points is not None:
        rescale = 1.0 if model.paper else values.shape[0] / points.shape[0]
        coords, values, mask = coords[points], values[points], mask[points]
    theta = model.apply(variables, z, method="emit")
    embedded = model.apply(variables, coords, method="embed")
    small = {name: params[name] for name in POINTWISE if name in params}

    def fit(weights, embedded, data, is_real=True):
        """Returns the likelihood terms of some points: their difference, and kl_c."""
        params, theta, z, is_uniform = weights
        coords, values, mask = data
        mask = mask & is_real
        variables = {"params": params}
        decoded = model.apply(variables, theta, z, coords, embedded, method="mix")
        uniform = jnp.full_like(decoded.log_pi, -math.log(model.num_components))
        log_pi = jnp.where(is_uniform > 0, uniform, decoded.log_pi)
        log_lik = model.apply(variables, decoded, values, mask, method="log_lik")
        total = lambda per_point: jnp.sum(jnp.where(mask, per_point, 0.0))
        if model.bound == "exact":
            return total(mixture.log_prob(log_pi, log_lik)), jnp.zeros(())
        filled = jnp.where(mask[:, None], values, 0.0)
        log_q = model.apply(variables, z, embedded, filled, method="log_q")
        expected, kl_c = mixture.published_bound(log_q, log_pi, log_lik)
        return total(expected - kl_c), jax.lax.stop_gradient(total(kl_c))

    if chunk:
        fit = blockwise.block_sum(fit, chunk)
    flag = jnp.asarray(is_uniform, jnp.float32)  # weights are summed with their gradient
    fitted, kl_c = fit((small, theta, z, flag), embedded, (coords, values, mask))
    log_prior = lambda z: model.apply(variables, z, method="prior_log_prob")
    flow_kl = flows.detached_cross_entropy if model.paper and not is_bound else flows.kl
    kl_z = jax.lax.cond(
        is_standard,
        lambda: jnp.sum(kl_to_standard_normal(mean, log_var)),
        lambda: flow_kl(log_prior, mean, log_var, eps[None]),
    )
    return Terms(rescale * (fitted + kl_c), kl_z, rescale * kl_c)


def log_likelihood(
    model: VAMoH, params: dict, z: jax.Array, values: jax.Array, mask: jax.Array, coords: jax.Array
) -> jax.Array:
    """Returns log p(y_O | x_O, z) of one item in nats, the component summed out exactly."""
    variables = {"params": params}
    decoded = model.apply(variables, z, _finite(coords), method="decode")
    log_lik = model.apply(variables, decoded, values, mask, method="log_lik")
    return jnp.sum(jnp.where(mask, mixture.log_prob(decoded.log_pi, log_lik), 0.0))


def log_evidence(
    key: jax.Array,
    model: VAMoH,
    params: dict,
    values: jax.Array,
    mask: jax.Array,
    geometry: Geometry,
    *,
    num_samples: int,
) -> jax.Array:
    """Bounds log p(y_O | x_O) of one item by importance sampling from q, in nats.

    log (1/S) sum_s p(y_O | z_s) p(z_s) / q(z_s); in expectation between the bound and the evidence,
    rising with S (Burda et al., 2016). Samples one after another: memory does not grow with S.
    """
    variables = {"params": params}
    mean, log_var = model.apply(variables, values, mask, geometry, method="encode")

    def log_weight(key):
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape, mean.dtype)
        log_lik = log_likelihood(model, params, z, values, mask, geometry.coords)
        log_prior = model.apply(variables, z, method="prior_log_prob")
        return log_lik + log_prior - jnp.sum(gaussian_log_prob(z, mean, log_var))

    log_weights = jax.lax.map(log_weight, jax.random.split(key, num_samples))
    return jax.nn.logsumexp(log_weights) - math.log(num_samples)


def predictive_log_likelihoods(
    key: jax.Array,
    model: VAMoH,
    params: dict,
    values: jax.Array,
    mask: jax.Array,
    target: jax.Array,
    geometry: Geometry,
    *,
    num_samples: int,
) -> jax.Array:
    """Returns log p(y_U | x_U, z_s) for draws z_s ~ q(z | x_O, y_O) of one item, [S] nats.

    Args:
      key: typed PRNG key, consumed once.
      model: the networks.
      params: their parameters.
      values: [N, C] the whole item; the encoder sees what `mask` shows.
      mask: [N] True = observed.
      target: [N] True = in U, the points to be scored.
      geometry: coordinates and neighbourhoods.
      num_samples: S, one after another.
    """
    mean, log_var = model.apply({"params": params}, values, mask, geometry, method="encode")

    def score(key):
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape, mean.dtype)
        return log_likelihood(model, params, z, values, target, geometry.coords)

    return jax.lax.map(score, jax.random.split(key, num_samples))


def _finite(coords):
    # Not a fill under the mask: it would give every item coordinates of its own.
    return jnp.where(jnp.isfinite(coords), coords, 0.0)
