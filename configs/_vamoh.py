"""What the configs of VAMoH share; not a config itself.

Each of them sets sizes on top of `base`. The published sizes and protocol are the variant `paper`,
`smoke` is for seconds. Every field can be set on the command line, `--config.train.steps=500`.
"""

import ml_collections


def base(variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    words = [word for word in variant.split(",") if word]
    unknown = [word for word in words if word not in ("paper", "smoke")]
    if unknown:
        raise ValueError(f"config variant {variant!r}: expected any of paper, smoke, with commas")
    config = ml_collections.ConfigDict()
    config.experiment = "vamoh"
    config.seed = 0
    config.seeds = 1  # replicas trained together
    config.paper = "paper" in words  # the released protocol: docs/vamoh.md lists what it changes

    config.data = ml_collections.ConfigDict()
    config.data.name = ""
    config.data.dir = ""  # folder of the data that does not come with a dependency
    config.data.num_train = 0  # items used; 0 is all
    config.data.num_test = 0
    config.data.size = 0  # points an axis, where the data can be had at several; 0 is its own
    config.data.seed = 0  # of procedural data, and of the split of a file of your own
    config.data.domain = ""  # of a file of your own: image, voxels, sphere, series or video
    config.data.convention = ""  # of a grid: centres or corners
    config.data.rescale = False  # bring the reals of a file of your own to [0, 1]

    config.model = ml_collections.ConfigDict()
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

    config.train = ml_collections.ConfigDict()
    config.train.steps = 4000
    config.train.batch_size = 64
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
    config.train.num_points = 0  # points decoded a step; 0 is all
    config.train.chunk = -1  # points decoded at a time; 0 is all, -1 is what suits the device
    config.train.clip_norm = 200.0

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.num_items = 200  # test items scored; 0 is all
    config.evaluate.num_samples = 20  # of z, for predictive scores
    config.evaluate.num_generated = 1000
    config.evaluate.batch_size = 20
    config.evaluate.factors = (4, 16)  # of the resolution in the figures

    config.loop = ml_collections.ConfigDict()
    config.loop.steps_per_dispatch = 20
    config.loop.log_every = 100
    config.loop.checkpoint_every = 1000
    config.loop.keep = 2

    config.mesh = ml_collections.ConfigDict()
    config.mesh.replica = -1
    config.mesh.data = 1
    config.mesh.model = 1
    return config, words


def shrink(config):
    """Makes the variant `smoke`."""
    config.model.widths = (8, 8)
    config.model.latent_size = 4
    config.model.num_components = 2
    config.model.hyper_widths = (8, 8)
    config.model.gate_widths = (8, 8)
    config.model.prior_layers = 2
    config.model.num_frequencies = 8
    config.model.encoder.weight_widths = (4,)
    config.train.steps = 20
    config.train.batch_size = 8
    config.evaluate.num_items = 6
    config.evaluate.num_samples = 2
    config.evaluate.num_generated = 6
    config.evaluate.batch_size = 3
    config.evaluate.factors = (2,)
    config.loop.steps_per_dispatch = 5
    config.loop.log_every = 5
    config.loop.checkpoint_every = 10
