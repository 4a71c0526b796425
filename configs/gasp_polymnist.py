"""GASP on PolyMNIST: MNIST digits on photographs, 28 x 28 x 3; or on MNIST itself.

  python -m launch.train --config=configs/gasp_polymnist.py --workdir=runs/gasp-polymnist \
      --config.data.dir=<folder with the data>
  python -m launch.train --config=configs/gasp_polymnist.py --workdir=runs/gasp-mnist \
      --config.data.name=mnist --config.data.dir=<folder with the data>

GASP was not published on these; `paper` has its networks for images, the levels of the
discriminator scaled to 784 points.
"""

from configs._gasp import base, shrink

EPOCH = 55000 // 64  # steps of the published batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "polymnist"
    config.evaluate.num_items = 100
    config.evaluate.batch_size = 10
    if config.paper:
        config.model.discriminator.points = (784, 196, 196, 49, 49, 16, 1)
        config.model.discriminator.neighbours = (9, 9, 9, 9, 9, 9, 16)
        config.model.discriminator.channels = (64, 0, 128, 0, 256, 0, 1)
        config.train.steps = 300 * EPOCH
    if "smoke" in words:
        shrink(config)
    return config
