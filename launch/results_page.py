"""The page of the result tables: Markdown for people, and the same numbers as CSV.

What is shown comes from the cells alone; `launch.results` computes it.
"""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from launch import results
from launch.cells import flatten
from launch.data import published
from launch.workdir import write_atomic

MARKS = {"better": "▲", "equal": "≈", "worse": "▼"}
TITLES = {
    "paper_nll_x": "Negative log-likelihood of missing features, `paper` definition (paper_nll_x)",
    "paper_nll_y": "Negative log-likelihood of the target, `paper` definition (paper_nll_y)",
    "nll_x": "Proper negative log-likelihood of missing features, nats a column (nll_x)",
    "nll_y": "Proper negative log-likelihood of the target, nats (nll_y)",
    "error_x": "Imputation error: standardised RMSE and error rates, mean over columns (error_x)",
    "rmse": "RMSE of the target, in its unit (rmse)",
    "accuracy": "Accuracy of the target, higher is better (accuracy)",
    "crps_x": "CRPS of missing real features, in standard deviations (crps_x)",
    "crps_y": "CRPS of real targets, in standard deviations (crps_y)",
    "coverage50_x": "Coverage of 50 % intervals of missing real features (coverage50_x)",
    "coverage90_x": "Coverage of 90 % intervals of missing real features (coverage90_x)",
    "coverage50_y": "Coverage of 50 % intervals of real targets (coverage50_y)",
    "coverage90_y": "Coverage of 90 % intervals of real targets (coverage90_y)",
}
BOTH = ("paper_nll_x", "paper_nll_y")
NOT_RUN = "not run"
INTRODUCTION = f"""\
Made by `python -m launch.tables` from the cells of a working directory; the CSV file of the same
name has every metric. Mean ± population standard deviation over the number of splits given (another
number in brackets); one split has no deviation. *Published*: the source talk, ten splits of its
own. {MARKS["better"]} better than published, {MARKS["equal"]} equal within two standard errors of
the difference (ours from the sample variance over our splits, for one split from the published
deviation; theirs over ten), {MARKS["worse"]} worse. Bold: best mean of the row, over the splits
that its models share."""
TIME = """\
Wall clock of a run from loading the data to the last figure, imports apart. *Outside*: the share
that is neither compilation, training nor evaluation (data, checkpoints, logs, figures). *resumed*:
cut off and gone on, so its wall clock is not known."""


def write(cells: Iterable[dict], output: Path, *, asked: Iterable[tuple[str, ...]] = ()) -> None:
    """Writes the page and, beside it, the CSV file of the same name.

    Args:
      cells: contents of the cell files.
      output: the Markdown file.
      asked: (table, model, preset, changes) to show even where no cell of theirs was run.
    """
    cells = list(cells)
    groups = results.group(cells)
    rows, superseded = results.arrange(groups)
    failed = [cell for cell in cells if cell["status"] == "failed"]
    text = page(rows, superseded, failed, asked=asked)
    write_atomic(output, lambda stream: stream.write(text.encode()))
    content = table_csv(groups).encode()
    write_atomic(output.with_suffix(".csv"), lambda stream: stream.write(content))


def page(rows, superseded=(), failed=(), *, asked=()) -> str:
    """Returns the page as Markdown; see `write`."""
    shown = {key: dict(row) for key, row in rows.items()}
    extra = {}  # models beyond the published five, by family
    for table, model, preset, changes in asked:
        shown.setdefault(results.RowKey(table, preset, changes), {})
        extra.setdefault(published.models_of(table), []).append(model)
    parts = ["# Results", INTRODUCTION, *_summary(rows)]
    for metric in _metrics(rows):
        parts.append(f"## {TITLES[metric]}")
        for family in (published.MODELS, published.IMAGE_MODELS):
            keys = [key for key in shown if published.models_of(key.table) == family]
            present = [model for key in keys for model in shown[key]]
            models = list(dict.fromkeys([*family, *extra.get(family, []), *present]))
            parts += _score_table(shown, sorted(keys, key=_order), metric, models)
    parts += _settings(rows) + _time(rows)
    if failed:
        listed = [[_name(cell), cell["split"], cell["reason"]] for cell in failed]
        parts += ["## Failed cells", _markdown(["cell", "split", "reason"], listed)]
    if superseded:
        listed = [
            [_name(g._asdict()), g.digest, len(g.cells), _score(g, "paper_nll_x"),
             _score(g, "paper_nll_y")]
            for g in superseded
        ]  # fmt: skip
        head = ["cell", "settings", "splits", "paper_nll_x", "paper_nll_y"]
        parts += ["## Older settings, in no table above", _markdown(head, listed)]
    return "\n\n".join(parts) + "\n"


def table_csv(groups: Iterable[results.Group]) -> str:
    """Returns one line a group and metric, older settings included."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["table", "model", "preset", "changes", "settings", "metric", "splits", "mean", "std",
         "published_mean", "published_std", "mark"]
    )  # fmt: skip
    for group in sorted(groups, key=lambda g: (*_order(g), g.model, g.digest)):
        theirs = published.scores(group.table, group.model)
        for metric in group.cells[0]["metrics"]:
            values = group.values(metric)
            if values is None:
                continue
            compared = [*theirs[metric], results.mark(values, metric, theirs[metric])] if (
                metric in theirs
            ) else ["", "", ""]  # fmt: skip
            writer.writerow(
                [*group[:5], metric, len(values), values.mean(), values.std(), *compared]
            )
    return stream.getvalue()


def _metrics(rows):
    """The scores to show: the published two always, others where they were measured."""
    measured = {
        name
        for row in rows.values()
        for group in row.values()
        for name in group.cells[0]["metrics"]
    }
    return [name for name in TITLES if name in measured or name in BOTH]


def _score_table(shown, keys, metric, models):
    """One table of a score: a row a data set and settings, a column a model."""
    lines, previous = [], None
    for key in keys:
        row = shown[key]
        is_known = [g.values(metric) is not None for g in row.values()]
        theirs = {m: published.scores(key.table, m).get(metric) for m in models}
        if not any(is_known) and not any(theirs.values()):
            continue
        if key.table != previous and any(theirs.values()):
            means = {m: t[0] if t else math.nan for m, t in theirs.items()}
            top = results.best(means, metric)
            entries = [_bold(_published(theirs[m]) if theirs[m] else "", m == top) for m in models]
            lines.append([key.table, "*published*", published.NUM_SPLITS, *entries])
        previous = key.table
        counts = [len(group.cells) for group in row.values()]
        usual = max(counts, key=lambda c: (counts.count(c), c), default="")
        top = results.best(results.common_means(row, metric), metric)
        entries = []
        for model in models:
            group = row.get(model)
            if group is None or group.values(metric) is None:
                entries.append(NOT_RUN)
                continue
            entry = _bold(_score(group, metric), model == top)
            if theirs[model]:
                entry += f" {MARKS[results.mark(group.values(metric), metric, theirs[model])]}"
            if len(group.cells) != usual:
                entry += f" ({len(group.cells)})"
            entries.append(entry)
        lines.append([key.table, _label(key.preset, key.changes), usual, *entries])
    return [_markdown(["table", "settings", "splits", *models], lines)] if lines else []


def _summary(rows):
    """Counts and gaps, for each family of which the default preset was run."""
    lines = []
    for model, baseline in results.BASELINES.items():
        below = results.below_published(rows, model)
        if below:
            lines.append(
                f"- Default {model} has a mean below the published {model} in both scores on "
                f"{_count(below)}."
            )
        for metric in (*BOTH, "nll_x", "nll_y"):
            first = results.is_best(rows, model, metric)
            if first:
                lines.append(
                    f"- Default {model} has the best {metric} of the five on {_count(first)}."
                )
        for metric in BOTH:
            lines += _gap_table(results.gaps(rows, model, metric), model, baseline, metric)
    text = "A table that was run with changed settings only counts with these."
    return ["## In short", text, *_joined(lines)] if lines else []


def _gap_table(gaps, model, baseline, metric):
    if not gaps:
        return []
    number = lambda value: f"{value:.3f}" if math.isfinite(value) else NOT_RUN
    share = lambda value: f"{value:.0%}" if math.isfinite(value) else NOT_RUN
    body = [
        [g.table, number(g.published), number(g.paper), number(g.default),
         share(g.default / g.published) if g.published else ""]
        for g in gaps
    ]  # fmt: skip
    total = [share(results.share_of_published(gaps, preset)) for preset in ("paper", "default")]
    text = (
        f"{baseline} minus {model} in {metric}: published, by the `paper` preset (regularisation "
        f"and budgets as published), by the default preset (both equal), and what remains of the "
        f"published gap there. Sums over the tables run, by the published sums: {total[0]} "
        f"(`paper`), {total[1]} (default)."
    )
    head = ["table", "published", "`paper`", "default", "default / published"]
    return [text, _markdown(head, body)]


def _settings(rows):
    """What every row was run with, and in which fields the models of a row differ."""
    if not rows:
        return []
    body = [
        [key.table, _label(key.preset, key.changes), model, _splits(group), group.digest,
         ", ".join(sorted({(cell["commit"] or "unknown")[:8] for cell in group.cells})),
         ", ".join(sorted({cell["device"]["kind"] for cell in group.cells}))]
        for key in sorted(rows, key=_order)
        for model, group in rows[key].items()
    ]  # fmt: skip
    head = ["table", "settings", "model", "splits", "hash", "commits", "device"]
    parts = ["## Settings", _markdown(head, body)]
    for settings in dict.fromkeys(_label(*key[1:]) for key in sorted(rows, key=_order)):
        parts += _differences(
            settings, [row for key, row in rows.items() if _label(*key[1:]) == settings]
        )
    return parts


def _differences(settings, rows):
    """Fields in which the models of a row differ, with their values: budgets are compared here."""
    values = {}  # field -> model -> its values over the tables
    for row in rows:
        fields = {m: flatten(group.cells[0]["config"]) for m, group in row.items()}
        for name in dict.fromkeys(name for f in fields.values() for name in f):
            if len({str(f.get(name)) for f in fields.values()}) > 1:
                for model, f in fields.items():
                    values.setdefault(name, {}).setdefault(model, []).append(str(f.get(name)))
    values.pop("model.name", None)
    if not values:
        return []
    models = list(dict.fromkeys(model for found in values.values() for model in found))
    body = [
        [name, *(" or ".join(dict.fromkeys(found.get(model, []))) for model in models)]
        for name, found in values.items()
    ]
    text = f"Fields in which the models of a table differ ({settings}); all others are equal."
    return [text, _markdown(["field", *models], body)]


def _time(rows):
    """Seconds of the runs, and the share of them outside compiled programs."""
    runs = results.runs(group for row in rows.values() for group in row.values())
    if not runs:
        return []
    number = lambda value: "resumed" if value is None else f"{value:.0f}"
    body = []
    for run in sorted(runs.values(), key=lambda run: (*_order(run["key"]), run["model"])):
        wall = run["seconds"]
        share = "" if wall is None else f"{run['outside'] / wall:.1%}"
        per_split = None if wall is None else wall / run["replicas"]
        clocks = [number(run[name]) for name in ("compile", "train", "evaluate")]
        body.append(
            [run["key"].table, _label(*run["key"][1:]), run["model"], run["replicas"],
             number(per_split), number(wall), *clocks, share, run["device"]]
        )  # fmt: skip
    head = ["table", "settings", "model", "replicas", "s a split", "s", "compile", "train",
            "evaluate", "outside", "device"]  # fmt: skip
    return ["## Time", TIME, _markdown(head, body)]


def _order(key):
    known = published.TABLES
    at = known.index(key.table) if key.table in known else len(known)
    return at, key.table, key.preset, key.changes


def _label(preset, changes):
    name = "`paper`" if preset == "paper" else preset
    return f"{name}, {changes}" if changes else name


def _name(cell):
    return f"{cell['table']} {cell['model']} {_label(cell['preset'], cell['changes'])}"


def _splits(group):
    return ", ".join(str(cell["split"]) for cell in group.cells)


def _score(group, metric):
    values = group.values(metric)
    if values is None:
        return NOT_RUN
    mean, std = values.mean(), values.std()
    if not math.isfinite(mean):
        return "nan"
    decimals = 1 if abs(mean) >= 10 else 2 if abs(mean) >= 1 else 3 if abs(mean) >= 0.1 else 4
    spread = f" ± {std:.{decimals}f}" if len(values) > 1 else ""
    return f"{mean:.{decimals}f}{spread}"


def _published(theirs):
    decimals = 2 if all(round(value, 2) == value for value in theirs) else 3
    mean, std = theirs
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _bold(text, is_bold):
    return f"**{text}**" if is_bold else text


def _count(found):
    yes = [table for table, is_true in found.items() if is_true]
    no = [table for table, is_true in found.items() if not is_true]
    listed = f" ({', '.join(yes)})" if yes else ""
    return f"{len(yes)} of {len(found)} tables{listed}" + (
        f"; not on {', '.join(no)}" if no else ""
    )


def _markdown(head, body):
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(entry) for entry in line) + " |" for line in lines)


def _joined(lines):
    """Keeps consecutive list items in one paragraph."""
    out = []
    for line in lines:
        if out and line.startswith("- ") and out[-1].startswith("- "):
            out[-1] += "\n" + line
        else:
            out.append(line)
    return out
