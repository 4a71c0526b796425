"""The user's own fields: an npz of arrays, brought onto a grid.

Arrays of the file, all but the first optional:

  values     [I, *grid], [I, *grid, C], or with coords [I, N] or [I, N, C]; numbers or booleans
  mask       as values without C, bool, True = observed; values may be NaN where it is False
  coords     [N, d] coordinates of the points along the axes of the grid, in any order, that fill a
             regular grid; latitude and longitude in degrees on the sphere
  latitude, longitude   [H], [W] degrees of the rows and columns, in any order, instead of coords
  split      [I] text: train, valid or test

Grids ascend along every axis, on the sphere from north to south and from the meridian 0 eastwards.
A *.npy file is the values alone.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from functions import domains
from functions.domains import Domain
from launch.data.items import PARTS, Items, check

ARRAYS = ("values", "mask", "coords", "latitude", "longitude", "split")
_DEGREE = 1e-3  # by which latitudes and longitudes may miss their place


def read(
    path: Path, domain: str, convention: str | None, *, kind: str | None, rescale: bool
) -> Items:
    """Reads a file, see the module.

    Args:
      path: *.npz or *.npy.
      domain: kind of domain.
      convention: of the grid; None is "centres", or found from coordinates on the sphere.
      kind: likelihood; None is bernoulli for booleans and integers 0 and 1, logistic for other
        integers, continuous_bernoulli for reals.
      rescale: bring reals to [0, 1] by their smallest and largest observed value.

    Returns:
      The items by part; all are "train" where the file has no split.

    Raises:
      ValueError: the first defect, in one sentence.
      FileNotFoundError: there is no such file.
    """
    what = repr(str(path))
    if domain not in domains.NUM_AXES:
        raise ValueError(f"domain {domain!r} is unknown; use one of {', '.join(domains.NUM_AXES)}")
    stored = _open(path, what)
    values, mask, grid = _on_grid(what, stored, domain, convention)
    values, kind, num_levels, unit = _typed(what, values, mask, kind, rescale)
    if mask is not None:
        values = np.where(mask[..., None], values, np.zeros((), values.dtype))
    flat = values.reshape(len(values), np.prod(grid.shape), values.shape[-1])
    check(what, flat, None if mask is None else mask.reshape(flat.shape[:2]), kind, num_levels)
    parts = _parts(what, stored, len(values))
    return Items(
        domain=grid,
        values={part: values[rows] for part, rows in parts.items()},
        kind=kind,
        num_levels=num_levels,
        origin=f"The user's file {path.name}.",
        masks=None if mask is None else {part: mask[rows] for part, rows in parts.items()},
        unit=unit,
    )


def _open(path, what):
    if not path.exists():
        raise FileNotFoundError(f"{what} does not exist; check the path")
    try:
        with open(path, "rb") as file:
            stored = np.load(file, allow_pickle=False)
            stored = {"values": stored} if isinstance(stored, np.ndarray) else dict(stored)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{what} is no readable npz or npy file ({error})") from None
    unknown = [name for name in stored if name not in ARRAYS]
    if "values" not in stored or unknown:
        raise ValueError(
            f"{what} holds the arrays {', '.join(stored) or 'none'}; expected values and, where "
            f"needed, {', '.join(ARRAYS[1:])}"
        )
    for name, array in stored.items():
        if name != "split" and array.dtype.kind not in "biuf":
            raise ValueError(f"{what}: {name} has the type {array.dtype}; write numbers")
    return stored


def _on_grid(what, stored, kind, convention):
    """Returns values [I, *grid, C], mask [I, *grid] or None, and the domain."""
    values, mask, coords = stored["values"], stored.get("mask"), stored.get("coords")
    num_axes = 1 if coords is not None else domains.NUM_AXES[kind]
    if not num_axes <= values.ndim - 1 <= num_axes + 1:
        grid = "one axis of points" if coords is not None else f"{num_axes} grid axes"
        raise ValueError(
            f"{what}: values {values.shape} are no fields of the domain {kind!r}; the axes are "
            f"items, then {grid}, then channels or none"
        )
    shape, channels = values.shape[1 : 1 + num_axes], values.shape[1 + num_axes :] or (1,)
    if mask is not None:
        if mask.shape != values.shape[: 1 + num_axes]:
            raise ValueError(
                f"{what}: mask {mask.shape} does not fit values {values.shape}; expected "
                f"{values.shape[: 1 + num_axes]}"
            )
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{what}: mask has values other than 0 and 1; give booleans")
        mask = mask.reshape(len(mask), np.prod(shape)).astype(bool)
    values = values.reshape(len(values), np.prod(shape), *channels)
    if kind == "sphere" and coords is None:
        coords = _meshed(what, stored, shape)
    if coords is None:
        domain = Domain(kind, shape, convention or "centres")
        if kind == "sphere" and convention is None:
            raise ValueError(
                f"{what}: it is unknown where the rows of the sphere lie; add the arrays latitude "
                f"and longitude, or give the convention, 'corners' for rows on both poles"
            )
    else:
        domain, order = _sorted(what, coords, values.shape[1], kind, convention)
        values, mask = values[:, order], None if mask is None else mask[:, order]
    domains.check(domain)
    values = values.reshape(len(values), *domain.shape, *channels)
    return values, None if mask is None else mask.reshape(values.shape[:-1]), domain


def _meshed(what, stored, shape):
    """Returns coords [H W, 2] of the arrays latitude and longitude, None where they are absent."""
    axes = [stored[name] for name in ("latitude", "longitude") if name in stored]
    if not axes:
        return None
    if tuple(axis.shape for axis in axes) != tuple((size,) for size in shape):
        raise ValueError(
            f"{what}: values have {shape[0]} rows and {shape[1]} columns; expected as many entries "
            f"in the arrays latitude and longitude"
        )
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _sorted(what, coords, num_points, kind, convention):
    """Finds the regular grid that coords fill; returns its domain and the order of its points."""
    dimension = domains.NUM_AXES[kind]
    if coords.shape != (num_points, dimension) or not np.isfinite(coords).all():
        raise ValueError(
            f"{what}: coords {coords.shape} do not place {num_points} points of the domain "
            f"{kind!r}; expected finite numbers [{num_points}, {dimension}]"
        )
    coords = coords.astype(float)
    if kind == "sphere":
        coords = np.stack([-coords[:, 0], coords[:, 1] % 360], axis=-1)  # north first, eastwards
    axes, places = zip(*(np.unique(c, return_inverse=True) for c in coords.T), strict=True)
    shape = tuple(len(axis) for axis in axes)
    index = np.ravel_multi_index(places, shape)
    if len(np.unique(index)) != num_points or num_points != np.prod(shape):
        raise ValueError(
            f"{what}: the {num_points} coords do not fill a grid of {shape}, each point once; "
            f"put the values on a regular grid and mark what is unknown in the mask"
        )
    if kind == "sphere":
        convention = _convention(what, axes, shape, convention)
    for axis in axes:
        steps = np.diff(axis)
        if steps.size and np.ptp(steps) > 1e-3 * steps.mean():
            raise ValueError(
                f"{what}: the coordinates along an axis are not evenly spaced (steps from "
                f"{steps.min():g} to {steps.max():g}); interpolate the values to a regular grid"
            )
    return Domain(kind, shape, convention or "centres"), np.argsort(index)


def _convention(what, axes, shape, convention):
    for name in domains.CONVENTIONS if convention is None else (convention,):
        latitude, longitude = domains.latitudes_longitudes(Domain("sphere", shape, name))
        off = max(np.abs(axes[0] + latitude).max(), np.abs(axes[1] - longitude).max())
        if off < _DEGREE:
            return name
    raise ValueError(
        f"{what}: latitudes from {-axes[0][0]:g} to {-axes[0][-1]:g} and longitudes from "
        f"{axes[1][0]:g} to {axes[1][-1]:g} are no whole sphere; expected equal steps from pole to "
        f"pole ('corners') or the middles of equal bands ('centres'), and from 0 eastwards"
    )


def _typed(what, values, mask, kind, rescale):
    """Returns values as uint8 levels or float32, the likelihood, the levels and the unit."""
    if values.dtype.kind != "f":
        if rescale:
            raise ValueError(
                f"{what}: values are integers, which are levels already; leave out rescale or "
                f"write reals"
            )
        seen = values if mask is None else values[mask]
        low, high = (int(seen.min()), int(seen.max())) if seen.size else (0, 0)
        if low < 0 or high > 255:
            raise ValueError(
                f"{what}: integers from {low} to {high} are no levels 0..255; write reals, with "
                f"rescale where they are outside [0, 1]"
            )
        kind = kind or ("bernoulli" if high <= 1 else "logistic")
        return values.astype(np.uint8), kind, 2 if kind == "bernoulli" else 256, None
    if kind in ("bernoulli", "logistic"):
        raise ValueError(
            f"{what}: likelihood {kind!r} needs levels, but values are reals; write them as uint8"
        )
    unit = None
    if rescale:
        seen = values[np.isfinite(values) if mask is None else mask]
        low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
        if not low < high < np.inf:
            raise ValueError(
                f"{what}: the observed values go from {low} to {high}, which cannot be rescaled"
            )
        unit = (low, high - low)
        values = np.clip((values - low) / (high - low), 0.0, 1.0)  # rounding only
    return values.astype(np.float32), kind or "continuous_bernoulli", 0, unit


def _parts(what, stored, num_items):
    if "split" not in stored:
        return {"train": np.arange(num_items)}
    names = stored["split"].astype(str)
    if names.shape != (num_items,) or not set(names) <= set(PARTS):
        raise ValueError(
            f"{what}: split {names.shape} holds {', '.join(sorted(set(names.ravel()))[:4])}; "
            f"expected {num_items} entries out of {', '.join(PARTS)}"
        )
    return {part: np.flatnonzero(names == part) for part in PARTS if part in names}
