"""Scores a trained run again: with more samples, on another machine, after new metrics.

  python -m launch.evaluate --workdir=runs/wine [--num_samples=4000] [--seed=1]

Reads config.json and the newest checkpoint of the run and prints its scores; writes them to
evaluate.json in the run, with figures of the new evaluation in figures-evaluate/. The run itself is
not touched. Exit codes: 0 done; 2 refused.
"""

import argparse
import sys

from launch import report, workdir
from launch.train import load_experiment
from launch.workdir import Refused


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        result = evaluate(flags)
    except (Refused, ValueError, OSError) as refusal:
        if flags.debug:
            raise
        print(f"launch.evaluate: {refusal}", file=sys.stderr)
        return 2
    print(report.format_table(result["metrics"], result["published"]))
    return 0


def evaluate(flags) -> dict:
    """Restores the run that the flags name, scores it, and writes what it found."""
    directory, config = workdir.open_run(flags.workdir)
    if flags.num_samples is not None:
        if flags.num_samples < 1:
            raise Refused(f"--num_samples={flags.num_samples}: expected 1 or more")
        config.evaluate.num_samples = flags.num_samples
    if flags.data_dir:
        config.data.dir = flags.data_dir

    import jax
    import numpy as np

    from launch import loop, sharding
    from launch.experiment import stream
    from launch.metrics import read_rows

    experiment = load_experiment(config)
    state, note = loop.load(experiment, config, directory)
    mesh = sharding.make_mesh(config.mesh, len(experiment.replica_seeds))
    data = sharding.put(experiment.data, sharding.replica_sharding(mesh))
    is_last = note["phase"] == experiment.phases[-1].name
    key = stream(jax.random.key(flags.seed), "evaluate", 0)
    metrics, arrays = experiment.evaluate(key, state.params, data, note["phase"], is_last)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    result = {
        "metrics": report.summarise(metrics),
        "published": experiment.meta.get("published", {}),
        "phase": note["phase"],
        "step": note["step"],
        "seed": flags.seed,
        "num_samples": config.evaluate.num_samples,
        **report.environment(),
    }
    workdir.write_json(directory / "evaluate.json", result)
    if is_last:
        (directory / "figures-evaluate").mkdir(exist_ok=True)
        experiment.figures(arrays, read_rows(directory), directory / "figures-evaluate")
    return result


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="directory of a run of launch.train")
    parser.add_argument(
        "--num_samples", type=int, help="posterior samples a row; as trained if absent"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the posterior samples")
    parser.add_argument("--data_dir", help="folder of the tables on this machine")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
