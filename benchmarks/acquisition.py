"""Areas under the curves of acquisition, all tables on one page, from what launch.acquire wrote.

    python -m benchmarks.acquisition runs/acq/boston runs/acq/wine [--figure=curves.png]

Prints two Markdown tables, of the error and of the negative log score of the target: mean ±
standard deviation over splits, the smallest of a table of data in bold, and last on how many tables
a method is the smallest. A third has seconds a step. `--figure` draws the curves of the error.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from launch import acquire_figures

TITLES = {"error": "error", "nll_y": "negative log score, nats"}


def read(folders):
    """Returns what launch.acquire left in each folder, by table: result.json and arrays.npz."""
    found = {}
    for folder in map(Path, folders):
        result = json.loads((folder / "result.json").read_text())
        with np.load(folder / "arrays.npz") as arrays:
            found[result["table"]] = result, dict(arrays)
    return found


def format_areas(results, name):
    """Formats the areas of one curve as a Markdown table, a row a method."""
    methods = list(dict.fromkeys(m for result in results.values() for m in result["areas"]))
    best = {
        table: min(result["areas"], key=lambda m: np.mean(result["areas"][m][name]))
        for table, result in results.items()
    }
    lines = [f"| {TITLES[name]} | {' | '.join(results)} | smallest |"]
    lines.append("|---" * (len(results) + 2) + "|")
    for method in methods:
        cells = []
        for table, result in results.items():
            area = result["areas"].get(method, {}).get(name)
            text = f"{np.mean(area):.3f} ± {np.std(area):.3f}" if area else ""
            cells.append(f"**{text}**" if best[table] == method else text)
        count = list(best.values()).count(method)
        lines.append(f"| {method} | {' | '.join(cells)} | {count} of {len(results)} |")
    return "\n".join(lines)


def format_seconds(results):
    """Formats the seconds a step as a Markdown table, a row a method."""
    methods = list(dict.fromkeys(m for result in results.values() for m in result["areas"]))
    sizes = [f"{table}, {result['rows']} rows" for table, result in results.items()]
    lines = [f"| seconds a step | {' | '.join(sizes)} |", "|---" * (len(results) + 1) + "|"]
    for method in methods:
        seconds = [result["seconds_per_step"].get(method) for result in results.values()]
        cells = ["" if s is None else f"{s:.2f}" for s in seconds]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", help="outputs of launch.acquire, one a table")
    parser.add_argument("--figure", help="PNG to draw the curves of the error in")
    flags = parser.parse_args()
    found = read(flags.folders)
    results = {table: result for table, (result, _) in found.items()}
    blocks = [*(format_areas(results, name) for name in TITLES), format_seconds(results)]
    print("\n\n".join(blocks))
    if flags.figure:
        arrays = {table: stored for table, (_, stored) in found.items()}
        acquire_figures.errors(arrays, flags.figure)


if __name__ == "__main__":
    main()
