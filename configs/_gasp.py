"""What the configs of GASP share; not a config itself.

Each of them sets sizes on top of `base`; `smoke` is for seconds. Every field can be set on the
command line, `--config.train.steps=500`.

The variant `paper` has the published generator, rates and penalty, of the probability and in every
step, and scores the generator itself in place of its average. It departs from the release where
that could not be checked against it or belongs to its implementation: the discriminator has no
batch norm (there on features and inside the weight networks, with statistics of observed and of
generated sets apart); neighbours are those of the domain, found once, not anew in every set or
random subset of points; losses are computed from logits.
"""

import ml_collections

from configs import _field


def base(variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    config, words = _field.base("gasp", variant)
    paper = config.paper
    config.model.representation = "fourier"  # or siren, or coordinates
    config.model.widths = (128, 128, 128) if paper else (48, 48)
    config.model.omega = 20.0  # of "siren", radians per unit; an axis is 2 units long
    config.model.num_frequencies = 128  # of "fourier"
    config.model.frequency_std = 2.0  # of them, cycles per unit: no more than the grid can show
    config.model.latent_size = 64 if paper else 32
    config.model.hyper_widths = (256, 512) if paper else (64, 128)

    config.model.discriminator = ml_collections.ConfigDict()
    config.model.discriminator.points = (196, 49, 16)  # centres a level
    config.model.discriminator.neighbours = (9, 9, 16)
    config.model.discriminator.channels = (32, 64, 128)  # 0 pools (`paper` only)
    config.model.discriminator.weight_widths = (16,) * 4 if paper else (16, 16)

    config.train.learning_rate = 1e-4 if paper else 3e-4  # of the generator
    config.train.discriminator_rate = 4e-4 if paper else 1e-3
    config.train.penalty = 10.0 if paper else 0.1  # gamma of R1
    config.train.lazy = 1 if paper else 4  # steps from one penalty, so much heavier, to the next
    config.train.average = 0.0 if paper else 0.995  # decay of the generator that is evaluated

    config.train.watch = ml_collections.ConfigDict()  # a run that reaches a limit stops
    config.train.watch.horizon = 100  # steps of the running means
    config.train.watch.loss = 0.01  # nats, of the discriminator: it is sure; 1.39 is chance
    config.train.watch.contrast = 0.01  # standard deviation of logits: it sees nothing
    config.train.watch.variety = 0.02  # spread of generated over observed items: one item
    config.train.watch.norm = 1e4  # of gradients

    _field.add_descent(config)
    return config, words


def shrink(config):
    """Makes the variant `smoke`."""
    _field.shrink(config)
    config.model.widths = (8, 8)
    config.model.hyper_widths = (8, 8)
    config.model.num_frequencies = 8
    config.model.discriminator.weight_widths = (4,)
    config.evaluate.num_samples = 3
