"""One loop: exact resume, replicas, recompilation, refusals."""

import json
import logging
import random
import signal
import time

import chex
import jax
import numpy as np
import optax
import pytest

from launch import loop
from launch.experiment import gradient_phase, stream
from launch.workdir import Refused
from tests.launch import runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Uninterrupted runs of one and of three replicas."""
    paths = {variant: tmp_path_factory.mktemp(f"run{variant}") for variant in ("", "three")}
    for variant, path in paths.items():
        runs.train(path, variant)
    return paths


def test_result_and_files(finished):
    path = finished["three"]
    result = json.loads((path / "result.json").read_text())
    scores = result["metrics"]["mse"]
    assert np.shape(scores["replicas"]) == (3,)
    np.testing.assert_allclose(scores["mean"], np.mean(scores["replicas"]))
    np.testing.assert_allclose(scores["std"], np.std(scores["replicas"]))
    assert set(result["phases"]["main"]["seconds"]) == {"compile", "train", "evaluate"}
    assert {"device", "versions", "commit", "config", "meta"} <= set(result)
    assert sorted(p.name for p in (path / "arrays").iterdir()) == ["main.npz", "warm.npz"]
    assert "7 rows" in (path / "figures" / "curve.txt").read_text()
    assert [(r["phase"], r["step"]) for r in runs.rows(path)] == [
        *(("warm", s) for s in (2, 4, 6)),
        *(("main", s) for s in (2, 4, 6, 7)),
    ]
    assert list((path / "tensorboard").iterdir())


@pytest.mark.parametrize("variant", ["", "three"])
@pytest.mark.parametrize("at", [(0, 3), (1, 6)])
def test_stopped_and_resumed_is_bitwise_equal(finished, tmp_path, monkeypatch, variant, at):
    with monkeypatch.context() as patch:
        runs.interrupt(patch, at)
        with pytest.raises(loop.Stopped, match="the same command goes on"):
            runs.train(tmp_path, variant)
    assert not (tmp_path / "result.json").exists()
    assert runs.state(tmp_path, variant)[1]["step"] == at[1]
    runs.train(tmp_path, variant)
    runs.assert_same_run(finished[variant], tmp_path, variant)


def test_finished_run_does_nothing(finished, monkeypatch):
    monkeypatch.setattr(loop.steps, "compile_steps", None)
    assert runs.train(finished[""])["metrics"]["mse"]["replicas"]


def test_killed_at_a_random_moment_is_bitwise_equal(finished, tmp_path):
    command = (runs.CONFIG, f"--workdir={tmp_path}", "--config.sleep=0.3")
    process = runs.start(*command)
    deadline = time.monotonic() + 60
    while not (tmp_path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)
    runs.train(tmp_path, sleep=0.3)
    runs.assert_same_run(finished[""], tmp_path)


KILLED_IN_SAVE = """
import os, signal, sys
rename, seen = os.rename, []
def die(source, target, **kwargs):
    if str(target).endswith("/9"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target, **kwargs)
os.rename = os.replace = die
from launch import train
sys.exit(train.main(sys.argv))
"""


def test_killed_while_saving_leaves_the_old_checkpoint(finished, tmp_path):
    process = runs.start(runs.CONFIG, f"--workdir={tmp_path}", command=("-c", KILLED_IN_SAVE))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    numbers = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert "6" in numbers
    assert "9" not in numbers
    assert any(name.startswith("9.") for name in numbers)
    runs.train(tmp_path)
    runs.assert_same_run(finished[""], tmp_path)


def test_replica_alone_equals_replica_among_three(finished, tmp_path):
    runs.train(tmp_path, first_seed=1)
    alone, among = runs.arrays(tmp_path), runs.arrays(finished["three"])
    for name, value in alone.items():
        np.testing.assert_allclose(value[0], among[name][1], rtol=2e-5, atol=1e-6)
    assert not np.allclose(among["bias"][0], among["bias"][1])


def test_dispatch_size_does_not_matter(finished, tmp_path):
    runs.train(tmp_path, loop__steps_per_dispatch=5)  # 6 = 3 + 3, 7 = 4 + 3 and one masked step
    same, other = runs.arrays(finished[""]), runs.arrays(tmp_path)
    for name, value in same.items():
        np.testing.assert_allclose(value, other[name], rtol=2e-5, atol=1e-6)


def test_each_phase_compiles_once(tmp_path, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        runs.train(tmp_path, loop__steps_per_dispatch=2)
    compiled = [r for r in caplog.messages if r.startswith("Compiling") and "train_steps" in r]
    assert len(compiled) == 2


def test_nonfinite_loss_stops(tmp_path):
    with pytest.raises(loop.NonFiniteLoss, match=r"'main', step 4: loss of replica 0 \(seed 0\)"):
        runs.train(tmp_path, nan_step=4, warm_steps=3)
    with pytest.raises(loop.NonFiniteLoss, match=r"last good checkpoint is .*/checkpoints/6"):
        runs.train(tmp_path, nan_step=4, warm_steps=3)


def test_other_config_is_refused(finished):
    with pytest.raises(Refused, match=r"belongs to .* another config \(seed: 7 there, 8 now\)"):
        runs.train(finished[""], seed=8)
    runs.train(finished[""], loop__log_every=5, mesh__replica=1)


def test_other_data_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        runs.interrupt(patch, (1, 3))
        with pytest.raises(loop.Stopped):
            runs.train(tmp_path)
    monkeypatch.setenv("TOY_DATA", "changed")
    with pytest.raises(Refused, match=r"not what this run began with \(meta.json differs in data"):
        runs.train(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"warm_steps": 0}, "phase 'warm': 0 steps; expected 1 or more"),
        ({"loop__keep": 0}, "config.loop.keep=0: expected 1 or more"),
        ({"seed": -1}, "config.seed=-1: expected a number from 0"),
        ({"mesh__replica": 2}, "1 replicas do not divide into 2"),
        ({"mesh__data": 3}, "needs 3 devices and 1 can be used"),
        ({"mesh__model": 0}, "expected sizes of 1 or more"),
    ],
)
def test_impossible_config_is_refused(tmp_path, changes, sentence):
    with pytest.raises(Refused, match=sentence):
        runs.train(tmp_path, **changes)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_streams_differ_by_name_and_step(key):
    draws = {jax.random.bits(stream(key, name, step)).item() for name in "ab" for step in range(3)}
    assert len(draws) == 6
    chex.assert_trees_all_equal(stream(key, "a", 1), jax.jit(stream, static_argnums=1)(key, "a", 1))


def test_gradient_phase_descends(key):
    phase = gradient_phase(
        "fit", 1, lambda key, step, p, data, batch: ((p - 3.0) ** 2, {}), optax.sgd(0.25)
    )
    state, metrics = phase.step(key, 0, phase.init(key, 1.0), None, None)
    np.testing.assert_allclose(state.params, 2.0)
    np.testing.assert_allclose(metrics["loss"], 4.0)
