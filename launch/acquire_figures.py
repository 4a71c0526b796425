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
    shown = {str(arrays["error_name"]): "error", "negative log score, nats": "nll_y"}
    figure, axes = panels(len(shown), width=4.2, height=3.2)
    for axis, (title, name) in zip(axes, shown.items(), strict=True):
        for i, label in enumerate(arrays["labels"]):
            place = arrays["features"][i].mean(axis=0)
            mean, std = arrays[name][i].mean(axis=0), arrays[name][i].std(axis=0)
            style = dict(color=COLOURS[i % len(COLOURS)], ls=STYLES[i // len(COLOURS) % 4])
            axis.plot(place, mean, label=str(label), **style)
            axis.fill_between(place, mean - std, mean + std, color=style["color"], alpha=0.12, lw=0)
        axis.set(title=f"target: {title}", xlabel="features measured (mean over rows)")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes[0].legend()
    save(figure, path)


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
