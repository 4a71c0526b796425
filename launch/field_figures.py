"""Figures of functions (images, voxels, spheres, series, videos), drawn from saved arrays only.

One function a figure, `(arrays, path) -> None`: a PNG is written whole or not at all. Every figure
of fields takes the domain as two arrays, `kind` (str) and `shape` (ints), optionally `convention`,
see `functions.domains.Domain`; fields are [..., N, C] in [0, 1], row-major, C 1 or 3.

Images and video frames are shown as they are, a square a pixel; a voxel is drawn where occupancy
exceeds 0.5; a sphere is seen from infinity, a flat patch a point; a series is a curve, or dots
where it is data. Points that are hidden or NaN are hatched, in voxels a haze. Blue is the model,
grey what it is compared with. Items beyond what fits a page are left out.
Not here: training curves, which are `launch.figures.training_curves`.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from functions import domains
from launch.field_panels import (
    CENTRE,
    COLOURS,
    DARK,
    FIELD,
    GAP,
    MAX_FRAMES,
    channel_colours,
    draw_field,
    draw_sphere,
    turn,
)
from launch.figures import DPI, HEAT, MODEL, panels, save, styled

DOUBT, PALE = "Purples", "#b4b4b4"  # a standard deviation on the sphere; frames
SMALL, CELL, LARGE = 84, 112, 200  # height of a field in pixels: of very many, of many, of a few
GROUP, LINE, MARGIN = 18, 22, 9  # pixels between groups of fields; of text; around
MAX_WIDTH, MAX_ROWS = 900, 4  # pixels and rows of a grid


@styled
def reconstructions(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws data above its reconstruction and what the mixture makes of it, one column an item.

    Args:
      arrays: domain; data, mean [I, N, C]; optional most_probable [I, N, C], the mean of the most
        probable component; optional, with num_components: segments [I, N], that component's number
        from 0, and entropy [I, N] of the components in nats.
      path: PNG to write.
    """
    domain = _domain(arrays)
    data, mean = (_fields(arrays, domain, name) for name in ("data", "mean"))
    rows = {"data": data, "reconstruction": mean}
    if "most_probable" in arrays:
        rows["most probable\ncomponent"] = _fields(arrays, domain, "most_probable")
    scales = {}
    if "segments" in arrays:
        num = int(arrays["num_components"])
        palette = ListedColormap([COLOURS[k % len(COLOURS)] for k in range(num)])
        norm = BoundaryNorm(np.arange(num + 1) + 0.5, num)
        scales["segmentation"] = ("component", ScalarMappable(norm, palette))
        rows["segmentation"] = np.asarray(arrays["segments"]) + 1
    if "entropy" in arrays:
        norm = Normalize(0.0, np.log(max(int(arrays["num_components"]), 2)))
        scales["entropy"] = ("nats", ScalarMappable(norm, HEAT))
        rows["entropy"] = np.asarray(arrays["entropy"], float)
    width, height = _size(domain, CELL)
    num_shown = min(len(data), _num_fitting(width))
    right = 70 if scales else 0
    figure, axes = _grid(rows, [""] * num_shown, width, [height] * len(rows), right=right)
    for line, (label, values) in zip(axes, rows.items(), strict=True):
        unit, scale = scales.get(label, ("", None))
        for i, axis in enumerate(line):
            if scale:
                draw_field(axis, domain, mean[i], colours=scale.to_rgba(values[i]))
            else:
                draw_field(axis, domain, values[i], is_model=label != "data")
        if scale:
            box = line[-1].bbox
            bar = _bar(figure, scale, unit, (box.x1 + 8, box.y0 + 4, 9, box.height - 8))
            bar.ax.yaxis.set_label_coords(5.4, 0.5)
            if label == "segmentation":
                bar.set_ticks(range(1, num + 1, 1 + num // 8))
    save(figure, path, full_colour=True)


@styled
def completions(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws what is observed, the mean of its completions, samples and the truth, a row a task.

    Items lie side by side; of a video, wide as it is, the parts lie one below the other. A series
    has one panel a task and item.

    Args:
      arrays: domain; tasks [Q] str; truth [I, N, C]; mask [Q, I, N] True = observed; mean
        [Q, I, N, C]; samples [Q, I, S, N, C]; optional psnr [Q, I] dB, and for series std
        [Q, I, N, C], drawn as a band of two.
      path: PNG to write.
    """
    domain = _domain(arrays)
    truth, mean, drawn = (_fields(arrays, domain, n) for n in ("truth", "mean", "samples"))
    num_tasks, num_items, num_samples = drawn.shape[:3]
    tasks = [str(task) for task in arrays["tasks"]]
    masks = np.asarray(arrays["mask"], bool)
    scores = [[f"{psnr:.1f} dB" for psnr in line] for line in arrays.get("psnr", [])]
    if domain.kind == "series":
        std = _fields(arrays, domain, "std") if "std" in arrays else None
        _complete_series(path, tasks, truth, masks, mean, drawn, std, scores)
        return
    number = [f" {s + 1}" for s in range(num_samples)] if num_samples > 1 else [""]
    parts = ["observed", "mean", *(f"sample{n}" for n in number), "truth"]
    width, height = _size(domain, SMALL)
    is_down = domain.kind == "video"
    if is_down:
        num_items = min(num_items, _num_fitting(width))
        heights = [height] * (num_tasks * len(parts))
        down = (len(parts), GROUP + LINE)
        figure, axes = _grid(parts * num_tasks, [" "] * num_items, width, heights, down=down)
        axes = axes.reshape(num_tasks, len(parts), num_items).swapaxes(1, 2)
    else:
        num_items = min(num_items, _num_fitting(len(parts) * (width + GAP) - GAP, GROUP))
        space = {"across": (len(parts), GROUP), "down": (1, LINE), "bottom": LINE if scores else 0}
        figure, axes = _grid(tasks, parts * num_items, width, [height] * num_tasks, **space)
        axes = axes.reshape(num_tasks, num_items, len(parts))
    for q, i in np.ndindex(num_tasks, num_items):
        first, second, *_, last = axes[q, i]
        centre = turn(domain, masks[q, i]) if domain.kind == "sphere" else CENTRE
        draw_field(first, domain, truth[i], mask=masks[q, i], centre=centre)
        for axis, values in zip(axes[q, i, 1:-1], [mean[q, i], *drawn[q, i]], strict=True):
            draw_field(axis, domain, values, is_model=True, centre=centre)
        draw_field(last, domain, truth[i], centre=centre)
        if is_down and i == 0:
            first.set_title(tasks[q], loc="left", weight="bold", pad=4)
        if scores and is_down:
            first.set_title(scores[q][i], loc="right", pad=4, fontsize=8)
        elif scores:
            second.set_xlabel(scores[q][i], labelpad=3, fontsize=8)
    save(figure, path, full_colour=True)


def _complete_series(path, tasks, truth, masks, mean, drawn, std, scores):
    width, height = 290, 150
    num_items = min(len(truth), _num_fitting(width, GROUP))
    space = {"across": (1, GROUP), "down": (1, LINE), "top": LINE, "bottom": LINE if scores else 0}
    figure, axes = _grid(tasks, [""] * num_items, width, [height] * len(tasks), **space)
    place = np.arange(truth.shape[-2])
    for (q, i), axis in np.ndenumerate(axes):
        mask = masks[q, i]
        for c, color in enumerate(channel_colours(truth, MODEL)):
            dark = color if truth.shape[-1] > 1 else DARK
            y = mean[q, i, :, c]
            if std is not None:
                band = (y - 2 * std[q, i, :, c], y + 2 * std[q, i, :, c])
                label = "two standard deviations"
                axis.fill_between(place, *band, color=color, alpha=0.16, lw=0, label=label)
            lines = drawn[q, i, :, :, c].T
            axis.plot(place, lines, color=color, lw=0.6, alpha=0.55, label="sample")
            axis.plot(place, truth[i, :, c], color=dark, lw=1, ls=(0, (3, 2)), label="truth")
            axis.plot(place, y, color=color, label="mean")
            axis.plot(place[mask], truth[i, mask, c], "o", color=dark, ms=2.5, label="observed")
        if scores:
            axis.set_xlabel(scores[q][i], labelpad=3, fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    space = {"borderaxespad": 0.2, "columnspacing": 1.2, "handlelength": 1.6}
    figure.legend(shown.values(), shown, loc="upper center", ncols=len(shown), **space)
    save(figure, path)


@styled
def super_resolution(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws items at their native resolution and rendered at others, all in the same size.

    Args:
      arrays: domain of the input; input [I, N, C]; for every resolution R, along the first axis:
        render_<R> [I, N_R, C], and shape_<R> where it is not `shape` scaled to R.
      path: PNG to write.
    """
    domain = _domain(arrays)
    shown = [(domain, _fields(arrays, domain, "input"))]
    prefix = "render_"
    for size in sorted(int(n.removeprefix(prefix)) for n in arrays if n.startswith(prefix)):
        scaled = [round(size * axis / domain.shape[0]) for axis in domain.shape]
        finer = domains.resized(domain, _shape(arrays.get(f"shape_{size}", scaled)))
        shown.append((finer, _fields(arrays, finer, f"{prefix}{size}")))
    titles = [_sizes(finer) for finer, _ in shown]
    titles[0] = f"input, {titles[0]}"
    items = [""] * min(len(shown[0][1]), MAX_ROWS)
    if domain.kind == "video":  # wide already: one below the other
        width, height = _size(domain, CELL)
        items = items[: _num_fitting(width, GROUP)]
        space = {"across": (1, GROUP)}
        figure, axes = _grid(titles, items, width, [height] * len(titles), **space)
        axes = axes.T
    else:
        width, height = _size(domain, LARGE)
        figure, axes = _grid(items, titles, width, [height] * len(items), across=(1, 10))
    for (i, j), axis in np.ndenumerate(axes):
        finer, values = shown[j]
        draw_field(axis, finer, values[i], is_model=j > 0)
    save(figure, path, full_colour=True)


@styled
def side_by_side(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws named rows of fields, one column an item.

    Args:
      arrays: domain; labels [L] str; is_model [L] bool; for every row i: row_<i> [I, N, C], NaN
        where hidden.
      path: PNG to write.
    """
    domain = _domain(arrays)
    labels = [str(label) for label in arrays["labels"]]
    rows = [_fields(arrays, domain, f"row_{i}") for i in range(len(labels))]
    width, height = _size(domain, CELL)
    num_shown = min(_num_fitting(width), *map(len, rows))
    figure, axes = _grid(labels, [""] * num_shown, width, [height] * len(rows))
    for line, values, is_model in zip(axes, rows, arrays["is_model"], strict=True):
        for axis, value in zip(line, values, strict=False):
            draw_field(axis, domain, value, is_model=bool(is_model))
    save(figure, path, full_colour=True)


@styled
def samples(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws generated items in a grid.

    Args:
      arrays: domain; samples [I, N, C].
      path: PNG to write.
    """
    domain = _domain(arrays)
    values, (width, height) = _fields(arrays, domain, "samples"), _size(domain, CELL)
    num_columns = min(_num_fitting(width), round(np.sqrt(2 * len(values) * height / width)) or 1)
    num_rows = min(-(-len(values) // num_columns), MAX_ROWS)
    figure, axes = _grid([""] * num_rows, [""] * num_columns, width, [height] * num_rows)
    for axis in axes.flat[len(values) :]:
        axis.remove()
    for axis, value in zip(axes.flat, values, strict=False):
        draw_field(axis, domain, value, is_model=True)
    save(figure, path, full_colour=True)


@styled
def audit(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws generated items above the training items nearest to them: are they copies?

    Args:
      arrays: domain; samples, nearest [I, N, C]; ratio [I], their distance over the usual distance
        of a test item to its nearest training item: far below 1 is a copy.
      path: PNG to write.
    """
    domain = _domain(arrays)
    pairs = [_fields(arrays, domain, name) for name in ("samples", "nearest")]
    width, height = _size(domain, CELL)
    titles = [""] * min(len(pairs[0]), _num_fitting(width))
    labels = ("sample", "nearest\ntraining item")
    figure, axes = _grid(labels, titles, width, [height] * 2, bottom=LINE)
    for (row, i), axis in np.ndenumerate(axes):
        draw_field(axis, domain, pairs[row][i], is_model=row == 0)
    for axis, ratio in zip(axes[1], arrays["ratio"], strict=False):
        axis.set_xlabel(f"ratio {ratio:.2f}", labelpad=3, fontsize=8)
    save(figure, path, full_colour=True)


@styled
def interpolation(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the way from one item to another through latent space, one row a pair.

    Args:
      arrays: domain; steps [P, S, N, C], evenly spaced, both ends included.
      path: PNG to write.
    """
    domain = _domain(arrays)
    steps, (width, height) = _fields(arrays, domain, "steps"), _size(domain, SMALL)
    num_pairs, num_steps = min(len(steps), MAX_ROWS), steps.shape[1]
    shown = np.linspace(0, num_steps - 1, min(num_steps, _num_fitting(width))).round().astype(int)
    titles = [f"{step / max(num_steps - 1, 1):.2g}" for step in shown]
    figure, axes = _grid([""] * num_pairs, titles, width, [height] * num_pairs)
    for (p, j), axis in np.ndenumerate(axes):
        draw_field(axis, domain, steps[p, shown[j]], is_model=True)
    save(figure, path, full_colour=True)


@styled
def globe(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws one field on the sphere, its completion and the doubt: two hemispheres and the map.

    Args:
      arrays: domain, a sphere; truth, mean, std [N, 1]; mask [N] True = observed; unit (offset,
        scale) with raw = offset + scale * value; unit_name str.
      path: PNG to write.
    """
    domain = _domain(arrays)
    if domain.kind != "sphere":
        raise ValueError(f"kind is {domain.kind!r}, but a globe is a 'sphere'; use `completions`")
    truth, mean, std = (_fields(arrays, domain, name)[:, 0] for name in ("truth", "mean", "std"))
    offset, scale = np.asarray(arrays["unit"], float)
    mask = np.asarray(arrays["mask"], bool)
    truth, mean, std = offset + scale * truth, offset + scale * mean, scale * std
    field = ScalarMappable(Normalize(np.nanmin(truth), np.nanmax(truth)), FIELD)
    doubt = ScalarMappable(Normalize(0.0, std.max()), DOUBT)
    columns = {
        "truth": (field, truth),
        "observed": (field, np.where(mask, truth, np.nan)),
        "completion": (field, mean),
        "standard deviation": (doubt, std),
    }
    heights, space = (LARGE, LARGE, LARGE // 2), {"across": (1, 10), "down": (1, 10)}
    figure, axes = _grid([""] * 3, list(columns), LARGE, heights, **space, bottom=56)
    centre = turn(domain, mask)
    centres = (centre, (-centre[0], centre[1] + 180), None)
    for line, centre in zip(axes, centres, strict=True):
        for axis, (scale, values) in zip(line, columns.values(), strict=True):
            draw_sphere(axis, domain, scale.to_rgba(values), np.isfinite(values), centre)
    for scale, first, last in ((field, 0, 2), (doubt, 3, 3)):
        left, right = axes[-1, first].bbox, axes[-1, last].bbox
        box = (left.x0, left.y0 - 18, right.x1 - left.x0, 9)
        _bar(figure, scale, str(arrays["unit_name"]), box)
    save(figure, path, full_colour=True)


@styled
def fraction_curves(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws how well hidden points are predicted against the fraction observed, by model.

    Args:
      arrays: models [M] names; fraction [F] in [0, 1]; for every model i: psnr_<i> dB and nll_<i>
        nats a value, [R, F] of R seeds, NaN where unknown; the line is their mean, the band spans
        them all. What no model has gets no panel.
      path: PNG to write.
    """
    percent = 100 * np.asarray(arrays["fraction"], float)
    labels = {"psnr": "PSNR of hidden points (dB)", "nll": "NLL of hidden points (nats a value)"}
    count = range(len(arrays["models"]))
    known = lambda name: any(np.isfinite(arrays[f"{name}_{i}"]).any() for i in count)
    labels = {name: label for name, label in labels.items() if known(name)}
    figure, axes = panels(len(labels), width=3.5, height=2.6)
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        for i, model in enumerate(arrays["models"]):
            runs = np.asarray(arrays[f"{name}_{i}"], float)
            color, marker = COLOURS[i % len(COLOURS)], "osD^vP"[i % 6]
            low, high = runs.min(axis=0), runs.max(axis=0)
            axis.fill_between(percent, low, high, color=color, alpha=0.18, lw=0)
            axis.plot(percent, runs.mean(axis=0), color=color, marker=marker, ms=4, label=model)
        axis.set(xlabel="observed points (%)", ylabel=label)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 5))
    save(figure, path)


def _shape(sizes):
    return tuple(int(size) for size in np.atleast_1d(sizes))


def _domain(arrays):
    convention = str(arrays.get("convention", domains.CONVENTIONS[0]))
    domain = domains.Domain(str(arrays["kind"]), _shape(arrays["shape"]), convention)
    domains.check(domain)
    return domain


def _sizes(domain):
    sizes = " x ".join(str(size) for size in domain.shape)
    return f"{sizes} points" if domain.kind == "series" else sizes


def _fields(arrays, domain, name):
    values = np.asarray(arrays[name], float)
    num, channels = int(np.prod(domain.shape)), (1,) if domain.kind == "voxels" else (1, 3)
    if values.ndim < 2 or values.shape[-2] != num or values.shape[-1] not in channels:
        needed = f"[..., {num}, {' or '.join(map(str, channels))}]"
        raise ValueError(
            f"{name} has shape {values.shape}, but {domain.kind} of {_sizes(domain)} needs "
            f"{needed}; flatten the points row by row and keep the channels last"
        )
    return values


def _size(domain, height):
    """Returns (width, height) in pixels of one field, whole pixels to a square where they fit."""
    if domain.kind == "series":
        return round(1.6 * height), height
    if domain.kind in ("voxels", "sphere"):
        return height, height
    num_rows, num_columns = domain.shape[-2:]
    if num_rows < 1.5 * height:
        height = num_rows * max(1, round(height / num_rows))
    width = round(height * num_columns / num_rows)
    num_frames = min(domain.shape[0], MAX_FRAMES) if domain.kind == "video" else 1
    return num_frames * (width + GAP) - GAP, height


def _num_fitting(width, gap=GAP):
    return max(1, (MAX_WIDTH + gap) // (width + gap))


def _grid(labels, titles, width, heights, *, across=(1, GAP), down=(1, GAP),
          top=0, bottom=0, right=0):  # fmt: skip
    """Returns a figure and its axes [rows, columns], on whole pixels.

    Args:
      labels: of rows, at their left. titles: of columns, above them.
      width: of every column, pixels. heights: of the rows.
      across, down: (n, pixels) the gap between groups of n columns, or rows; GAP within.
      top, bottom, right: pixels to leave free around the fields.
    """
    x = MARGIN + _label_width(labels) + _starts([width] * len(titles), *across)
    y = MARGIN + (LINE if any(titles) else 0) + top + _starts(heights, *down)
    size = (x[-1] + width + right + MARGIN, y[-1] + heights[-1] + bottom + MARGIN)
    figure = Figure(np.array(size) / DPI, dpi=DPI)
    axes = np.empty((len(y), len(x)), object)
    for i, j in np.ndindex(axes.shape):
        box = np.array([x[j], size[1] - y[i] - heights[i], width, heights[i]])
        axes[i, j] = axis = figure.add_axes(box / np.tile(size, 2), xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set(visible=True, color=PALE, linewidth=0.6)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, pad=4, fontsize=8)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=5)
    return figure, axes


def _starts(sizes, every, gap):
    gaps = [0, *(gap if i % every == 0 else GAP for i in range(1, len(sizes)))]
    return np.cumsum(gaps) + np.cumsum([0, *sizes[:-1]])


def _label_width(labels):
    lines = [line for label in labels for line in label.split("\n") if line]
    size = mpl.rcParams["axes.labelsize"]
    points = [TextPath((0, 0), line, size).get_extents().x1 for line in lines]
    return round(max(points) * DPI / 72) + LINE // 2 if points else 0


def _bar(figure, scale, unit, box):
    """Adds a colour bar at (left, bottom, width, height) in pixels."""
    axis = figure.add_axes(np.array(box) / np.tile(figure.bbox.size, 2))
    orientation = "horizontal" if box[2] > box[3] else "vertical"
    bar = figure.colorbar(scale, cax=axis, orientation=orientation, label=unit)
    bar.outline.set_visible(False)
    bar.minorticks_off()
    return bar
