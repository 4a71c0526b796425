"""Functa (Dupont et al., 2022): one sine network for all items, each item a latent that shifts it.

h_0 = x, h_i = sin(omega (W_i^T h_{i-1} + b_i + s_i)), f(x) = W^T h_L + b + 1/2, and the shifts
(s_1, ..., s_L) = M^T phi + m are affine in the latent phi. An item is encoded by descent from phi =
0: phi <- phi - alpha * d/dphi MSE(f_phi, y), T times, with a learned step size for every latent
(CAVIA, Zintgraf et al., 2019; Meta-SGD, Li et al., 2017). Everything else is trained by the error
that is left, differentiated through the steps.

Functions are of one item, for `jax.vmap` over items with shared parameters: a layer is then one
matrix product of all points of all items. What no latent has entered is computed once for all of
them: the first layer's product with the coordinates, and the whole forward pass of the first step,
which all items take from phi = 0.

Deliberately different from the released code, which is differentiated and clipped otherwise: step
sizes are kept as logarithms, so that no training makes them negative (the published range was
never applied). Not here: priors over latents (`functions.flows`, `functions.diffusion`), completion
(`functions.completion`).
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from functions import domains
from functions.sine import sine
from functions.siren import uniform

STEP_SIZES = (0.005, 0.1)  # published range of the first ones
OFFSET = 0.5  # of the outputs, which are in [0, 1]


class Functa(nn.Module):
    """The network; a map of a latent and coordinates to outputs.

    Attributes:
      num_outputs: C.
      latent_size: Z.
      width: of all hidden layers.
      num_layers: L, hidden layers; the published 15 count the output.
      omega: frequency factor, in every layer; coordinates of an image span 1 (`coordinates`).
    """

    num_outputs: int
    latent_size: int
    width: int = 512
    num_layers: int = 14
    omega: float = 30.0

    @nn.compact
    def __call__(self, latent: jax.Array, coords: jax.Array) -> jax.Array:
        """Maps latent [Z] and coords [..., d] to outputs [..., C]."""
        # Haiku's default, which the published code takes
        init = nn.initializers.truncated_normal(1.0 / math.sqrt(self.latent_size))
        shifts = nn.Dense(self.num_layers * self.width, kernel_init=init, name="shifts")(latent)
        h = coords
        for i, shift in enumerate(shifts.reshape(self.num_layers, self.width)):
            bound = math.sqrt(6.0 / self.width) / self.omega if i else 1.0 / coords.shape[-1]
            # Phases of the first layer are large: a GPU's reduced precision would blur the pixels.
            precision = None if i else jax.lax.Precision.HIGHEST
            layer = nn.Dense(
                self.width, kernel_init=uniform(bound), precision=precision, name=f"layer_{i}"
            )
            h = sine(self.omega * (layer(h) + shift))
        bound = math.sqrt(6.0 / self.width) / self.omega
        return nn.Dense(self.num_outputs, kernel_init=uniform(bound), name="output")(h) + OFFSET


class Fit(NamedTuple):
    """What the inner loop makes of an item."""

    latent: jax.Array  # [Z]
    losses: jax.Array  # [T] inner objective before each of its steps


def coordinates(domain: domains.Domain) -> np.ndarray:
    """Returns the inputs of the network, [N, d] float32: every axis in [0, 1], or unit vectors.

    With "centres", which is the published convention, pixel i of R is at (i + 1/2) / R.
    """
    coords = domains.coordinates(domain)
    return coords if domain.kind == "sphere" else (0.5 * (coords + 1.0)).astype(np.float32)


def init(key: jax.Array, model: Functa, coord_size: int) -> dict:
    """Initialises the parameters: {"net": of the module, "log_step": [Z]}."""
    key_net, key_step = jax.random.split(key)
    net = model.init(key_net, jnp.zeros(model.latent_size), jnp.zeros((1, coord_size)))["params"]
    low, high = STEP_SIZES
    steps = jax.random.uniform(key_step, (model.latent_size,), minval=low, maxval=high)
    return {"net": net, "log_step": jnp.log(steps)}


def evaluate(model: Functa, params: dict, latent: jax.Array, coords: jax.Array) -> jax.Array:
    """Returns the function of a latent [Z] at coords [n, d]: [n, C]."""
    return model.apply({"params": params["net"]}, latent, coords)


def render(
    model: Functa, params: dict, latent: jax.Array, coords: jax.Array, *, chunk: int = 16384
) -> jax.Array:
    """Is `evaluate` at any number of coordinates, `chunk` of them at a time."""
    one = functools.partial(evaluate, model, params, latent)
    return jax.lax.map(one, coords, batch_size=min(chunk, coords.shape[0]))


def squared_error(prediction: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Averages the squared error over channels and observed points; 0 where none is.

    Args:
      prediction: [N, C].
      values: [N, C]; what stands under the mask is ignored, NaN included.
      mask: [N] True = observed.
    """
    residual = jnp.where(mask[:, None], prediction - jnp.where(mask[:, None], values, 0.0), 0.0)
    return jnp.sum(jnp.square(residual)) / jnp.maximum(jnp.sum(mask) * values.shape[-1], 1)


def fit(
    model: Functa,
    params: dict,
    values: jax.Array,
    mask: jax.Array,
    coords: jax.Array,
    *,
    num_steps: int = 3,
    penalty: float = 0.0,
    is_first_order: bool = False,
) -> Fit:
    """Fits the latent of one item by descent from 0.

    Differentiable in the parameters, through the steps; the activations of a step are computed
    again on the way back, so that memory does not grow with their number.

    Args:
      model: the network.
      params: its parameters and step sizes.
      values: [N, C]; what stands under the mask is ignored, NaN included.
      mask: [N] True = observed.
      coords: [N, d].
      num_steps: T, at least 1.
      penalty: weight of |phi|^2 in the inner objective.
      is_first_order: take the gradients of the steps for constants where the result is
        differentiated.

    Returns:
      The fit.
    """
    step_sizes = jnp.exp(params["log_step"])

    def objective(latent):
        error = squared_error(evaluate(model, params, latent, coords), values, mask)
        return error + penalty * jnp.sum(jnp.square(latent))

    @jax.checkpoint
    def step(latent, _):
        loss, slope = jax.value_and_grad(objective)(latent)
        slope = jax.lax.stop_gradient(slope) if is_first_order else slope
        return latent - step_sizes * slope, loss

    # not in the scan: its forward pass is the same for all items
    latent, first = step(jnp.zeros(model.latent_size, step_sizes.dtype), None)
    latent, rest = jax.lax.scan(step, latent, length=num_steps - 1)
    return Fit(latent, jnp.concatenate([first[None], rest]))


def meta_loss(
    model: Functa, params: dict, values: jax.Array, mask: jax.Array, coords: jax.Array, **options
) -> tuple[jax.Array, Fit]:
    """Returns the error of one item after its steps, the objective of training, and the fit.

    Args:
      model: the network.
      params: its parameters and step sizes.
      values: [N, C].
      mask: [N] True = observed.
      coords: [N, d].
      **options: of `fit`.
    """
    fitted = fit(model, params, values, mask, coords, **options)
    return squared_error(evaluate(model, params, fitted.latent, coords), values, mask), fitted
