"""VAMoH on faces, 64 x 64 x 3.

  python -m launch.train --config=configs/vamoh_celeba.py --workdir=runs/celeba \
      --config.data.dir=<folder with the data>

`data.name=tfds:celeb_a` takes all faces where TensorFlow Datasets has them prepared,
`prepared:<folder>` what launch.prepare has made of a folder of images. The default is sized for a
CPU; `paper` has the published 136.6 M parameters, for accelerators.
"""

from configs._vamoh import base, shrink

EPOCH = 162770 // 64  # steps of the published training set and batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "celeba"
    config.model.latent_size = 64
    config.model.widths = (48, 48, 48)
    config.model.hyper_widths = (128, 256)
    config.model.gate_widths = (64, 32)
    config.model.encoder.points = (1024, 256, 64, 16)
    config.model.encoder.neighbours = (9, 9, 9, 9)
    config.model.encoder.channels = (32, 64, 128, 256)
    config.train.num_points = 1024  # of 4096, decoded a step
    config.train.batch_size = 32
    config.train.learning_rate = 1e-4 if config.paper else 2e-3
    config.evaluate.num_items = 100
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 4
    config.evaluate.factors = (2, 8)
    if config.paper:
        config.model.widths = (64, 64, 64)
        config.model.num_components = 10
        config.model.hyper_widths = (256, 512)
        config.model.prior_layers = 80
        # pooling levels have no channels of their own
        config.model.encoder.points = (4096, 1024, 1024, 256, 256, 64, 64, 16, 1)
        config.model.encoder.neighbours = (9, 9, 9, 9, 9, 9, 9, 9, 9)
        config.model.encoder.channels = (64, 0, 128, 0, 256, 0, 512, 0, 512)
        config.model.encoder.weight_widths = (16, 16, 16, 16)
        config.train.num_points = 0
        config.train.batch_size = 64
        config.train.steps = 600 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.model.encoder.points = (256, 16)
        config.model.encoder.neighbours = (25, 36)
        config.model.encoder.channels = (4, 8)
        config.train.num_points = 256
    return config
