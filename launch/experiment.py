"""What the loop needs to know, as values: an `Experiment` is its data, its phases and its scores.

A replica is one independent training run (a split of a table, a seed). All functions of a `Phase`
are written for one replica; the loop adds the replica axis, which leads every array of the state
and of the data. Nothing here touches a device, a file or a clock.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import optax


class TrainState(NamedTuple):
    """What training carries from step to step; nothing random is in it."""

    params: chex.ArrayTree  # any tree of arrays
    opt_state: chex.ArrayTree  # the optimiser's own tree


class Phase(NamedTuple):
    """One stage of training with one kind of step; the optimiser starts afresh in each."""

    name: str  # unique in the experiment; names files and random streams
    num_steps: int  # 1 or more
    init: Callable[[chex.PRNGKey, Any], TrainState]  # (key, params of the previous phase) -> state
    step: Callable[..., tuple[TrainState, dict]]
    # (key, step, state, data, batch) -> (state, metrics): one replica; `step` counts from 0 in the
    # phase and is the same for all replicas; metrics are scalars by name, "loss" among them. A run
    # stops where one named loss, *_loss or *_alarm is not finite.


class Experiment(NamedTuple):
    """A training run as a value: see the field comments; R is the number of replicas."""

    init: Callable[[chex.PRNGKey], Any]  # key -> params, one replica
    phases: tuple[Phase, ...]  # run in this order, each from the parameters of the one before
    data: chex.ArrayTree  # leaves [R, ...]; moved to the device once
    batches: Callable[[int, int, int], chex.ArrayTree]
    # (phase index, first step, number of steps) -> leaves [R, steps, B, ...] on the host; a pure
    # function of its arguments, so that a resumed run sees the same batches
    evaluate: Callable[..., tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]
    # (key, params [R, ...], data, phase name, is_last) -> (metrics name -> [R], arrays by name)
    figures: Callable[[dict, list[dict], Path], None]  # (last arrays, metrics rows, directory)
    replica_seeds: tuple[int, ...]  # R numbers that tell the replicas' random streams apart
    rules: tuple  # ((regex on a leaf's path, PartitionSpec without the replica axis), ...)
    meta: dict  # JSON-able facts for meta.json, such as the schema and the splits' fingerprints


def stream(root: chex.PRNGKey, name: str, step: int | jax.Array) -> chex.PRNGKey:
    """Derives the key of a named random stream at a step; names are hashed the same everywhere."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


def shuffled_rows(seed: tuple, num_rows: int, start: int, count: int) -> np.ndarray:
    """Returns places `start .. start + count` of an endless row of shuffled epochs, int32.

    A pure function of its arguments, so that a resumed run sees the same batches.
    """
    root = zlib.crc32(repr(seed).encode())
    epochs = range(start // num_rows, (start + count - 1) // num_rows + 1)
    shuffled = [np.random.default_rng((root, epoch)).permutation(num_rows) for epoch in epochs]
    offset = start - epochs[0] * num_rows
    return np.concatenate(shuffled)[offset : offset + count].astype(np.int32)


def gradient_phase(
    name: str,
    num_steps: int,
    loss: Callable[..., tuple[jax.Array, dict]],
    optimizer: optax.GradientTransformation,
    *,
    prepare: Callable[[chex.PRNGKey, Any], Any] = lambda key, params: params,
) -> Phase:
    """Makes the common phase: one loss, one optimiser.

    Args:
      name: name of the phase.
      num_steps: number of steps.
      loss: (key, step, params, data, batch) -> (scalar, metrics by name), one replica. The scalar
        is added to the metrics as "loss".
      optimizer: the optax transformation; its state is made anew when the phase begins.
      prepare: (key, params) -> params, to add or change parameters as the phase begins.

    Returns:
      The phase.
    """

    def init(key, params):
        params = prepare(key, params)
        return TrainState(params, optimizer.init(params))

    def step(key, step, state, data, batch):
        loss_and_grad = jax.value_and_grad(
            lambda params: loss(key, step, params, data, batch), has_aux=True
        )
        (value, metrics), grads = loss_and_grad(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state), {**metrics, "loss": value}

    return Phase(name, num_steps, init, step)
