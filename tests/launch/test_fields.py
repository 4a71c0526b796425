"""The record of a set of fields: names, limits, splits, levels, fingerprints, TFDS's catalogue."""

import io
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from functions import domains
from functions.domains import Domain
from launch.data import fields, items
from launch.data.items import Items

PROCEDURAL = {  # number of points a size, channels
    "rooms": (lambda size: size**2, 3),
    "sphere": (lambda size: 2 * size**2, 1),
    "chairs": (lambda size: size**3, 1),
}


def test_digits_hold_the_17_levels_of_scikit_learn_and_their_labels():
    field = fields.load("digits")
    assert field.domain == Domain("image", (8, 8))
    assert (field.kind, field.num_levels, field.train.dtype) == ("logistic", 17, np.uint8)
    assert tuple(len(p) for p in (field.train, field.valid, field.test)) == (1437, 180, 180)
    images, labels = load_digits(return_X_y=True)
    label_of = dict(zip(map(bytes, images.astype(np.uint8)), labels, strict=True))
    assert len(label_of) == 1797  # no image twice, so that parts cannot share one
    parts = [bytes(image) for image in np.concatenate([field.train, field.valid, field.test])]
    assert set(parts) == set(label_of)
    assert [label_of[bytes(image)] for image in field.test] == field.labels_test.tolist()
    assert [label_of[bytes(image)] for image in field.train] == field.labels_train.tolist()
    counts = np.bincount(field.labels_train[:500], minlength=10)
    assert counts.min() > 30  # the first items are a fair sample


@pytest.mark.parametrize("to", [np.asarray, jnp.asarray])
def test_levels_become_values_in_the_unit_interval(to):
    field = fields.load("digits", num_train=50, num_test=1)
    values = fields.to_unit(to(field.train), field.num_levels)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.asarray(field.train) / 16)
    assert float(values.max()) == 1.0
    reals = np.array([0.25], np.float32)
    assert fields.to_unit(reals, 0) is reals


def test_the_digits_need_neither_pictures_nor_tfds():
    code = (
        "import sys; from launch.data import fields; fields.load('digits'); "
        "print([m for m in ('PIL', 'tensorflow_datasets', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PROCEDURAL)
def test_procedural_sets_have_as_many_different_items_as_asked(name):
    num_points, num_channels = PROCEDURAL[name]
    field = fields.load(name, num_train=7, num_test=3, size=16)
    assert field.train.shape == (7, num_points(16), num_channels)
    assert field.valid.shape == field.test.shape == (3, num_points(16), num_channels)
    assert "stand-in" in field.origin
    everything = np.concatenate([field.train, field.valid, field.test]).reshape(13, -1)
    assert len(np.unique(everything, axis=0)) == 13
    assert len(domains.coordinates(field.domain)) == num_points(16)
    more = fields.load(name, num_train=9, num_test=3, size=16)
    np.testing.assert_array_equal(more.train[:7], field.train)
    np.testing.assert_array_equal(more.test, field.test)
    again, other = (fields.load(name, num_train=7, num_test=3, size=16, seed=s) for s in (0, 1))
    assert again.fingerprint == field.fingerprint != other.fingerprint


def test_rooms_bring_their_segments_and_factors():
    field = fields.load("rooms", num_train=4, num_test=2, size=16)
    assert field.segments.shape == (2, 256)
    assert set(np.unique(field.segments)) == {0, 1, 2}
    assert (field.labels_train.shape, field.labels_test.shape) == ((4, 6), (2, 6))


def test_the_convention_of_a_grid_can_be_chosen():
    assert fields.load("digits").domain.convention == "centres"
    field = fields.load("digits", convention="corners")
    assert field.domain == Domain("image", (8, 8), "corners")
    assert field.fingerprint != fields.load("digits").fingerprint
    sphere = fields.load("sphere", num_train=1, num_test=1, size=4, convention="centres")
    assert sphere.domain == Domain("sphere", (4, 8), "centres")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "data set 'digit' is unknown; did you mean 'digits'. or npz:<path>, prep"),
        ("imagenet64", {}, "is unknown; use one of digits, rooms, sphere, .*, or npz:<path>"),
        ("digits", {"num_train": 0}, "num_train=0: expected 1 or more, or None for all"),
        ("digits", {"num_test": -1}, "num_test=-1: expected 1 or more"),
        ("digits", {"size": 16}, "size=16: 'digits' is 8 x 8 only; leave size out"),
        ("digits", {"convention": "middle"}, "convention 'middle' is unknown"),
        ("digits", {"domain": "image"}, "domain='image' does not go with data set 'digits'; lea"),
        ("rooms", {"rescale": True}, "rescale=True does not go with data set 'rooms'"),
        ("npz:x.npz", {"size": 8}, "size=8 does not go with data set 'npz:x.npz'"),
        ("prepared:x", {"size": 8}, "size=8 does not go with data set 'prepared:x'"),
        ("chairs", {"size": 8}, "size=8: legs would vanish"),
    ],
)
def test_a_wrong_request_is_one_sentence(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        fields.load(name, **options)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_users_is_a_name_too(tmp_path):
    values = np.random.default_rng(0).random((9, 3, 4, 5)) * 7
    np.savez(tmp_path / "blocks.npz", values=values)
    options = {"domain": "voxels", "rescale": True, "num_train": 3, "seed": 2}
    field = fields.load(f"npz:{tmp_path}/blocks.npz", **options)
    assert field.domain.kind == "voxels"
    assert len(field.train) == 3
    same = fields.read_npz(tmp_path / "blocks.npz", **options)
    assert same.fingerprint == field.fingerprint


# Splits and the record


def test_split_draws_what_is_absent_and_keeps_what_is_given():
    rows = items.split({"train": np.arange(30)}, 0)
    assert {part: len(r) for part, r in rows.items()} == {"train": 24, "valid": 3, "test": 3}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(30))
    given = {"train": np.arange(10), "test": np.arange(10, 13)}
    rows = items.split(given, 0, num_valid=4)
    np.testing.assert_array_equal(rows["test"], given["test"])
    assert (len(rows["valid"]), len(rows["train"])) == (4, 6)
    with pytest.raises(ValueError, match="num_test=2: the test items are given, 3 of them; leave"):
        items.split(given, 0, num_test=2)
    with pytest.raises(ValueError, match="there are 10 training items to draw 10 valid items from"):
        items.split(given, 0, num_valid=10)
    with pytest.raises(ValueError, match="there are 0 training items"):
        items.split({"test": np.arange(5)}, 0)


def small(**changes):
    values = {p: np.full((2, 3, 2, 1), i, np.uint8) for i, p in enumerate(items.PARTS)}
    return Items(Domain("image", (3, 2)), values, "logistic", 256, "Made up.")._replace(**changes)


def test_the_fingerprint_tells_what_the_model_would_see():
    field = fields.make("a", small())
    assert fields.make("b", small(origin="Elsewhere.")).fingerprint == field.fingerprint
    values = {**small().values, "valid": np.full((2, 3, 2, 1), 9, np.uint8)}
    masks = {part: np.ones((2, 3, 2), bool) for part in items.PARTS}
    others = [
        small(values=values),
        small(kind="gaussian"),
        small(num_levels=17),
        small(domain=Domain("image", (3, 2), "corners")),
        small(unit=(0.0, 2.0)),
        small(masks=masks),
        small(segments=np.zeros((2, 3, 2))),
        small(labels={part: np.zeros(2) for part in items.PARTS}),
    ]
    prints = {fields.make("a", other).fingerprint for other in others}
    assert len(prints | {field.fingerprint}) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poisson"}, "data set 'a', train: likelihood 'poisson' is unknown"),
        ({"num_levels": 2}, r"data set 'a', test, item 0, point 0: the value \[2\] is not a level"),
        ({"domain": Domain("image", (3,))}, "needs a tuple of 2"),
        ({"domain": Domain("picture", (3, 2))}, "kind 'picture' is unknown"),
    ],
)
def test_a_record_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        fields.make("a", small(**changes))


# TFDS's catalogue


@pytest.fixture
def catalogue(tmp_path):
    """Prepares stand-ins for celeb_a and mnist in TFDS's own layout."""
    import tensorflow_datasets as tfds
    from PIL import Image

    def png(array):
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        return io.BytesIO(stream.getvalue())

    def prepare(name, shape, parts, label):
        rng = np.random.default_rng(0)
        features = {"image": tfds.features.Image(shape=shape)}
        if label:
            features["label"] = tfds.features.ClassLabel(num_classes=10)

        def generate(self, num):
            for i in range(num):
                image = np.full(shape, 10 * i, np.uint8)
                image[60:158, 40:138] = rng.integers(0, 2, (98, 98, 3)) * 200 if not label else 0
                example = {"image": png(image[..., 0] if label else image)}
                yield i, {**example, "label": i % 10} if label else example

        body = {
            "name": name,
            "VERSION": tfds.core.Version("2.0.1"),
            "code_path": None,
            "_info": lambda self: tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            ),
            "_generate_examples": generate,
            "_split_generators": lambda self, _: {p: generate(self, n) for p, n in parts.items()},
        }
        base = tfds.core.GeneratorBasedBuilder
        builder = type(base)(name, (base,), body, skip_registration=True)
        tfds.disable_progress_bar()
        builder(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()

    prepare("celeb_a", (218, 178, 3), {"train": 6, "validation": 2, "test": 3}, label=False)
    prepare("mnist", (28, 28, 1), {"train": 20, "test": 5}, label=True)
    return tmp_path


def test_prepared_images_of_tfds_are_read(catalogue):
    field = fields.load("tfds:mnist", catalogue)
    assert field.domain == Domain("image", (28, 28))
    assert tuple(len(p) for p in (field.train, field.valid, field.test)) == (18, 2, 5)
    np.testing.assert_array_equal(field.labels_train, field.train[:, 0, 0] // 10 % 10)
    few = fields.load("tfds:mnist", catalogue, num_train=3, num_test=1, size=7)
    assert few.train.shape == (3, 49, 1)
    np.testing.assert_array_equal(few.labels_train, field.labels_train[:3])
    faces = fields.load("tfds:celeb_a", catalogue)
    assert faces.domain == Domain("image", (64, 64))
    assert tuple(len(p) for p in (faces.train, faces.valid, faces.test)) == (6, 2, 3)
    # the noisy square of 98 pixels, averaged and in the middle of the 148 that are kept
    middle = faces.train.reshape(6, 64, 64, 3)[:, 15:49, 15:49]
    assert 80 < middle.mean() < 120
    assert middle.std() < 80
    assert np.all(np.ptp(faces.train.reshape(6, 64, 64, 3)[:, :8], axis=(1, 2, 3)) < 4)


def test_what_tfds_cannot_give_is_one_sentence(catalogue):
    with pytest.raises(FileNotFoundError) as caught:
        fields.load("tfds:shapes3d", catalogue)
    message = str(caught.value)
    assert f"tfds:shapes3d is not prepared in {catalogue}" in message
    assert "tfds.builder('shapes3d', file_format='array_record').download_and_prepare()" in message
    assert message.endswith("configs/vamoh_digits.py runs without it")
    info = catalogue / "mnist" / "2.0.1" / "dataset_info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="tfds:mnist is stored as tfrecord, which cannot be read"):
        fields.load("tfds:mnist", catalogue)
    with pytest.raises(ValueError, match=r"celeb_a' was not written by launch.prepare; .* tfds:"):
        fields.load(f"prepared:{catalogue}/celeb_a")
    with pytest.raises(FileNotFoundError, match="holds no prepared data set"):
        fields.load(f"prepared:{catalogue}/nothing")
