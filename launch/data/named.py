"""The named sets of fields: which files or procedures they come from, their splits and likelihoods.

Splits that a set does not come with are drawn once, with a fixed seed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from functions.domains import Domain
from launch.data import images, pictures, procedural
from launch.data.items import Items, draw

SEED = 0  # of the splits of sets from files
VALID_MONTH, TEST_MONTH = "2011-09", "2011-11"  # of the temperatures; both lie between others
MARGIN = 0.05  # of the range of the training temperatures, left free on either side
_FIRST_ROOM = {"test": 0, "valid": 10_000, "train": 20_000}


class Options(NamedTuple):
    """What `launch.data.fields.load` was asked for."""

    data_dir: str | Path | None
    num_train: int | None
    num_test: int | None
    size: int | None
    convention: str | None
    seed: int
    verify: bool


def _digits(options):
    from sklearn.datasets import load_digits

    _refuse_size("digits", options, "8 x 8")
    values, labels = load_digits(return_X_y=True)
    items = Items(
        Domain("image", (8, 8), options.convention or "centres"),
        {"train": values.reshape(-1, 8, 8, 1).astype(np.uint8)},
        "logistic",
        17,  # counts of set pixels in 4 x 4 blocks
        "Handwritten digits of scikit-learn (the test set of UCI optdigits, 8 x 8).",
        labels={"train": labels},
    )
    return draw(items, SEED, num_valid=180, num_test=180)


def _idx(name):
    def load(options):
        train, train_labels, test, test_labels = images.read_idx(
            name, options.data_dir, verify=options.verify
        )
        labels = {"train": train_labels, "test": test_labels}
        items = _pictures({"train": train, "test": test}, options, name, labels)
        return draw(items, SEED, num_valid=len(train) // 12)

    return load


def _celeba(options):
    (faces,) = images.read_arrays("celeba", options.data_dir, "images", verify=options.verify)
    return draw(_pictures({"train": faces}, options, "celeba"), SEED, num_valid=100, num_test=100)


def _cifar10(options):
    values, labels = images.read_arrays(
        "cifar10", options.data_dir, "images", "labels", verify=options.verify
    )
    items = _pictures({"train": values}, options, "cifar10", {"train": labels})
    return draw(items, SEED, num_valid=400, num_test=400)


def _polymnist(every):
    def load(options):
        _refuse_size("polymnist", options, "28 x 28")
        verify = options.verify
        photographs = images.read_backgrounds(options.data_dir, every=every, verify=verify)
        digits = images.read_idx("mnist", options.data_dir, verify=verify)
        values, masks, labels = {}, {}, {"train": digits[1], "test": digits[3]}
        for i, part in enumerate(labels):
            seed = [options.seed, i]
            values[part], masks[part] = images.compose_polymnist(digits[2 * i], photographs, seed)
        items = _pictures(values, options, "polymnist", labels)
        which = "all seven photographs" if every else f"the photograph {images.BACKGROUND!r}"
        origin = f"MNIST on crops of {which}, after PolyMNIST; photographs: {items.origin}"
        items = items._replace(segments=masks["test"], origin=origin)
        return draw(items, SEED, num_valid=len(digits[0]) // 12)

    return load


def _pictures(values, options, name, labels=None):
    if options.size:
        values = {part: pictures.resize(stack, options.size) for part, stack in values.items()}
    return Items(
        Domain("image", values["train"].shape[1:3], options.convention or "centres"),
        values,
        "logistic",
        256,
        f"{images.SOURCES[name].origin}.",
        labels=labels,
    )


def _temperature(options):
    _refuse_size("temperature", options, "73 x 96")
    if options.convention not in (None, "corners"):
        raise ValueError(
            f"convention={options.convention!r}: the rows of 'temperature' reach both poles; use "
            f"'corners'"
        )
    kelvin, month = images.read_temperature(options.data_dir, verify=options.verify)
    held_out = {"valid": month == VALID_MONTH, "test": month == TEST_MONTH}
    rows = {"train": ~(held_out["valid"] | held_out["test"]), **held_out}
    low, high = float(kelvin[rows["train"]].min()), float(kelvin[rows["train"]].max())
    scale = (high - low) * (1 + 2 * MARGIN)
    offset = low - (high - low) * MARGIN
    return Items(
        Domain("sphere", kelvin.shape[1:3], "corners"),
        {part: (kelvin[where] - offset) / np.float32(scale) for part, where in rows.items()},
        "continuous_bernoulli",
        0,
        f"{images.SOURCES['temperature'].origin}; members of one month are near copies, so whole "
        f"months are held out: {VALID_MONTH} to validate, {TEST_MONTH} to test.",
        unit=(offset, scale),
    )


def _modelnet_chairs(options):
    size = options.size or 32
    if 32 % size:
        raise ValueError(f"size={size}: 'modelnet_chairs' has 32 cells an axis; use 32, 16 or 8")
    train, test = images.read_voxels(options.data_dir, verify=options.verify)
    step = 32 // size  # a coarse cell is occupied where any of its cells is
    blocks = (-1, size, step, size, step, size, step, 1)
    items = Items(
        Domain("voxels", (size,) * 3, options.convention or "centres"),
        {p: x.reshape(blocks).max(axis=(2, 4, 6)) for p, x in (("train", train), ("test", test))},
        "bernoulli",
        2,
        f"{images.SOURCES['modelnet_chairs'].origin}; the chairs, as they are: of some, thin parts "
        f"were lost in voxelisation.",
    )
    return draw(items, SEED, num_valid=len(train) // 10)


def _rooms(options):
    size = options.size or 64
    drawn = {
        part: procedural.rooms(num, options.seed, size, first=_FIRST_ROOM[part])
        for part, num in _counts(options, 4000, 200, 400).items()
    }
    return Items(
        Domain("image", (size, size), options.convention or "centres"),
        {part: rooms.images for part, rooms in drawn.items()},
        "logistic",
        256,
        "Procedural rooms of coloured shapes, a stand-in for Shapes3D.",
        segments=drawn["test"].segments,
        labels={part: rooms.factors for part, rooms in drawn.items()},
    )


def _sphere(options):
    size = options.size or 24
    domain = Domain("sphere", (size, 2 * size), options.convention or "corners")
    values = {
        part: procedural.sphere_fields(num, [options.seed, i], domain).reshape(-1, *domain.shape, 1)
        for i, (part, num) in enumerate(_counts(options, 1000, 100, 200).items())
    }
    origin = "Procedural band-limited fields on the sphere, a stand-in for ERA5."
    return Items(domain, values, "continuous_bernoulli", 0, origin)


def _chairs(options):
    size = options.size or 16
    values = {
        part: procedural.chairs(num, [options.seed, i], size)
        for i, (part, num) in enumerate(_counts(options, 2000, 200, 400).items())
    }
    domain = Domain("voxels", (size,) * 3, options.convention or "centres")
    origin = "Procedural chairs of boxes, a stand-in for the chairs of ShapeNet."
    return Items(domain, values, "bernoulli", 2, origin)


def _counts(options, train, valid, test):
    num_test = options.num_test
    return {
        "train": options.num_train or train,
        "valid": num_test or valid,
        "test": num_test or test,
    }


def _refuse_size(name, options, own):
    if options.size is not None:
        raise ValueError(f"size={options.size}: {name!r} is {own} only; leave size out")


LOADERS: dict[str, Callable[[Options], Items]] = {
    "digits": _digits,
    "rooms": _rooms,
    "sphere": _sphere,
    "chairs": _chairs,
    "mnist": _idx("mnist"),
    "fashion_mnist": _idx("fashion_mnist"),
    "polymnist": _polymnist(every=False),
    "polymnist_all": _polymnist(every=True),
    "celeba": _celeba,
    "cifar10": _cifar10,
    "temperature": _temperature,
    "modelnet_chairs": _modelnet_chairs,
}
