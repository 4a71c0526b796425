"""Fields: images, voxels and fields on the sphere as one record; named sets and the user's own.

A field is a value at every point of one `functions.domains.Domain`. Named sets
(`launch.data.named`) come from scikit-learn, from procedures and from files; others from an npz of
the user's (`launch.data.archives`) and from prepared TFDS folders (`launch.data.builders`).
"""

import difflib
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from functions import domains
from functions.domains import Domain
from launch.data import archives
from launch.data.items import PARTS, Items, check, draw
from launch.data.named import LOADERS, Options

NAMES = tuple(LOADERS)


class Field(NamedTuple):
    """A set of fields on one domain of N points, C channels each, in three parts.

    Arrays of uint8 hold levels 0..num_levels - 1 of values in [0, 1], see `to_unit`; float32 arrays
    hold the values. What is stored at unobserved points means nothing.
    """

    name: str
    domain: Domain
    train: np.ndarray  # [I, N, C] uint8 or float32
    valid: np.ndarray  # [V, N, C] of the same type
    test: np.ndarray  # [J, N, C] of the same type
    kind: str  # the likelihood that fits: one of `launch.data.items.KINDS`
    num_levels: int  # of uint8 arrays: 256, 17 for digits, 2 for voxels; 0 for float32
    origin: str  # one sentence
    fingerprint: str  # sha256 of the domain, the likelihood and all arrays
    train_mask: np.ndarray | None = None  # [I, N] bool, True = observed; None = all of them
    valid_mask: np.ndarray | None = None  # [V, N]
    test_mask: np.ndarray | None = None  # [J, N]
    unit: tuple[float, float] | None = None  # raw = offset + scale * value; None = dimensionless
    segments: np.ndarray | None = None  # [J, N] uint8, true segmentation of the test items
    labels_train: np.ndarray | None = None  # [I] classes, or [I, F] factors
    labels_test: np.ndarray | None = None  # [J] or [J, F]


def to_unit(levels, num_levels: int):
    """Returns the values in [0, 1] of an array of a `Field`, NumPy's or JAX's, as float32."""
    return levels.astype(np.float32) / (num_levels - 1) if num_levels else levels


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    size: int | None = None,
    convention: str | None = None,
    seed: int = 0,
    verify: bool = True,
    domain: str | None = None,
    kind: str | None = None,
    rescale: bool = False,
) -> Field:
    """Loads a set of fields by its name.

    Args:
      name: one of `NAMES`; "npz:<path>" for the user's own file, see `read_npz`;
        "prepared:<folder>" for what launch.prepare has written; "tfds:<name>" for a TFDS data set
        of images that is prepared already, below `data_dir` or in TFDS's own folder.
      data_dir: the data folder; None or "" reads HMCVAE_DATA_DIR.
      num_train: at most so many training items, the first; of procedural sets so many exactly.
      num_test: the same for the test items, and for the validation items.
      size: pixels, cells or latitudes an axis, where a set can be had at several; None takes its
        own. Images are resized antialiased.
      convention: "centres" or "corners", where the points of a grid lie; None takes the usual one.
      seed: of procedural fields, of composed digits and of the split of the user's own file; the
        splits of other sets are fixed.
      verify: compare the checksums of files.
      domain: of an npz, as are the next two, see `read_npz`.
      kind: likelihood.
      rescale: bring reals to [0, 1].

    Returns:
      The record, checked.

    Raises:
      ValueError: an unknown name, an option that does not fit, a damaged file, or values that do
        not fit; in one sentence.
      FileNotFoundError: a file is absent; says what is expected, its origin, and what to run
        without it.
    """
    for option, value in (("num_train", num_train), ("num_test", num_test), ("size", size)):
        if value is not None and value < 1:
            raise ValueError(f"{option}={value}: expected 1 or more, or None for all there is")
    limits = {"num_train": num_train, "num_test": num_test}
    scheme, _, rest = str(name).partition(":")
    if scheme == "npz":
        _refuse(name, size=size)
        options = {"domain": domain or "image", "convention": convention, "kind": kind}
        return read_npz(rest, **options, rescale=rescale, seed=seed, **limits)
    _refuse(name, domain=domain, kind=kind, rescale=rescale or None)
    if scheme == "prepared":
        _refuse(name, size=size, convention=convention)
        return from_prepared(rest, **limits)
    options = Options(data_dir, num_train, num_test, size, convention, seed, verify)
    if scheme == "tfds":
        from launch.data import builders

        return make(name, builders.read_images(rest, options), **limits)
    if name not in LOADERS:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(NAMES)},"
        raise ValueError(
            f"data set {name!r} is unknown; {hint} or npz:<path>, prepared:<folder>, tfds:<name>"
        )
    return make(name, LOADERS[name](options), **limits)


def read_npz(
    path: str | Path,
    *,
    domain: str = "image",
    convention: str | None = None,
    kind: str | None = None,
    rescale: bool = False,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Field:
    """Reads fields of the user's own; `launch.data.archives` says what the file may hold.

    Args:
      path: *.npz, or *.npy with the values alone.
      domain: "image", "voxels", "sphere", "series" or "video".
      convention: "centres" or "corners"; None is "centres", or found from latitudes.
      kind: the likelihood; None is bernoulli for booleans and integers 0 and 1, logistic for other
        integers 0..255, continuous_bernoulli for reals.
      rescale: bring reals to [0, 1] by the smallest and largest observed value of the whole file:
        a change of unit, kept in `Field.unit`.
      num_train: at most so many training items.
      num_test: at most so many test items, and validation items.
      seed: of the split. Where the file has none, a tenth of the items is for validation and a
        tenth for the test; items that resemble each other should be split in the file.

    Returns:
      The record, named after the file.

    Raises:
      ValueError: the first defect found, in one sentence.
      FileNotFoundError: there is no such file.
    """
    path = Path(path)
    items = archives.read(path, domain, convention, kind=kind, rescale=rescale)
    try:
        items = draw(items, seed)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
    return make(path.name.split(".")[0], items, num_train=num_train, num_test=num_test)


def from_prepared(
    folder: str | Path, *, num_train: int | None = None, num_test: int | None = None
) -> Field:
    """Reads a data set that launch.prepare has written.

    Args:
      folder: <output>/<name>/<version>, or <output>/<name> for the newest version.
      num_train: at most so many training items.
      num_test: at most so many test items, and validation items.

    Returns:
      The record, as it was when it was prepared.

    Raises:
      ValueError: the folder holds another kind of data set.
      FileNotFoundError: it holds none.
    """
    from launch.data import builders

    return make(*builders.read_prepared(Path(folder), num_train, num_test))


def make(
    name: str, items: Items, *, num_train: int | None = None, num_test: int | None = None
) -> Field:
    """Checks items and puts them into a record.

    Args:
      name: of the set.
      items: with all three parts.
      num_train: at most so many training items, the first.
      num_test: at most so many test items, and validation items.

    Returns:
      The record.

    Raises:
      ValueError: the first defect, with part, item and remedy.
    """
    domains.check(items.domain)
    size = int(np.prod(items.domain.shape))
    limits = {"train": num_train, "valid": num_test, "test": num_test}
    arrays = {}
    for part in PARTS:
        values = items.values[part][: limits[part]]
        values = values.reshape(len(values), size, values.shape[-1])
        mask = None
        if items.masks is not None:
            mask = items.masks[part][: limits[part]].reshape(len(values), size)
        check(f"data set {name!r}, {part}", values, mask, items.kind, items.num_levels)
        arrays |= {part: values, f"{part}_mask": mask}
    if items.segments is not None:
        arrays["segments"] = items.segments[:num_test].reshape(-1, size).astype(np.uint8)
    if items.labels is not None:
        for part in ("train", "test"):
            arrays[f"labels_{part}"] = items.labels[part][: limits[part]]
    meaning = (tuple(items.domain), items.kind, items.num_levels, items.unit)
    content = hashlib.sha256(repr(meaning).encode())
    for key, array in sorted(arrays.items()):
        if array is not None:
            content.update(f"{key} {array.shape} {array.dtype.str}".encode())
            content.update(np.ascontiguousarray(array))
    return Field(
        name=name,
        domain=items.domain,
        kind=items.kind,
        num_levels=items.num_levels,
        origin=items.origin,
        fingerprint=content.hexdigest(),
        unit=items.unit,
        **arrays,
    )


def _refuse(name, **options):
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option}={value!r} does not go with data set {name!r}; leave it out")
