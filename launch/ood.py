"""Tells rows of a model's own table from rows of another: out-of-distribution scores.

  python -m launch.ood --workdir=runs/mnist --other=fashion_mnist [--num=200]

The score of a row is log 1/S sum_s prod_{d in O} p(v_d | eps_s) with eps_s from the posterior given
the row's observed entries O: half of them at random (--observed), the target never (Peis et al.
2022). v is what the model explains: the row, or its marginal latents where config.model.end_to_end
is off, as published. It is no evidence log p(x_O): the samples have seen what they score. Average
precision takes the model's own test rows for positives.

--other is a set of images, one of the ten tables, a CSV or Parquet file, or another run:
  the same columns are read by the model's own codes and scales, as new rows would be;
  of other columns, the first D, each standardised by itself; of equal kinds only;
  of a run, where the model explains marginal latents and the run has them, test rows: their first
  D columns as that run's own marginal VAEs encode them, the published protocol for tables.

Writes scores.json, scores.npz and figure.png to ood/<other> in the run, which is not touched
otherwise. Exit codes: 0 done; 2 refused; 130 stopped.
"""

import argparse
import difflib
import functools
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from hmcvae import columns, predict
from hmcvae.compiling import RUN_BRIEFLY
from hmcvae.grouping import REAL
from hmcvae.model import Rows
from hmcvae.posterior import sample_eps
from launch import figures, trained, workdir
from launch.data import image_tables, tables
from launch.data.frames import Table
from launch.metrics import say
from launch.trained import Trained
from launch.workdir import Refused

CHAINS = 2000  # posterior samples at a time, of all rows together


class Seen(NamedTuple):
    """Rows as a model reads them."""

    x: np.ndarray  # [n, D] standardised values and codes
    mask: np.ndarray  # [n, D] True = observed
    z: np.ndarray | None  # [n, D] marginal latents; None in plain models


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(compare(flags))
    except (Refused, ValueError, OSError) as refusal:
        if flags.debug:
            raise
        print(f"launch.ood: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def compare(flags) -> str:
    """Scores rows of both tables, writes what it found, and returns the report."""
    for name in ("num", "num_samples"):
        if getattr(flags, name) < 1:
            raise Refused(f"--{name}={getattr(flags, name)}: expected 1 or more")
    if not 0 < flags.observed <= 1:
        raise Refused(f"--observed={flags.observed}: expected a share above 0, up to 1")
    run = trained.load(flags.workdir, flags.data_dir)
    other = read_other(flags.other, flags.data_dir)
    keys = jax.random.split(jax.random.key(flags.seed), 4)
    rng = np.random.default_rng(flags.seed)
    foreign_rows = other.fold.test if isinstance(other, Trained) else np.arange(len(other.x))
    num = min(flags.num, len(run.fold.test), len(foreign_rows))
    pick = lambda rows: np.sort(rng.choice(rows, num, replace=False))
    sides = {
        "own": own_rows(keys[0], run, pick(run.fold.test)),
        "other": other_rows(keys[1], run, other, pick(foreign_rows)),
    }
    scores = {}
    for key, (side, seen) in zip(keys[2:], sides.items(), strict=True):
        began = time.monotonic()
        shown = seen.mask & (rng.random(seen.mask.shape) < flags.observed)
        rows = Rows(seen.x, shown, seen.z, None, None)
        scores[side] = np.asarray(
            log_scores(
                key, run.model, run.params, rows,
                num_samples=flags.num_samples, schedule=run.schedule,
            )
        )  # fmt: skip
        say(f"{num} {side} rows: {time.monotonic() - began:.0f} s")
    values = np.concatenate([scores["own"], scores["other"]])
    is_own = np.repeat([True, False], num)
    name = other.table.name if isinstance(other, Trained) else other.name
    result = {
        "model": run.name,
        "table": run.table.name,
        "other": name,
        **{flag: getattr(flags, flag) for flag in ("observed", "num_samples", "seed")},
        "num": num,
        "average_precision": average_precision_score(is_own, values),
        "auroc": roc_auc_score(is_own, values),
        "median_own": np.median(scores["own"]),
        "median_other": np.median(scores["other"]),
    }
    arrays = scores | {"names": np.array([run.table.name, name]), "auroc": result["auroc"]}
    folder = Path(flags.output or Path(flags.workdir) / "ood" / name).expanduser()
    workdir.write_json(folder / "scores.json", result)
    workdir.write_atomic(folder / "scores.npz", lambda file: np.savez(file, **arrays))
    figures.score_histograms(arrays, folder / "figure.png")
    return (
        f"{run.name}: {num} test rows of {run.table.name} against {num} of {name}\n"
        f"  average precision {result['average_precision']:.4f}, AUROC {result['auroc']:.4f}\n"
        f"{folder}: scores.json, scores.npz, figure.png"
    )


@functools.partial(
    jax.jit, static_argnames=("model", "num_samples", "schedule"), compiler_options=RUN_BRIEFLY
)
def log_scores(key, model, params, rows: Rows, *, num_samples: int, schedule) -> jax.Array:
    """Scores what is observed of every row under the posterior given it.

    Args:
      key: PRNG key.
      model: the module.
      params: trained parameters.
      rows: [n, ...] without targets.
      num_samples: S.
      schedule: leapfrog steps of a transition, number of importance samples.

    Returns:
      log 1/S sum_s prod_{d in O} p(v_d | eps_s), [n] nats of standardised units.
    """

    def one(args):
        key, row = args

        def sample(key):
            eps, _, _ = sample_eps(key, model, params, row, schedule=schedule)
            return model.apply({"params": params}, eps, row, method="log_joint").x

        return predict.log_mean_exp(jax.vmap(sample)(jax.random.split(key, num_samples)))

    keys = jax.random.split(key, len(rows.mask))
    return jax.lax.map(one, (keys, rows), batch_size=max(1, CHAINS // num_samples))


def read_other(word: str, data_dir: str | None) -> Trained | Table:
    """Reads what --other names: a run, a file, a set of images or one of the ten tables."""
    path = Path(word).expanduser()
    if path.is_dir():
        return trained.load(path, data_dir)
    if path.suffix in (".csv", ".gz", ".parquet", ".pq"):
        return tables.read_csv(path)
    if word in image_tables.SHAPES:
        return image_tables.load(word, data_dir)
    known = (*image_tables.SHAPES, *tables.NAMES)
    if word not in known:
        close = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"
        raise Refused(f"--other={word}: neither a run, a file nor a table; {hint}")
    return tables.load(word, data_dir)


def own_rows(key, run: Trained, rows: np.ndarray) -> Seen:
    """Reads rows [n] of a run's own table."""
    x, mask = run.table.x[rows], run.table.mask[rows]
    return _encode(key, run, run.standardise(x, mask), mask)


def other_rows(key, run: Trained, other: Trained | Table, rows: np.ndarray) -> Seen:
    """Reads rows [n] of another table, by the rules in the docstring of the module.

    Raises:
      ValueError: the other table has too few columns, or they are of other kinds.
    """
    num = run.model.schema.num_columns
    table = other.table if isinstance(other, Trained) else other
    x, mask = table.x[rows], table.mask[rows]
    names = table.schema.names
    _check_shapes(run.table.name, table.name)
    if set(run.model.schema.names) <= set(names):
        at = [names.index(name) for name in run.model.schema.names]
        pairs = zip(run.model.schema.columns, at, strict=True)
        recoded = [_recode(column, table, x[:, j], mask[:, j], j) for column, j in pairs]
        x, mask = np.stack(recoded, axis=-1), mask[:, at]
        return _encode(key, run, run.standardise(x, mask), mask)
    if table.schema.num_columns < num:
        raise ValueError(
            f"table {table.name!r} has {table.schema.num_columns} columns and {run.table.name!r} "
            f"{num}; give one with as many or more"
        )
    # nothing reads x where z is explained; where x is, latents of other columns say nothing of it
    explains_z = run.model.marginals and not run.model.end_to_end
    if isinstance(other, Trained) and explains_z and other.model.marginals:
        z = _encode(key, other, other.standardise(x, mask), mask).z[:, :num]
        return Seen(np.zeros(z.shape, np.float32), mask[:, :num], z)
    for ours, theirs in zip(run.model.schema.columns, table.schema.columns[:num], strict=True):
        kinds = {"real" if column.kind in REAL else column.kind for column in (ours, theirs)}
        if len(kinds) > 1 or theirs.num_classes > ours.num_classes:
            raise ValueError(
                f"column {theirs.name!r} of {table.name!r} is {theirs.kind} with "
                f"{theirs.num_classes} classes, but takes the place of {ours.name!r}, "
                f"{ours.kind} with {ours.num_classes}; give a run of {table.name!r} with marginal "
                f"VAEs to a model that explains these (config.model.end_to_end=False)"
            )
    scaler = columns.fit(table.schema, table.x, table.mask)
    x = columns.transform(table.schema, scaler, x, mask).astype(np.float32)
    return _encode(key, run, x[:, :num], mask[:, :num])


def _check_shapes(own, other):
    shapes = [image_tables.SHAPES.get(name) for name in (own, other)]
    if all(shapes) and shapes[0] != shapes[1]:
        raise ValueError(
            f"images {other!r} are {shapes[1]} pixels and colours, those of {own!r} {shapes[0]}; "
            f"give images of one shape"
        )


def _recode(column, table, codes, mask, j):
    """Turns the codes of another table's column into ours, by their labels."""
    theirs = table.schema.columns[j]
    if theirs.categories == column.categories:
        return codes.astype(np.float64)
    return columns.encode(column, columns.decode(theirs, codes), mask)


def _encode(key, run, x, mask):
    """Draws the marginal latents of standardised rows; plain models have none."""
    z = run.model.apply({"params": run.params}, key, x, mask, method="extract")
    return Seen(x, mask, None if z is None else np.asarray(z))


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.ood",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run of launch.train on a table or on images; its first "
        "split")  # fmt: skip
    add("--other", required=True, help="table, file or run to compare with, as above")
    add("--num", type=int, default=500, help="rows of either, drawn at random (500)")
    add("--num_samples", type=int, default=100, help="posterior samples of each (100)")
    add("--observed", type=float, default=0.5, help="share of the entries that is shown (0.5)")
    add("--seed", type=int, default=0, help="of rows, masks and samples (0)")
    add("--output", help="another folder for the files")
    add("--data_dir", help="folder of the tables on this machine")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
