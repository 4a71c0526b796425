"""Compares runs of models of functions on one page: what they can do, scores, times, pictures.

  python -m launch.compare --workdirs=runs/vamoh,runs/gasp,runs/functa --output=runs/compare

Reads what finished runs of launch.train have left (result.json, arrays/), computes nothing anew,
and writes compare.md with its pictures to the output folder. Runs on other data or splits, or that
have scored another number of test items, are refused: their scores do not compare.
Exit codes: 0 done; 2 refused.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from launch import compare_page, workdir
from launch.compare_page import Run
from launch.render import MODELS
from launch.workdir import Refused


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        runs = read([path for path in flags.workdirs.split(",") if path])
        output = Path(flags.output).expanduser()
        output.mkdir(parents=True, exist_ok=True)
    except (Refused, OSError) as refusal:
        print(f"launch.compare: {refusal}", file=sys.stderr)
        return 2
    text = compare_page.page(runs, compare_page.pictures(runs, output))
    workdir.write_atomic(output / "compare.md", lambda stream: stream.write(text.encode()))
    print(f"{len(runs)} runs on {runs[0].result['meta']['data']}: {output / 'compare.md'}")
    return 0


def read(paths: list[str]) -> list[Run]:
    """Reads finished runs; refuses those that do not compare.

    Args:
      paths: two working directories or more.

    Returns:
      The runs, labelled by their models, and by their directories too where models repeat.
    """
    if len(paths) < 2:
        raise Refused(f"--workdirs={','.join(paths)}: expected two runs or more, with commas")
    runs = [_read(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        mine, first = _facts(run), _facts(runs[0])
        for name, value in mine.items():
            if value != first[name]:
                raise Refused(
                    f"{path} and {paths[0]} do not compare: {name} is {value} of the one and "
                    f"{first[name]} of the other; train both on the same data and splits, and "
                    f"score the same test items"
                )
    models = [run.label for run in runs]
    return [
        run._replace(label=f"{run.label}, {Path(path).name}")
        if models.count(run.label) > 1
        else run
        for path, run in zip(paths, runs, strict=True)
    ]


def _read(path):
    directory, config = workdir.open_run(path)
    if config.experiment not in MODELS:
        raise Refused(
            f"{path} is a run of experiment {config.experiment!r}; expected one of "
            f"{', '.join(MODELS)}"
        )
    result = workdir.finished_result(directory)
    if result is None:
        raise Refused(f"{path} is not finished; train it to its end first")
    last = list(result["phases"])[-1]
    with np.load(directory / "arrays" / f"{last}.npz") as stored:
        return Run(result["meta"]["model"], config.to_dict(), result, dict(stored))


def _facts(run):
    """What must be the same of all runs."""
    meta = run.result["meta"]
    return {
        "the data": meta["data"],
        "the number of items": meta["items"],
        "the fingerprint of data and splits": meta["fingerprint"][:12],
        "the number of test items scored": compare_page.num_scored(run),
    }


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdirs", required=True, help="runs of launch.train, with commas")
    parser.add_argument("--output", required=True, help="folder of the page; made if absent")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
