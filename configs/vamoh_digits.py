"""VAMoH on scikit-learn's 8 x 8 digits; nothing is downloaded.

  python -m launch.train --config=configs/vamoh_digits.py --workdir=runs/digits

docs/vamoh.md has the time it takes and the scores it gives.
"""

from configs._vamoh import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "digits"
    config.model.latent_size = 16
    config.model.omega = 6.0
    config.model.frequency_std = 0.5
    config.model.encoder.points = (64, 16, 4)
    config.model.encoder.neighbours = (9, 9, 16)
    config.model.encoder.channels = (32, 64, 128)
    config.evaluate.factors = (8, 64)
    if config.paper:
        config.model.frequency_std = 2.0
        config.model.prior_layers = 3
    if "smoke" in words:
        shrink(config)
        config.model.encoder.points = (16, 4)
        config.model.encoder.neighbours = (9, 9)
        config.model.encoder.channels = (4, 8)
    return config
