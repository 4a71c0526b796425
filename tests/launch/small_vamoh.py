"""VAMoH trained for moments: the smoke config, without scores; an evaluation is the parameters.

An experiment that launch.train finds by its dotted name; run as a program, below a directory, it
trains on eight emulated devices and on one of them.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from configs import vamoh_digits
from launch import loop
from launch.experiments import vamoh

FIELDS = {
    "experiment": "tests.launch.small_vamoh",
    "model.encoder.points": (4,),
    "model.encoder.neighbours": (4,),
    "model.encoder.channels": (4,),
    "model.prior": "normal",
    "train.steps": 6,
    "loop.steps_per_dispatch": 2,
    "loop.log_every": 1,
}
CONFIG = (
    "--config=configs/vamoh_digits.py:smoke",
    *(f"--config.{k}={v}" for k, v in FIELDS.items()),
)


def config(**changes):
    """The smoke config with fields changed; `train__steps=3` reaches into a group."""
    out = vamoh_digits.get_config("smoke")
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    out.update_from_flattened_dict(FIELDS | changes)
    return out


def make(config):
    """VAMoH, which with STOP_AT=<step> in its environment sends itself SIGTERM at that step."""
    experiment = vamoh.make(config)

    def batches(phase, start, num):
        if os.environ.get("STOP_AT") == str(start):
            os.kill(os.getpid(), signal.SIGTERM)
        return experiment.batches(phase, start, num)

    return experiment._replace(batches=batches, evaluate=_parameters, figures=lambda *_: None)


def train(path, **changes):
    settings = config(**changes)
    return loop.run(make(settings), settings, path)


def restored(path, **changes):
    settings = config(**changes)
    return loop.load(make(settings), settings, path)[0]


def _parameters(key, params, data, phase_name, is_last):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(v) for p, v in leaves}
    return {}, named


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    for num, part in ((2, (1, 8)), (3, (3, 4))):  # what a device holds: components, trunk width
        base, sizes = Path(sys.argv[1]) / str(num), {"model__num_components": num}
        mesh = {"mesh__data": 4, "mesh__model": 2}
        train(base / "whole", **sizes)
        train(base / "sharded", **sizes, **mesh)
        state = restored(base / "sharded", **sizes, **mesh)
        kernel = state.params["hyper"]["emission_kernel"]
        moment = state.opt_state[1][0].mu["hyper"]["emission_kernel"]
        shape = kernel.addressable_shards[0].data.shape  # [R, K, P, width]
        assert (shape[1], shape[3]) == part, kernel.sharding
        assert moment.sharding == kernel.sharding
