"""GASP on scikit-learn's 8 x 8 digits; nothing is downloaded.

  python -m launch.train --config=configs/gasp_digits.py --workdir=runs/gasp-digits

`paper` has the published generator and protocol; the discriminator is scaled to the 64 points.
"""

from configs._gasp import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "digits"
    config.model.frequency_std = 0.5
    config.model.discriminator.points = (64, 16, 4)
    config.model.discriminator.neighbours = (9, 9, 16)
    config.model.discriminator.channels = (32, 64, 128)
    config.evaluate.factors = (8, 64)
    if config.paper:
        config.model.frequency_std = 2.0
        config.model.discriminator.points = (64, 16, 16, 1)
        config.model.discriminator.neighbours = (9, 9, 9, 16)
        config.model.discriminator.channels = (64, 0, 128, 1)
    if "smoke" in words:
        shrink(config)
        config.model.discriminator.points = (16, 1) if config.paper else (16, 4)
        config.model.discriminator.neighbours = (9, 9)
        config.model.discriminator.channels = (4, 1) if config.paper else (4, 8)
    return config
