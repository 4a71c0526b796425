"""The report of `launch.impute`: one HTML file that holds its pictures and needs nothing else.

Whatever comes from the table is escaped. There is no script in the page.
"""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hmcvae import frames
from hmcvae.frames import Feature
from launch import impute_checks, impute_figures
from launch.impute_checks import HeldOut

MAX_PANELS = 24  # columns whose distributions are drawn
MAX_INFLUENCE = 60  # columns of the picture of which tells of which
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222 }}
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem }}
table {{ border-collapse: collapse; font-size: .88rem }} .wide {{ overflow-x: auto }}
td, th {{ padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left }}
td, th {{ overflow-wrap: anywhere }}
img {{ max-width: 100%; height: auto }}
</style></head><body>
{body}
</body></html>
"""


class Facts(NamedTuple):
    """What the report tells of."""

    title: str
    summary: str
    files: Sequence[tuple[str, str]]  # name, what it holds
    inferred: Sequence[Sequence[str]]  # rows of the table of columns, its header first
    features: Sequence[Feature]
    missing: np.ndarray  # [N, all columns] bool
    codes: np.ndarray  # [N, D] observed values of the modelled columns, NaN where missing
    draws: np.ndarray  # [M, N', D] imputations of rows with holes, NaN where observed
    held_out: HeldOut | None
    influence: np.ndarray  # [D, D]
    target: int | None  # place among the modelled columns


def render(facts: Facts) -> str:
    """Returns the page."""
    schema = frames.schema(facts.features)
    order = list(range(schema.num_columns))
    if facts.target is not None:
        order.remove(facts.target)
        order.insert(0, facts.target)
    names = [feature.name for feature in facts.features]
    body = [f"<h1>{_text(facts.title)}</h1>", _say(facts.summary)]
    body.append(_table([("file", "holds"), *facts.files]))
    if facts.target is not None:
        body += _target(facts, schema)
    picture = impute_figures.missing_map(facts.missing, names)
    body += [
        "<h2>What is missing</h2>",
        _image(picture, "missing cells, and their share by column"),
    ]
    body += ["<h2>How the columns were read</h2>", _table(facts.inferred)]
    body += _distributions(facts, schema, order)
    body += _calibration(facts, schema, order)
    body += _influence(facts, schema, order)
    return _PAGE.format(title=_text(facts.title), body="\n".join(body))


def _target(facts, schema):
    column, effects = schema.columns[facts.target], facts.influence[facts.target]
    best = [j for j in np.argsort(-np.nan_to_num(effects, nan=-1.0)) if effects[j] >= 1][:8]
    lines = [f"<h2>The target: {_text(column.name)}</h2>"]
    if facts.held_out is not None and facts.held_out.hidden[:, facts.target].any():
        lines.append(_scores(facts.held_out, schema, [facts.target]))
    if best:
        rows = [(schema.names[j], f"{effects[j]:.0f} %") for j in best]
        lines += [
            _say(
                "What tells of it: the share of its variance that is taken away where the column "
                "is known (see the last section)."
            ),
            _table([("column", "share"), *rows]),
        ]
    return lines


def _distributions(facts, schema, order):
    shown = [j for j in order if np.isfinite(facts.draws[..., j]).any()]
    if not shown:
        return []
    part = shown[:MAX_PANELS]
    observed = [facts.codes[~np.isnan(facts.codes[:, j]), j] for j in part]
    imputed = [facts.draws[..., j][~np.isnan(facts.draws[..., j])] for j in part]
    picture = impute_figures.distributions([schema.columns[j] for j in part], observed, imputed)
    more = f" The first {len(part)} of {len(shown)} columns." if len(part) < len(shown) else ""
    return [
        "<h2>Observed and imputed values</h2>",
        _say(
            "Observed cells, and all draws of the missing ones. The two need not agree: cells may "
            f"be missing where values are high, say, and other columns may tell so.{more}"
        ),
        _image(picture, "histograms of observed and imputed values by column"),
    ]


def _calibration(facts, schema, order):
    head = ["<h2>Held-out cells</h2>"]
    if facts.held_out is None:
        return [*head, _say("The table has too few observed cells to hold any out.")]
    held_out = facts.held_out
    count = int(held_out.hidden.sum())
    shown = [j for j in order if held_out.hidden[:, j].any()]
    return [
        *head,
        _say(
            f"{count} observed cells were hidden before training and imputed like the missing "
            "ones. Good intervals hold as many of them as they promise, and good probabilities "
            "come true as often as they say: points on the line, or in the band that so many "
            "cells leave to chance. These cells were hidden at random; if cells are missing for "
            "reasons that the table does not show, imputations of them may be worse."
        ),
        _image(
            impute_figures.calibration(
                held_out.coverage, held_out.num_reals, impute_checks.reliability(held_out)
            ),
            "coverage of intervals, and reliability of probabilities, on held-out cells",
        ),
        _scores(held_out, schema, shown),
        _say(
            "Error: root mean square of numbers in standard deviations (of the logarithm, where a "
            "column was read so), share of wrong categories; beside it, that of the column's mean "
            "or most frequent category."
        ),
    ]


def _scores(held_out, schema, order):
    rows = [("column", "cells", "error", "of the mean or mode", "in 50 % interval", "in 90 %")]
    for j in order:
        values = [held_out.scores["error"][j], held_out.baseline[j]]
        cover = [held_out.scores[f"coverage_{level}"][j] for level in (50, 90)]
        cells = int(held_out.hidden[:, j].sum())
        rows.append(
            (
                schema.names[j],
                str(cells),
                *(f"{v:.2f}" for v in values),
                *("" if np.isnan(v) else f"{v:.0%}" for v in cover),
            )
        )
    return _table(rows)


def _influence(facts, schema, order):
    order = order[:MAX_INFLUENCE]
    if len(order) < 2 or not np.isfinite(facts.influence).any():
        return []
    matrix = facts.influence[np.ix_(order, order)]
    return [
        "<h2>Which columns tell of which</h2>",
        _say(
            f"Random halves of the cells of {impute_checks.ROWS} rows were hidden and imputed. A "
            "number is the share of the variance of the imputed column (the row of the picture) "
            "that is taken away, on average, where the other column is shown, if that is more than "
            "two standard errors: a statement about the model's certainty, not about causes. Of "
            "two columns that say the same, either may get the credit."
        ),
        _image(
            impute_figures.influence(matrix, [schema.names[j] for j in order]),
            "influence of shown columns on imputed ones",
        ),
    ]


def _say(text):
    return f"<p>{_text(text)}</p>"


def _text(value):
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return html.escape(text)


def _table(rows):
    head, *rest = rows
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rest]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _image(png, alt):
    data = base64.b64encode(png).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'
