"""TFDS data sets of fields: a builder for the user's own, and readers of what is prepared.

Everything is array_record, written and read without TensorFlow; values are `Tensor` features, as
TFDS's `Image` needs TensorFlow to encode arrays.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from functions.domains import Domain
from launch.data import pictures
from launch.data.images import DATA_DIR, WITHOUT
from launch.data.items import PARTS, Items, split
from launch.data.named import SEED, Options

_TFDS_PARTS = {"train": "train", "valid": "validation", "test": "test"}
_FACES = {"celeb_a": (64, 148)}  # size, and the middle square that is customary for CelebA
_CHUNK = 256  # examples read at once


class FieldBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Turns `Items` into a TFDS data set; one example a field.

    Features: `index`, the place of the field in its part; `values` [*grid, C]; `mask` [*grid] where
    items have one. What values mean (domain, likelihood, levels, unit, origin) is the metadata.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS would look for checksums of downloads, by a package we lack

    def __init__(self, *, items: Items, **options):
        """Stores the items, which `download_and_prepare` reads once."""
        self.items = items
        super().__init__(**options)

    def _info(self):
        items = self.items
        first = items.values["train"][0]
        tensor = tfds.features.Tensor
        features = {
            "index": tfds.features.Scalar(np.int64),
            "values": tensor(shape=first.shape, dtype=first.dtype, encoding="zlib"),
        }
        if items.masks is not None:
            features["mask"] = tensor(shape=items.domain.shape, dtype=np.bool_, encoding="zlib")
        return tfds.core.DatasetInfo(
            builder=self,
            description=items.origin,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                domain=items.domain._asdict(),
                kind=items.kind,
                num_levels=items.num_levels,
                unit=items.unit,
                origin=items.origin,
            ),
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(part) for part in PARTS}

    def _generate_examples(self, part):
        masks = None if self.items.masks is None else self.items.masks[part]
        rows = tqdm(range(len(self.items.values[part])), desc=part, unit="item", disable=None)
        for i in rows:
            example = {"index": i, "values": self.items.values[part][i]}
            yield i, example if masks is None else {**example, "mask": masks[i]}


def write(items: Items, name: str, output: Path, version: str) -> Path:
    """Writes items as a TFDS data set, whole or not at all.

    Args:
      items: with all three parts, checked.
      name: lower case letters, digits and underscores.
      output: folder of data sets.
      version: such as "1.0.0".

    Returns:
      The folder that was made, output/name/version.

    Raises:
      FileExistsError: there is such a version already.
    """
    folder = output.expanduser().resolve() / name / version
    if folder.exists():
        raise FileExistsError(f"{folder} exists; give another version or name, or remove it")
    body = {"name": name, "VERSION": tfds.core.Version(version), "__module__": __name__}
    builder_class = type(FieldBuilder)(name, (FieldBuilder,), body, skip_registration=True)
    builder = builder_class(
        items=items, data_dir=str(folder.parent.parent), file_format="array_record"
    )
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as downloads, open(os.devnull, "w") as silence:
        with contextlib.redirect_stdout(silence):
            try:
                builder.download_and_prepare(download_dir=downloads)
            except BaseException:
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()  # where it is empty: no other version
                raise
    return folder


def read_prepared(folder: Path, num_train: int | None, num_test: int | None) -> tuple[str, Items]:
    """Reads what `write` has written.

    Args:
      folder: of one version, or of the data set for its newest version.
      num_train: at most so many training items.
      num_test: at most so many test items, and validation items.

    Returns:
      The name and the items, in the order in which they were written.
    """
    builder = _open(_newest(folder), repr(str(folder)))
    meaning = dict(builder.info.metadata or {})
    if not {"domain", "kind", "num_levels"} <= set(meaning):
        raise ValueError(
            f"{str(folder)!r} was not written by launch.prepare; read TFDS's own data sets of "
            f"images by tfds:<name>"
        )
    values, masks = {}, {}
    for part in PARTS:
        limit = num_train if part == "train" else num_test
        rows = np.arange(builder.info.splits[part].num_examples)[:limit]  # TFDS has shuffled them
        examples = sorted(_read(builder, part, rows), key=lambda example: example["index"])
        values[part] = np.stack([example["values"] for example in examples])
        if "mask" in builder.info.features:
            masks[part] = np.stack([example["mask"] for example in examples])
    domain = meaning.pop("domain")
    domain = Domain(domain["kind"], tuple(domain["shape"]), domain["convention"])
    unit = meaning.pop("unit")
    items = Items(
        domain, values, masks=masks or None, unit=None if unit is None else tuple(unit), **meaning
    )
    return builder.info.name, items


def read_images(name: str, options: Options) -> Items:
    """Reads a data set of images from TFDS's catalogue that is prepared already.

    Parts that it lacks are drawn from "train" with a fixed seed. Images that are not square, and
    all of them if `options.size` says so, are cut to the middle square and resized antialiased;
    celeb_a is so brought from 178 x 218 to 64 x 64 by default.

    Args:
      name: such as "celeb_a", "shapes3d" or "mnist".
      options: of `launch.data.fields.load`; num_train limits what is read.

    Returns:
      The items; labels are the feature "label", where there is one.

    Raises:
      ValueError: it has no images, or no array_record files.
      FileNotFoundError: it is not prepared; says how to, and what to run without it.
    """
    what = f"tfds:{name}"
    roots = [options.data_dir or os.environ.get(DATA_DIR, ""), tfds.core.constants.DATA_DIR]
    roots = [Path(root).expanduser() for root in roots if root]
    folder = next((root / name for root in roots if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{what} is not prepared in {' or '.join(map(str, roots))}; prepare it by "
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare(); {WITHOUT}"
        )
    builder = _open(_newest(folder), what)
    if "image" not in builder.info.features:
        raise ValueError(
            f"{what} has the features {', '.join(builder.info.features)}, but no image; export its "
            f"values to an npz"
        )
    sizes = {p: s for p, s in _TFDS_PARTS.items() if s in builder.info.splits}
    given = {p: np.arange(builder.info.splits[s].num_examples) for p, s in sizes.items()}
    rows = split(given, SEED)
    size, crop = _FACES.get(name, (None, None))
    size = options.size or size
    values, labels = {}, {}
    for part in PARTS:
        limit = options.num_train if part == "train" else options.num_test
        stored, kept = [], []
        for example in _read(builder, sizes.get(part, "train"), rows[part][:limit]):
            image = example["image"][None]
            side = size or min(image.shape[1:3])
            stored.append(pictures.resize(image, side, crop)[0])
            kept.append(example.get("label"))
        shapes = {image.shape for image in stored}
        if len(shapes) > 1:
            raise ValueError(f"{what} has images of the sizes {sorted(shapes)[:2]}; give a size")
        values[part], labels[part] = np.stack(stored), np.array(kept)
    return Items(
        Domain("image", values["train"].shape[1:3], options.convention or "centres"),
        values,
        "logistic",
        256,
        f"{builder.info.full_name} of TFDS.",
        labels=labels if "label" in builder.info.features else None,
    )


def _newest(folder):
    """Returns the folder itself, or the newest version anywhere below it, or None."""
    found = [path.parent for path in folder.expanduser().rglob("dataset_info.json")]
    is_version = [path for path in found if all(n.isdigit() for n in path.name.split("."))]
    key = lambda path: [int(number) for number in path.name.split(".")]
    return max(is_version, key=key, default=None)


def _open(folder, what):
    if folder is None:
        raise FileNotFoundError(
            f"{what} holds no prepared data set (dataset_info.json); check the path, or write one "
            f"by launch.prepare"
        )
    builder = tfds.builder_from_directory(str(folder))
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{what} is stored as {builder.info.file_format.value}, which cannot be read here; "
            f"prepare it again with file_format='array_record'"
        )
    return builder


def _read(builder, tfds_split, rows):
    source = builder.as_data_source(tfds_split)
    for start in range(0, len(rows), _CHUNK):
        yield from source.__getitems__(rows[start : start + _CHUNK].tolist())
