"""Rivals and trained models at imputing the hidden half of the test rows, on the same masks.

    python -m benchmarks.imputation --tables wine diabetes boston --splits 3 [--data=tables]
        [--rivals mean knn mice pmm forest] [--runs runs/wine runs/boston] [--output=rows.jsonl]

Prints one table a data set, mean ± standard deviation over splits, every score averaged over
columns: error (standardised RMSE or error rate), CRPS of real columns in standardised units, Brier
score of discrete ones, coverage of 50 % and 90 % intervals, seconds to fit and to impute (a trained
run: of training and imputing, compilation of the latter apart). `--hide=0.5` fits the rivals with
that share of the training entries missing; trained models saw complete rows under masks that
changed at every step. The first three tables, five rivals, three splits: 25 s on one core.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import numpy as np

from hmcvae import columns, predict
from launch import imputation_scores, rivals, trained, workdir
from launch.data import tables

BLOCK = 64  # test rows a trained model imputes at a time
COLUMNS = {
    "error": "error",
    "crps": "CRPS",
    "brier": "Brier",
    "coverage_50": "50 %",
    "coverage_90": "90 %",
    "fit_s": "fit s",
    "impute_s": "impute s",
}


def rival_imputer(name, flags):
    """Returns impute(table, fold) -> (draws, point, seconds to fit, seconds to impute)."""

    def impute(table, fold):
        mask = table.mask[fold.train]
        if flags.hide:
            mask = rivals.hide(flags.seed, mask, flags.hide)
        began = time.perf_counter()
        fitted = rivals.fit(name, flags.seed, table.schema, table.x[fold.train], mask)
        middle = time.perf_counter()
        draws, point = rivals.sample(fitted, table.x[fold.test], fold.test_mask, flags.draws)
        return draws, point, middle - began, time.perf_counter() - middle

    return impute


def run_imputer(path, flags):
    """Returns the run's table, its method's name and impute(table, fold) as of `rival_imputer`."""
    splits = {run.fold.fingerprint: run for run in trained.load_splits(path, flags.data)}
    first = next(iter(splits.values()))
    table, model, schedule = first.table, first.model, first.schedule
    wanted = {fold.fingerprint for fold in tables.make_splits(table)[: flags.splits]}
    if table.name not in flags.tables or not wanted <= splits.keys():
        raise workdir.Refused(
            f"{path} was trained on {len(splits)} splits of {table.name}, not on the first "
            f"{flags.splits} of --tables={' '.join(flags.tables)}; change --tables or --splits"
        )

    @jax.jit
    def impute_block(key, params, scaler, x, mask):
        return predict.impute(
            key, model, params, scaler, x, mask, num_samples=flags.samples, schedule=schedule
        )

    def impute(table, fold):
        split = splits[fold.fingerprint]
        num = len(fold.test)
        starts = range(0, num, BLOCK)
        pad = ((0, len(starts) * BLOCK - num), (0, 0))
        x, mask = np.pad(table.x[fold.test], pad), np.pad(fold.test_mask, pad)
        keys = jax.random.split(jax.random.key(flags.seed), len(starts))

        def block(key, start):
            rows = slice(start, start + BLOCK)
            return np.asarray(impute_block(key, split.params, split.scaler, x[rows], mask[rows]))

        block(keys[0], 0)  # compiles
        began = time.perf_counter()
        blocks = [block(key, start) for key, start in zip(keys, starts, strict=True)]
        draws = np.concatenate(blocks, axis=1)[:, :num]
        point = imputation_scores.centre(table.schema, split.scaler, draws)
        return draws, point, split.seconds, time.perf_counter() - began

    return table.name, f"{first.name} ({path})", impute


def measure(table, fold, impute):
    """Imputes the test rows of a split and returns its scores, by column and averaged."""
    draws, point, fit_s, impute_s = impute(table, fold)
    rows = fold.train
    scaler = columns.fit(table.schema, table.x[rows], table.mask[rows])
    hidden = table.mask[fold.test] & ~fold.test_mask
    by_column = imputation_scores.score(
        table.schema, scaler, draws, point, table.x[fold.test], hidden
    )
    seconds = {"fit_s": fit_s, "impute_s": impute_s}
    return by_column, imputation_scores.summarise(by_column) | seconds


def format_row(method, scores):
    """Formats one line of a Markdown table from the scores of all splits."""
    cells = [method]
    for name in COLUMNS:
        values = np.array([row[name] for row in scores])
        digits = 2 if name.endswith("_s") else 3
        is_known = not np.isnan(values).any()
        cells.append(f"{values.mean():.{digits}f} ± {values.std():.{digits}f}" if is_known else "-")
    return f"| {' | '.join(cells)} |"


def main():
    """Runs the benchmark and prints one table a data set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = list(rivals.RIVALS)
    parser.add_argument("--tables", nargs="+", default=["wine"], choices=tables.NAMES)
    parser.add_argument("--splits", type=int, default=3, help="first splits of ten")
    parser.add_argument("--rivals", nargs="*", default=names, choices=names)
    parser.add_argument("--runs", nargs="*", default=[], help="directories of launch.train runs")
    parser.add_argument("--data", default="", help="folder of the tables")
    parser.add_argument("--draws", type=int, default=20, help="imputations of a rival")
    parser.add_argument("--samples", type=int, default=200, help="imputations of a trained model")
    parser.add_argument("--hide", type=float, default=0.0, help="share of training entries hidden")
    parser.add_argument("--seed", type=int, default=0, help="of rivals and samples")
    parser.add_argument("--output", type=Path, help="also append one JSON object a line here")
    flags = parser.parse_args()
    runs = [run_imputer(path, flags) for path in flags.runs]
    for name in flags.tables:
        table = tables.load(name, flags.data)
        folds = tables.make_splits(table)[: flags.splits]
        methods = {rival: rival_imputer(rival, flags) for rival in flags.rivals}
        methods |= {method: impute for run_table, method, impute in runs if run_table == name}
        print(f"\n{name}, {len(folds)} splits\n\n| method | {' | '.join(COLUMNS.values())} |")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for method, impute in methods.items():
            scores = []
            for fold in folds:
                by_column, row = measure(table, fold, impute)
                scores.append(row)
                if flags.output:
                    _append(flags, table, fold, method, by_column, row)
            print(format_row(method, scores), flush=True)


def _append(flags, table, fold, method, by_column, row):
    numbers = lambda values: [None if math.isnan(v) else float(v) for v in values]
    line = {
        "table": table.name, "method": method, "split": fold.fingerprint, "seed": flags.seed,
        "hide": flags.hide, "names": list(table.schema.names),
        "by_column": {name: numbers(values) for name, values in by_column.items()},
        **dict(zip(row, numbers(row.values()), strict=True)),
    }  # fmt: skip
    with flags.output.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
