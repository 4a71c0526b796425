"""Functa on PolyMNIST: MNIST digits on photographs, 28 x 28 x 3; or on MNIST itself.

  python -m launch.train --config=configs/functa_polymnist.py --workdir=runs/functa_polymnist \
      --config.data.dir=<folder with the data>
  python -m launch.train --config=configs/functa_polymnist.py --workdir=runs/functa_mnist \
      --config.data.name=mnist --config.data.dir=<folder with the data>
"""

from configs._functa import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "polymnist"
    if not config.paper:
        config.train.num_points = 392  # of 784, seen a step
        config.evaluate.num_items = 100
    config.evaluate.num_samples = 2
    if "smoke" in words:
        shrink(config)
    return config
