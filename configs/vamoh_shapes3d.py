"""VAMoH on rooms of coloured shapes, 64 x 64 x 3.

  python -m launch.train --config=configs/vamoh_shapes3d.py --workdir=runs/rooms

The default is a procedural stand-in with a true segmentation, drawn in seconds.
`--config.data.name=tfds:shapes3d` takes Shapes3D where TensorFlow Datasets has it prepared.
"""

from configs._vamoh import base, shrink

EPOCH = 384000 // 16  # steps of the published training set and batch


def get_config(variant=""):
    """Returns the config."""
    config, words = base(variant)
    config.data.name = "rooms"
    config.model.num_components = 5
    config.model.hyper_widths = (128, 256)
    config.model.encoder.points = (1024, 256, 64)
    config.model.encoder.neighbours = (16, 16, 16)
    config.model.encoder.channels = (32, 64, 256)
    config.train.num_points = 1024  # of 4096, decoded a step
    config.train.batch_size = 16 if config.paper else 32
    config.train.learning_rate = 1e-4 if config.paper else 2e-3
    config.evaluate.num_items = 100
    config.evaluate.num_generated = 200
    config.evaluate.batch_size = 4
    config.evaluate.factors = (2, 8)
    if config.paper:
        config.model.prior_layers = 20
        config.train.num_points = 0
        config.train.max_missing = 0.0
        config.train.uniform_gate = 0.0  # not in the published schedule of this set
        config.train.steps = 600 * EPOCH
    if "smoke" in words:
        shrink(config)
        config.data.num_train = 40
        config.data.num_test = 8
        config.data.size = 16
        config.model.encoder.points = (64, 16)
        config.model.encoder.neighbours = (9, 16)
        config.model.encoder.channels = (4, 8)
        config.train.num_points = 64
    return config
