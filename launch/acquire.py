"""Measures the features of test rows one by one, each time the most telling one.

  python -m launch.acquire --workdir=runs/vaem,runs/hh-vaem --rewards=kl,mi,random --output=runs/acq

Every row starts with nothing known. What comes next is decided by (docs in hmcvae/rewards.py)

  mi         information of the feature on the target, from posterior samples
  published  the same by the published estimator
  kraskov    the same by nearest neighbours
  kl         the reward of EDDI and VAEM; only for runs without HMC, others leave it out
  random     chance
  order      one order for all rows: by the information when nothing is known
  oracle     the feature that will lower the error most; it looks at the truth

All splits that the runs were trained on are used, and all their test rows unless --num_rows says
less. Costs are read from a JSON file {"feature": cost}; features that it leaves out cost 1.

Writes to --output: curves.png (error and negative log score of the target against the number of
features, mean and spread over splits), measured.png (what is measured when), curves.csv, areas.csv
(areas under the curves: their mean height from none to the last step), result.json and arrays.npz.
The runs themselves are not touched. Exit codes: 0 done; 2 refused; 130 stopped.
"""

import argparse
import difflib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hmcvae import rewards
from launch import acquire_figures, episodes, report, trained, workdir
from launch.episodes import Method
from launch.metrics import say
from launch.trained import Trained
from launch.workdir import Refused

REWARDS = {
    "mi": "mutual_information",
    "published": "published",
    "kraskov": "kraskov",
    "kl": "gaussian_kl",
    "random": "random",
    "order": "fixed_order",
    "oracle": "oracle",
}
LIMITS = ("budget", "min_gain", "max_spread")
CURVES = ("error", "nll_y", "paper_nll_y")


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(acquire(flags))
    except (Refused, ValueError, OSError) as refusal:
        if flags.debug:
            raise
        print(f"launch.acquire: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def acquire(flags) -> str:
    """Restores the runs, runs all episodes, writes what it found, and returns the report."""
    for name, least in (("num_rows", 0), ("steps", 0), ("lookahead", 0), ("samples", 2),
                        ("bins", 2), ("neighbours", 1), ("rows_per_block", 1)):  # fmt: skip
        if getattr(flags, name) < least:
            raise Refused(f"--{name}={getattr(flags, name)}: expected {least} or more")
    if not flags.budget > 0:
        raise Refused(f"--budget={flags.budget}: expected a positive number")
    words = list(dict.fromkeys(word for word in flags.rewards.split(",") if word))
    for word in words:
        if word not in REWARDS:
            close = difflib.get_close_matches(word, REWARDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"use {', '.join(REWARDS)}"
            raise Refused(f"--rewards: {word!r} is unknown; {hint}")
    paths = [path for path in flags.workdir.split(",") if path]
    if not paths or not words:
        raise Refused("--workdir and --rewards: give one or several of each, joined by commas")

    runs = episodes.load(paths, flags.data_dir)
    splits = next(iter(runs.values()))
    table = splits[0].table
    costs = read_costs(flags.costs, table.schema.names)
    num_rows = episodes.count_rows(splits, flags.num_rows)
    methods = []
    for name, splits in runs.items():
        for word in words:
            label = f"{name} + {word}"
            if word == "kl" and not rewards.is_gaussian(splits[0].model, splits[0].params):
                say(f"{label} is left out: its posterior is no Gaussian of the encoder")
                continue
            method = episodes.measure(
                splits,
                label,
                make_settings(REWARDS[word], splits[0], flags),
                costs=costs,
                limits={name: getattr(flags, name) for name in LIMITS},
                num_rows=num_rows,
                num_steps=min(flags.steps or len(costs), len(costs)),
                seed=flags.seed,
            )
            methods.append(method)
    if not methods:
        raise Refused("--rewards=kl: none of the runs has a Gaussian posterior; add mi")

    folder = Path(flags.output).expanduser()
    arrays = to_arrays(methods, table)
    areas = {m.label: {name: episodes.areas(m.curves[name]) for name in CURVES} for m in methods}
    result = {
        "table": table.name,
        "splits": [split.fold.fingerprint for split in splits],
        "rows": num_rows,
        "runs": paths,
        "settings": {k: v for k, v in vars(flags).items() if k not in ("debug", "output")},
        "costs": costs,
        "areas": areas,
        "seconds_per_step": {m.label: m.seconds for m in methods},
        "compile_seconds": {m.label: m.compile_seconds for m in methods},
        **report.environment(),
    }
    workdir.write_atomic(folder / "arrays.npz", lambda file: np.savez(file, **arrays))
    workdir.write_json(folder / "result.json", result)
    _write_csv(folder / "curves.csv", _curve_rows(methods, splits))
    _write_csv(folder / "areas.csv", _area_rows(areas, splits))
    acquire_figures.curves(arrays, folder / "curves.png")
    acquire_figures.measured(arrays, folder / "measured.png")
    return f"{format_areas(methods, result)}\n{folder}: curves.png, measured.png, areas.csv, ..."


def make_settings(reward: str, split: Trained, flags) -> rewards.Settings:
    """Returns the settings of a reward; what it does not know of the flags is left out."""
    return rewards.Settings(
        reward,
        num_samples=flags.samples,
        bins=flags.bins,
        feed=not flags.unfed,
        num_neighbours=flags.neighbours,
        lookahead=flags.lookahead if reward in rewards.SAMPLED else 0,
        rows_per_block=flags.rows_per_block,
        weighted_target=split.config.train.weight_target,
    )


def read_costs(path: str | None, names: tuple[str, ...]) -> np.ndarray:
    """Reads the costs of the features [D] from a JSON file; 1 each without one."""
    if path is None:
        return trained.read_costs(names, {})
    file = Path(path).expanduser()
    if not file.is_file():
        raise Refused(f"--costs={path}: there is no such file")
    given = workdir.read_json(file)
    if not isinstance(given, dict):
        raise Refused(f'--costs={path}: expected {{"feature": cost}}, found {type(given).__name__}')
    try:
        return trained.read_costs(names, given)
    except ValueError as error:
        raise Refused(f"--costs={path}: {error}") from None


def to_arrays(methods: list[Method], table) -> dict[str, np.ndarray]:
    """Gathers what the figures are drawn from; leading axis M, the methods."""
    stack = lambda name: np.stack([method.curves[name] for method in methods])
    is_real = set(table.target.kinds) <= {"gaussian", "loggaussian"}
    return {name: stack(name) for name in methods[0].curves} | {
        "labels": np.array([method.label for method in methods]),
        "measured": np.stack([method.measured for method in methods]),
        "names": np.array(table.schema.names),
        "error_name": np.array("RMSE" if is_real else "error rate"),
    }


def format_areas(methods: list[Method], result: dict) -> str:
    """Formats the areas for people: mean and standard deviation over splits."""
    width = max(len(method.label) for method in methods)
    count = len(result["splits"])
    lines = [
        f"{result['table']}: areas under the curves, {result['rows']} rows, {count} splits",
        f"{'':<{width}}  {'error':>17}  {'nll_y':>17}  {'paper_nll_y':>17}  {'s/step':>7}",
    ]
    for method in methods:
        cells = [episodes.areas(method.curves[name]) for name in CURVES]
        numbers = "  ".join(f"{np.mean(v):>8.4f} +-{np.std(v):>7.4f}" for v in cells)
        lines.append(f"{method.label:<{width}}  {numbers}  {method.seconds:>7.2f}")
    return "\n".join(lines)


def _curve_rows(methods, splits) -> Iterator[dict]:
    for method in methods:
        names = list(method.curves)
        yield from (
            {"method": method.label, "split": split.number, "step": t}
            | {name: method.curves[name][r, t] for name in names}
            for r, split in enumerate(splits)
            for t in range(method.curves["error"].shape[1])
        )


def _area_rows(areas, splits) -> Iterator[dict]:
    for label, values in areas.items():
        for r, split in enumerate(splits):
            yield {"method": label, "split": split.number} | {k: v[r] for k, v in values.items()}


def _write_csv(file, rows):
    text = io.StringIO()
    pd.DataFrame(list(rows)).to_csv(text, index=False, lineterminator="\n")
    workdir.write_atomic(file, lambda stream: stream.write(text.getvalue().encode()))


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.acquire",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="runs of launch.train on one table, joined by commas")
    add("--output", required=True, help="folder for the files")
    add("--rewards", default="mi,random", help="some of the above, joined by commas (mi,random)")
    add("--num_rows", type=int, default=0, help="test rows of each split, at random; 0 is all (0)")
    add("--steps", type=int, default=0, help="features measured of a row; 0 is all (0)")
    add("--samples", type=int, default=200, help="posterior samples of a row at each step (200)")
    add("--bins", type=int, default=7, help="levels of a real variable, mi and published (7)")
    add("--neighbours", type=int, default=3, help="nearest neighbours, kraskov (3)")
    add("--unfed", action="store_true", help="do not give sampled features to the predictor; "
        "published never does")  # fmt: skip
    add("--lookahead", type=int, default=0, help="best features whose next step is simulated "
        "(0: none; mi, published, kraskov)")  # fmt: skip
    add("--costs", help="JSON file of costs, as above")
    add("--budget", type=float, default=np.inf, help="cost that a row may not exceed")
    add("--min_gain", type=float, default=-np.inf, help="stop a row where no feature is expected "
        "to bring as much, in nats; random and order do not stop by it")  # fmt: skip
    add("--max_spread", type=float, default=-np.inf, help="stop a row where the standard "
        "deviation of its target is at most this, in standardised units")  # fmt: skip
    add("--rows_per_block", type=int, default=8, help="rows worked on together: few stay in the "
        "caches of a CPU, hundreds fill an accelerator; memory grows with it (8)")  # fmt: skip
    add("--seed", type=int, default=0, help="of rows and samples (0)")
    add("--data_dir", help="folder of the tables on this machine")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
