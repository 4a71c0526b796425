"""Figures of acquisition, drawn from saved arrays only.

One function a figure, `(arrays, path) -> None`; M methods (a model and a reward), R splits, T
steps, D features.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from launch.figures import HEAT, panels, save, styled

COLOURS = ("#e08214", "#2166ac", "#8a8a8a", "#4d9221", "#762a83", "#b2182b", "#35978f", "#543005")
STYLES = ("-", "--", ":", "-.")  # where the colours begin again
MAX_NAMES = 30  # features named beside a panel


@styled
def curves(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws error and negative log score of the target against the number of features.

    Lines are means over splits, bands one standard deviation.

    Args:
      arrays: error, nll_y, features [M, R, T + 1]; labels [M]; error_name [].
      path: PNG to write.
    """
    figure, axes = panels(2, width=4.2, height=3.2)
    titles = (f"target: {arrays['error_name']}", "target: negative log score, nats")
    for axis, title, name in zip(axes, titles, ("error", "nll_y"), strict=True):
        _bands(axis, arrays, name, arrays["labels"])
        axis.set(title=title, xlabel="features measured (mean over rows)")
    axes[0].legend()
    save(figure, path)


@styled
def errors(tables: Mapping[str, Mapping[str, np.ndarray]], path: str | Path) -> None:
    """Draws the error of several tables, one panel each, a method in one colour throughout.

    Args:
      tables: by name, arrays as of `curves`.
      path: PNG to write.
    """
    labels = list(dict.fromkeys(str(m) for arrays in tables.values() for m in arrays["labels"]))
    figure, axes = panels(len(tables), width=3.0, height=2.5, max_columns=3)
    for axis, (name, arrays) in zip(axes, tables.items(), strict=True):
        _bands(axis, arrays, "error", labels)
        axis.set(title=f"{name}: {arrays['error_name']}", xlabel="features measured")
    most = max(axes, key=lambda axis: len(axis.get_lines()))
    most.legend(fontsize=7)
    save(figure, path)


def _bands(axis, arrays, name, labels):
    """Draws the curves of every method; its place in `labels` gives its colour."""
    own = [str(label) for label in arrays["labels"]]
    for i, label in enumerate(map(str, labels)):
        if label not in own:
            continue
        values, place = arrays[name][own.index(label)], arrays["features"][own.index(label)]
        mean, std, place = values.mean(axis=0), values.std(axis=0), place.mean(axis=0)
        style = dict(color=COLOURS[i % len(COLOURS)], ls=STYLES[i // len(COLOURS) % 4])
        axis.plot(place, mean, label=label, **style)
        axis.fill_between(place, mean - std, mean + std, color=style["color"], alpha=0.12, lw=0)
    axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))


@styled
def measured(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws the share of rows in which each feature is known after each step, one panel a method.

    Args:
      arrays: measured [M, T + 1, D] from 0 to 1; labels [M]; names [D].
      path: PNG to write.
    """
    names = [str(name) for name in arrays["names"]]
    height = 1.2 + 0.14 * min(len(names), MAX_NAMES)
    figure, axes = panels(len(arrays["labels"]), width=3.2, height=height, max_columns=3)
    for axis, label, share in zip(axes, arrays["labels"], arrays["measured"], strict=True):
        image = axis.imshow(
            share[1:].T, cmap=HEAT, vmin=0, vmax=1, aspect="auto",
            extent=(0.5, len(share) - 0.5, len(names) - 0.5, -0.5),
        )  # fmt: skip
        axis.set(title=str(label), xlabel="step")
        axis.grid(False)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        if len(names) <= MAX_NAMES:
            axis.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=list(axes), label="share of rows measured")
    save(figure, path)
