"""What the configs of Functa share; not a config itself.

Each of them sets sizes on top of `base`. The published sizes and rates are the variant `paper`,
`smoke` is for seconds. Every field can be set on the command line, `--config.train.steps=500`.
"""

import ml_collections

from configs import _field


def base(variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    config, words = _field.base("functa", variant)
    paper = config.paper  # sizes, rates, and places of the holes of completions
    config.model.latent_size = 256 if paper else 64
    config.model.width = 512 if paper else 128
    config.model.num_layers = 14 if paper else 6  # hidden
    config.model.omega = 30.0  # radians per unit; an axis is 1 unit long

    config.train.steps = 500000 if paper else 4000
    config.train.batch_size = 16
    # weights are of order 1 / omega: of (1e-4, 3e-4, 1e-3) only the first does not diverge on MNIST
    config.train.learning_rate = 3e-6 if paper else 1e-4
    config.train.warmup = 0.0 if paper else 0.025  # a share of the steps
    config.train.decay = not paper  # cosine, to a hundredth
    config.train.inner_steps = 3
    config.train.penalty = 0.0  # of |latent|^2 in the inner objective
    config.train.is_first_order = False
    config.train.clip_norm = 1e9 if paper else 1.0

    config.fit = ml_collections.ConfigDict()
    config.fit.batch_size = 16  # items encoded at a time

    config.prior = ml_collections.ConfigDict()  # the flow and the diffusion model of the latents
    config.prior.steps = 4000
    config.prior.batch_size = 128
    config.prior.learning_rate = 1e-3
    config.prior.warmup = 0.025
    config.prior.decay = True
    config.prior.clip_norm = 1.0
    config.prior.noise = 0.1  # added to the flow's standardised latents: few items, many latents
    config.prior.flow_layers = 8
    config.prior.width = 256  # of the diffusion model
    config.prior.num_blocks = 3
    config.prior.sample_steps = 50

    _field.add_descent(config)
    config.evaluate.inner_steps = (3, 10)
    if paper:
        config.evaluate.completion_steps = 500
        config.evaluate.completion_rate = 0.01
    return config, words


def shrink(config):
    """Makes the variant `smoke`."""
    _field.shrink(config)
    config.model.width = 8
    config.model.num_layers = 2
    config.fit.batch_size = 64
    config.prior.steps = 10
    config.prior.batch_size = 8
    config.prior.flow_layers = 2
    config.prior.width = 8
    config.prior.num_blocks = 1
    config.prior.sample_steps = 4
    config.evaluate.inner_steps = (3, 4)
