"""Domains: where a function is defined, and which of its points are neighbours.

Coordinates of image, voxel, video and series grids and of the latitude-longitude sphere at any
resolution, as in VAMoH (Koyuncu et al. 2023), and the tables that its point encoder needs:
farthest-point sampling and k nearest neighbours, level by level (PointConv, Wu et al. 2019).
Everything is computed once, in NumPy and double precision, and travels as constant arrays.

Deliberately different from the released VAMoH: every axis is normalised by its own size, and
neighbours are searched among true positions (around the sphere, over its poles) instead of Fourier
features, whose distance saturates. `paper_coordinates` and the `features` of `tables` give the
released behaviour.
Not here: encodings of coordinates (`functions.encodings`), layers over tables, masks.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

NUM_AXES = {"image": 2, "voxels": 3, "sphere": 2, "series": 1, "video": 3}
CONVENTIONS = ("centres", "corners")
TIE = 1e-9  # distances that differ by less, relatively, are equal: the lowest index wins


class Domain(NamedTuple):
    """A grid of points; pass it to `check` where it comes from a user."""

    kind: str  # "image" | "voxels" | "sphere" | "series" | "video"
    shape: tuple[int, ...]  # (H, W) | (X, Y, Z) | (latitudes, longitudes) | (T,) | (T, H, W)
    convention: str = "centres"  # "centres": (2i + 1) / R - 1; "corners": 2i / (R - 1) - 1


class Table(NamedTuple):
    """Neighbours of one level: which points go on, and what each of them looks at."""

    centre: np.ndarray  # [M] int32, the points of the level above that are kept, in order
    index: np.ndarray  # [M, k] int32, neighbours among the points of the level above, nearest first
    offset: np.ndarray  # [M, k, p] float32, neighbour minus centre, see `tables` for its unit


def check(domain: Domain) -> None:
    """Raises ValueError, in one sentence, where a domain cannot exist."""
    kind, shape, convention = domain
    _check_choice("kind", kind, NUM_AXES)
    _check_choice("convention", convention, CONVENTIONS)
    if np.shape(shape) != (NUM_AXES[kind],):
        raise ValueError(
            f"shape is {shape}, but domain {kind!r} needs a tuple of {NUM_AXES[kind]}; give one "
            f"size an axis and leave out the channels"
        )
    if not all(isinstance(size, int | np.integer) and size >= 1 for size in shape):
        raise ValueError(f"shape is {shape}, but every size must be an integer of at least 1")


def coordinates(domain: Domain) -> np.ndarray:
    """Computes the inputs of a function representation.

    Args:
      domain: any domain; a "corners" axis with a single point lies at 0.

    Returns:
      [N, d] float32, row-major, first axis slowest: every axis in [-1, 1], or unit vectors
      (cos lat cos lon, cos lat sin lon, sin lat) on the sphere.
    """
    return _coordinates(domain).astype(np.float32)


def paper_coordinates(domain: Domain) -> np.ndarray:
    """Computes the coordinates of the released VAMoH, whatever the domain's convention.

    Grids: 2i / (R_0 - 1) - 1 with R_0 the size of the first axis for every axis, so that the other
    axes of a non-square grid leave [-1, 1]. Sphere: unit vectors with latitudes from pole to pole.

    Args:
      domain: any domain with at least two points along its first axis.

    Returns:
      [N, d] float32, row-major.
    """
    check(domain)
    if domain.kind == "sphere":
        return coordinates(domain._replace(convention="corners"))
    first = domain.shape[0]
    if first == 1:
        raise ValueError(
            f"shape is {domain.shape}, but the released rule divides by the first size minus 1; "
            f"use `coordinates`"
        )
    return (2 * positions(domain) / (first - 1) - 1).astype(np.float32)


def latitudes_longitudes(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """Lists the rows and columns of a sphere grid in degrees.

    Args:
      domain: a sphere. "corners" has rows on both poles, each a repeated point; "centres" has
        them in the middle of H equal bands.

    Returns:
      Latitudes [H] from north to south and longitudes [W] from 0 eastwards, float64.
    """
    check(domain)
    if domain.kind != "sphere":
        raise ValueError(f"domain is of kind {domain.kind!r}, but latitudes need a 'sphere'")
    num_lat, num_lon = domain.shape
    return -90 * _axis(num_lat, domain.convention), 360 * np.arange(num_lon) / num_lon


def positions(domain: Domain) -> np.ndarray:
    """Computes points whose Euclidean distances order as the true distances do.

    Args:
      domain: any domain.

    Returns:
      [N, p] float64, row-major: indices on a grid (exact distances; cells are cubes), unit vectors
      on the sphere (a chord grows with its arc).
    """
    check(domain)
    if domain.kind == "sphere":
        return _coordinates(domain)
    return _product([np.arange(size, dtype=np.float64) for size in domain.shape])


def cell_weights(domain: Domain) -> np.ndarray:
    """Computes the share of the domain that each point stands for.

    Args:
      domain: any domain.

    Returns:
      [N] float64, sum 1: equal on a grid, proportional to the cosine of latitude on the sphere.
    """
    check(domain)
    weights = np.ones(domain.shape)
    if domain.kind == "sphere":
        latitude, _ = latitudes_longitudes(domain)
        weights *= np.cos(np.radians(latitude))[:, None]
    return weights.ravel() / weights.sum()


def resized(domain: Domain, shape: Sequence[int]) -> Domain:
    """Returns the same domain with other numbers of points along its axes."""
    other = domain._replace(shape=tuple(shape))
    check(other)
    return other


def interleaved(domain: Domain) -> Domain:
    """Returns the domain with one new point between any two: 2n - 1 an axis.

    With "corners" it contains the points of `domain` at even indices, see `index_map`. Longitudes
    close on themselves and become 2n; the released VAMoH takes 2n - 1, which contains none but the
    meridian 0: `resized(domain, (2H - 1, 2W - 1))`.
    """
    check(domain)
    shape = [2 * size - 1 for size in domain.shape]
    if domain.kind == "sphere":
        shape[1] += 1
    return resized(domain, shape)


def index_map(domain: Domain, other: Domain) -> np.ndarray:
    """Finds the points of a domain in another one, axis by axis.

    Args:
      domain: N points.
      other: a domain of the same kind.

    Returns:
      [N] int32 indices into the points of `other`, -1 where it has no such point.
    """
    if domain.kind != other.kind:
        raise ValueError(
            f"domains are of kinds {domain.kind!r} and {other.kind!r}, but only domains of one "
            f"kind share points"
        )
    found = []
    for here, there in zip(_axes(domain), _axes(other), strict=True):
        gap = np.abs(here[:, None] - there)
        found.append(np.where(gap.min(axis=1) < TIE, gap.argmin(axis=1), -1))
    found = _product(found).T
    index = np.ravel_multi_index(np.maximum(found, 0), other.shape)
    return np.where((found < 0).any(axis=0), -1, index).astype(np.int32)


def farthest_points(points: np.ndarray, num: int, start: int = 0) -> np.ndarray:
    """Picks points greedily, each the farthest from those before it.

    The pick is nested (fewer points are a prefix of more) and covers the set within twice the
    smallest radius that any `num` points could. The lowest index wins a tie.

    Args:
      points: [N, p].
      num: how many, at most N.
      start: index of the first pick.

    Returns:
      [num] int32, distinct, in the order picked.
    """
    _check_count("num", num, len(points))
    columns = np.ascontiguousarray(np.asarray(points, np.float64).T)
    delta = np.empty_like(columns)
    squares = np.full(len(points), np.inf)  # squared distance to the nearest pick
    picks = np.empty(num, np.int32)
    picks[0] = start
    for i in range(1, num):
        last = picks[i - 1]
        np.subtract(columns, columns[:, last, None], out=delta)
        np.minimum(squares, np.square(delta, out=delta).sum(axis=0), out=squares)
        squares[last] = -1.0  # never again, even where points coincide
        picks[i] = np.argmax(squares >= squares.max() * (1 - TIE))
    return picks


def nearest(points: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Finds the k nearest points of every query.

    Args:
      points: [N, p], p small: the search is a k-d tree.
      queries: [Q, p]; a query that is a point finds itself.
      k: how many, at most N.

    Returns:
      [Q, k] int32, nearest first, the lowest index first among equals.
    """
    _check_count("k", k, len(points))
    tree = cKDTree(points)
    index = np.empty((len(queries), k), np.int32)
    rows, width = np.arange(len(queries)), k
    while rows.size:  # again, wider, where the tie at the k-th place may reach beyond the width
        width = min(2 * width, len(points))
        distance, found = tree.query(queries[rows], np.arange(1, width + 1))
        is_farther = np.diff(distance, axis=1, prepend=0) > TIE * distance[:, -1:]
        rank = np.cumsum(is_farther, axis=1)
        order = np.lexsort((found, rank), axis=1)[:, :k]
        index[rows] = np.take_along_axis(found, order, axis=1)
        is_cut = (rank[:, k - 1] == rank[:, -1]) & (width < len(points))
        rows = rows[is_cut]
    return index


def tables(
    points: np.ndarray,
    stages: Sequence[tuple[int, int]],
    *,
    features: np.ndarray | None = None,
) -> tuple[Table, ...]:
    """Builds the neighbour tables of a stack of set layers.

    Level 0 is `points`; level i + 1 holds the centres of stage i. Centres are farthest points,
    starting with the first of their level, or all in their order where a stage keeps every one.

    Args:
      points: [N, p], see `positions`.
      stages: (number of centres, number of neighbours) of every layer.
      features: [N, F] Fourier features of the points, in which the released VAMoH measures
        distances instead; in double precision, so that near ties fall alike on every machine.

    Returns:
      One table a stage. Offsets are differences of `points`, divided by their root mean square
      length over the table, so that they depend on neither the unit nor the resolution; with
      `features`, plain differences of these [M, k, F].
    """
    is_scaled = features is None
    if not is_scaled and len(features) != len(points):
        raise ValueError(
            f"features have {len(features)} rows, but there are {len(points)} points; give one row "
            f"a point"
        )
    level = np.asarray(points if is_scaled else features, np.float64)
    result = []
    for i, (num, k) in enumerate(stages):
        _check_count(f"number of centres of stage {i}", num, len(level))
        _check_count(f"number of neighbours of stage {i}", k, len(level))
        if num == len(level):
            centre = np.arange(num, dtype=np.int32)
        else:
            centre = farthest_points(level, num)
        index = nearest(level, level[centre], k)
        offset = level[index] - level[centre][:, None]
        if is_scaled:
            radius = np.sqrt(np.mean(np.sum(offset**2, axis=-1)))
            offset /= radius if radius > 0 else 1.0
        result.append(Table(centre, index, offset.astype(np.float32)))
        level = level[centre]
    return tuple(result)


def _coordinates(domain):
    grid = _product(_axes(domain))
    if domain.kind != "sphere":
        return grid
    latitude, longitude = grid.T
    ring = np.sin(np.radians(90 - np.abs(latitude)))  # cos lat, exactly 0 at the poles
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    unit = (ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude))
    return np.stack(unit, axis=-1)


def _axes(domain):
    check(domain)
    if domain.kind == "sphere":
        return latitudes_longitudes(domain)
    return [_axis(size, domain.convention) for size in domain.shape]


def _axis(size, convention):
    if convention == "centres":
        return (2 * np.arange(size) + 1) / size - 1
    return 2 * np.arange(size) / (size - 1) - 1 if size > 1 else np.zeros(1)


def _product(axes):
    # [R_0], [R_1], ... -> [R_0 R_1 ..., d], first axis slowest
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _check_choice(name, value, choices):
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(choices)}"
        raise ValueError(f"{name} {value!r} is unknown; {hint}")


def _check_count(name, count, size):
    if not 1 <= count <= size:
        raise ValueError(
            f"{name} is {count}, but there are {size} points; give a number from 1 to {size}"
        )
