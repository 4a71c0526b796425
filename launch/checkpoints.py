"""Checkpoints of a run: atomic, numbered, the last few kept, verified when read.

A checkpoint is a training state and a note, a JSON object that says where training stood. Orbax
writes it under a temporary name and renames it, so a killed process leaves the older ones whole. It
does not notice a flipped byte, so the note carries a checksum of every array.
"""

import copy
import logging
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from launch.workdir import Refused


class Checkpoints:
    """The checkpoints of one working directory; used as a context manager."""

    def __init__(self, directory: Path, *, keep: int):
        """Opens the directory; unfinished checkpoints of a killed process are removed.

        Args:
          directory: absolute path, shared by all processes.
          keep: how many of the newest checkpoints to keep.
        """
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every file at INFO
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)

    def __enter__(self):
        """Returns itself."""
        return self

    def __exit__(self, *exception):
        """Waits until what was saved is on disk."""
        self._manager.close()

    def save(self, number: int, state: chex.ArrayTree, note: dict) -> None:
        """Starts writing a checkpoint; the state may be donated as soon as this returns."""
        if jax.default_backend() == "cpu":  # host views of CPU arrays would share their memory
            shardings = jax.tree.map(lambda a: a.sharding, state)
            state = jax.device_put(state, shardings, may_alias=False)
        note = {**copy.deepcopy(note), "checksums": _checksums(state)}
        self._manager.save(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note)
            ),
            force=True,
        )

    @property
    def latest(self) -> Path | None:
        """Folder of the newest checkpoint."""
        number = self._manager.latest_step()
        return None if number is None else self._directory / str(number)

    def wait(self) -> None:
        """Returns when every checkpoint is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Callable[[dict], chex.ArrayTree]) -> tuple[Any, dict] | None:
        """Reads the newest checkpoint that is whole.

        A damaged one is set aside with a warning and the one before it is taken.

        Args:
          like: note -> tree of `jax.ShapeDtypeStruct` with shardings, what the state must be.

        Returns:
          State and note, or None if there is no checkpoint.
        """
        numbers = sorted(self._manager.all_steps(), reverse=True)
        for number in numbers:
            try:
                note = self._manager.restore(
                    number, args=ocp.args.Composite(note=ocp.args.JsonRestore())
                )["note"]
                saved = self._manager.item_metadata(number)["state"].tree
                expected = like(note)
                _check_shapes(self._directory / str(number), saved, expected)
                state = self._manager.restore(
                    number, args=ocp.args.Composite(state=ocp.args.StandardRestore(expected))
                )["state"]
                _check_sums(state, note["checksums"])
            except Refused:
                raise
            except Exception as error:  # orbax, tensorstore and json each raise their own
                self._set_aside(number, error)
            else:
                return state, note
        if numbers:
            raise Refused(
                f"none of the checkpoints {numbers} can be read; they were moved to "
                f"{self._damaged}; give another --workdir to start from the beginning"
            )
        return None

    @property
    def _damaged(self) -> Path:
        return self._directory.with_name("checkpoints-damaged")

    def _set_aside(self, number: int, error: Exception) -> None:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warnings.warn(
            f"checkpoint {self._directory / str(number)} is damaged ({reason}); it is moved to "
            f"{self._damaged} and the one before it is used",
            RuntimeWarning,
            stacklevel=3,
        )
        ocp.multihost.sync_global_processes("before setting aside")
        if jax.process_index() == 0:
            target = self._damaged / str(number)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self._directory / str(number)).rename(target)
        ocp.multihost.sync_global_processes("after setting aside")
        self._manager.reload()


def _named_leaves(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _checksums(state) -> dict[str, int]:
    """Checksums by leaf; none where another process holds a part of the state."""
    leaves = _named_leaves(state)
    if not all(leaf.is_fully_addressable for leaf in leaves.values()):
        return {}
    return {name: zlib.crc32(np.ascontiguousarray(leaf)) for name, leaf in leaves.items()}


def _check_sums(state, expected: dict[str, int]) -> None:
    found = _checksums(state)
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    if wrong:
        raise ValueError(f"the values of {wrong[0]} are not those that were saved")


def _check_shapes(path: Path, saved, expected) -> None:
    saved, expected = _named_leaves(saved), _named_leaves(expected)
    for name in dict.fromkeys([*expected, *saved]):
        there, here = saved.get(name), expected.get(name)
        there = "absent" if there is None else f"{there.dtype}{list(there.shape)}"
        here = "absent" if here is None else f"{here.dtype}{list(here.shape)}"
        if there != here:
            raise Refused(
                f"checkpoint {path}: leaf {name} is {there} there, and the model of this config "
                f"has {here}; start with the config and the code that made it, or give another "
                f"--workdir"
            )
