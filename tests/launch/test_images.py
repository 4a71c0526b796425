"""Sets from files: what is read, how it is split, and one sentence for what is missing or damaged.

Tests write tiny files of the same form; those of the real files run where the data folder is.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from functions.domains import Domain
from launch.data import fields, images

DATA_DIR = os.environ.get(images.DATA_DIR, "")
needs_data = pytest.mark.skipif(
    not Path(DATA_DIR or "absent").is_dir(),
    reason=f"the data folder is absent: set {images.DATA_DIR}",
)


def write_idx(folder, num_train=36, num_test=12, compress=False):
    """Writes the four files of a set of digits; returns their arrays."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = []
    for part, num in (("train", num_train), ("t10k", num_test)):
        pictures = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        pictures[:, 0, 0] = np.arange(num)  # names the picture
        labels = (np.arange(num) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = head + array.tobytes()
            name = f"{part}-{kind}-ubyte"
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
            arrays.append(array)
    return arrays


def write_npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def load(name, folder, **options):
    return fields.load(name, folder, verify=False, **options)


@pytest.mark.parametrize(
    ("name", "folder", "compress"),
    [("mnist", "mnist", False), ("fashion_mnist", "fashion-mnist", True)],
)
def test_idx_files_keep_their_test_set_and_validation_is_drawn(tmp_path, name, folder, compress):
    train, train_labels, test, test_labels = write_idx(tmp_path / folder, compress=compress)
    field = load(name, tmp_path)
    assert field.domain == Domain("image", (28, 28))
    assert field.train.shape == (33, 784, 1)
    assert (field.kind, field.num_levels, field.train.dtype) == ("logistic", 256, np.uint8)
    np.testing.assert_array_equal(field.test[..., 0], test.reshape(12, 784))
    np.testing.assert_array_equal(field.labels_test, test_labels)
    place = field.train[:, 0, 0]
    np.testing.assert_array_equal(field.train[..., 0], train.reshape(36, 784)[place])
    np.testing.assert_array_equal(field.labels_train, train_labels[place])
    drawn = np.sort(np.concatenate([place, field.valid[:, 0, 0]]))
    np.testing.assert_array_equal(drawn, np.arange(36))


def test_limits_take_the_first_items(tmp_path):
    write_idx(tmp_path / "mnist")
    whole = load("mnist", tmp_path)
    few = load("mnist", tmp_path, num_train=5, num_test=2)
    np.testing.assert_array_equal(few.train, whole.train[:5])
    np.testing.assert_array_equal(few.labels_train, whole.labels_train[:5])
    np.testing.assert_array_equal(few.valid, whole.valid[:2])
    np.testing.assert_array_equal(few.test, whole.test[:2])
    assert few.fingerprint != whole.fingerprint
    assert load("mnist", tmp_path).fingerprint == whole.fingerprint


def test_images_are_resized_antialiased(tmp_path):
    board = np.tile(np.indices((32, 32)).sum(0) % 2 * 200, (203, 1, 1))
    pictures = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    write_npz(tmp_path / "celeba64" / "celeba64.npz", images=pictures)
    field = load("celeba", tmp_path, size=8)
    assert field.train.shape == (3, 64, 3)
    assert np.abs(field.train.astype(int) - 100).max() <= 8  # every other pixel would be 0 or 200


def test_celeba_and_cifar_are_split_once_and_for_all(tmp_path):
    pictures = np.zeros((803, 4, 4, 3), np.uint8)
    pictures[:, 0, 0, 0], pictures[:, 0, 0, 1] = np.divmod(np.arange(803), 256)
    labels = (np.arange(803) // 100).astype(np.uint8)
    write_npz(tmp_path / "celeba64" / "celeba64.npz", images=pictures[:203], index=np.arange(203))
    path = tmp_path / "cifar10-test-jpeg" / "cifar10_test_4000.npz"
    write_npz(path, images=pictures, labels=labels, classes=np.array(["a"]))
    place = lambda part: part[:, 0, 0].astype(int) * 256 + part[:, 0, 1]
    for name, sizes in (("celeba", (3, 100, 100)), ("cifar10", (3, 400, 400))):
        field = load(name, tmp_path)
        assert tuple(len(p) for p in (field.train, field.valid, field.test)) == sizes
        places = np.concatenate([place(p) for p in (field.train, field.valid, field.test)])
        np.testing.assert_array_equal(np.sort(places), np.arange(sum(sizes)))
        assert load(name, tmp_path, seed=5).fingerprint == field.fingerprint
    np.testing.assert_array_equal(field.labels_test, labels[place(field.test)])


# Digits on photographs


def write_polymnist(folder):
    digits = write_idx(folder / "mnist")
    rng = np.random.default_rng(1)
    photographs = {
        name: rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)
        for i, name in enumerate((images.BACKGROUND, "other"))
    }
    write_npz(folder / "polymnist-backgrounds" / "backgrounds_w512.npz", **photographs)
    return digits[2], list(photographs.values())


@pytest.mark.parametrize(("name", "num"), [("polymnist", 1), ("polymnist_all", 2)])
def test_colours_of_a_crop_are_inverted_under_the_digit(tmp_path, name, num):
    digits, photographs = write_polymnist(tmp_path)
    field = load(name, tmp_path)
    assert field.train.shape == (33, 784, 3)
    is_digit = digits.reshape(12, 784) >= 128
    np.testing.assert_array_equal(field.segments, is_digit)
    ground = np.where(is_digit[..., None], 255 - field.test, field.test).reshape(12, 28, 28, 3)
    used = set()
    for crop in ground:
        found = [
            (i, top, left)
            for i, photograph in enumerate(photographs)
            for top in range(photograph.shape[0] - 27)
            for left in range(photograph.shape[1] - 27)
            if np.array_equal(photograph[top : top + 28, left : left + 28], crop)
        ]
        assert len(found) == 1
        used.add(found[0])
    assert len(used) > 3
    assert {i for i, _, _ in used} == set(range(num))


def test_crops_depend_on_the_seed_and_digits_do_not(tmp_path):
    write_polymnist(tmp_path)
    first, again, other = (load("polymnist", tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.segments, other.segments)
    np.testing.assert_array_equal(first.labels_train, other.labels_train)
    with pytest.raises(ValueError, match="size=14: 'polymnist' is 28 x 28 only; leave size out"):
        load("polymnist", tmp_path, size=14)


# Temperatures and voxels


def write_temperature(folder):
    months = ["2011-08", "2011-09", "2011-10", "2011-11"]
    latitude, longitude = np.linspace(-90, 90, 5), np.arange(6) * 60.0
    kelvin = 250 + latitude[:, None] / 9 + longitude / 100 + np.zeros((8, 1, 1))
    kelvin += np.arange(8)[:, None, None] % 4
    write_npz(
        folder / "glosea4-surface-temperature" / "glosea4_surface_temperature.npz",
        t=kelvin.astype(np.float32),
        month=np.array(months * 2),
        latitude=latitude,
        longitude=longitude,
    )
    return kelvin


def test_temperatures_start_in_the_north_and_whole_months_are_held_out(tmp_path):
    kelvin = write_temperature(tmp_path)
    field = load("temperature", tmp_path)
    assert field.domain == Domain("sphere", (5, 6), "corners")
    assert field.kind == "continuous_bernoulli"
    assert (field.num_levels, field.train.dtype) == (0, np.float32)
    offset, scale = field.unit
    for part, rows in ((field.train, [0, 2, 4, 6]), (field.valid, [1, 5]), (field.test, [3, 7])):
        raw = offset + scale * part.reshape(-1, 5, 6)
        np.testing.assert_allclose(raw, kelvin[rows][:, ::-1], atol=1e-4)
    np.testing.assert_allclose(field.train.min(), 1 - field.train.max(), atol=1e-6)
    assert 0.04 < field.train.min() < 0.05
    with pytest.raises(ValueError, match="'centres': the rows of 'temperature' reach both poles"):
        load("temperature", tmp_path, convention="centres")


def test_a_coarse_cell_is_occupied_where_any_fine_one_is(tmp_path):
    voxels = np.random.default_rng(0).random((30, 32, 32, 32)) < 0.01
    labels = np.where(np.arange(30) % 3, 2, 0).astype(np.uint8)
    packed = np.packbits(voxels.reshape(30, -1), axis=1)
    write_npz(
        tmp_path / "modelnet10-voxels32" / "modelnet10_vox32.npz",
        train_packed=packed[:24],
        train_labels=labels[:24],
        test_packed=packed[24:],
        test_labels=labels[24:],
    )
    field = load("modelnet_chairs", tmp_path)
    assert field.domain == Domain("voxels", (32, 32, 32))
    assert (field.kind, field.num_levels) == ("bernoulli", 2)
    chairs = voxels[24:][labels[24:] == 2]
    np.testing.assert_array_equal(field.test, chairs.reshape(4, -1, 1))
    assert (len(field.train), len(field.valid)) == (15, 1)
    coarse = load("modelnet_chairs", tmp_path, size=16)
    blocks = chairs.reshape(4, 16, 2, 16, 2, 16, 2).any(axis=(2, 4, 6))
    np.testing.assert_array_equal(coarse.test, blocks.reshape(4, -1, 1))
    with pytest.raises(ValueError, match="size=12: 'modelnet_chairs' has 32 cells an axis"):
        load("modelnet_chairs", tmp_path, size=12)


# What is missing or damaged


@pytest.mark.parametrize("name", ["mnist", "polymnist", "celeba", "temperature", "modelnet_chairs"])
def test_what_is_absent_says_what_runs_without_it(tmp_path, monkeypatch, name):
    monkeypatch.delenv(images.DATA_DIR, raising=False)
    expected = images.SOURCES[name].files[0].path
    origin = images.SOURCES[name].origin
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            fields.load(name, folder)
        message = str(caught.value)
        assert "\n" not in message
        assert f"data set {name!r}" in message
        assert all(part in message for part in (expected, origin))
        assert message.endswith("configs/vamoh_digits.py runs without it")
        assert (str(tmp_path) if folder else images.DATA_DIR) in message
    monkeypatch.setenv(images.DATA_DIR, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"is not in '{tmp_path}'"):
        fields.load(name)


def test_damaged_files_are_named(tmp_path):
    write_idx(tmp_path / "mnist", compress=True)
    with pytest.raises(ValueError, match=r"sha256 is .* where ba891046e650\.\.\. is expected; get"):
        fields.load("mnist", tmp_path)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"it does not unpack: .*; get it again from MNIST"):
        load("mnist", tmp_path)
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(ValueError, match="is no idx file of bytes, or is cut short"):
        load("mnist", tmp_path)
    path = tmp_path / "celeba64" / "celeba64.npz"
    write_npz(path, pictures=np.zeros((3, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"celeba64.npz' is damaged \(.*images.*\); get it again"):
        load("celeba", tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"celeba64.npz' is damaged \("):
        load("celeba", tmp_path)


# The real files

REAL = {  # domain, items by part, channel means of all parts together (of 1)
    "mnist": (Domain("image", (28, 28)), (55000, 5000, 10000), [0.13092]),
    "fashion_mnist": (Domain("image", (28, 28)), (55000, 5000, 10000), [0.28616]),
    "celeba": (Domain("image", (64, 64)), (1800, 100, 100), [0.5235, 0.4206, 0.3661]),
    "cifar10": (Domain("image", (32, 32)), (3200, 400, 400), [0.498, 0.488, 0.454]),
    "temperature": (Domain("sphere", (73, 96), "corners"), (52, 13, 13), None),
    "modelnet_chairs": (Domain("voxels", (32, 32, 32)), (801, 88, 100), None),
}


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_known_sizes_and_means(name):
    domain, sizes, means = REAL[name]
    field = fields.load(name, DATA_DIR)
    parts = (field.train, field.valid, field.test)
    assert field.domain == domain
    assert tuple(len(part) for part in parts) == sizes
    if means:
        total = sum(part.sum(axis=(0, 1), dtype=np.int64) for part in parts)
        found = total / (255 * sum(sizes) * np.prod(domain.shape))
        np.testing.assert_allclose(found, means, atol=1e-3)


@needs_data
def test_real_temperatures_are_cold_at_the_poles_and_hot_between():
    field = fields.load("temperature", DATA_DIR)
    offset, scale = field.unit
    kelvin = offset + scale * np.concatenate([field.train, field.valid, field.test])
    np.testing.assert_allclose([kelvin.min(), kelvin.max()], [201.12, 316.82], atol=0.01)
    rows = kelvin.reshape(78, 73, 96).mean(axis=(0, 2))
    assert rows[0] < 275
    assert rows[-1] < 275 < 295 < rows[36]
    assert rows[0] > rows[-1]  # the Arctic is warmer than Antarctica: north is first
