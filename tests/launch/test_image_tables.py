"""Images as tables: codes, labels, the order of the pixels, folds, and what is refused."""

import gzip

import numpy as np
import pytest
import sklearn.datasets

from launch.data import image_tables, tables
from launch.experiments import tabular


def write_idx(folder, images, labels):
    """Writes the four idx files of a set whose test set is its first image."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, num in (("train", len(images)), ("t10k", 1)):
        for kind, array in (("images-idx3", images[:num]), ("labels-idx1", labels[:num])):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = gzip.compress(head + array.astype(np.uint8).tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)


@pytest.fixture(scope="module")
def digits():
    """Images and labels as the idx files hold them."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 28, 28)), np.arange(30) % 10


@pytest.mark.parametrize(
    ("name", "folder", "seventh"),
    [("mnist", "mnist", 7), ("fashion_mnist", "fashion-mnist", "sneaker")],
)
def test_pixels_are_codes_and_the_label_is_the_target(tmp_path, digits, name, folder, seventh):
    images, labels = digits
    write_idx(tmp_path / folder, images, labels)
    table = image_tables.load(name, tmp_path, verify=False)
    assert table.x.dtype == np.uint8
    np.testing.assert_array_equal(table.x.reshape(30, 28, 28), images / 256 > 0.5)
    assert table.mask.all()
    assert set(table.schema.kinds) == {"bernoulli"}
    assert table.schema.names[28 * 3 + 5] == "3,5"
    (label,) = table.target.columns
    assert (label.kind, label.num_classes, label.categories[7]) == ("categorical", 10, seventh)
    np.testing.assert_array_equal(table.y[:, 0], labels)


def test_folds_are_those_of_the_protocol_and_codes_may_be_bytes(tmp_path, digits):
    """Bytes save memory; nothing that is computed from them may tell."""
    write_idx(tmp_path / "mnist", *digits)
    table = image_tables.load("mnist", tmp_path, verify=False)
    wide = table._replace(x=table.x.astype(np.float64))
    folds = tables.make_splits(table)
    assert [(len(f.train), len(f.test)) for f in folds] == [(27, 3)] * 10
    assert folds[3].fingerprint == tables.make_splits(wide)[3].fingerprint
    small, large = (tabular.prepare(t, folds[3]) for t in (table, wide))
    assert small.x.dtype == np.float32
    np.testing.assert_array_equal(small.x, large.x)
    np.testing.assert_array_equal(small.train.x, table.x[folds[3].train])
    np.testing.assert_array_equal(small.train.pos_weight_x, large.train.pos_weight_x)


def test_embedded_digits_are_thresholded_at_half():
    table = image_tables.load("digits")
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(table.x, images / 16 > 0.5)
    np.testing.assert_array_equal(table.y[:, 0], labels)


def test_faces_are_reals_without_labels(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "celeba64").mkdir()
    np.savez(tmp_path / "celeba64" / "celeba64.npz", images=faces)
    table = image_tables.load("celeba", tmp_path, verify=False)
    assert set(table.schema.kinds) == {"gaussian"}
    assert table.target.num_columns == table.y.shape[1] == table.y_mask.shape[1] == 0
    at = table.schema.names.index("9,40,2")
    np.testing.assert_allclose(table.x[:, at], faces[:, 9, 40, 2] / 255, rtol=1e-6)
    published = image_tables.load("celeba", tmp_path, paper=True, verify=False)
    assert set(published.schema.kinds) == {"bernoulli"}


def test_wrong_requests_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="'mnits' is unknown; did you mean 'mnist'"):
        image_tables.load("mnits")
    with pytest.raises(FileNotFoundError, match="mnist/train-images-idx3-ubyte is not in"):
        image_tables.load("mnist", tmp_path)
