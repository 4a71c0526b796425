"""Functa trained for moments, without scores: an evaluation is the parameters.

Run as a program, on a directory, it trains and fits on four emulated devices, items of a batch
spread over them.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from configs import functa_digits
from launch import loop
from launch.experiments import functa

FIELDS = {
    "data.num_train": 100,
    "fit.batch_size": 16,
    "train.steps": 4,
    "prior.steps": 4,
    "loop.steps_per_dispatch": 2,
    "loop.checkpoint_every": 2,
}


def train(path, stop_at=None, num_devices=1, num_phases=3):
    """Trains; with `stop_at` sends itself SIGTERM at that (phase, step)."""
    config = functa_digits.get_config("smoke")
    config.update_from_flattened_dict(FIELDS | {"mesh.data": num_devices})
    experiment = functa.make(config)

    def batches(phase, start, num):
        if (phase, start) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return experiment.batches(phase, start, num)

    def parameters(key, params, data, phase_name, is_last):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return {}, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    changed = experiment._replace(
        phases=experiment.phases[:num_phases],
        batches=batches,
        evaluate=parameters,
        figures=lambda *_: None,
    )
    loop.run(changed, config, path)


if __name__ == "__main__":
    train(Path(sys.argv[1]), num_devices=4, num_phases=2)
