"""Pictures: a folder of image files as items of a data set, and antialiased resizing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from functions.domains import Domain
from launch.data.items import PARTS, Items, split

ORIENTATION = 0x0112  # tag of Exif
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's, of at most 8 bits a channel
_GREY = ("1", "L", "LA")
_FOLDERS = {"val": "valid", "validation": "valid", **{part: part for part in PARTS}}


class Pictures(Sequence):
    """Image files, read one by one: `self[i]` is [H, W, C] uint8."""

    def __init__(self, paths: Sequence[Path], channels: int, size: int | None):
        """Stores what `read` needs of every file."""
        self.paths, self.channels, self.size = paths, channels, size

    def __len__(self):
        """Returns the number of files."""
        return len(self.paths)

    def __getitem__(self, i):
        """Reads file i."""
        return read(self.paths[i], self.channels, self.size)


def read_folder(
    folder: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    convention: str | None = None,
    seed: int = 0,
    num_valid: int | None = None,
    num_test: int | None = None,
) -> Items:
    """Describes the image files anywhere below a folder.

    Args:
      folder: where all files lie below train/, valid/ and test/, these are the parts; otherwise,
        and for the parts that are absent, items are drawn.
      size: pixels of the side of every item, of the middle square of its file, antialiased; None
        keeps the pixels, and refuses files of different sizes.
      channels: 1 or 3; None is 1 where all files are grey.
      convention: where pixels lie, "centres" or "corners"; None is "centres".
      seed: of the draw.
      num_valid: items to draw; None is a tenth.
      num_test: items to draw; None is a tenth.

    Returns:
      Items whose values are `Pictures`.

    Raises:
      ValueError: the first defect, in one sentence.
      FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {str(folder)!r} does not exist; check the path")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.name[0] != ".")
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(
            f"folder {str(folder)!r} holds no image file; expected {', '.join(SUFFIXES)}"
        )
    headers = [_header(folder / path) for path in paths]
    if channels is None:
        channels = 1 if all(mode in _GREY for _, mode in headers) else 3
    shape = (size, size) if size else headers[0][0]
    odd = next((i for i, (found, _) in enumerate(headers) if found != shape), None)
    if size is None and odd is not None:
        raise ValueError(
            f"images {str(paths[0])!r} and {str(paths[odd])!r} have the sizes "
            f"{_times(shape)} and {_times(headers[odd][0])}; give one size to bring them to"
        )
    tops = [_FOLDERS.get(path.parts[0]) for path in paths]
    stray = next((path for path, top in zip(paths, tops, strict=True) if top is None), None)
    if stray is not None and any(tops):
        raise ValueError(
            f"image {str(stray)!r} lies outside the folders of the parts, {', '.join(_FOLDERS)}; "
            f"move it into one or remove it"
        )
    if stray is not None:
        parts = {"train": np.arange(len(paths))}
    else:
        parts = {p: np.flatnonzero([top == p for top in tops]) for p in PARTS if p in tops}
    rows = split(parts, seed, num_valid=num_valid, num_test=num_test)
    return Items(
        Domain("image", shape, convention or "centres"),
        {p: Pictures([folder / paths[i] for i in rows[p]], channels, size) for p in PARTS},
        "logistic",
        256,
        f"The user's folder {folder.resolve().name}.",
    )


def read(path: Path, channels: int, size: int | None) -> np.ndarray:
    """Reads one image file.

    Args:
      path: of the file.
      channels: 1 or 3; transparency is dropped.
      size: pixels of the side, see `resize`; None keeps those of the file.

    Returns:
      [H, W, C] uint8.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # of a damaged file
        raise ValueError(f"image {str(path)!r} is damaged ({error}); remove it") from None
    pixels = np.asarray(image) if size is None else _fit(image, size)
    return pixels.reshape(*pixels.shape[:2], channels)


def resize(pictures: np.ndarray, size: int, crop: int | None = None) -> np.ndarray:
    """Resizes pictures, antialiased.

    Args:
      pictures: [I, H, W, C] uint8, C 1 or 3.
      size: pixels of the side of the result.
      crop: pixels of the side of the middle square to keep; None is the largest.

    Returns:
      [I, size, size, C] uint8.
    """
    from PIL import Image

    num, *shape, channels = pictures.shape
    if shape == [size, size] and crop is None:
        return pictures
    out = np.empty((num, size, size, channels), np.uint8)
    for i, picture in enumerate(pictures):
        image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
        out[i] = _fit(image, size, crop).reshape(out.shape[1:])
    return out


def _fit(image, size, crop=None):
    from PIL import Image

    side = crop or min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def _header(path):
    """Returns ((height, width), mode) of an image file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            (width, height), mode = image.size, image.mode
            if image.getexif().get(ORIENTATION, 1) >= 5:  # a camera held upright
                width, height = height, width
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {str(path)!r} cannot be read ({error}); remove it") from None
    if mode not in _MODES:
        raise ValueError(
            f"image {str(path)!r} has Pillow's mode {mode}, expected one of {', '.join(_MODES)}; "
            f"convert it to 8 bits a channel, or give the values as an npz of fields"
        )
    return (height, width), mode


def _times(shape):
    return " x ".join(map(str, shape))
