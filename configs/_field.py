"""What the configs of the models of functions share; not a config itself.

`base` has the fields of the data, the scores and the loop, `shrink` makes them those of the variant
`smoke`, which is for seconds; configs/_vamoh.py, _gasp.py and _functa.py add those of a model.
"""

import ml_collections


def base(experiment: str, variant: str):
    """Returns the common fields and the words of the variant; refuses unknown words."""
    words = [word for word in variant.split(",") if word]
    unknown = [word for word in words if word not in ("paper", "smoke")]
    if unknown:
        raise ValueError(f"config variant {variant!r}: expected any of paper, smoke, with commas")
    config = ml_collections.ConfigDict()
    config.experiment = experiment
    config.seed = 0
    config.seeds = 1  # replicas trained together
    config.paper = "paper" in words  # the released protocol

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

    config.train = ml_collections.ConfigDict()
    config.train.steps = 4000
    config.train.batch_size = 64
    config.train.num_points = 0  # points seen a step, at random; 0 is all

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.num_items = 200  # test items scored; 0 is all
    config.evaluate.num_samples = 20  # of the latent of an item
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


def add_descent(config):
    """Adds the fields of `functions.completion`, for models without an encoder of parts."""
    config.evaluate.num_samples = 4  # starts of the descent
    config.evaluate.completion_steps = 100
    config.evaluate.completion_rate = 0.1
    # sigma of the observed values: of 0.03 to 0.3 the best for Functa on digits' validation items
    config.evaluate.noise = 0.1


def shrink(config):
    """Makes the common fields those of the variant `smoke`."""
    config.model.latent_size = 4
    config.train.steps = 20
    config.train.batch_size = 8
    config.evaluate.num_items = 6
    config.evaluate.num_samples = 2
    config.evaluate.num_generated = 6
    config.evaluate.batch_size = 3
    config.evaluate.factors = (2,)
    if "completion_steps" in config.evaluate:
        config.evaluate.completion_steps = 3
    config.loop.steps_per_dispatch = 5
    config.loop.log_every = 5
    config.loop.checkpoint_every = 10
