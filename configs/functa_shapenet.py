"""Functa on voxel shapes.

  python -m launch.train --config=configs/functa_shapenet.py --workdir=runs/functa_chairs
  python -m launch.train --config=configs/functa_shapenet.py --workdir=runs/functa_modelnet \
      --config.data.name=modelnet_chairs --config.data.size=16 --config.data.dir=<data folder>

The default is a procedural stand-in, chairs made of boxes in 16^3 cells; `modelnet_chairs` are the
chairs of ModelNet10, in 8^3, 16^3 or 32^3. No released config is of voxels: `paper` takes the sizes
of the faces.
"""

from configs._functa import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "chairs"
    if not config.paper:
        config.model.omega = 15.0
        config.train.batch_size = 8
        config.evaluate.num_items = 20
    config.train.num_points = 4096 if config.paper else 1024  # of 4096 or more, seen a step
    config.fit.batch_size = 8
    config.evaluate.num_samples = 2
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 2
    config.evaluate.factors = (2,)
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.fit.batch_size = 8
        config.train.num_points = 128
    return config
