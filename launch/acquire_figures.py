"""Figures of acquisition, drawn from saved arrays only.

One function a figure, `(arrays, path) -> None`; M methods (a model and a reward), R splits, T
steps, D features.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from launch.figures import HEAT, panels, save, styled

COLOURS = {  # by reward, the word after the last plus of a label
    "mi": "#e08214",
    "kl": "#2166ac",
    "random": "#8a8a8a",
    "published": "#762a83",
    "order": "#4d9221",
    "kraskov": "#b2182b",
    "oracle": "#35978f",
}
STYLES = ("--", "-", ":", "-.")  # by model, in order
MAX_NAMES = 30  # features named beside a panel


@styled
def curves(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws error and negative log score of the target against the number of features.

    A colour is a reward, a style of line a model.

    Args:
      arrays: error, nll_y, features [M, R, T + 1]; labels [M]; error_name [].
      path: PNG to write.
    """
    figure, axes = panels(2, width=4.2, height=3.2)
    titles = (f"target: {arrays['error_name']}", "target: negative log score, nats")
    for axis, title, name in zip(axes, titles, ("error", "nll_y"), strict=True):
        _bands(axis, arrays, name)
        axis.set(title=title, xlabel="features measured (mean over rows)")
    axes[0].legend()
    save(figure, path)


@styled
def errors(tables: Mapping[str, Mapping[str, np.ndarray]], path: str | Path) -> None:
    """Draws the error of several tables, one panel each, in the colours of `curves`.

    Args:
      tables: by name, arrays as of `curves`.
      path: PNG to write.
    """
    figure, axes = panels(len(tables), width=3.0, height=2.5, max_columns=3)
    for axis, (name, arrays) in zip(axes, tables.items(), strict=True):
        _bands(axis, arrays, "error")
        axis.set(title=f"{name}: {arrays['error_name']}", xlabel="features measured")
    max(axes, key=lambda axis: len(axis.get_lines())).legend(fontsize=7)
    save(figure, path)


def _bands(axis, arrays, name):
    """Draws the mean of every method over splits, in a band of one standard deviation."""
    labels = [str(label).rsplit(" + ", 1) for label in arrays["labels"]]
    models = list(dict.fromkeys(model for model, _ in labels))
    for (model, reward), values, features in zip(
        labels, arrays[name], arrays["features"], strict=True
    ):
        mean, std, place = values.mean(axis=0), values.std(axis=0), features.mean(axis=0)
        style = dict(color=COLOURS[reward], ls=STYLES[models.index(model) % len(STYLES)])
        axis.plot(place, mean, label=f"{model} + {reward}", **style)
        axis.fill_between(place, mean - std, mean + std, color=style["color"], alpha=0.1, lw=0)
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
