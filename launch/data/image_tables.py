"""Sets of images as tables: one column a pixel, and the label as a categorical target.

Preparation follows the published protocol (Peis et al. 2022): the digits and the garments are
thresholded once, pixel / 256 > 0.5, and only the training images are used, so that
`launch.data.tables.make_splits` gives the ten folds of 54000 and 6000. Columns are in the order of
rows, columns, colours. Codes are kept as bytes.

The faces have no labels here. Their pixels are reals in [0, 1]: Gaussian columns, of which the
model learns the variances, or with `paper` the published cross-entropy, a Bernoulli score of values
that are no codes and hence no log probability.
"""

import difflib
from pathlib import Path

import numpy as np
import sklearn.datasets

from hmcvae.columns import Column, Schema
from launch.data import images
from launch.data.frames import Table

SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "digits": (8, 8, 1),
    "celeba": (64, 64, 3),
}
GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "boot")  # fmt: skip


def load(
    name: str, data_dir: str | Path | None = None, *, paper: bool = False, verify: bool = True
) -> Table:
    """Loads a set of images as a table.

    Args:
      name: a key of `SHAPES`; "digits" comes with scikit-learn, the others from `data_dir`, where
        `launch.data.images` says which files.
      data_dir: the data folder; None or "" reads HMCVAE_DATA_DIR.
      paper: score the pixels of faces as published.
      verify: compare checksums.

    Returns:
      The table: x uint8 codes, or float32 pixels of faces.

    Raises:
      ValueError: unknown name, or a file that is not the one that was tested.
      FileNotFoundError: the folder or a file is absent; says what is expected and its origin.
    """
    if name not in SHAPES:
        close = difflib.get_close_matches(str(name), SHAPES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; use one of {', '.join(SHAPES)}"
        raise ValueError(f"table of images {name!r} is unknown{hint}")
    if name == "digits":
        pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
        return _table(name, pixels > 8, labels, range(10))
    if name == "celeba":
        (faces,) = images.read_arrays("celeba", data_dir, "images", verify=verify)
        pixels = faces.reshape(len(faces), -1) / np.float32(255)
        return _table(name, pixels, None, (), kind="bernoulli" if paper else "gaussian")
    pixels, labels, _, _ = images.read_idx(name, data_dir, verify=verify)
    classes = GARMENTS if name == "fashion_mnist" else range(10)
    return _table(name, pixels.reshape(len(pixels), -1) > 128, labels, classes)


def _table(name, pixels, labels, classes, *, kind="bernoulli"):
    """Makes the table of pixels [N, D], booleans or reals, and labels [N] or None."""
    rows, columns, colours = SHAPES[name]
    names = [f"{i},{j}" for i in range(rows) for j in range(columns)]
    if colours > 1:
        names = [f"{place},{colour}" for place in names for colour in range(colours)]
    x = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    if labels is None:
        target, labels = (), np.zeros((len(x), 0))
    else:
        target = (Column("label", "categorical", len(classes), tuple(classes)),)
    y = labels.reshape(len(x), -1).astype(np.float64)
    return Table(
        name, Schema(tuple(Column(pixel, kind) for pixel in names)), x, np.ones(x.shape, bool),
        Schema(target), y, np.ones(y.shape, bool),
    )  # fmt: skip
