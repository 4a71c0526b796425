"""GASP on voxel shapes.

  python -m launch.train --config=configs/gasp_shapenet.py --workdir=runs/gasp-chairs
  python -m launch.train --config=configs/gasp_shapenet.py --workdir=runs/gasp-modelnet \
      --config.data.name=modelnet_chairs --config.data.size=16 --config.data.dir=<data folder>

The default is a procedural stand-in, chairs made of boxes in 16^3 cells; `modelnet_chairs` are the
chairs of ModelNet10, in 8^3, 16^3 or 32^3. A step shows the discriminator some of the cells at
random, the same of all items; of 32^3 the published 4096.
"""

from configs._gasp import base, shrink

EPOCH = 5000 // 26  # steps of about the published training set and the published batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "chairs"
    config.model.frequency_std = 1.0
    config.model.discriminator.points = (512, 64, 16)
    config.model.discriminator.neighbours = (27, 27, 27)
    config.model.discriminator.channels = (16, 64, 128)
    config.train.num_points = 2048  # of 4096
    config.train.batch_size = 26 if config.paper else 32
    config.evaluate.num_items = 50
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 2
    config.evaluate.factors = (2,)
    if config.paper:
        config.model.representation = "coordinates"
        config.model.discriminator.points = (4096, 4096, 512, 512, 64, 64, 8, 1)
        config.model.discriminator.neighbours = (8, 27, 27, 27, 27, 27, 27, 8)
        config.model.discriminator.channels = (32, 64, 0, 128, 0, 256, 0, 1)
        config.train.num_points = 4096
        config.train.learning_rate = 2e-5
        config.train.discriminator_rate = 8e-5
        config.train.steps = 200 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.model.discriminator.points = (64, 1) if config.paper else (64, 16)
        config.model.discriminator.neighbours = (125, 27)
        config.model.discriminator.channels = (4, 1) if config.paper else (4, 8)
        config.train.num_points = 1024
    return config
