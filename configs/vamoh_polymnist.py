"""VAMoH on PolyMNIST: MNIST digits on photographs, 28 x 28 x 3; or on MNIST itself.

  python -m launch.train --config=configs/vamoh_polymnist.py --workdir=runs/polymnist \
      --config.data.dir=<folder with the data>
  python -m launch.train --config=configs/vamoh_polymnist.py --workdir=runs/mnist \
      --config.data.name=mnist --config.data.dir=<folder with the data>
"""

from configs._vamoh import base, shrink

EPOCH = 55000 // 8  # steps of the published batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "polymnist"
    if config.paper:
        config.model.widths = (4, 4, 4)
        config.model.latent_size = 16
        config.model.hyper_widths = (16, 32)
        config.model.prior_layers = 3
        config.model.encoder.points = (196, 49, 25)
        config.model.encoder.neighbours = (9, 9, 9)
        config.model.encoder.channels = (32, 32, 32)
        config.train.batch_size = 8
        config.train.steps = 600 * EPOCH
    if "smoke" in words:
        shrink(config)
    return config
