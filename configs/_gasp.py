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


def base(variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    words = [word for word in variant.split(",") if word]
    unknown = [word for word in words if word not in ("paper", "smoke")]
    if unknown:
        raise ValueError(f"config variant {variant!r}: expected any of paper, smoke, with commas")
    paper = "paper" in words
    config = ml_collections.ConfigDict()
    config.experiment = "gasp"
    config.seed = 0
    config.seeds = 1  # replicas trained together
    config.paper = paper  # the released protocol: functions/gasp.py says what it changes

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

    config.train = ml_collections.ConfigDict()
    config.train.steps = 4000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4 if paper else 3e-4  # of the generator
    config.train.discriminator_rate = 4e-4 if paper else 1e-3
    config.train.penalty = 10.0 if paper else 0.1  # gamma of R1
    config.train.lazy = 1 if paper else 4  # steps from one penalty, so much heavier, to the next
    config.train.average = 0.0 if paper else 0.995  # decay of the generator that is evaluated
    config.train.num_points = 0  # points seen a step, at random; 0 is all

    config.train.watch = ml_collections.ConfigDict()  # a run that reaches a limit stops
    config.train.watch.horizon = 100  # steps of the running means
    config.train.watch.loss = 0.01  # nats, of the discriminator: it is sure; 1.39 is chance
    config.train.watch.contrast = 0.01  # standard deviation of logits: it sees nothing
    config.train.watch.variety = 0.05  # spread of generated over observed items: one item
    config.train.watch.norm = 1e4  # of gradients

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.num_items = 200  # test items scored; 0 is all
    config.evaluate.completion_steps = 100  # descent to a latent; 0 scores generated items only
    config.evaluate.completion_rate = 0.1
    config.evaluate.num_samples = 4  # starts of the descent
    config.evaluate.noise = 0.1  # sigma: the square error weighs 1 / (2 sigma^2)
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
    config.model.hyper_widths = (8, 8)
    config.model.num_frequencies = 8
    config.model.discriminator.weight_widths = (4,)
    config.train.steps = 20
    config.train.batch_size = 8
    config.train.lazy = 4
    config.evaluate.num_items = 6
    config.evaluate.completion_steps = 3
    config.evaluate.num_samples = 3
    config.evaluate.num_generated = 6
    config.evaluate.batch_size = 3
    config.evaluate.factors = (2,)
    config.loop.steps_per_dispatch = 5
    config.loop.log_every = 5
    config.loop.checkpoint_every = 10
