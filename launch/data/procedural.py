"""Fields that are computed, not read: rooms, band-limited fields on the sphere, chairs of boxes.

Each is a stand-in for a public set that may not be at hand, and no substitute for its numbers.
Items are a function of the seed and of their place: asking for more of them adds to the end, and
asking for a finer grid shows the same ones.
"""

import colorsys
import functools
from typing import NamedTuple

import numpy as np

from functions import domains
from functions.domains import Domain

# Factors of a room, as many values each as in Shapes3D.
FACTORS = {
    "floor_hue": 10,
    "wall_hue": 10,
    "object_hue": 10,
    "scale": 8,
    "shape": 4,
    "orientation": 15,
}
SHAPES = ("cube", "cylinder", "sphere", "capsule")
FLOOR, WALL, OBJECT = range(3)  # codes of the segments of a room
_SUBPIXELS = 3  # an axis; odd, so that one of them is the centre of the pixel
_LIGHT = np.array([0.28, 0.77, 0.57])  # direction to the light, of length 1
_HALF_WIDTH, _BACK = 2.0, -1.8  # the walls: x = -2, x = 2, z = -1.8; the floor: y = 0
_CAMERA = (3.5, 2.5)  # distance from the vertical axis, height
_TARGET_HEIGHT, _FOCAL = 0.7, 1.35
_MARCH = 60  # steps of sphere tracing, enough even for grazing rays
DEGREE = 8  # of the fields on the sphere
_CENTRES = 256  # zonal functions summed in one field


class Rooms(NamedTuple):
    """Rooms with their ground truth."""

    images: np.ndarray  # [I, size, size, 3] uint8
    segments: np.ndarray  # [I, size, size] uint8: what lies at the centre of the pixel
    factors: np.ndarray  # [I, 6] int64 codes, in the order of `FACTORS`


def rooms(num: int, seed: int, size: int = 64, *, first: int = 0) -> Rooms:
    """Draws rooms of coloured shapes: a ray-cast stand-in for Shapes3D, with segments.

    A floor, three walls, and one lit object that stands in the middle; the camera turns around it.

    Args:
      num: of rooms.
      seed: of the order in which all 480,000 combinations of factors come.
      size: pixels an axis.
      first: where to begin in that order; rooms of one seed and different places all differ.

    Returns:
      I = num rooms.
    """
    counts = tuple(FACTORS.values())
    order = np.random.default_rng(seed).permutation(np.prod(counts))
    factors = np.stack(np.unravel_index(order[first : first + num], counts), axis=-1)
    images = np.empty((num, size, size, 3), np.uint8)
    segments = np.empty((num, size, size), np.uint8)
    hues = np.array([colorsys.hsv_to_rgb(i / 10, 0.75, 1.0) for i in range(10)], np.float32)
    scale, shape, orientation = factors[:, 3:].T
    for turn in np.unique(orientation):
        room = _room(np.radians(60.0 * turn / 14 - 30.0), size)
        for solid in np.unique(8 * shape[orientation == turn] + scale[orientation == turn]):
            rows = np.flatnonzero((orientation == turn) & (8 * shape + scale == solid))
            light, seen = _furnish(room, SHAPES[solid // 8], 0.75 + 0.5 * (solid % 8) / 7)
            colours = 255 * hues[factors[rows, :3]]  # [n, 3 segments, 3 channels]
            images[rows] = np.rint(np.einsum("shw,nsc->nhwc", light, colours))
            segments[rows] = seen
    return Rooms(images, segments, factors)


class _View(NamedTuple):
    """An empty room from one side, P = `_SUBPIXELS` size pixels an axis."""

    eye: np.ndarray  # [3]
    rays: np.ndarray  # [P, P, 3], of length 1
    segment: np.ndarray  # [P, P]
    light: np.ndarray  # [P, P] in 0..1
    radius: np.ndarray  # [P, P] distance from the vertical axis of what is seen


def _room(angle, size):
    distance, height = _CAMERA
    eye = np.array([distance * np.sin(angle), height, distance * np.cos(angle)])
    forward = np.array([0.0, _TARGET_HEIGHT, 0.0]) - eye
    forward /= np.linalg.norm(forward)
    right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
    ticks = (2 * np.arange(size * _SUBPIXELS) + 1) / (size * _SUBPIXELS) - 1
    up = np.cross(right, forward)
    rays = _FOCAL * forward - ticks[:, None, None] * up + ticks[None, :, None] * right
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)

    def meet(axis, position):  # the walls are seen from inside only
        with np.errstate(divide="ignore"):
            along = (position - eye[axis]) / rays[..., axis]
        return np.where(along > 0, along, np.inf)

    sides = meet(0, np.copysign(_HALF_WIDTH, rays[..., 0]))
    depths = np.stack([meet(1, 0.0), meet(2, _BACK), sides])
    plane = depths.argmin(axis=0)
    normals = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])[plane]
    normals[..., 0] *= -np.sign(rays[..., 0])
    ground = eye + depths.min(axis=0)[..., None] * rays
    segment = np.where(plane == 0, FLOOR, WALL)
    return _View(eye, rays, segment, _shade(normals), np.hypot(ground[..., 0], ground[..., 2]))


def _furnish(room, shape, scale):
    """Returns the light of every segment [3, size, size], and what is at the centres of pixels."""
    half_height, radius, signed_distance = _solid(shape, scale)
    shadow = 0.5 * np.exp(-np.square(room.radius / (1.3 * radius)))
    light = np.where(room.segment == FLOOR, 1 - shadow, 1.0) * room.light
    segment = room.segment.copy()
    start = room.eye - [0.0, half_height, 0.0]
    hit, at = _march(signed_distance, start, room.rays, np.sqrt(half_height**2 + 2 * radius**2))
    segment[hit] = OBJECT
    light[hit] = _shade(_gradient(signed_distance, at))
    fine = light.astype(np.float32) * (segment == np.arange(3)[:, None, None])
    size, middle = len(light) // _SUBPIXELS, _SUBPIXELS // 2
    blocks = fine.reshape(3, size, _SUBPIXELS, size, _SUBPIXELS)
    return blocks.mean(axis=(2, 4)), segment[middle::_SUBPIXELS, middle::_SUBPIXELS]


def _shade(normals):
    return 0.45 + 0.55 * np.maximum(normals @ _LIGHT, 0)


def _solid(shape, scale):
    """Returns half height, radius, and the distance of points [3, n] from the centred solid."""
    if shape == "cube":
        half = radius = 0.58 * scale

        def signed_distance(p):
            return _outside(np.abs(p) - half)

    elif shape == "cylinder":
        half, radius = 0.68 * scale, 0.54 * scale

        def signed_distance(p):
            x, y, z = p
            return _outside((np.hypot(x, z) - radius, np.abs(y) - half))

    else:
        radius = (0.68 if shape == "sphere" else 0.46) * scale
        straight = 0.0 if shape == "sphere" else 0.4 * scale  # half length of the capsule's axis
        half = straight + radius

        def signed_distance(p):
            x, y, z = p
            return np.sqrt(x**2 + np.maximum(np.abs(y) - straight, 0) ** 2 + z**2) - radius

    return half, radius, signed_distance


def _outside(excess):
    # distance from where every excess is 0 or less: from a box, in as many dimensions
    squares = sum(np.maximum(e, 0) ** 2 for e in excess)
    return np.sqrt(squares) + np.minimum(functools.reduce(np.maximum, excess), 0)


def _march(signed_distance, start, rays, bound):
    """Traces rays [..., 3] from `start`; returns which hit [...], and the points hit [n, 3]."""
    nearest = -(rays @ start)
    gap = np.sum(start**2) - nearest**2  # squared distance of the ray from the centre
    is_near = gap < bound**2
    half_chord = np.sqrt(bound**2 - gap[is_near])
    along, end = nearest[is_near] - half_chord, nearest[is_near] + half_chord
    direction, start = rays[is_near].T, start[:, None]
    rows, is_hit = np.arange(len(along)), np.zeros(len(along), bool)
    for _ in range(_MARCH):
        step = signed_distance(start + along[rows] * direction[:, rows])
        along[rows] += step
        is_hit[rows] = step < 1e-4
        rows = rows[~is_hit[rows] & (along[rows] < end[rows])]
    hit = is_near.copy()
    hit[is_near] = is_hit
    return hit, (start + along * direction)[:, is_hit].T


def _gradient(signed_distance, at, step=1e-4):
    steps = step * np.eye(3)
    slopes = [signed_distance((at + s).T) - signed_distance((at - s).T) for s in steps]
    normals = np.stack(slopes, axis=-1)
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def sphere_fields(num: int, seed: int | list[int], domain: Domain) -> np.ndarray:
    """Draws smooth random fields on the sphere, band-limited to spherical harmonics of `DEGREE`.

    f(x) = sum_j a_j sum_l c_l P_l(x . u_j) with a_j ~ N(0, 1), 256 points u_j spread evenly over
    the sphere, Legendre polynomials P_l and c_l = (2 l + 1) / (l + 1)^2 for l = 1..8: a Gaussian
    field that is isotropic as far as the points are, with a spectrum that falls as l^-4. It is
    scaled to at most 0.4 on a fixed grid and put around 1/2, so that values lie inside [0, 1] at
    any resolution: between the points of that grid, f exceeds its largest value there by 17 percent
    at most (M. Riesz, along great circles).

    Args:
      num: of fields.
      seed: of the fields; a coarser and a finer `domain` sample the same functions.
      domain: a sphere of N points.

    Returns:
      [num, N, 1] float32.
    """
    weights = np.random.default_rng(seed).normal(size=(num, _CENTRES)).T
    largest = np.abs(_zonal(Domain("sphere", (32, 64))) @ weights).max(axis=0)
    fields = 0.5 + 0.4 * (_zonal(domain) @ weights) / largest
    return fields.T[..., None].astype(np.float32)


def _zonal(domain):
    # [N, 256]: sum_l c_l P_l(x . u_j), with u_j on a Fibonacci spiral
    place = np.arange(_CENTRES)
    height, turn = 1 - (2 * place + 1) / _CENTRES, np.pi * (3 - np.sqrt(5)) * place
    ring = np.sqrt(1 - height**2)
    centres = np.stack([ring * np.cos(turn), ring * np.sin(turn), height])
    degree = np.arange(DEGREE + 1)
    coefficients = np.where(degree == 0, 0.0, (2 * degree + 1) / (degree + 1.0) ** 2)
    points = domains.coordinates(domain).astype(np.float64)
    return np.polynomial.legendre.legval(points @ centres, coefficients)


def chairs(num: int, seed: int | list[int], size: int = 16) -> np.ndarray:
    """Draws chairs as unions of boxes: a stand-in for voxelised chairs.

    A seat; a solid or barred back; four legs or a column on a cross; arms or none. Axes are width,
    depth (the back is at the far end) and height. Every part is at least 1/16 thick, so none of
    them is lost at 16 cells an axis.

    Args:
      num: of chairs.
      seed: of their proportions.
      size: cells an axis, at least 16; a finer grid shows the same chairs.

    Returns:
      [num, size, size, size, 1] uint8 occupancy, 0 or 1.
    """
    if size < 16:
        raise ValueError(f"size={size}: legs would vanish; use 16 cells an axis or more")
    rng = np.random.default_rng(seed)
    centres = (np.arange(size) + 0.5) / size
    occupied = np.zeros((num, size, size, size, 1), np.uint8)
    for i in range(num):
        for low, high in _boxes(rng):
            inside = [(a <= centres) & (centres < b) for a, b in zip(low, high, strict=True)]
            occupied[i, ..., 0][np.ix_(*inside)] = 1
    return occupied


def _boxes(rng):
    """Returns the boxes (low [3], high [3]) of one chair in the unit cube."""
    half_width, half_depth = rng.uniform(0.22, 0.36), rng.uniform(0.22, 0.34)
    seat, top = rng.uniform(0.32, 0.5), rng.uniform(0.75, 0.98)
    seat_thickness, leg, back, bar = rng.uniform([0.07, 0.065, 0.065, 0.065], [0.12, 0.1, 0.1, 0.1])
    left, right, front, rear = (
        0.5 - half_width,
        0.5 + half_width,
        0.5 - half_depth,
        0.5 + half_depth,
    )
    boxes = [((left, front, seat - seat_thickness), (right, rear, seat))]
    if rng.random() < 0.7:  # four legs
        corners = [(x, y) for x in (left, right - leg) for y in (front, rear - leg)]
        boxes += [((x, y, 0.0), (x + leg, y + leg, seat)) for x, y in corners]
    else:  # a column on a cross
        boxes += [
            ((0.5 - leg / 2, 0.5 - leg / 2, 0.0), (0.5 + leg / 2, 0.5 + leg / 2, seat)),
            ((left, 0.5 - leg / 2, 0.0), (right, 0.5 + leg / 2, leg)),
            ((0.5 - leg / 2, front, 0.0), (0.5 + leg / 2, rear, leg)),
        ]
    if rng.random() < 0.5:  # a solid back
        boxes.append(((left, rear - back, seat), (right, rear, top)))
    else:  # bars below a rail
        boxes.append(((left, rear - back, top - 0.12), (right, rear, top)))
        for x in np.linspace(left, right - bar, rng.integers(2, 4)):
            boxes.append(((x, rear - back, seat), (x + bar, rear, top)))
    if rng.random() < 0.4:  # arms
        arm = seat + rng.uniform(0.16, 0.24)
        for x in (left, right - bar):
            boxes.append(((x, front, arm - bar), (x + bar, rear, arm)))
            boxes.append(((x, front, seat), (x + bar, front + bar, arm)))
    return boxes
