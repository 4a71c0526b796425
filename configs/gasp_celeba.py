"""GASP on faces, 64 x 64 x 3.

  python -m launch.train --config=configs/gasp_celeba.py --workdir=runs/gasp-celeba \
      --config.data.dir=<folder with the data>

`data.name=tfds:celeb_a` takes all faces where TensorFlow Datasets has them prepared,
`prepared:<folder>` what launch.prepare has made of a folder of images. The default is sized for a
CPU; `paper` has the published hypernetwork of 34.2 M parameters, for accelerators.
"""

from configs._gasp import base, shrink

EPOCH = 162770 // 64  # steps of the training set of CelebA and the published batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "celeba"
    config.model.latent_size = 64
    config.model.hyper_widths = (256, 512) if config.paper else (128, 256)
    config.model.discriminator.points = (1024, 256, 64, 16)
    config.model.discriminator.neighbours = (9, 9, 9, 9)
    config.model.discriminator.channels = (32, 64, 128, 256)
    config.train.batch_size = 64 if config.paper else 32
    config.evaluate.num_items = 50
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 4
    config.evaluate.factors = (2, 8)
    if config.paper:
        # pooling levels have no channels of their own
        config.model.discriminator.points = (4096, 1024, 1024, 256, 256, 64, 64, 16, 1)
        config.model.discriminator.neighbours = (9, 9, 9, 9, 9, 9, 9, 9, 16)
        config.model.discriminator.channels = (64, 0, 128, 0, 256, 0, 512, 0, 1)
        config.train.steps = 300 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.model.discriminator.points = (256, 1) if config.paper else (256, 16)
        config.model.discriminator.neighbours = (25, 36)
        config.model.discriminator.channels = (4, 1) if config.paper else (4, 8)
    return config
