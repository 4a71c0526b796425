"""Figures of a tuning run, drawn from its saved arrays only.

One function a figure, `(arrays, path) -> None`. Green is the target, blue the Gaussian that chains
start from (one and two standard deviations), orange the chains.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from launch.workdir import write_atomic

PROPOSAL, CHAIN, OTHER = "#2166ac", "#e08214", "#8a8a8a"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def chains(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the density, some chains and their end points, before and after tuning.

    Args:
      arrays: grid [G], log_density [G, G] (second axis is x_1), proposal_mean and proposal_std
        [2]; for when in (before, after): path_<when> [C, T + 1, 2], ends_<when> [S, 2],
        inflation_<when> [2].
      path: PNG to write.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.7), layout="constrained")
        for axis, when in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
            _density(axis, arrays)
            _proposal(axis, arrays, arrays[f"inflation_{when}"])
            axis.scatter(*arrays[f"ends_{when}"].T, s=1.5, c=CHAIN, alpha=0.4, linewidths=0)
            _polylines(axis, arrays[f"path_{when}"])
            axis.set_title(f"{when} tuning")
        _save(figure, path)


def step_sizes(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws step sizes of every transition and dimension, and acceptance, before and after.

    Args:
      arrays: for when in (before, after): log_step_size_<when> [T, d], accept_<when> [T].
      path: PNG to write.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        top, bottom = figure.subplots(2, 2, sharex=True)
        steps = {when: np.exp(arrays[f"log_step_size_{when}"]) for when in ("before", "after")}
        high = max(s.max() for s in steps.values())
        for axis, below, when in zip(top, bottom, steps, strict=True):
            num, dim = steps[when].shape
            image = axis.imshow(steps[when].T, aspect="auto", cmap="viridis", vmin=0, vmax=high,
                                extent=(0.5, num + 0.5, dim - 0.5, -0.5))  # fmt: skip
            axis.set(yticks=range(dim), ylabel="dimension", title=f"step size {when} tuning")
            below.plot(np.arange(1, num + 1), arrays[f"accept_{when}"], "o-", c=CHAIN, ms=3)
            below.set(ylim=(0, 1.03), xlabel="transition", ylabel="acceptance")
        figure.colorbar(image, ax=top)
        _save(figure, path)


def curves(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws objective, discrepancy, inflation, acceptance and step size against tuning steps.

    Args:
      arrays: objective, discrepancy [n]; inflation [n, d]; acceptance, step_size [n, T].
      path: PNG to write.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 2.3), layout="constrained")
        axes = figure.subplots(1, 5)
        _curve(axes[0], arrays["objective"], r"$\mathbb{E}\,\log p(z_T)$, nats")
        _curve(axes[1], arrays["discrepancy"], "Stein discrepancy")
        for i, values in enumerate(arrays["inflation"].T):
            axes[2].plot(values, label=f"dimension {i}")
        axes[2].axhline(1, c=OTHER, lw=0.8)
        axes[2].set(title="inflation", yscale="log")
        axes[2].legend(fontsize=7)
        for axis, name in ((axes[3], "acceptance"), (axes[4], "step_size")):
            colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, arrays[name].shape[1]))
            for values, colour in zip(arrays[name].T, colours, strict=True):
                axis.plot(_smooth(values), c=colour, lw=0.8)
            axis.set_title(f"{name.replace('_', ' ')}, by transition")
        axes[3].set_ylim(0, 1.03)
        for axis in axes:
            axis.set_xlabel("tuning step")
        _save(figure, path)


def animation(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the same random numbers through the chains of every saved tuning step, as a GIF.

    Args:
      arrays: as for `chains`, and frame_step [F], frame_path [F, C, T + 1, 2], frame_inflation
        [F, 2], frame_accept [F].
      path: GIF to write.
    """
    frames = []
    with mpl.rc_context(STYLE):
        for i, step in enumerate(arrays["frame_step"]):
            figure = Figure(figsize=(3.4, 3.5), dpi=90, layout="constrained")
            axis = figure.subplots()
            _density(axis, arrays)
            _proposal(axis, arrays, arrays["frame_inflation"][i])
            _polylines(axis, arrays["frame_path"][i])
            axis.set_title(f"step {step}, acceptance {arrays['frame_accept'][i]:.2f}")
            frames.append(_pixels(figure))
    stream = BytesIO()
    durations = [120] * (len(frames) - 1) + [1500]
    iio.imwrite(stream, frames, extension=".gif", duration=durations, loop=0)
    write_atomic(Path(path), lambda file: file.write(stream.getvalue()))


def _density(axis, arrays):
    grid, values = arrays["grid"], arrays["log_density"]
    share = np.exp(values - values.max())
    levels = np.linspace(0.02, 1.0, 9)
    axis.contourf(grid, grid, share.T, levels, cmap="Greens", extend="max")
    axis.set(xlim=(grid[0], grid[-1]), ylim=(grid[0], grid[-1]), aspect="equal")


def _proposal(axis, arrays, inflation):
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for sds in (1, 2):
        ring = arrays["proposal_mean"] + sds * arrays["proposal_std"] * inflation * circle
        axis.plot(*ring.T, c=PROPOSAL, lw=1.0, ls="-" if sds == 1 else "--")


def _polylines(axis, paths):
    for points in paths:
        axis.plot(*points.T, c=CHAIN, lw=0.7, alpha=0.9)
        axis.plot(*points[-1], "o", c=CHAIN, ms=3, mec="black", mew=0.4)


def _curve(axis, values, title):
    axis.plot(values, c=OTHER, lw=0.5)
    axis.plot(_smooth(values), c=CHAIN)
    axis.set_title(title)
    finite = values[np.isfinite(values)]
    if len(finite):
        axis.set_ylim(*_padded(np.quantile(finite, (0.02, 0.98))))


def _padded(limits):
    low, high = limits
    margin = 0.1 * (high - low) + 1e-6
    return low - margin, high + margin


def _smooth(values):
    """Averages over the last steps (a twentieth of them)."""
    window = max(1, len(values) // 20)
    total = np.cumsum(np.insert(np.asarray(values, np.float64), 0, 0.0))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _save(figure, path):
    image = Image.fromarray(_pixels(figure)).quantize(256, dither=Image.Dither.NONE)
    write_atomic(Path(path), lambda stream: image.save(stream, format="png", optimize=True))
