"""HH-VAE and its relatives on images: `launch.experiments.tabular`, with pictures for figures.

An image is a row of a table with one column a pixel (`launch.data.image_tables`), so that splits,
masks, training and scores are those of tables; config.model.networks names the convolutions of
`hmcvae.images` that replace the outer layers.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae import columns, likelihoods, predict
from hmcvae.compiling import RUN_BRIEFLY
from launch import figures as draw
from launch import image_figures, trained
from launch.data import image_tables
from launch.experiment import Experiment, stream
from launch.experiments import tabular, tabular_report

NUM_SHOWN = 10  # test images that are reconstructed
NUM_SAMPLES = 64  # images drawn from the prior
SAMPLES_AT_A_TIME = 20  # of the posterior of every image that is completed


def make(config) -> Experiment:
    """Builds the experiment that `config` describes; see configs/hhvae.py for the fields."""
    check(config)
    return build(config, load_table(config.data, config.paper))


def check(config):
    """Refuses combinations that cannot be trained, in one sentence each."""
    tabular.check(config)
    if config.evaluate.num_test < 0:
        raise ValueError(
            f"config.evaluate.num_test={config.evaluate.num_test}: expected a number of test "
            f"images, the first of the fold, or 0 for all"
        )


def load_table(data, paper: bool):
    """Loads the images by name."""
    return image_tables.load(data.name, data.dir or None, paper=paper)


def build(config, table) -> Experiment:
    """Builds the experiment on images that are already in memory."""
    base = tabular.build(config, table, num_test=config.evaluate.num_test)
    model, schedule = tabular.make_model(config, table), tabular.make_schedule(config)
    _, scaler, _ = trained.fit_split(config, table, config.data.first_split)

    @functools.partial(jax.jit, compiler_options=RUN_BRIEFLY)
    def impute(key, params, x, mask):
        return predict.impute(key, model, params, scaler, x, mask, num_samples=2, schedule=schedule)

    def evaluate(key, params, data, phase_name, is_last):
        metrics, arrays = base.evaluate(key, params, data, phase_name, is_last)
        # what tables keep of every test row is a tenth of a gigabyte here
        of_rows = ("x_true", "x_mean", "x_std", "x_probs", "mask", "known")
        shown = {name: arrays.pop(name)[:NUM_SHOWN] for name in of_rows if name in arrays}
        if not is_last:
            return metrics, arrays
        first = jax.tree.map(lambda leaf: leaf[0], params)
        x, mask = np.float32(shown["x_true"]), shown["mask"]
        arrays |= {
            "shape": np.array(image_tables.SHAPES[table.name]),
            "original": x,
            "mask": mask,
            "mean": np.where(mask, x, shown["x_mean"]),
            "draws": impute(stream(key, "impute", 0), first, x, mask),
            "prior": sample_prior(stream(key, "prior", 0), model, first, scaler, NUM_SAMPLES),
        }
        return metrics, arrays

    return base._replace(evaluate=evaluate, figures=figures)


class Completed(NamedTuple):
    """What a model makes of images of which a part is hidden; pixels in raw units."""

    mean: jax.Array  # [n, D] hidden pixels expected given what is shown
    draw: jax.Array  # [n, D] the same given one sample of the posterior
    log_prob: jax.Array  # [n] nats in raw units, of all hidden pixels of an image together
    acceptance: jax.Array  # [n] of the chains; 1 without HMC


@functools.partial(
    jax.jit, static_argnames=("model", "num_samples", "schedule"), compiler_options=RUN_BRIEFLY
)
def complete(
    key, model, params, scaler, x_raw, shown, target=None, *, num_samples: int, schedule
) -> Completed:
    """Fills in the hidden part of images from the posterior given the rest.

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      scaler: standardisation of the training rows.
      x_raw: [n, D] whole images in raw units; the hidden pixels are only scored.
      shown: [n, D] True = shown to the model.
      target: [n, P] codes of labels to condition on, or None.
      num_samples: S; memory grows with S * n * D.
      schedule: leapfrog steps of a transition, number of importance samples.

    Returns:
      Completed. `log_prob` is log 1/S sum_s prod_d p(x_d | eps_s) over the hidden pixels.
    """
    everything = np.ones(x_raw.shape, bool)
    x = columns.transform(model.schema, scaler, x_raw, everything)
    known = None if target is None else np.ones(target.shape, bool)

    def one(key):
        key_eps, key_decode = jax.random.split(key)
        posterior = predict.sample_posterior(
            key_eps, model, params, x, shown,
            num_samples=1, schedule=schedule, y=target, y_mask=known,
        )  # fmt: skip
        decoded = predict.decode_posterior(key_decode, model, params, x, shown, posterior.eps)
        theta = decoded.theta[0]
        log_prob = model.apply({"params": params}, theta, x, ~shown, method="log_prob_x")
        pixels = columns.inverse(model.schema, scaler, likelihoods.mean(model.schema, theta))
        return pixels, jnp.sum(log_prob, axis=-1), posterior.acceptance

    keys = jax.random.split(key, num_samples)
    pixels, log_prob, acceptance = jax.lax.map(one, keys, batch_size=SAMPLES_AT_A_TIME)
    jacobian = likelihoods.log_jacobian(model.schema, scaler, x_raw, ~shown)
    return Completed(
        jnp.where(shown, x_raw, jnp.mean(pixels, axis=0)),
        jnp.where(shown, x_raw, pixels[0]),
        predict.log_mean_exp(log_prob) + jnp.sum(jacobian, axis=-1),
        jnp.mean(acceptance, axis=0),
    )


def sample_prior(key, model, params, scaler, num: int) -> jax.Array:
    """Draws images from the prior: expected pixels given eps ~ N(0, I), raw units, [num, D]."""
    zeros = np.zeros((num, model.num_latents), np.float32)

    def decode(model):
        # a posterior of mean 0 and variance 1 is the prior, whether or not it is reparameterised
        _, out = model.decode(model.draw(key, zeros, zeros).latents)
        return likelihoods.mean(model.schema, model.decode_columns(out))

    return columns.inverse(model.schema, scaler, model.apply({"params": params}, method=decode))


def figures(arrays, metrics_rows, directory):
    """Draws every figure that the arrays of the last evaluation allow."""
    draw.training_curves(metrics_rows, directory / "training.png")
    image_figures.reconstructions(arrays, directory / "reconstructions.png")
    image_figures.prior(arrays, directory / "prior.png")
    tabular_report.posterior_figures(arrays, metrics_rows, directory)
