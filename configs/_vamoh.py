"""What the configs of VAMoH share; not a config itself.

Each of them sets sizes on top of `base`. The published sizes and protocol are the variant `paper`,
`smoke` is for seconds. Every field can be set on the command line, `--config.train.steps=500`.
"""

import ml_collections

from configs import _field


def base(variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    config, words = _field.base("vamoh", variant)  # docs/vamoh.md lists what `paper` changes

    config.model.representation = "fourier" if config.paper else "siren"
    config.model.widths = (32, 32)
    config.model.omega = 20.0  # of the SIREN, radians per unit; an axis is 2 units long
    config.model.num_frequencies = 128  # Fourier features: of the gate, and of "fourier"
    config.model.frequency_std = 2.0  # of them, cycles per unit: no more than the grid can show
    config.model.latent_size = 32
    config.model.num_components = 4
    config.model.hyper_widths = (64, 128)
    config.model.share_trunk = not config.paper
    config.model.gate_widths = (32, 32)
    config.model.prior = "planar" if config.paper else "realnvp"  # or normal
    config.model.prior_layers = 8
    config.model.bound = "published" if config.paper else "exact"
    config.model.likelihood = ""  # that of the data

    config.model.encoder = ml_collections.ConfigDict()
    config.model.encoder.points = (196, 49, 16)  # centres a level
    config.model.encoder.neighbours = (9, 9, 16)
    config.model.encoder.channels = (32, 64, 128)  # 0 pools (`paper` only)
    config.model.encoder.weight_widths = (16, 16)

    config.train.learning_rate = 1e-3 if config.paper else 3e-3
    config.train.warmup = 0.0 if config.paper else 0.025  # this and the next are shares of steps
    config.train.decay = not config.paper  # cosine, to a hundredth
    # Weight of the KL: 0 for a share, then rising to 1 for another. Without it every point is soon
    # explained by the mixture alone, and z by nothing (docs/vamoh.md).
    config.train.kl_off = 0.0 if config.paper else 0.125
    config.train.kl_rise = 0.0 if config.paper else 0.125
    config.train.uniform_gate = 1 / 6 if config.paper else 0.0  # p(c | x, z) uniform
    config.train.standard_prior = 1 / 3 if config.paper else 0.0  # KL to N(0, I)
    config.train.max_missing = 0.3 if config.paper else 0.9  # rates of hidden points: U(0, this)
    config.train.box_share = (
        0.0 if config.paper else 0.3
    )  # of items that hide or show a box instead
    config.train.chunk = -1  # points decoded at a time; 0 is all, -1 is what suits the device
    config.train.clip_norm = 200.0
    return config, words


def shrink(config):
    """Makes the variant `smoke`."""
    _field.shrink(config)
    config.model.widths = (8, 8)
    config.model.num_components = 2
    config.model.hyper_widths = (8, 8)
    config.model.gate_widths = (8, 8)
    config.model.prior_layers = 2
    config.model.num_frequencies = 8
    config.model.encoder.weight_widths = (4,)
