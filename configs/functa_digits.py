"""Functa on scikit-learn's 8 x 8 digits; nothing is downloaded.

python -m launch.train --config=configs/functa_digits.py --workdir=runs/functa_digits
"""

from configs._functa import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "digits"
    if not config.paper:
        config.model.latent_size = 32
        config.model.width = 64
        config.model.num_layers = 4
        # of omega 10, 20, 30 and rates 3e-4, 1e-3, 3e-3 the best on validation items, 300 steps
        config.model.omega = 20.0
        config.train.learning_rate = 1e-3
        config.train.batch_size = 64
    config.fit.batch_size = 128
    config.evaluate.factors = (8, 64)
    if "smoke" in words:
        shrink(config)
    return config
