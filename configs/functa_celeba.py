"""Functa on faces, 64 x 64 x 3.

  python -m launch.train --config=configs/functa_celeba.py --workdir=runs/functa_celeba \
      --config.data.dir=<folder with the data>

`data.name=tfds:celeb_a` takes all faces where TensorFlow Datasets has them prepared,
`prepared:<folder>` what launch.prepare has made of a folder of images. The default is sized for a
CPU; `paper` has the published 5.26 M parameters and 256 latents, for accelerators.
"""

from configs._functa import base, shrink


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "celeba"
    if not config.paper:
        config.train.num_points = 512  # of 4096, seen a step
        config.train.batch_size = 8
        config.evaluate.num_items = 20
    config.fit.batch_size = 8
    config.evaluate.num_samples = 2
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 4
    config.evaluate.factors = (2, 8)
    if "smoke" in words:
        shrink(config)
        config.fit.batch_size = 8
        config.train.num_points = 256
    return config
