"""Figures of the report of `launch.impute`, as PNGs in memory.

Names and labels come from the user's table and are drawn as they are, never as formulas. Blue is
what was imputed, grey what was observed, orange what is missing.
"""

import io
import warnings
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmcvae.columns import Column
from launch import figures
from launch.figures import GRID, HMC, MODEL, OTHER
from launch.impute_checks import LEVELS

MAX_MAP_ROWS = 300  # of the picture of what is missing; more rows are averaged
MAX_NAMED = 40  # columns whose names fit on an axis
MAX_BARS = 12  # categories of a panel
LEAST_TOP = 20.0  # of the scale of influence, so that noise stays pale
STYLE = figures.STYLE | {"text.parse_math": False}


def name(text: object, limit: int = 24) -> str:
    """Shortens a name or label and spells out what cannot be printed."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def missing_map(missing: np.ndarray, names: Sequence[str]) -> bytes:
    """Draws which cells of a table [N, D] are missing, and the share by column."""
    num_rows, num_columns = missing.shape
    step = -(-num_rows // MAX_MAP_ROWS)
    blocks = [missing[start : start + step] for start in range(0, num_rows, step)]
    picture = np.stack([block.mean(axis=0) for block in blocks])
    with mpl.rc_context(STYLE):
        figure = Figure(
            (min(2.5 + 0.3 * num_columns, 10), 5.2), dpi=figures.DPI, layout="constrained"
        )
        bars, image = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
        bars.bar(range(num_columns), 100 * missing.mean(axis=0), color=HMC)
        bars.set_ylabel("% missing")
        cmap = mpl.colors.LinearSegmentedColormap.from_list("missing", [GRID, HMC])
        extent = (-0.5, num_columns - 0.5, num_rows + 0.5, 0.5)
        image.imshow(picture, cmap=cmap, vmin=0, vmax=1, aspect="auto", extent=extent,
                     interpolation="nearest")  # fmt: skip
        image.grid(False)
        image.set_ylabel("row")
        if num_columns <= MAX_NAMED:
            image.set_xticks(range(num_columns), [name(n, 16) for n in names], rotation=90)
        else:
            image.set_xlabel("column")
        return _png(figure)


def distributions(
    columns: Sequence[Column], observed: Sequence[np.ndarray], imputed: Sequence[np.ndarray]
) -> bytes:
    """Draws observed cells against all draws of the missing ones, a panel a column.

    Args:
      columns: their descriptions.
      observed: a column each, [n] raw reals or codes.
      imputed: the same, [m].
    """
    with mpl.rc_context(STYLE):
        figure, axes = figures.panels(len(columns), width=2.6, height=2.0, max_columns=4)
        for axis, column, seen, drawn in zip(axes, columns, observed, imputed, strict=True):
            axis.set_title(name(column.name))
            axis.set_yticks([])
            if column.is_discrete:
                _bars(axis, column, seen, drawn)
            else:
                _histograms(axis, seen, drawn)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return _png(figure)


def calibration(coverage: np.ndarray, num_reals: int, reliability: np.ndarray) -> bytes:
    """Draws nominal against actual coverage of reals, and forecast against frequency of classes.

    Args:
      coverage: [len(LEVELS)], NaN where unknown.
      num_reals: cells that it counts; 95 % of exact intervals would come to lie in the grey band.
      reliability: [bins, 3] of `impute_checks.reliability`.
    """
    filled = reliability[reliability[:, 2] > 0]
    panels = [np.isfinite(coverage).any(), len(filled) > 0]
    with mpl.rc_context(STYLE):
        figure, axes = figures.panels(sum(panels), width=3.2, height=3.0)
        axes = iter(axes)
        if panels[0]:
            axis = next(axes)
            level = np.linspace(0, 1, 101)
            error = 1.96 * np.sqrt(level * (1 - level) / num_reals)
            axis.fill_between(level, level - error, level + error, color=GRID, lw=0)
            axis.plot(LEVELS, coverage, "o-", color=MODEL)
            axis.set(title="numbers", xlabel="nominal coverage", ylabel="held-out cells inside")
        if panels[1]:
            axis = next(axes)
            axis.plot(filled[:, 0], filled[:, 1], color=MODEL, lw=1)
            size = 15 + 120 * filled[:, 2] / filled[:, 2].max()
            axis.scatter(filled[:, 0], filled[:, 1], size, color=MODEL)
            axis.set(title="categories", xlabel="forecast probability", ylabel="frequency")
        for axis in figure.axes:
            axis.plot((0, 1), (0, 1), color=OTHER, lw=1, zorder=0)
            axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        return _png(figure)


def influence(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Draws which column narrows the imputations of which: [D, D] percentage points."""
    num = len(names)
    with mpl.rc_context(STYLE):
        side = min(2.4 + 0.34 * num, 11)
        figure = Figure((side + 0.8, side), dpi=figures.DPI, layout="constrained")
        axis = figure.subplots()
        cmap = mpl.colormaps["Blues"].with_extremes(bad=GRID)
        top = max(np.nanmax(matrix, initial=0.0), LEAST_TOP)
        image = axis.imshow(np.maximum(matrix, 0.0), cmap=cmap, vmin=0, vmax=top)
        axis.grid(False)
        ticks = [name(n, 16) for n in names]
        if num <= MAX_NAMED:
            axis.set_xticks(range(num), ticks, rotation=90)
            axis.set_yticks(range(num), ticks)
        axis.set(xlabel="shown", ylabel="imputed")
        if num <= 16:
            for (i, j), value in np.ndenumerate(matrix):
                if value >= 1:
                    color = "white" if value > 0.6 * top else "black"
                    axis.text(
                        j, i, f"{value:.0f}", ha="center", va="center", color=color, fontsize=7
                    )
        figure.colorbar(image, shrink=0.7, label="% of the variance")
        return _png(figure)


def _histograms(axis, seen, drawn):
    both = np.concatenate([seen, drawn])
    low, high = np.quantile(both, (0.005, 0.995))  # few values may lie very far out
    if not high > low:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 25)
    for values, color, label in ((seen, OTHER, "observed"), (drawn, MODEL, "imputed")):
        values = values[(values >= low) & (values <= high)]
        weights = np.full(len(values), 1 / max(len(values), 1))
        axis.hist(values, bins, weights=weights, color=color, alpha=0.55, label=label)


def _bars(axis, column, seen, drawn):
    num = max(column.num_classes, 2)
    shares = [np.bincount(v.astype(int), minlength=num) / max(len(v), 1) for v in (seen, drawn)]
    order = np.argsort(-shares[0], kind="stable")[:MAX_BARS] if num > MAX_BARS else np.arange(num)
    place = np.arange(len(order))
    for share, color, label, side in zip(
        shares, (OTHER, MODEL), ("observed", "imputed"), (-0.2, 0.2), strict=True
    ):
        axis.bar(place + side, share[order], 0.4, color=color, alpha=0.7, label=label)
    labels = column.categories or range(num)
    axis.set_xticks(place, [name(labels[k], 8) for k in order], rotation=90 if num > 4 else 0)
    if num > MAX_BARS:
        axis.set_title(f"{name(column.name, 16)}, {MAX_BARS} of {num}")


def _png(figure):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of foreign scripts
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
