"""Settings of the toy experiment; `:three` trains three replicas.

python -m launch.train --config=tests/launch/toy_config.py --workdir=<dir>
"""

import ml_collections


def get_config(variant=""):
    config = ml_collections.ConfigDict()
    config.experiment = "tests.launch.toy"
    config.seed = 7
    config.splits = 3 if variant == "three" else 1
    config.first_seed = 0
    config.hidden = 4
    config.batch = 6
    config.dropout = 0.2
    config.warm_steps = 6
    config.main_steps = 7
    config.nan_step = -1
    config.sleep = 0.0  # seconds a dispatch, so that a signal can hit
    config.loop = dict(steps_per_dispatch=3, log_every=2, checkpoint_every=3, keep=2)
    config.mesh = dict(replica=-1, data=1, model=1)
    return config
