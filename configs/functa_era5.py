"""Functa on temperature fields on the sphere.

  python -m launch.train --config=configs/functa_era5.py --workdir=runs/functa_sphere
  python -m launch.train --config=configs/functa_era5.py --workdir=runs/functa_temperature \
      --config.data.name=temperature --config.data.dir=<folder with the data>

The default is a procedural stand-in, band-limited fields on a 24 x 48 grid; `temperature` is a
global surface temperature (73 x 96). The published ERA5 set (46 x 90) is not at hand; a file of
your own is `npz:<path>` with `data.domain=sphere`. No released config is of the sphere: `paper`
takes the sizes of the faces.
"""

from configs._functa import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "sphere"
    if not config.paper:
        config.model.omega = 10.0  # coordinates are unit vectors: an axis is 2 units long
        config.train.learning_rate = 3e-4
        config.train.num_points = 384  # of 1152, seen a step
        config.evaluate.num_items = 50
    config.fit.batch_size = 8
    config.evaluate.num_samples = 2
    config.evaluate.num_generated = 200
    config.evaluate.batch_size = 4
    config.evaluate.factors = (4,)
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.data.size = 8
        config.fit.batch_size = 8
        config.train.num_points = 64
    return config
