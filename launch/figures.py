"""Figures of a run, drawn from saved arrays and metrics rows only, never from a model.

One function a figure, `(arrays, path) -> None`: a PNG is written whole or not at all. Blue is the
model or its encoder, orange what HMC adds, grey what either is compared with. Matplotlib's object
interface with the Agg canvas: no window, no global state, safe beside a training loop.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from launch.metrics import RESERVED
from launch.workdir import write_atomic

MODEL, HMC, OTHER, GRID = "#2166ac", "#e08214", "#8a8a8a", "#d9d9d9"
DENSITY, HEAT, COUNTS = "Greens", "viridis", "Blues"
DPI = 125
MAX_PANELS = 24  # columns shown by `imputation_scatter`
MAX_POINTS = 400  # points of one panel
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 10,
    "figure.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
}


def styled(draw):
    """Makes a drawing function run in the style of all figures."""

    @functools.wraps(draw)
    def drawn(arrays, path):
        with mpl.rc_context(STYLE):
            draw(arrays, path)

    return drawn


@styled
def imputation_scatter(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws imputed against true values of the hidden entries, one panel a column.

    Real columns: posterior mean with one standard deviation, in raw units; discrete columns: the
    confusion matrix, rows normalised. At most 24 columns are shown, and 400 points of each.

    Args:
      arrays: x_true, x_mean, x_std [m, D] raw units and codes; mask [m, D] True = shown to the
        model; names [D]; kinds [D]; optional x_probs [m, D, C] class probabilities (without them a
        code is x_mean, rounded), num_classes [D], and known [m, D] False = truly missing.
      path: PNG to write.
    """
    names, kinds = arrays["names"], arrays["kinds"]
    hidden = ~np.asarray(arrays["mask"], bool) & np.isfinite(arrays["x_true"])
    if "known" in arrays:
        hidden &= np.asarray(arrays["known"], bool)
    num_shown = min(len(names), MAX_PANELS)
    figure, axes = panels(num_shown, width=2.1, height=2.0)
    for i, axis in enumerate(axes):
        rows = np.flatnonzero(hidden[:, i])
        is_discrete = kinds[i] in ("bernoulli", "categorical")
        draw = _confusion if is_discrete else _scatter
        axis.set_title(_short(names[i]))
        if len(rows):
            draw(axis, arrays, rows, i)
        else:
            axis.text(0.5, 0.5, "nothing hidden", ha="center", transform=axis.transAxes)
    more = "" if num_shown == len(names) else f" ({num_shown} of {len(names)} columns)"
    figure.suptitle(f"Hidden test entries: true and imputed values{more}")
    figure.supxlabel("true")
    figure.supylabel("imputed")
    save(figure, path)


def _scatter(axis, arrays, rows, i):
    stride = -(-len(rows) // MAX_POINTS)
    true, mean, std = (arrays[k][rows, i] for k in ("x_true", "x_mean", "x_std"))
    low, high = np.nanmin([true.min(), mean.min()]), np.nanmax([true.max(), mean.max()])
    margin = 0.05 * (high - low) + 1e-12
    limits = (low - margin, high + margin)
    is_skewed = arrays["kinds"][i] == "loggaussian" and true.max() > 30 * max(np.median(true), 1e-9)
    if is_skewed:  # the units of the model: linear near 0, logarithmic above
        threshold = max(float(np.median(true)), 1e-2 * true.max(), 1e-9)
        axis.set_xscale("symlog", linthresh=threshold)
        axis.set_yscale("symlog", linthresh=threshold)
        limits = (0.0, 2 * high)
    axis.plot(limits, limits, color=OTHER, lw=1, zorder=1)
    axis.errorbar(
        true[::stride],
        mean[::stride],
        yerr=std[::stride],
        fmt="o",
        ms=2.2,
        color=MODEL,
        ecolor=MODEL + "38",
        elinewidth=0.8,
        mew=0,
        zorder=2,
    )
    axis.set(xlim=limits, ylim=limits)
    if not is_skewed:
        for line in (axis.xaxis, axis.yaxis):
            line.set_major_locator(mpl.ticker.MaxNLocator(4))
    if true.std() > 0 and mean.std() > 0:
        corner = {"transform": axis.transAxes, "fontsize": 8, "va": "top"}
        axis.text(0.04, 0.97, f"r = {np.corrcoef(true, mean)[0, 1]:.2f}", **corner)


def _confusion(axis, arrays, rows, i):
    true = arrays["x_true"][rows, i].astype(int)
    if "x_probs" in arrays and arrays["kinds"][i] == "categorical":
        guess = arrays["x_probs"][rows, i].argmax(axis=-1)
    elif "x_probs" in arrays:
        guess = (arrays["x_probs"][rows, i, 0] > 0.5).astype(int)
    else:
        guess = np.round(arrays["x_mean"][rows, i]).astype(int)
    declared = int(arrays["num_classes"][i]) if "num_classes" in arrays else 0
    size = max(2, declared, true.max() + 1, guess.max() + 1)
    counts = np.zeros((size, size))
    np.add.at(counts, (guess, true), 1)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    axis.imshow(share, cmap=COUNTS, vmin=0, vmax=1, origin="lower", aspect="auto")
    axis.grid(False)
    ticks = range(0, size, -(-size // 8))
    axis.set(xticks=ticks, yticks=ticks)
    axis.set_title(f"{_short(axis.get_title(), 12)}: {np.mean(guess == true):.0%} right")
    if size <= 4:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.55 else "black"
            label = {"ha": "center", "va": "center", "color": color, "fontsize": 8}
            axis.text(column, row, f"{count:.0f}", **label)


@styled
def error_by_column(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the imputation error of every column beside that of its mean or mode.

    Args:
      arrays: error_model, error_baseline [D] (RMSE in standardised units for real columns, error
        rate for discrete ones; NaN where nothing is hidden); names [D]; kinds [D].
      path: PNG to write.
    """
    is_discrete = np.isin(arrays["kinds"], ("bernoulli", "categorical"))
    groups = [
        (label, np.flatnonzero(where))
        for label, where in (
            ("RMSE (standardised)", ~is_discrete),
            ("error rate", is_discrete),
        )
        if where.any()
    ]
    tallest = max(len(columns) for _, columns in groups)
    figure = _figure((3.6 * len(groups) + 0.6, min(0.21 * tallest, 12) + 1.1))
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (label, columns) in zip(axes, groups, strict=True):
        place = np.arange(len(columns))
        ours, baseline = arrays["error_model"][columns], arrays["error_baseline"][columns]
        axis.hlines(place, ours, baseline, color=GRID, lw=2, zorder=1)
        style = {"s": 26, "zorder": 2}
        axis.scatter(baseline, place, color="white", edgecolor=OTHER, label="mean or mode", **style)
        axis.scatter(ours, place, color=MODEL, label="model", **style)
        axis.set_yticks(place, [_short(arrays["names"][i], 20) for i in columns])
        axis.set(ylim=(len(columns) - 0.4, -0.6), xlabel=label)
        axis.set_xlim(0, 1.08 * np.nanmax([*ours, *baseline, 1e-3]))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    save(figure, path)


@styled
def acceptance(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the acceptance rate of the HMC transitions during training.

    Args:
      arrays: step [n]; acceptance [n] or [n, R], one line a replica and their mean.
      path: PNG to write.
    """
    rate = np.asarray(arrays["acceptance"], float)
    rate = rate[:, None] if rate.ndim == 1 else rate
    figure = _figure((4.6, 2.6))
    axis = figure.subplots()
    if rate.shape[1] > 1:
        axis.plot(arrays["step"], rate, color=HMC, lw=0.7, alpha=0.35)
    marker = "o" if len(rate) < 12 else None
    axis.plot(arrays["step"], rate.mean(axis=1), color=HMC, marker=marker, ms=3)
    axis.set(xlabel="training step of the HMC phase", ylabel="acceptance rate")
    axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
    lowest = np.nanmin(rate) if np.isfinite(rate).any() else 0.0
    axis.set_ylim(np.floor(10 * max(lowest - 0.02, 0.0)) / 10, 1.005)
    save(figure, path)


@styled
def step_sizes(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the learned step sizes as a heat map of transition by latent dimension.

    Args:
      arrays: log_step_size [T, d]; optional log_step_size_before [T, d], drawn above it in the same
        colours, layer_sizes [L] with sum d, drawn as boundaries, and is_preconditioned, True where
        steps are in units of the encoder's standard deviations.
      path: PNG to write.
    """
    maps = [("after training", np.exp(arrays["log_step_size"]))]
    if "log_step_size_before" in arrays:
        maps.insert(0, ("before training", np.exp(arrays["log_step_size_before"])))
    low, high = min(m.min() for _, m in maps), max(m.max() for _, m in maps)
    norm = LogNorm(low, max(high, 1.01 * low))
    num_steps, num_latents = maps[0][1].shape
    height = min(0.2 * num_steps, 4) + 0.9
    figure = _figure((min(0.28 * num_latents, 8) + 2.2, height * len(maps)))
    axes = figure.subplots(len(maps), 1, squeeze=False, sharex=True)[:, 0]
    sizes = np.asarray(arrays.get("layer_sizes", [num_latents]), int)
    starts = np.cumsum(sizes) - sizes
    for axis, (title, values) in zip(axes, maps, strict=True):
        image = axis.imshow(values, cmap=HEAT, norm=norm, aspect="auto", interpolation="nearest")
        axis.grid(False)
        axis.set(ylabel="transition", title=title)
        axis.set_yticks(*_ticks(num_steps))
        axis.set_xticks(*_ticks(num_latents))
        for start in starts[1:]:
            axis.axvline(start - 0.5, color="white", lw=2)
    axes[-1].set_xlabel(
        "latent dimension"
        if len(sizes) == 1
        else "latent dimension; layers 1 to " + f"{len(sizes)} from left to right"
    )
    unit = ", encoder's deviations" if arrays.get("is_preconditioned", False) else ""
    bar = figure.colorbar(image, ax=list(axes), label="step size" + unit)
    low_exponent, high_exponent = np.log10(norm.vmin), np.log10(norm.vmax)
    marks = 10 ** np.linspace(low_exponent, high_exponent, 5)
    bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks])
    bar.minorticks_off()
    save(figure, path)


@styled
def training_curves(rows: Sequence[Mapping], path: str | Path) -> None:
    """Draws every metric of training, phases one after the other.

    Args:
      rows: of metrics.jsonl: {"phase", "step", metric: value, "replicas": {metric: [R]}}; where
        there are replicas a band spans their smallest and largest value.
      path: PNG to write.
    """
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    lengths = [max(row["step"] for row in rows if row["phase"] == phase) for phase in phases]
    offsets = dict(zip(phases, np.cumsum([0, *lengths])[:-1].tolist(), strict=True))
    names = dict.fromkeys(key for row in rows for key in row if key not in RESERVED)
    names = [name for name in names if any(np.isfinite(row.get(name, np.nan)) for row in rows)]
    figure, axes = panels(max(len(names), 1), width=3.0, height=2.1, max_columns=3)
    for axis, name in zip(axes, names, strict=False):
        values = [row[name] for row in rows if name in row]
        for i, phase in enumerate(phases):
            part = [row for row in rows if row["phase"] == phase and name in row]
            if not part:
                continue
            step = [offsets[phase] + row["step"] for row in part]
            replicas = [row.get("replicas", {}).get(name, [row[name]]) for row in part]
            replicas = np.array(replicas, float).reshape(len(part), -1)
            color = (OTHER, MODEL, HMC)[max(0, 3 - len(phases)) + i] if len(phases) < 4 else MODEL
            if replicas.shape[1] > 1:
                low, high = replicas.min(axis=1), replicas.max(axis=1)
                axis.fill_between(step, low, high, color=color, alpha=0.2, lw=0)
            marker = "o" if len(part) == 1 else None
            axis.plot(step, [row[name] for row in part], color=color, marker=marker, label=phase)
        for start in list(offsets.values())[1:]:
            axis.axvline(start, color=GRID, lw=1, zorder=0)
        _clip(axis, values)
        axis.set(title=name, xlim=(0, sum(lengths)))
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    figure.supxlabel("training step")
    handles = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if len(phases) > 1:
        figure.legend(
            [handles[p] for p in phases if p in handles],
            [p for p in phases if p in handles],
            loc="outside upper center",
            ncols=len(phases),
        )
    save(figure, path)


@styled
def posterior_contours(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws a posterior over two latent dimensions with the encoder's Gaussian and HMC's samples.

    Args:
      arrays: grid_x [Gx], grid_y [Gy]; log_density [Gx, Gy], unnormalised; encoder_mean,
        encoder_std [2], drawn at one and two standard deviations; samples [S, 2]; optional
        dimensions [2], the numbers of the latents, and is_hmc, False for samples of the encoder.
      path: PNG to write.
    """
    x, y = arrays["grid_x"], arrays["grid_y"]
    log_density = np.nan_to_num(np.asarray(arrays["log_density"], float), nan=-np.inf)
    density = np.exp(log_density - log_density.max())
    figure = _figure((4.2, 3.9))
    axis = figure.subplots()
    axis.grid(False)
    axis.contourf(x, y, density.T, levels=np.linspace(0.02, 1.0, 12), cmap=DENSITY, extend="max")
    samples = arrays["samples"][:MAX_POINTS]
    label = "HMC samples" if arrays.get("is_hmc", True) else "encoder samples"
    axis.plot(*samples.T, "*", color=HMC, ms=4.5, mew=0, alpha=0.8, label=label)
    angle = np.linspace(0.0, 2.0 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    mean, std = (np.asarray(arrays[f"encoder_{name}"])[:, None] for name in ("mean", "std"))
    for width, dashes in ((1, "-"), (2, "--")):
        axis.plot(*(mean + width * std * circle), dashes, color=MODEL, label=f"encoder, {width} sd")
    first, second = arrays.get("dimensions", (1, 2))
    axis.set(xlabel=f"latent {first}", ylabel=f"latent {second}")
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2, handletextpad=0.5)
    save(figure, path)


@styled
def score_histograms(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws how a model scores rows of its own table and rows of another one.

    Args:
      arrays: own, other [n] scores in nats; names [2] of the two tables; auroc, a number.
      path: PNG to write.
    """
    figure = _figure((4.6, 2.8))
    axis = figure.subplots()
    both = [np.asarray(arrays[name], float) for name in ("own", "other")]
    low = np.quantile(np.concatenate(both), 0.01)  # a few rows may lie very far below
    bins = np.linspace(low, max(values.max() for values in both), 41)
    for values, name, color in zip(both, arrays["names"], (MODEL, HMC), strict=True):
        axis.hist(np.maximum(values, low), bins, color=color, alpha=0.6, label=str(name))
    axis.set(xlabel="log score of what is seen of a row, nats", ylabel="rows")
    axis.set_title(f"area under the ROC curve {float(arrays['auroc']):.3f}")
    axis.legend()
    save(figure, path)


def _figure(size):
    return Figure(size, dpi=DPI, layout="constrained")


def panels(count, *, width, height, max_columns=6):
    """Returns a figure and `count` axes of `width` by `height` inches in rows."""
    num_columns = min(count, max_columns)
    if count > max_columns:  # as few empty panels as the number of rows allows
        num_columns = -(-count // -(-count // max_columns))
    num_rows = -(-count // num_columns)
    figure = _figure((max(width * num_columns + 0.5, 3.0), height * num_rows + 0.6))
    axes = figure.subplots(num_rows, num_columns, squeeze=False).reshape(-1)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def save(figure, path, *, full_colour=False):
    """Writes a PNG whole or not at all, of 256 colours (a third of the bytes) unless asked."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    if not full_colour:
        image = image.quantize(256, dither=Image.Dither.NONE)
    write_atomic(Path(path), lambda stream: image.save(stream, format="png", optimize=True))


def _ticks(count):
    # every, every second, fifth, tenth...: at most ten labels, counted from 1
    stride = next(s for s in (1, 2, 5, 10, 20, 50, 100, count) if count <= 10 * s)
    places = range(stride - 1, count, stride)
    return places, [str(place + 1) for place in places]


def _clip(axis, values):
    # the first steps of a loss can dwarf the rest: leave the worst two per cent out of sight
    values = np.array([v for v in values if np.isfinite(v)])
    low, high = np.quantile(values, [0.0, 0.98])
    if len(values) >= 50 and values.max() - low > 3 * (high - low) > 0:
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _short(text, limit=20):
    text = str(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
