"""The one training loop: phases, many steps to a dispatch, replicas, resume, evaluation.

Everything that decides a number is a function of the config: batches and keys depend on phase and
step only, and the state holds nothing random. A run cut off at any moment and started again goes on
from its newest checkpoint and ends in the same parameters, bit for bit.
"""

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from launch import report, sharding, steps
from launch.checkpoints import Checkpoints
from launch.experiment import Experiment, TrainState, stream
from launch.metrics import Progress, Recorder, read_rows, say, truncate_rows
from launch.workdir import (
    Refused,
    check_config,
    finished_result,
    normalise,
    open_workdir,
    read_json,
    remember,
    write_atomic,
    write_json,
)


class NonFiniteLoss(ArithmeticError):
    """A loss, or an alarm of the experiment, is NaN or infinite; the message says where."""


class Stopped(Exception):
    """Training was asked to stop by a signal; what was done is saved."""

    def __init__(self, signum: int, message: str):
        """Keeps the number of the signal."""
        super().__init__(message)
        self.signum = signum


def run(experiment: Experiment, config, workdir: str | Path) -> dict:
    """Trains an experiment in a working directory, or goes on where it was cut off.

    Args:
      experiment: data, phases and scores.
      config: has `seed`, `loop` (steps_per_dispatch, log_every, checkpoint_every, keep) and `mesh`
        (replica, data, model); all of it is stored in config.json and must be the same when the
        run is started again (`workdir.FREE_FIELDS` excepted).
      workdir: the working directory, shared by all processes.

    Returns:
      What result.json holds. A finished run returns at once.
    """
    config = ml_collections.ConfigDict(config)
    directory = open_workdir(workdir)
    check_config(directory, config.to_dict())
    result = finished_result(directory)
    if result is not None:
        say(f"{directory}: this run is finished; its scores are in result.json")
        return result
    _check(experiment, config)
    mesh = sharding.make_mesh(config.mesh, len(experiment.replica_seeds))
    is_writer = jax.process_index() == 0
    tell = say if is_writer else lambda message: None
    if is_writer:
        remember(directory, config.to_dict(), experiment.meta)
    data = sharding.put(experiment.data, sharding.replica_sharding(mesh))
    names = [phase.name for phase in experiment.phases]
    lengths = [phase.num_steps for phase in experiment.phases]

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(directory / "checkpoints", keep=config.loop.keep)
        )
        signals = stack.enter_context(_Signals())
        restored = checkpoints.restore(
            lambda note: steps.state_like(experiment, mesh, note["phase"])
        )
        if restored is None:
            first_phase, step, seconds, window = 0, 0, {}, None
            state = steps.init_state(experiment, config.seed, mesh, 0, None)
        else:
            state, note = restored
            first_phase, step = names.index(note["phase"]), note["step"]
            seconds, window = note["seconds"], note["window"]
            tell(f"{directory}: going on from phase {note['phase']!r}, step {step}")
        if is_writer:
            truncate_rows(directory, names, first_phase, step if restored else -1)
        recorder = stack.enter_context(
            Recorder(
                directory,
                log_every=config.loop.log_every,
                offset=sum(lengths[:first_phase]) + step,
                window=window,
                is_writer=is_writer,
            )
        )

        for index in range(first_phase, len(names)):
            phase = experiment.phases[index]
            offset = sum(lengths[:index])
            clock = seconds.setdefault(phase.name, {"compile": 0.0, "train": 0.0})
            if index > first_phase:
                step = 0
                state = steps.init_state(experiment, config.seed, mesh, index, state.params)
            if step < phase.num_steps:
                size = steps.dispatch_size(phase.num_steps, config.loop.steps_per_dispatch)
                batch = steps.next_batch(experiment, mesh, index, step, size)
                began = time.monotonic()
                dispatch = steps.compile_steps(
                    experiment, mesh, phase, size, config.seed, state, data, batch
                )
                clock["compile"] += time.monotonic() - began
                tell(f"{phase.name}: compiled in {time.monotonic() - began:.1f} s")
                progress = Progress(phase.name, step, phase.num_steps, is_shown=is_writer)
                stack.callback(progress.close)
                (directory / "evaluations" / f"{phase.name}.json").unlink(missing_ok=True)

            while step < phase.num_steps:
                began = time.monotonic()
                num = min(size, phase.num_steps - step)
                state, metrics = dispatch(state, data, batch, np.int32(step))
                if step + num < phase.num_steps:  # prepared while the device works
                    batch = steps.next_batch(experiment, mesh, index, step + num, size)
                metrics = {name: np.asarray(v)[:num] for name, v in metrics.items()}  # [num, R]
                clock["train"] += time.monotonic() - began
                _check_finite(experiment, phase, step, metrics, checkpoints)
                is_last = step + num == phase.num_steps
                total = sum(c["train"] for c in seconds.values())
                recorder.add(
                    phase.name, step, metrics, seconds=total, offset=offset, is_last=is_last
                )
                progress.update(num, float(metrics["loss"][-1].mean()))
                step += num
                is_stopping = sharding.any_process(signals.received is not None)
                every = config.loop.checkpoint_every
                if is_last or is_stopping or step // every > (step - num) // every:
                    note = {"phase": phase.name, "step": step, "seconds": seconds}
                    checkpoints.save(offset + step, state, note | {"window": recorder.pending})
                if is_last:
                    progress.close()
                if is_stopping and not (is_last and index + 1 == len(names)):
                    checkpoints.wait()
                    raise Stopped(
                        signals.received or signal.SIGTERM,
                        f"stopped by a signal at phase {phase.name!r}, step {step} of "
                        f"{phase.num_steps}; saved in {directory}, and the same command goes on",
                    )

            checkpoints.wait()
            signals.raise_at_once = jax.process_count() == 1  # nothing is lost from here on
            _evaluate(experiment, config, mesh, directory, index, state.params, data)
            signals.raise_at_once = False

        result = _result(experiment, config, directory, seconds)
        if is_writer:
            _draw(experiment, directory)
            write_json(directory / "result.json", result)
    return normalise(result)


def load(experiment: Experiment, config, workdir: str | Path) -> tuple[TrainState, dict]:
    """Reads the newest checkpoint of a working directory; refuses one trained on other data.

    Args:
      experiment: the experiment that was trained.
      config: its config.
      workdir: the working directory.

    Returns:
      The state, leaves [R, ...], and a note with "phase" and "step".
    """
    config = ml_collections.ConfigDict(config)
    directory = Path(workdir).expanduser().resolve()
    if not (directory / "checkpoints").is_dir():
        raise Refused(f"{workdir} holds no checkpoints; give the --workdir of a run")
    if read_json(directory / "meta.json") != normalise(experiment.meta):
        raise Refused(
            f"{workdir} was trained on other data or splits than config.json gives here; restore "
            f"the data that its meta.json describes"
        )
    mesh = sharding.make_mesh(config.mesh, len(experiment.replica_seeds))
    with Checkpoints(directory / "checkpoints", keep=config.loop.keep) as checkpoints:
        restored = checkpoints.restore(
            lambda note: steps.state_like(experiment, mesh, note["phase"])
        )
    if restored is None:
        raise Refused(f"{workdir} holds no finished checkpoint; train it further first")
    return restored


def _check(experiment, config):
    """Refuses what would fail later, or run and mean nothing."""
    for name in ("steps_per_dispatch", "log_every", "checkpoint_every", "keep"):
        if config.loop[name] < 1:
            raise Refused(f"config.loop.{name}={config.loop[name]}: expected 1 or more")
    if not 0 <= config.seed < 2**32:
        raise Refused(f"config.seed={config.seed}: expected a number from 0 to 2**32 - 1")
    names = [phase.name for phase in experiment.phases]
    if not names or len(set(names)) < len(names):
        raise Refused(f"phases {names}: expected one or more, with different names")
    for phase in experiment.phases:
        if phase.num_steps < 1:
            raise Refused(
                f"phase {phase.name!r}: {phase.num_steps} steps; expected 1 or more, or the phase "
                f"left out"
            )
    num = len(experiment.replica_seeds)
    if not num or len(set(experiment.replica_seeds)) < num:
        raise Refused(f"replica_seeds={experiment.replica_seeds}: expected different numbers")
    for path, leaf in jax.tree_util.tree_leaves_with_path(experiment.data):
        if np.shape(leaf)[:1] != (num,):
            raise Refused(
                f"data leaf {jax.tree_util.keystr(path)} of shape {np.shape(leaf)}: expected a "
                f"leading axis of {num} replicas"
            )


def _check_finite(experiment, phase, step, metrics, checkpoints):
    """Stops at the first loss that is not finite, and at the first alarm."""
    found = [
        (*np.argwhere(~np.isfinite(values))[0], name)
        for name, values in metrics.items()
        if name.split("_")[-1] in ("loss", "alarm") and not np.isfinite(values).all()
    ]
    if not found:
        return
    at, replica, name = min(found)
    checkpoints.wait()
    last = checkpoints.latest
    raise NonFiniteLoss(
        f"phase {phase.name!r}, step {step + at}: {name} of replica {replica} (seed "
        f"{experiment.replica_seeds[replica]}) is {metrics[name][at, replica]}; "
        + (f"the last good checkpoint is {last}" if last else "there is no checkpoint before it")
        + "; lower the learning rate or look at the data, and train in another --workdir"
    )


def _evaluate(experiment, config, mesh, directory, index, params, data):
    """Scores the parameters at the end of a phase, unless a run before has done so."""
    phase = experiment.phases[index]
    file = directory / "evaluations" / f"{phase.name}.json"
    if sharding.any_process(file.exists()):
        return
    is_last = index + 1 == len(experiment.phases)
    began = time.monotonic()
    key = stream(jax.random.key(config.seed), f"{phase.name}/evaluate", 0)
    if jax.process_count() > 1:  # every process scores all replicas on its own devices
        params, data = sharding.local_copy(params, mesh), experiment.data
    metrics, arrays = experiment.evaluate(key, params, data, phase.name, is_last)
    if jax.process_index() == 0:
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        write_atomic(
            directory / "arrays" / f"{phase.name}.npz", lambda stream: np.savez(stream, **arrays)
        )
        summary = report.summarise(metrics)
        write_json(file, {"metrics": summary, "seconds": time.monotonic() - began})


def _result(experiment, config, directory, seconds) -> dict[str, Any]:
    """Collects what the run leaves behind."""
    phases = {}
    for phase in experiment.phases:
        file = directory / "evaluations" / f"{phase.name}.json"
        scores = read_json(file) if file.exists() else {"metrics": {}, "seconds": 0.0}
        clock = seconds.get(phase.name, {}) | {"evaluate": scores["seconds"]}
        phases[phase.name] = {"metrics": scores["metrics"], "seconds": clock}
    return {
        "metrics": phases[experiment.phases[-1].name]["metrics"],
        "phases": phases,
        "seconds": sum(sum(p["seconds"].values()) for p in phases.values()),
        **report.environment(),
        "replica_seeds": experiment.replica_seeds,
        "meta": experiment.meta,
        "config": config.to_dict(),
    }


def _draw(experiment, directory):
    """Draws the figures from what is on disk."""
    with np.load(directory / "arrays" / f"{experiment.phases[-1].name}.npz") as stored:
        arrays = dict(stored)
    (directory / "figures").mkdir(exist_ok=True)
    experiment.figures(arrays, read_rows(directory), directory / "figures")


class _Signals:
    """Notes SIGTERM and Ctrl-C for the loop to act on; a second one acts at once."""

    def __init__(self):
        self.received: int | None = None
        self.raise_at_once = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.raise_at_once or self.received is not None:
            raise Stopped(
                number, "stopped by a signal; the same command goes on from what is saved"
            )
        self.received = number
        say("stopping at the end of this dispatch; a second signal stops at once")
