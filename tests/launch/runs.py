"""Runs of the toy experiment, for several test files."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from launch import loop, metrics
from launch.data import fields
from launch.data.items import Items
from tests.launch import toy, toy_config

ROOT = Path(__file__).parents[2]
CONFIG = "--config=tests/launch/toy_config.py"


def config(variant="", **changes):
    """The toy config with fields changed; `loop__keep=3` reaches into a group."""
    out = toy_config.get_config(variant)
    for name, value in changes.items():
        group, _, field = name.rpartition("__")
        (out[group] if group else out)[field] = value
    return out


def train(path, variant="", **changes):
    settings = config(variant, **changes)
    return loop.run(toy.make(settings), settings, path)


def interrupt(monkeypatch, at):
    """Sends SIGTERM as the batches of (phase, step) are asked for."""
    make = toy.make

    def make_interrupted(config):
        experiment = make(config)

        def batches(phase, start, num):
            if (phase, start) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return experiment.batches(phase, start, num)

        return experiment._replace(batches=batches)

    monkeypatch.setattr(toy, "make", make_interrupted)


def restored(path, variant="", **changes):
    """State on the mesh, and note, of the newest checkpoint."""
    settings = config(variant, **changes)
    return loop.load(toy.make(settings), settings, path)


def state(path, variant="", **changes):
    out, note = restored(path, variant, **changes)
    return jax.tree.map(np.asarray, out), note


def rows(path):
    """Rows of metrics.jsonl without the one field that a clock decides."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics.read_rows(path)]


def assert_same_run(path, other, variant=""):
    """The two directories hold the same training, bit for bit."""
    (left, note), (right, other_note) = state(path, variant), state(other, variant)
    assert (note["phase"], note["step"]) == (other_note["phase"], other_note["step"])
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert rows(path) == rows(other)


def arrays(path, phase="main"):
    with np.load(path / "arrays" / f"{phase}.npz") as stored:
        return dict(stored)


def zeros(shapes, num=130):
    """A field of zeros; `shapes` are its domain, channels, likelihood and levels."""
    domain, channels, kind, levels = shapes
    values = np.zeros((num, *domain.shape, channels), np.uint8 if levels else np.float32)
    parts = {"train": values, "valid": values[:2], "test": values[:4]}
    return fields.make("zeros", Items(domain, parts, kind, levels, "zeros"))


def shapes_after(experiment):
    """Passes the shapes of a state through a step of every phase; returns those of parameters."""
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: experiment.init(key))
    data = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), experiment.data)
    for index, phase in enumerate(experiment.phases):
        state = jax.eval_shape(phase.init, key, params)
        batch = jax.tree.map(lambda a: a[0, 0], experiment.batches(index, phase.num_steps - 1, 1))
        new, found = jax.eval_shape(phase.step, key, 0, state, data, batch)
        assert jax.tree.map(lambda a: a.shape, new) == jax.tree.map(lambda a: a.shape, state)
        assert "loss" in found
        assert all(metric.shape == () for metric in found.values())
        params = new.params
    return params


def start(*arguments, command=("-m", "launch.train"), num_devices=1):
    """Starts a program in a process of its own."""
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    flags = f"{os.environ['XLA_FLAGS']} {devices}"
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        cwd=ROOT, env={**os.environ, "XLA_FLAGS": flags}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def assert_close(path, other):
    """The two directories hold the same trained parameters, to rounding."""
    left, right = arrays(path), arrays(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=2e-5, atol=1e-6, err_msg=name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
