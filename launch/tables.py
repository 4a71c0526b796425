"""Trains and scores the cells of the result tables, as many splits to a program as asked.

  python -m launch.tables --config=configs/tables_uci.py[:variant] --workdir=<dir> \
      [--config.tables=boston,wine] [--config.models=hh-vaem] [--config.splits=3] \
      [--config.overrides="train.vi_steps=10000 train.hmc_steps=500"]
  python -m launch.tables --config=... --workdir=<dir> --render_only [--output=docs/results.md]

Leaves in the working directory: cells/ (one JSON a table, model, preset and split: scores, seconds,
config, versions, fingerprint of the split), runs/ (figures, metrics.jsonl and result.json of the
runs that gave them), results.md and results.csv. Several configs may share a directory.

Started again, it goes on: finished cells are skipped and an unfinished run continues from its
checkpoint, provided that the same splits are asked for. To train a cell anew delete its file in
cells/ and its run. A run that meets a loss that is not finite is done again split by split; a split
that fails alone is recorded as failed, and the rest goes on.

Exit codes: 0 finished; 1 a bug; 2 refused before anything was trained; 3 some cells failed;
130 and 143 stopped by Ctrl-C or SIGTERM with everything saved.
"""

import argparse
import datetime
import shutil
import sys
import time
from pathlib import Path

from launch import train, workdir
from launch.workdir import Refused

FIELDS = {
    "base", "tables", "models", "presets", "splits", "first_split", "replicas", "words",
    "overrides", "data_dir", "keep_runs",
}  # fmt: skip
KEPT = {"result.json", "meta.json", "config.json", "metrics.jsonl", "figures"}


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags, rest = _parser().parse_known_args(argv[1:])
    try:
        options = train.parse([argv[0], *rest])
        config = options.config
        missing = FIELDS - set(config)
        if missing:
            raise Refused(
                f"--config: has no field {sorted(missing)[0]!r}; give one of configs/tables_*.py"
            )
        directory = workdir.open_workdir(options.workdir)
        output = Path(flags.output).expanduser() if flags.output else directory / "results.md"
        code = 0 if flags.render_only else _fill(config, directory, output)
        _render(config, directory, output)
    except (Refused, ValueError, FileNotFoundError) as refusal:
        if flags.debug:
            raise
        print(f"launch.tables: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between two runs
        return 130
    print(f"tables: {output}")
    return code


def _fill(config, directory, output):
    """Trains what is missing; returns the exit code."""
    import jax

    from launch import cells, loop
    from launch.metrics import say

    planned = cells.plan(config)
    _cache_kernels(directory)
    pending = cells.together(
        (cell for cell in planned if not cells.path(directory, cell).exists()), config.replicas
    )
    num_left = sum(len(run) for run in pending)
    say(f"{len(planned)} cells, {num_left} of them to do in {len(pending)} runs")
    began, num_done = time.monotonic(), 0
    while pending:
        run = pending.pop(0)
        say(_announce(run, num_left, num_done, time.monotonic() - began))
        target = directory / "runs" / cells.run_name(run)
        try:
            _train(run, directory, target)
        except loop.NonFiniteLoss as error:
            if len(run) > 1:
                say(f"{error}; its splits are trained one by one")
                pending = [(cell,) for cell in run] + pending
                _prune(target, config.keep_runs)
                continue
            _record_failure(run[0], directory, str(error))
        except loop.Stopped as stop:
            say(f"launch.tables: {stop}")
            _render(config, directory, output)
            return 128 + stop.signum
        _prune(target, config.keep_runs)
        jax.clear_caches()  # no later run has the shapes of this one
        num_done, num_left = num_done + len(run), num_left - len(run)
        _render(config, directory, output)
    failed = [
        cell.name
        for cell in planned
        if workdir.read_json(cells.path(directory, cell))["status"] == "failed"
    ]
    if failed:
        print(f"launch.tables: failed cells: {', '.join(failed)}", file=sys.stderr)
    return 3 if failed else 0


def _train(run, directory, target):
    """Trains the splits of a run as replicas and writes their cells."""
    from launch import cells, loop
    from launch.metrics import say

    config = cells.run_config(run)
    was_begun = workdir.is_begun(target) or workdir.finished_result(target) is not None
    began = time.monotonic()
    result = loop.run(train.load_experiment(config), config, target)
    wall = None if was_begun else time.monotonic() - began
    fingerprints = [cell.fingerprint for cell in run]
    if result["meta"]["splits"] != fingerprints:
        raise Refused(f"{target} was trained on other splits than the data gives now; remove it")
    seconds = {name: phase["seconds"] for name, phase in result["phases"].items()}
    for at, cell in enumerate(run):
        content = {
            "status": "finished",
            "metrics": _of_replica(result["metrics"], at),
            "phases": {n: _of_replica(p["metrics"], at) for n, p in result["phases"].items()},
            "run": {
                "name": target.name,
                "replicas": len(run),
                "wall_seconds": wall,  # None where the run was cut off and went on
                "seconds": seconds,
            },
            "written": _now(),
            **{name: result[name] for name in ("device", "versions", "commit")},
        }
        cells.write(directory, cell, content)
        scores = ", ".join(
            f"{name} {value:.4g}"
            for name, value in content["metrics"].items()
            if value is not None and name in ("paper_nll_x", "paper_nll_y", "nll_x", "nll_y")
        )
        say(f"{cell.name}: {scores}; {result['seconds'] / len(run):.0f} s a split")


def _of_replica(summary, at):
    return {name: scores["replicas"][at] for name, scores in summary.items()}


def _record_failure(cell, directory, reason):
    from launch import cells, report
    from launch.metrics import say

    content = {"status": "failed", "reason": reason, "written": _now(), **report.environment()}
    cells.write(directory, cell, content)
    say(f"{cell.name}: failed: {reason}")


def _render(config, directory, output):
    from launch import cells, results_page

    asked = [
        (table, model.upper(), preset, cells.label(config))
        for table in cells.words(config.tables)
        for model in cells.words(config.models)
        for preset in cells.words(config.presets)
    ]
    results_page.write(cells.read_all(directory), output, asked=asked)


def _announce(run, num_left, num_done, seconds):
    """Says which run begins and, from the cells done so far, about how long all that is left."""
    first, last = run[0], run[-1].split
    splits = f"split {first.split}" if len(run) == 1 else f"splits {first.split} to {last}"
    left = f", about {seconds / num_done * num_left / 60:.0f} min left" if num_done else ""
    return f"{first.table} {first.model} {first.preset}, {splits} ({num_left} cells{left})"


def _prune(target, keep_runs):
    """Deletes what only a run that goes on needs, unless all is to be kept."""
    for entry in () if keep_runs else [e for e in target.iterdir() if e.name not in KEPT]:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _cache_kernels(directory):
    """Keeps compiled programs of an accelerator, as launch.train does, for runs that go on."""
    import jax

    if jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="--config, --config.<field> and --workdir are those of launch.train.",
    )
    parser.add_argument("--render_only", action="store_true", help="render the cells, train none")
    parser.add_argument("--output", help="Markdown page; <workdir>/results.md if absent")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
