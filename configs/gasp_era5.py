"""GASP on temperature fields on the sphere.

  python -m launch.train --config=configs/gasp_era5.py --workdir=runs/gasp-sphere
  python -m launch.train --config=configs/gasp_era5.py --workdir=runs/gasp-temperature \
      --config.data.name=temperature --config.data.dir=<folder with the data>

The default is a procedural stand-in, band-limited fields on a 24 x 48 grid; `temperature` is a
global surface temperature (73 x 96). The published ERA5 set (46 x 90) is not at hand; a file of
your own is `npz:<path>` with `data.domain=sphere`. `paper` has the published networks; of a set
with fewer than 4096 points their first level takes as many as there are.
"""

from configs._gasp import base, shrink

EPOCH = 100  # steps: the published number of training fields is not known


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "sphere"
    config.model.frequency_std = 2.0 if config.paper else 0.5
    config.model.discriminator.points = (768, 96, 16)
    config.model.discriminator.neighbours = (32, 27, 16)
    config.model.discriminator.channels = (32, 64, 128)
    config.train.batch_size = 64 if config.paper else 32
    config.evaluate.num_items = 100
    config.evaluate.num_generated = 200
    config.evaluate.batch_size = 10
    config.evaluate.factors = (4,)
    if config.paper:
        config.model.discriminator.points = (1152, 1024, 1024, 256, 256, 64, 64, 16, 1)
        config.model.discriminator.neighbours = (9, 9, 9, 9, 9, 9, 9, 9, 16)
        config.model.discriminator.channels = (64, 0, 128, 0, 256, 0, 512, 0, 1)
        config.train.steps = 300 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.data.size = 8
        config.model.discriminator.points = (64, 1) if config.paper else (64, 8)
        config.model.discriminator.neighbours = (32, 16)
        config.model.discriminator.channels = (4, 1) if config.paper else (4, 8)
    return config
