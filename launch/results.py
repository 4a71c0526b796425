"""What the cells of the result tables say: scores by settings, marks, counts and gaps, as values.

Cells are averaged over splits only where their settings are the same (one digest). A row is what is
compared side by side: one table, preset and set of changes, with a group of cells for each model.
The text of the page is made in `launch.results_page`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from launch.data import published

HIGHER = ("accuracy", "auroc")
BASELINES = {"HH-VAEM": "VAEM", "HH-VAE": "VAE"}  # what the hierarchy and HMC are added to


class Group(NamedTuple):
    """Cells of one table, model and settings, one a split."""

    table: str
    model: str
    preset: str
    changes: str
    digest: str
    cells: tuple[dict, ...]  # contents of the files, finished, ascending by split

    def values(self, metric: str) -> np.ndarray | None:
        """Returns a metric by split, or None where it was not measured; NaN where not finite."""
        if any(metric not in cell["metrics"] for cell in self.cells):
            return None
        found = [cell["metrics"][metric] for cell in self.cells]
        return np.array([np.nan if value is None else value for value in found])

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric over splits; NaN where it was not measured."""
        values = self.values(metric)
        return np.nan if values is None else float(values.mean())


class RowKey(NamedTuple):
    """What the groups of a row have in common."""

    table: str
    preset: str
    changes: str


Rows = dict[RowKey, dict[str, Group]]  # by model


class Gap(NamedTuple):
    """How far a model is below its baseline in a score; NaN where not run."""

    table: str
    published: float
    paper: float  # the published protocol, with its unequal regularisation and budgets
    default: float  # equal regularisation and budgets


def group(cells: Iterable[dict]) -> list[Group]:
    """Gathers finished cells by table, model and digest."""
    found: dict[tuple, list[dict]] = {}
    for cell in cells:
        if cell["status"] == "finished":
            key = tuple(cell[name] for name in Group._fields if name != "cells")
            found.setdefault(key, []).append(cell)
    return [Group(*key, tuple(sorted(g, key=lambda c: c["split"]))) for key, g in found.items()]


def arrange(groups: Iterable[Group]) -> tuple[Rows, list[Group]]:
    """Puts the newest group of every table, model, preset and changes into its row.

    Returns:
      The rows, and the groups of older settings, which stand in no row.
    """
    rows: Rows = {}
    superseded = []
    for found in sorted(groups, key=lambda g: max(cell["written"] for cell in g.cells)):
        row = rows.setdefault(RowKey(found.table, found.preset, found.changes), {})
        if found.model in row:
            superseded.append(row[found.model])
        row[found.model] = found
    order = (*published.MODELS, *published.IMAGE_MODELS)
    place = lambda model: order.index(model) if model in order else len(order)
    rows = {key: {m: row[m] for m in sorted(row, key=place)} for key, row in rows.items()}
    return rows, superseded


def row_of(rows: Rows, table: str, preset: str) -> dict[str, Group]:
    """Returns the row without changes of a table and preset, else the one of the most models."""
    found = [
        (not key.changes, len(row), row) for key, row in rows.items() if key[:2] == (table, preset)
    ]
    return max(found, key=lambda item: item[:2])[2] if found else {}


def common_means(row: dict[str, Group], metric: str) -> dict[str, float]:
    """Returns means over the splits that all groups of a row share; NaN where there is none.

    Splits differ in difficulty, so that means over different ones do not compare models.
    """
    known = {model: found for model, found in row.items() if found.values(metric) is not None}
    splits = [{cell["split"] for cell in found.cells} for found in known.values()]
    shared = set.intersection(*splits) if splits else set()
    out = {}
    for model, found in known.items():
        chosen = [cell["split"] in shared for cell in found.cells]
        out[model] = float(found.values(metric)[chosen].mean()) if shared else np.nan
    return out


def mark(values: np.ndarray, metric: str, theirs: tuple[float, float]) -> str:
    """Compares a metric with its published mean and standard deviation.

    The difference is measured in its own standard error: the sample variance over our n splits by
    n, plus the published variance by 10. One split shows no spread of its own, so that the
    published one stands for it.

    Args:
      values: [n], by split.
      metric: its name, which says whether lower is better.
      theirs: published mean and standard deviation.

    Returns:
      "better", "equal" (within two standard errors) or "worse".
    """
    mean, std = theirs
    ours = np.var(values, ddof=1) if len(values) > 1 else std**2
    error = np.sqrt(ours / len(values) + std**2 / published.NUM_SPLITS)
    gain = (np.mean(values) - mean) * (1 if metric in HIGHER else -1)
    if abs(gain) <= 2 * error:
        return "equal"
    return "better" if gain > 0 else "worse"  # NaN, too, is worse


def best(means: dict[str, float], metric: str) -> str | None:
    """Returns the name with the best of two or more means; None for fewer or for no such metric.

    Lower is better, but for accuracy and AUROC; the coverage of intervals has its level as target.
    """
    known = {name: value for name, value in means.items() if np.isfinite(value)}
    if len(known) < 2:
        return None
    if metric in HIGHER:
        return max(known, key=known.get)
    if metric.startswith("coverage"):
        level = int(re.search(r"\d+", metric)[0]) / 100  # coverage90_x
        return min(known, key=lambda name: abs(known[name] - level))
    return min(known, key=known.get)


def below_published(rows: Rows, model: str, preset: str = "default") -> dict[str, bool]:
    """Tells, per table where the model was run, whether both scores are below the published."""
    out = {}
    for table in published.TABLES:
        found = row_of(rows, table, preset).get(model)
        theirs = published.scores(table, model)
        if found and theirs:
            scores = ("paper_nll_x", "paper_nll_y")
            out[table] = all(found.mean(metric) < theirs[metric][0] for metric in scores)
    return out


def is_best(rows: Rows, model: str, metric: str, preset: str = "default") -> dict[str, bool]:
    """Tells, per table where all five models were run, whether the model has the best mean."""
    out = {}
    for table in dict.fromkeys(key.table for key in rows):
        row, five = row_of(rows, table, preset), published.models_of(table)
        means = common_means({name: row[name] for name in five if name in row}, metric)
        if model in five and len(means) == len(five) and np.isfinite(list(means.values())).all():
            out[table] = best(means, metric) == model
    return out


def gaps(rows: Rows, model: str, metric: str) -> list[Gap]:
    """Returns baseline minus model per published table where either preset was run."""
    baseline = BASELINES[model]

    def ours(table, preset):
        row = row_of(rows, table, preset)
        means = common_means({m: row[m] for m in (baseline, model) if m in row}, metric)
        return means[baseline] - means[model] if len(means) == 2 else np.nan

    out = []
    for table in published.TABLES:
        theirs = [published.scores(table, name).get(metric) for name in (baseline, model)]
        found = Gap(table, np.nan, ours(table, "paper"), ours(table, "default"))
        if None not in theirs and np.isfinite(found[2:]).any():
            out.append(found._replace(published=theirs[0][0] - theirs[1][0]))
    return out


def share_of_published(gaps: Iterable[Gap], preset: str) -> float:
    """Returns the sum of our gaps by the sum of the published ones, over tables with both."""
    pairs = [(getattr(gap, preset), gap.published) for gap in gaps]
    known = np.array([pair for pair in pairs if np.isfinite(pair[0])]).reshape(-1, 2)
    return float(known[:, 0].sum() / known[:, 1].sum()) if len(known) else np.nan


def runs(groups: Iterable[Group]) -> dict[str, dict]:
    """Returns the runs behind the groups by name, with the seconds of each and their shares.

    "seconds" is the wall clock from loading the data to the last figure (None where the run was cut
    off and went on), "compile", "train" and "evaluate" are sums over phases, "outside" what is left
    of the wall clock: data, checkpoints, logs, figures.
    """
    out = {}
    for cell in (cell for found in groups for cell in found.cells):
        run = cell["run"]
        clocks = {
            name: sum(phase.get(name, 0.0) for phase in run["seconds"].values())
            for name in ("compile", "train", "evaluate")
        }
        wall = run["wall_seconds"]
        outside = None if wall is None else wall - sum(clocks.values())
        facts = {"replicas": run["replicas"], "seconds": wall, "outside": outside}
        identity = {"key": RowKey(*(cell[name] for name in RowKey._fields)), "model": cell["model"]}
        out[run["name"]] = identity | facts | clocks | {"device": cell["device"]["kind"]}
    return out
