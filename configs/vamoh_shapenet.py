"""VAMoH on voxel shapes.

  python -m launch.train --config=configs/vamoh_shapenet.py --workdir=runs/chairs
  python -m launch.train --config=configs/vamoh_shapenet.py --workdir=runs/modelnet \
      --config.data.name=modelnet_chairs --config.data.size=16 --config.data.dir=<data folder>

The default is a procedural stand-in, chairs made of boxes in 16^3 cells; `modelnet_chairs` are the
chairs of ModelNet10, in 8^3, 16^3 or 32^3. The encoder sees all observed cells of up to 16^3, for
32^3 give it `--config.model.encoder.points="(4096,512,64)"`; a step decodes some of the cells.
"""

from configs._vamoh import base, shrink

EPOCH = 5000 // 22  # steps of about the published training set and the published batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "chairs"
    config.model.num_components = 3 if config.paper else 2
    config.model.omega = 10.0
    config.model.frequency_std = 2.0 if config.paper else 1.0
    config.model.hyper_widths = (256, 512) if config.paper else (64, 128)
    config.model.encoder.points = (512, 64, 16)
    config.model.encoder.neighbours = (27, 27, 27)
    config.model.encoder.channels = (16, 64, 128)
    config.train.num_points = 1024  # of 4096 or more, decoded a step
    config.train.batch_size = 22 if config.paper else 32
    config.train.learning_rate = 1e-3 if config.paper else 2e-3
    config.evaluate.num_items = 50
    config.evaluate.num_generated = 100
    config.evaluate.batch_size = 2
    config.evaluate.factors = (2,)
    if config.paper:
        config.model.widths = (64, 64, 64)
        config.model.prior_layers = 40
        config.model.encoder.points = (4096, 512, 64, 16, 16)
        config.model.encoder.neighbours = (8, 27, 27, 27, 8)
        config.model.encoder.channels = (32, 64, 128, 256, 16)
        config.model.encoder.weight_widths = (16, 16, 16, 16)
        config.train.num_points = 4096
        config.train.max_missing = 0.0
        config.train.steps = 500 * EPOCH
        config.train.uniform_gate = 1 / 5
        config.train.standard_prior = 2 / 5
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.model.encoder.points = (64, 16)
        config.model.encoder.neighbours = (125, 27)
        config.model.encoder.channels = (4, 8)
        config.train.num_points = 128
    return config
