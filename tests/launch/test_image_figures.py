"""Figures of images: every image at its place, hidden pixels apart from dark and bright ones."""

import numpy as np
import pytest
from PIL import Image

from launch import image_figures


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def images(num, shape, seed=0):
    return np.random.default_rng(seed).random((num, np.prod(shape)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3)])
def test_pixels_are_shown_as_they_are(tmp_path, shape):
    """Grids of unlabelled images are cut back into their images."""
    values = images(9, shape)
    image_figures.prior({"shape": np.array(shape), "prior": values}, tmp_path / "prior.png")
    found = pixels(tmp_path / "prior.png")
    scale = max(1, round(image_figures.CELL / shape[0]))
    cell = scale * shape[0] + image_figures.GAP
    for i in range(9):
        top, left = (image_figures.MARGIN + cell * (i // 3), image_figures.MARGIN + cell * (i % 3))
        middle = scale // 2
        shown = found[top + middle :: scale, left + middle :: scale][: shape[0], : shape[1]]
        expected = np.broadcast_to(255 * values[i].reshape(shape), (*shape[:2], 3))
        assert np.abs(shown - expected).max() <= 4  # a palette of 256 colours


def test_hidden_pixels_are_blue_and_models_are_named(tmp_path):
    shape, values = (8, 8, 1), np.zeros((2, 64))
    mask = np.ones((2, 64), bool)
    mask[:, 20:30] = False
    arrays = {"shape": np.array(shape), "original": values, "mask": mask}
    arrays |= {"models": np.array(["VAE", "HH-VAE"]), "filled": np.stack([values + 1, values])}
    image_figures.inpainting(arrays, tmp_path / "figure.png")
    found = pixels(tmp_path / "figure.png")
    scale = round(image_figures.CELL / 8)
    assert num_blue(found) == 20 * scale**2
    image_figures.inpainting({**arrays, "mask": mask | True}, tmp_path / "figure.png")
    assert not num_blue(pixels(tmp_path / "figure.png"))


def num_blue(found):
    return np.sum(np.abs(found - 255 * image_figures.HIDDEN).max(axis=-1) < 8)


def test_reconstructions_have_a_row_for_every_draw(tmp_path):
    heights = []
    for num_draws in (1, 3):
        values = images(4, (8, 8, 1))
        arrays = {"shape": np.array((8, 8, 1)), "original": values, "mask": values > 0.5,
                  "mean": values, "draws": np.stack([values] * num_draws)}  # fmt: skip
        image_figures.reconstructions(arrays, tmp_path / "figure.png")
        heights.append(len(pixels(tmp_path / "figure.png")))
    row = 8 * round(image_figures.CELL / 8) + image_figures.GAP
    assert heights[1] - heights[0] == 2 * row
