"""VAMoH on temperature fields on the sphere.

  python -m launch.train --config=configs/vamoh_era5.py --workdir=runs/sphere
  python -m launch.train --config=configs/vamoh_era5.py --workdir=runs/temperature \
      --config.data.name=temperature --config.data.dir=<folder with the data>

The default is a procedural stand-in, band-limited fields on a 24 x 48 grid; `temperature` is a
global surface temperature (73 x 96). The published ERA5 set (46 x 90) is not at hand; a file of
your own is `npz:<path>` with `data.domain=sphere`, and `paper` has the published sizes.
"""

from configs._vamoh import base, shrink

EPOCH = 100  # steps: the published number of training fields is not known


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "sphere"
    config.model.num_components = 3
    config.model.widths = (48, 48)
    config.model.hyper_widths = (256, 512) if config.paper else (64, 128)
    config.model.encoder.points = (768, 96, 16)
    config.model.encoder.neighbours = (96, 27, 16)
    config.model.encoder.channels = (32, 64, 128)
    # a continuous Bernoulli has no scale: nearly everything is noise, and little is left for z
    config.model.likelihood = "" if config.paper else "gaussian"
    config.train.batch_size = 64 if config.paper else 16
    config.train.learning_rate = 1e-4 if config.paper else 2e-3
    config.evaluate.num_generated = 200
    config.evaluate.factors = (4,)
    if config.paper:
        config.model.widths = (64, 64, 64)
        config.model.prior_layers = 10
        config.model.encoder.points = (1024, 256, 64, 32, 16)
        config.model.encoder.neighbours = (9, 9, 9, 9, 9)
        config.model.encoder.channels = (32, 64, 256, 512, 32)
        config.model.encoder.weight_widths = (16, 16, 16, 16)
        config.train.steps = 600 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.data.size = 8
        config.model.encoder.points = (64, 8)
        config.model.encoder.neighbours = (32, 16)
        config.model.encoder.channels = (4, 8)
    return config
