"""Episodes of acquisition on the test rows of trained runs, and the curves that they make."""

import functools
import time
from typing import NamedTuple

import jax
import numpy as np

from hmcvae import acquire, columns
from hmcvae.compiling import RUN_BRIEFLY
from hmcvae.predict import TestRows
from hmcvae.rewards import Settings
from launch import trained
from launch.metrics import say
from launch.trained import Trained
from launch.workdir import Refused


class Method(NamedTuple):
    """The curves of one run and reward."""

    label: str
    curves: dict[str, np.ndarray]  # by name [R, T + 1]; also "features" and "spent", means of rows
    measured: np.ndarray  # [T + 1, D] share of all rows in which a feature is known
    compile_seconds: float
    seconds: float  # a step, all rows of a split


def load(paths: list[str], data_dir: str | None = None) -> dict[str, list[Trained]]:
    """Restores runs of one table, trained on the same splits.

    Args:
      paths: working directories of launch.train.
      data_dir: folder of the tables on this machine; None is the one of each run.

    Returns:
      The splits of each run by the name of its model, with the directory where two share one.

    Raises:
      Refused, ValueError, FileNotFoundError: one is no trained run of a table with a target, its
        data is not here, or two are of different tables or splits.
    """
    runs = [trained.load_splits(path, data_dir) for path in paths]
    fingerprints = [[split.fold.fingerprint for split in run] for run in runs]
    for path, run, found in zip(paths, runs, fingerprints, strict=True):
        if not run[0].table.target.num_columns:
            raise Refused(f"{path} has no target to predict; train it with one")
        if found != fingerprints[0]:
            raise Refused(
                f"{path} and {paths[0]} were trained on other tables or splits; give runs of one "
                f"table and the same splits"
            )
    names = trained.labels([run[0].name for run in runs], paths)
    return dict(zip(names, runs, strict=True))


def measure(
    splits: list[Trained],
    label: str,
    settings: Settings,
    *,
    costs: np.ndarray,
    limits: dict[str, float],
    num_rows: int,
    num_steps: int,
    seed: int,
) -> Method:
    """Runs the episodes of all splits of a run by one reward.

    Args:
      splits: of the run.
      label: what to call the method.
      settings: the reward and its options.
      costs: [D] of the features.
      limits: when a row stops: budget, min_gain and max_spread of `acquire.episode`.
      num_rows: test rows of every split.
      num_steps: T.
      seed: of rows and samples; the same rows for every method.

    Returns:
      Method.
    """
    first = splits[0]  # all but the parameters and the rows is common to them

    def episode(key, params, scaler_y, rows, weight, costs, order):
        return acquire.episode(
            key, first.model, params, scaler_y, rows, settings=settings, schedule=first.schedule,
            num_steps=num_steps, costs=costs, order=order, pos_weight_y=weight, **limits,
        )  # fmt: skip

    program, compile_seconds = None, 0.0
    found, seconds, measured = [], [], []
    for split in splits:
        at = choose_rows(split, num_rows, seed)
        key, weight = jax.random.fold_in(jax.random.key(seed), split.number), split.pos_weight_y
        order = (
            first_order(key, split, settings, costs) if settings.reward == "fixed_order" else None
        )
        inputs = (key, split.params, split.scaler_y, blank_rows(split, at), weight, costs, order)
        if program is None:
            began = time.monotonic()
            program = jax.jit(episode).lower(*inputs).compile(RUN_BRIEFLY)
            compile_seconds = time.monotonic() - began
            say(f"{label}: compiled in {compile_seconds:.1f} s")
        began = time.monotonic()
        out = jax.device_get(program(*inputs))
        seconds.append((time.monotonic() - began) / (num_steps + 1))
        found.append(summarise(out, split.table, at))
        measured.append(when_measured(out.chosen, split.table.schema.num_columns))
        say(
            f"{label}: split {split.number}, {num_rows} rows, {num_steps} steps of "
            f"{seconds[-1]:.2f} s, mean error {areas(found[-1]['error'][None])[0]:.4g}"
        )
    curves = {name: np.stack([curve[name] for curve in found]) for name in found[0]}
    return Method(label, curves, np.mean(measured, axis=0), compile_seconds, np.mean(seconds))


def count_rows(splits: list[Trained], limit: int) -> int:
    """Returns how many test rows of each split are used: as many as all have, at most `limit`."""
    most = min(len(_scorable(split)) for split in splits)
    return min(most, limit) if limit else most


def choose_rows(split: Trained, num: int, seed: int) -> np.ndarray:
    """Draws test rows of a split whose targets are known, [num] ascending."""
    rng = np.random.default_rng([seed, split.number])
    return np.sort(rng.choice(_scorable(split), num, replace=False))


def _scorable(split):
    test = split.fold.test
    return test[split.table.y_mask[test].all(axis=1)]


def blank_rows(split: Trained, at: np.ndarray) -> TestRows:
    """Returns rows of a table of which nothing is shown."""
    table, known = split.table, split.table.mask[at]
    x = split.standardise(table.x[at], known)
    y = columns.transform(table.target, split.scaler_y, table.y[at], table.y_mask[at])
    return TestRows(x, np.zeros_like(known), known, y.astype(np.float32), table.y_mask[at])


def first_order(key, split: Trained, settings: Settings, costs) -> np.ndarray:
    """Ranks the features by their information on the target when nothing is known, [D]."""
    blank = np.zeros((1, split.model.schema.num_columns), np.float32)
    many = 10 * settings.num_samples  # for once, and for all rows
    settings = settings._replace(reward="mutual_information", num_samples=many)

    @functools.partial(jax.jit, compiler_options=RUN_BRIEFLY)
    def estimate(key, params):
        return acquire.expected_gains(
            key, split.model, params, blank, blank > 0, settings=settings, schedule=split.schedule,
            costs=costs, pos_weight_y=split.pos_weight_y,
        )  # fmt: skip

    return np.argsort(np.argsort(-np.asarray(estimate(key, split.params).rate[0]), kind="stable"))


def summarise(episode, table, at: np.ndarray) -> dict[str, np.ndarray]:
    """Reduces an episode to its curves.

    Args:
      episode: of n rows, as NumPy arrays.
      table: the table.
      at: [n] its rows.

    Returns:
      By name, [T + 1], means over rows: "error" (RMSE over rows and targets in raw units, or the
      error rate of a discrete target), "nll_y", "paper_nll_y", "features" and "spent" so far.
    """
    y, kinds = table.y[at], set(table.target.kinds)
    if kinds <= {"gaussian", "loggaussian"}:
        error = np.sqrt(np.mean((episode.y_mean - y) ** 2, axis=(1, 2)))
    elif len(table.target.kinds) > 1:
        raise ValueError(
            f"table {table.name!r}: several targets of kinds {sorted(kinds)}; expected one "
            f"discrete target or any number of real ones"
        )
    else:
        probs = episode.y_probs[:, :, 0]
        label = probs[..., 0] > 0.5 if kinds == {"bernoulli"} else probs.argmax(axis=-1)
        error = np.mean(label != y[:, 0], axis=1)
    features = np.cumsum(np.mean(episode.chosen >= 0, axis=1))
    return {
        "error": error,
        "nll_y": -episode.joint_y.mean(axis=1),
        "paper_nll_y": -episode.paper_y.mean(axis=1),
        "features": np.concatenate([[0.0], features]),
        "spent": episode.spent.mean(axis=1),
    }


def when_measured(chosen: np.ndarray, num_columns: int) -> np.ndarray:
    """Returns the share of rows in which a feature is known after each step, [T + 1, D]."""
    is_new = np.mean(chosen[..., None] == np.arange(num_columns), axis=1)
    return np.concatenate([np.zeros((1, num_columns)), np.cumsum(is_new, axis=0)])


def areas(curves: np.ndarray) -> np.ndarray:
    """Returns the mean heights [R] of curves [R, T + 1] by the trapezoidal rule."""
    return np.trapezoid(curves, axis=1) / (curves.shape[1] - 1)
