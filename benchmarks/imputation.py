"""Imputers on the same hidden cells: `HHVAEImputer`, its rivals, and trained runs.

    python -m benchmarks.imputation --tables wine boston --imputer --masks mcar-30 mar-30 mnar-30
        [--splits 1] [--folds 4] [--rivals mean knn mice pmm forest] [--data=tables]
        [--runs runs/wine runs/boston] [--output=rows.jsonl]

A mask is `split` (training rows complete, half of the test cells hidden, as of launch.train) or a
mechanism and a percentage (`launch.imputation_masks`), which hides features of training and test
rows before anybody fits; no method sees the target. `--imputer` adds `HHVAEImputer` with its
default settings, told the kinds of the columns as its rivals are. `--runs` adds runs of
launch.train on the masks `split`; these saw complete rows under masks that changed at every step.

Scores are of the hidden cells of test rows, averaged over columns: RMSE of real columns, in
standard deviations of the complete training rows, and error rate of discrete ones, both of the mean
or mode of the draws (of what the method itself expects, for rivals); CRPS of real columns, Brier
score of discrete ones, coverage of 50 % and 90 % intervals. "y" is downstream: the standardised
RMSE or error rate, on completed test rows, of gradient boosting that learned the target from
completed training rows (scikit-learn's, default settings); "full y" is the same without holes.
Seconds of a core (of a clock, to train a run): to fit, to draw for the test rows, to complete
training and test rows; `HHVAEImputer` compiles within them, a run before.

Prints one table a data set and mask, mean ± standard deviation over splits, and average ranks.
With `--output`, rows that the file holds are not measured again, so that a run goes on where it was
cut off. Five rivals on the first three tables, masks `split`: 25 s on one core; `--imputer` takes a
minute a table and mask.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from hmcvae import columns, predict
from hmcvae.estimator import HHVAEImputer
from launch import imputation_masks, imputation_scores, report, rivals, trained, workdir
from launch.data import tables
from launch.data.frames import Table

BLOCK = 64  # test rows a trained model imputes at a time
POINT_DRAWS = 5  # chains that a rival's completion of training rows averages over
COLUMNS = {
    "rmse": "RMSE",
    "error_rate": "error rate",
    "crps": "CRPS",
    "brier": "Brier",
    "coverage_50": "50 %",
    "coverage_90": "90 %",
    "downstream": "y",
    "downstream_full": "full y",
    "fit_s": "fit s",
    "draw_s": "draw s",
    "complete_s": "complete s",
}


class Task(NamedTuple):
    """A split of a table, and what is shown of it."""

    table: Table
    fold: tables.Split
    masks: str  # as of --masks
    train_mask: np.ndarray  # [N, D]
    test_mask: np.ndarray  # [B, D]

    @property
    def train(self):
        """The training rows, NaN where hidden: [N, D] raw reals and codes."""
        return np.where(self.train_mask, self.table.x[self.fold.train], np.nan)

    @property
    def test(self):
        """The test rows, NaN where hidden: [B, D] raw reals and codes."""
        return np.where(self.test_mask, self.table.x[self.fold.test], np.nan)


class Answer(NamedTuple):
    """What a method makes of a task, in raw units and codes."""

    draws: np.ndarray  # [M, B, D] of the test rows
    point: np.ndarray  # [B, D] what its error is measured by
    train: np.ndarray  # [N, D] completed training rows
    test: np.ndarray  # [B, D] completed test rows
    fit_s: float
    draw_s: float
    complete_s: float


class Method(NamedTuple):
    """A name and what it stands for."""

    name: str
    draws: int  # M
    impute: Callable[[Task], Answer]


def make_task(table: Table, fold: tables.Split, masks: str, seed: int) -> Task:
    """Hides cells of a split."""
    if masks == "split":
        return Task(table, fold, masks, table.mask[fold.train], fold.test_mask)
    mechanism, _, percentage = masks.partition("-")
    left = imputation_masks.hide(
        seed, table.schema, table.x, table.mask, mechanism, float(percentage) / 100
    )
    return Task(table, fold, masks, left[fold.train], left[fold.test])


def rival_method(name: str, flags) -> Method:
    """Wraps a rival of `launch.rivals`."""

    def impute(task):
        began = time.process_time()
        fitted = rivals.fit(name, flags.seed, task.table.schema, task.train, task.train_mask)
        fit_s, began = _lap(began)
        draws, point = rivals.sample(fitted, task.test, task.test_mask, flags.draws)
        draw_s, began = _lap(began)
        _, train = rivals.sample(fitted, task.train, task.train_mask, POINT_DRAWS)
        return Answer(draws, point, train, point, fit_s, draw_s, _lap(began)[0])

    return Method(name, flags.draws, impute)


def estimator_method(flags) -> Method:
    """Wraps `HHVAEImputer`, with its default settings, through its public interface."""

    def impute(task):
        schema = task.table.schema
        declared = {
            column.name: {"kind": column.kind, "categories": list(range(num))}
            if (num := max(column.num_classes, 2)) and column.is_discrete
            else column.kind
            for column in schema.columns
        }
        train, test = (pd.DataFrame(x, columns=schema.names) for x in (task.train, task.test))
        began = time.process_time()
        imputer = HHVAEImputer(schema=declared, random_state=flags.seed).fit(train)
        fit_s, began = _lap(began)
        draws = np.stack([drawn.to_numpy() for drawn in imputer.sample(test, flags.samples)])
        draw_s, began = _lap(began)
        train, test = (imputer.transform(frame).to_numpy() for frame in (train, test))
        complete_s, _ = _lap(began)
        scaler = columns.fit(schema, task.train, task.train_mask)
        point = imputation_scores.centre(schema, scaler, draws)
        return Answer(draws, point, train, test, fit_s, draw_s, complete_s)

    return Method("HHVAEImputer", flags.samples, impute)


def run_method(path, flags) -> tuple[str, Method]:
    """Wraps a run of launch.train; returns the name of its table too."""
    splits = {run.fold.fingerprint: run for run in trained.load_splits(path, flags.data)}
    first = next(iter(splits.values()))
    table, model, schedule = first.table, first.model, first.schedule
    wanted = {fold.fingerprint for fold in make_folds(table, flags)}
    if table.name not in flags.tables or not wanted <= splits.keys() or flags.masks != ["split"]:
        raise workdir.Refused(
            f"{path} was trained on {len(splits)} splits of {table.name} and their own masks, not "
            f"on the first {flags.splits} of {flags.folds} of --tables={' '.join(flags.tables)} "
            f"and --masks={' '.join(flags.masks)}; change one of these"
        )

    @jax.jit
    def impute_block(key, params, scaler, x, mask):
        return predict.impute(
            key, model, params, scaler, x, mask, num_samples=flags.samples, schedule=schedule
        )

    def impute(task):
        fold, num = task.fold, len(task.fold.test)
        split = splits[fold.fingerprint]
        starts = range(0, num, BLOCK)
        pad = ((0, len(starts) * BLOCK - num), (0, 0))
        x, mask = np.pad(table.x[fold.test], pad), np.pad(fold.test_mask, pad)
        keys = jax.random.split(jax.random.key(flags.seed), len(starts))

        def block(key, start):
            rows = slice(start, start + BLOCK)
            return np.asarray(impute_block(key, split.params, split.scaler, x[rows], mask[rows]))

        block(keys[0], 0)  # compiles
        began = time.process_time()
        blocks = [block(key, start) for key, start in zip(keys, starts, strict=True)]
        draws = np.concatenate(blocks, axis=1)[:, :num]
        draw_s, _ = _lap(began)
        point = imputation_scores.centre(table.schema, split.scaler, draws)
        return Answer(draws, point, task.train, point, split.seconds, draw_s, draw_s)

    return table.name, Method(f"{first.name} ({path})", flags.samples, impute)


def make_folds(table: Table, flags) -> tuple[tables.Split, ...]:
    """Returns the splits that are measured."""
    return tables.make_splits(table, flags.folds)[: flags.splits]


def measure(task: Task, answer: Answer) -> dict:
    """Scores an answer: averages and seconds, and scores by column."""
    table, fold = task.table, task.fold
    full, full_test = table.x[fold.train], table.x[fold.test]
    scaler = columns.fit(table.schema, full, table.mask[fold.train])
    hidden = table.mask[fold.test] & ~task.test_mask
    by_column = imputation_scores.score(
        table.schema, scaler, answer.draws, answer.point, full_test, hidden
    )
    is_discrete = table.schema.is_kind("bernoulli", "categorical")
    parts = {
        "rmse": np.where(is_discrete, np.nan, by_column["error"]),
        "error_rate": np.where(is_discrete, by_column["error"], np.nan),
    }
    scores = imputation_scores.summarise(by_column | parts)
    scores["downstream"] = downstream(table, fold, answer.train, answer.test)
    scores["downstream_full"] = downstream(table, fold, full, full_test)
    scores |= {name: getattr(answer, name) for name in ("fit_s", "draw_s", "complete_s")}
    return scores | {"by_column": by_column}


def downstream(table: Table, fold: tables.Split, train: np.ndarray, test: np.ndarray) -> float:
    """Learns the targets from training rows [N, D]; returns the mean error on test rows [B, D]."""
    errors = []
    for j, column in enumerate(table.target.columns):
        known, asked = table.y_mask[fold.train, j], table.y_mask[fold.test, j]
        y, truth = table.y[fold.train[known], j], table.y[fold.test[asked], j]
        kind = (
            HistGradientBoostingClassifier if column.is_discrete else HistGradientBoostingRegressor
        )
        guess = kind(random_state=0).fit(train[known], y).predict(test[asked])
        if column.is_discrete:
            errors.append(np.mean(guess != truth))
        else:
            errors.append(np.sqrt(np.mean((guess - truth) ** 2)) / y.std())
    return float(np.mean(errors)) if errors else math.nan


def format_row(method: str, rows: list[dict]) -> str:
    """Formats one line of a Markdown table from the rows of all splits."""
    cells = [method]
    for name in COLUMNS:
        values = np.array([row[name] for row in rows], float)
        digits = 2 if name.endswith("_s") else 3
        spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
        cells.append("-" if np.isnan(values).any() else f"{values.mean():.{digits}f}{spread}")
    return f"| {' | '.join(cells)} |"


def format_ranks(rows: list[dict]) -> str:
    """Formats average ranks over tables, splits and masks, and mean coverage.

    Distributional scores only, CRPS and Brier score where a table has the columns; tasks that some
    method has not answered do not count.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    key = lambda row: (row["masks"], row["table"], row["split"])
    ranks = {masks: {name: [] for name in methods} for masks in ["all", *_distinct(rows, "masks")]}
    cover = {name: [] for name in methods}
    for (masks, *_), group in itertools.groupby(sorted(rows, key=key), key):
        task = {row["method"]: row for row in group}
        if len(task) < len(methods):
            continue
        for score in ("crps", "brier"):
            values = [task[name][score] for name in methods]
            if None not in values:
                for name, rank in zip(methods, rankdata(values), strict=True):
                    ranks["all"][name].append(rank)
                    ranks[masks][name].append(rank)
        for name in methods:
            cover[name].append([task[name][f"coverage_{level}"] for level in (50, 90)])
    lines = [f"| method | {' | '.join(ranks)} | 50 % | 90 % |", "|---" * (len(ranks) + 3) + "|"]
    for name in methods:
        cells = [f"{np.mean(by[name]):.2f}" if by[name] else "-" for by in ranks.values()]
        known = np.array(cover[name], float).reshape(-1, 2)
        cells += (
            [f"{value:.3f}" for value in np.nanmean(known, axis=0)] if len(known) else ["-"] * 2
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    """Runs the benchmark and prints its tables."""
    flags = _parser().parse_args()
    names = [rival_method(name, flags) for name in flags.rivals]
    names += [estimator_method(flags)] if flags.imputer else []
    runs = [run_method(path, flags) for path in flags.runs]
    known = _read(flags.output)
    about = report.environment()
    shown = []
    for masks, name in itertools.product(flags.masks, flags.tables):
        table = tables.load(name, flags.data)
        folds = make_folds(table, flags)
        methods = [*names, *(method for run_table, method in runs if run_table == name)]
        print(
            f"\n{name}, {masks}, {len(folds)} splits\n\n| method | {' | '.join(COLUMNS.values())} |"
        )
        print("|---" * (len(COLUMNS) + 1) + "|")
        for method in methods:
            rows = []
            for fold in folds:
                label = {
                    "table": name, "masks": masks, "method": method.name, "draws": method.draws,
                    "split": fold.fingerprint, "seed": flags.seed,
                }  # fmt: skip
                row = known.get(tuple(label.values()))
                if row is None:
                    task = make_task(table, fold, masks, flags.seed)
                    row = label | measure(task, method.impute(task))
                    row |= {"names": table.schema.names, "kinds": table.schema.kinds} | about
                    row = workdir.normalise(row)
                    _append(flags.output, row)
                rows.append(row)
            shown += rows
            print(format_row(method.name, rows), flush=True)
    print(f"\naverage ranks of CRPS and Brier score, and coverage\n\n{format_ranks(shown)}")


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(rivals.RIVALS)
    add = parser.add_argument
    add("--tables", nargs="+", default=["wine"], choices=tables.NAMES)
    add("--masks", nargs="+", default=["split"], type=_masks, help="split, or as in mcar-30")
    add("--folds", type=int, default=10, help="a test set is one of so many parts of the table")
    add("--splits", type=int, default=3, help="first splits of these")
    add("--rivals", nargs="*", default=names, choices=names)
    add("--imputer", action="store_true", help="HHVAEImputer too")
    add("--runs", nargs="*", default=[], help="directories of launch.train runs")
    add("--data", default="", help="folder of the tables")
    add("--draws", type=int, default=20, help="imputations of a rival")
    add("--samples", type=int, default=100, help="imputations of HHVAEImputer and of a run")
    add("--seed", type=int, default=0, help="of masks, methods and samples")
    add("--output", type=Path, help="append one JSON object a line here, and go on from there")
    return parser


def _masks(word):
    mechanism, _, percentage = word.partition("-")
    is_known = mechanism in imputation_masks.MECHANISMS and percentage.isdigit()
    if word != "split" and not (is_known and 0 < int(percentage) < 100):
        raise argparse.ArgumentTypeError(f"{word!r} is neither split nor as mcar-30")
    return word


def _read(path):
    """Rows of earlier runs by what they measured."""
    rows = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path and path.exists()
        else []
    )
    fields = ("table", "masks", "method", "draws", "split", "seed")
    return {tuple(row[field] for field in fields): row for row in rows}


def _append(path, row):
    if path:
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def _lap(began):
    now = time.process_time()
    return now - began, now


def _distinct(rows, field):
    return list(dict.fromkeys(row[field] for row in rows))


if __name__ == "__main__":
    main()
