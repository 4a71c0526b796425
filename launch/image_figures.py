"""Figures of images that are rows of a table, drawn from saved arrays only.

One function a figure, `(arrays, path) -> None`. Images are [..., D] in [0, 1], pixels in the order
of rows, columns and colours, of `shape` [3] = height, width, colours (1 or 3). Blue is hidden.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from launch.figures import DPI, save, styled

HIDDEN = np.array(to_rgb("#9ecae1"))  # of hidden pixels
CELL = 84  # pixels of the figure that the side of an image takes, about
GAP, MARGIN, LETTER = 3, 8, 9  # pixels between images; around them; a letter is wide


@styled
def reconstructions(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws test images of which a part is hidden, and what the model fills in.

    Args:
      arrays: shape; original [n, D]; mask [n, D] True = shown to the model; mean [n, D] and draws
        [K, n, D], of the posterior, with the pixels that are shown.
      path: PNG to write.
    """
    rows = [("original", arrays["original"]), ("seen", _seen(arrays)), ("mean", arrays["mean"])]
    rows += [(f"draw {i + 1}", draw) for i, draw in enumerate(arrays["draws"])]
    _mosaic(rows, arrays["shape"], path)


@styled
def inpainting(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws images with a hole, and how every model fills it: one row a model.

    Args:
      arrays: shape; original [n, D]; mask [n, D] True = shown; models [M] their names; filled
        [M, n, D].
      path: PNG to write.
    """
    rows = [("original", arrays["original"]), ("masked", _seen(arrays))]
    rows += zip(map(str, arrays["models"]), arrays["filled"], strict=True)
    _mosaic(rows, arrays["shape"], path)


@styled
def prior(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draws images sampled from the prior in a square.

    Args:
      arrays: shape; prior [n, D].
      path: PNG to write.
    """
    pictures = arrays["prior"]
    side = int(np.sqrt(len(pictures)))
    rows = [("", pictures[i * side : (i + 1) * side]) for i in range(side)]
    _mosaic(rows, arrays["shape"], path)


def _seen(arrays):
    """The images with NaN where they are hidden."""
    return np.where(arrays["mask"], arrays["original"], np.nan)


def _mosaic(rows, shape, path):
    """Draws rows (label, images [n, D]); a pixel of an image is a square of whole pixels."""
    labels, pictures = zip(*rows, strict=True)
    height, width, colours = (int(size) for size in shape)
    pictures = np.asarray(pictures, float).reshape(len(labels), -1, height, width, colours)
    hidden = np.isnan(pictures).any(axis=-1, keepdims=True)
    pictures = np.where(hidden, HIDDEN, np.clip(np.nan_to_num(pictures), 0.0, 1.0))
    scale = max(1, round(CELL / height))
    pictures = pictures.repeat(scale, axis=2).repeat(scale, axis=3)
    gaps = ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0))
    tiles = np.pad(pictures, gaps, constant_values=1.0)  # [rows, n, h, w, 3]
    num_rows, num, h, w, _ = tiles.shape
    canvas = tiles.swapaxes(1, 2).reshape(num_rows * h, num * w, 3)
    left = MARGIN + LETTER * max(len(label) for label in labels)
    size = np.array([left + num * w + MARGIN, num_rows * h + 2 * MARGIN])
    figure = Figure(size / DPI, dpi=DPI)
    box = np.array([left, MARGIN, num * w, num_rows * h]) / np.tile(size, 2)
    axis = figure.add_axes(box, xticks=[])
    axis.imshow(canvas, interpolation="nearest", aspect="auto")
    axis.set_yticks((np.arange(num_rows) + 0.5) * h - 0.5, labels, fontsize=9)
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    save(figure, path, full_colour=colours > 1)
