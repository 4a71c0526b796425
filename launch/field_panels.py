"""One field drawn into one panel: pixels, a video's frames, a curve, a globe, voxels.

What `launch.field_figures` lays out; the same conventions hold here.
"""

import functools

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle
from scipy.ndimage import uniform_filter

from functions import domains
from launch.figures import HMC, MODEL

FIELD = "RdYlBu_r"  # one channel on the sphere
COLOURS = (MODEL, HMC, "#3a9e6e", "#c3457f", "#7fbfe6", "#e3c23f", "#7a4f9e", "#8c5a2b", "#a8a8a8",
           "#262626")  # fmt: skip
DARK = "#4d4d4d"
GAP = 4  # pixels between fields
MAX_FRAMES = 5  # frames shown of a video, evenly spaced
CENTRE = (20.0, 10.0)  # latitude and longitude, degrees, that a globe turns to the reader
VIEW = (26.0, -58.0)  # the same for voxels: the last axis is up


def draw_field(axis, domain, values, *, colours=None, mask=True, is_model=False, centre=CENTRE):
    """Draws one field [N, C], in `colours` [N, 4] if given, hatched where `mask` [N] is False."""
    mask = np.isfinite(values).all(axis=-1) & mask
    if domain.kind == "series":
        _draw_series(axis, values, colours, is_model)
        return
    if domain.kind == "voxels":
        _draw_voxels(axis, domain, values[:, 0] > 0.5, mask, colours, is_model)
        return
    if colours is None and values.shape[-1] == 1:
        colours = mpl.colormaps[FIELD if domain.kind == "sphere" else "gray"](values[:, 0])
    elif colours is None:
        colours = np.clip(np.nan_to_num(values), 0, 1)
    if domain.kind == "sphere":
        draw_sphere(axis, domain, colours, mask, centre)
    else:
        _draw_pixels(axis, _frames(domain, round(axis.bbox.height)), colours, mask)


def channel_colours(values, color):
    """Returns the colours of the curves of values [..., C]: `color` where there is one channel."""
    return [color] if values.shape[-1] == 1 else COLOURS[:3]


def _draw_series(axis, values, colours, is_model):
    place = np.arange(len(values))
    shades = channel_colours(values, MODEL if is_model else DARK)
    for y, color in zip(values.T, shades, strict=True):
        if colours is not None:
            axis.scatter(place, y, c=colours, s=6, linewidths=0)
        elif is_model:
            axis.plot(place, y, color=color)
        else:
            axis.plot(place, y, "o", color=color, ms=2, mew=0)
    margin = 0.02 * len(values)
    axis.set(xlim=(-margin, len(values) - 1 + margin), ylim=(-0.05, 1.05))


def _draw_pixels(axis, index, colours, mask, extent=None):
    # index [h, w]: the point that a pixel shows, -1 = none
    pixels = np.append(colours[:, :3], [[1.0, 1.0, 1.0]], axis=0)[index]
    row, column = np.indices(index.shape)
    hatch = np.where((row + column) % 7 == 0, 0.55, 0.85)[..., None]
    is_hidden = np.append(~mask, False)[index][..., None]
    axis.imshow(np.where(is_hidden, hatch, pixels), extent=extent)


@functools.lru_cache(maxsize=8)
def _frames(domain, height):
    *num_times, num_rows, num_columns = domain.shape
    height = max(num_rows, height)  # a coarse grid is repeated here: its squares stay sharp
    width = round(height * num_columns / num_rows)
    rows = np.arange(height) * num_rows // height
    frame = rows[:, None] * num_columns + np.arange(width) * num_columns // width
    if not num_times:
        return frame
    times = np.linspace(0, num_times[0] - 1, min(num_times[0], MAX_FRAMES)).round().astype(int)
    gap = np.full((height, GAP), -1)
    parts = [part for t in times for part in (gap, frame + t * num_rows * num_columns)]
    return np.concatenate(parts[1:], axis=1)


def draw_sphere(axis, domain, colours, mask, centre):
    """Draws colours [N, 4] as a globe turned to `centre`, or as the whole map where it is None."""
    index = _sphere(domain, round(axis.bbox.height), centre)
    if centre is None:
        _draw_pixels(axis, index, colours, mask, extent=(-180, 180, -90, 90))
        grid = {"color": "black", "linewidth": 0.4, "alpha": 0.3}
        axis.hlines(range(-60, 61, 30), -180, 180, **grid)
        axis.vlines(range(-150, 151, 30), -90, 90, **grid)
        return
    _draw_pixels(axis, index, colours, mask, extent=(-1, 1, -1, 1))
    sweep = np.linspace(-90, 90, 61)
    meridians = _unit(sweep, np.arange(0, 360, 30)[:, None])
    parallels = _unit(np.arange(-60, 61, 30)[:, None], 2 * sweep)
    lines = np.concatenate([meridians, parallels]) @ _basis(centre).T
    lines = np.where(lines[..., 2:] > 0, lines[..., :2], np.nan)
    axis.add_collection(LineCollection(lines, colors="black", linewidths=0.4, alpha=0.3))
    axis.add_patch(Circle((0, 0), 1, fill=False, color=DARK, lw=0.8, clip_on=False))
    axis.spines[:].set_visible(False)


@functools.lru_cache(maxsize=8)
def _sphere(domain, height, centre):
    # the point nearest to every pixel, of the map (centre None) or of the globe
    up = 1 - (2 * np.arange(height)[:, None] + 1) / height
    if centre is None:
        right = (2 * np.arange(2 * height) + 1) / (2 * height) - 1
        directions, is_seen = _unit(90 * up, 180 * right), True
    else:
        up, right = np.broadcast_arrays(up, -up.T)
        square = 1 - up**2 - right**2
        is_seen = square > 0
        front = np.sqrt(np.where(is_seen, square, 0.0))
        directions = np.stack([right, up, front], axis=-1) @ _basis(centre)
    index = domains.nearest(domains.positions(domain), directions.reshape(-1, 3), 1)
    return np.where(is_seen, index.reshape(directions.shape[:2]), -1)


def turn(domain, mask):
    """Returns the view of the smaller part of the points, observed or hidden, and of its border."""
    part = mask if 2 * mask.sum() < mask.size else ~mask
    x, y, z = domains.positions(domain)[part].sum(axis=0) / max(part.sum(), 1)
    size = np.linalg.norm([x, y, z])  # 1: one point; 0.5: a hemisphere; 0: all around
    if size < 0.2:
        return CENTRE
    latitude, longitude = np.degrees([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)])
    return float(np.clip(latitude, -35, 35)), float(longitude - 100 + 80 * size)


def _unit(latitude, longitude):
    latitude, longitude = np.broadcast_arrays(np.radians(latitude), np.radians(longitude))
    ring = np.cos(latitude)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude)], -1)


def _basis(centre):
    # [3, 3]: right, up and towards a reader far above `centre`
    latitude, longitude = centre
    return np.stack(
        [_unit(0, longitude + 90), _unit(latitude + 90, longitude), _unit(latitude, longitude)]
    )


def _draw_voxels(axis, domain, occupied, mask, colours, is_model):
    hidden = ~mask.reshape(domain.shape)
    solid = occupied.reshape(domain.shape) & ~hidden
    if colours is None:
        colours = np.tile(to_rgb("#6ba3d6" if is_model else "#cfcfcf"), (solid.size, 1))
    colours = colours[:, :3].reshape(*solid.shape, 3)
    basis, scale = _basis(VIEW), max(domain.shape)
    # crowded corners are darker, which shows the shape where the faces do not
    light = 1 - 0.7 * uniform_filter(np.pad(solid, 1).astype(float), 5, mode="constant")
    quads, paints, depths = [], [], []
    for k, shade in enumerate((0.78, 0.9, 1.0)):
        step = np.eye(3, dtype=int)[k] * (1 if basis[2, k] > 0 else -1)
        corners = np.zeros((4, 3), int)
        corners[:, k] = step[k] > 0
        corners[[1, 2], k - 2] = corners[[2, 3], k - 1] = 1
        for cells in (solid, hidden):
            ahead = np.roll(np.pad(cells, 1), -step[k], axis=k)[1:-1, 1:-1, 1:-1]
            faces = np.argwhere(cells & ~ahead)
            # a haze, the thinner the more faces lie one behind the other
            rgba = np.full((len(faces), 4), 0.15 * min(1, scale**2 / max(len(faces), 1)))
            rgba[:, :3] = 0.4
            if cells is solid:
                bright = shade * light[tuple((faces + 1 + step).T)]
                rgba[:, :3], rgba[:, 3] = colours[tuple(faces.T)] * bright[:, None], 1
            paints.append(rgba)
            quads.append(((faces[:, None] + corners) - np.array(domain.shape) / 2) / scale)
            depths.append(faces @ basis[2])
    order = np.argsort(np.concatenate(depths), kind="stable")  # the farthest first
    quads, paints = np.concatenate(quads)[order] @ basis[:2].T, np.concatenate(paints)[order]
    edges = {"edgecolors": paints * [0.9, 0.9, 0.9, 1], "linewidths": 0.3 * (paints[:, 3] == 1)}
    axis.add_collection(PolyCollection(quads, facecolors=paints, **edges))
    axis.set(xlim=(-0.73, 0.73), ylim=(-0.73, 0.73))
    axis.spines[:].set_visible(False)
