"""Computed fields: what they show, and that they depend on the seed and the place alone."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from functions import domains
from functions.domains import Domain
from launch.data import procedural

# Rooms


def test_a_segment_of_a_room_has_the_hue_of_its_factor():
    rooms = procedural.rooms(12, 0, 32)
    hues = np.array([colorsys.hsv_to_rgb(i / 10, 0.75, 1.0) for i in range(10)])
    for image, segments, factors in zip(*rooms, strict=True):
        for segment in (procedural.FLOOR, procedural.WALL, procedural.OBJECT):
            inside = ndimage.binary_erosion(segments == segment)  # no mixed pixels of its rim
            assert inside.sum() > 3
            light = image[inside] / hues[factors[segment]]  # the same in all channels
            assert np.all(np.ptp(light, axis=1) < 5)
            assert np.all((light > 0.2 * 255) & (light < 255 + 5))


def test_a_room_has_its_floor_below_its_wall_and_an_object_that_grows():
    rooms = procedural.rooms(400, 1, 16)
    rows = np.arange(16)[:, None]
    mean_row = [np.mean(np.broadcast_to(rows, (16, 16))[s == 0]) for s in rooms.segments]
    assert np.all(np.array(mean_row) > 8)
    area = (rooms.segments == procedural.OBJECT).sum(axis=(1, 2))
    assert area.min() > 0
    for shape in range(4):
        is_shape = rooms.factors[:, 4] == shape
        scale = rooms.factors[is_shape, 3]
        assert np.corrcoef(scale, area[is_shape])[0, 1] > 0.8


def test_rooms_differ_from_each_other_and_cover_their_factors():
    rooms = procedural.rooms(600, 0, 8)
    assert len(np.unique(rooms.factors, axis=0)) == 600
    counts = tuple(procedural.FACTORS.values())
    assert tuple(len(np.unique(column)) for column in rooms.factors.T) == counts
    assert tuple(rooms.factors.max(axis=0) + 1) == counts


def test_a_room_depends_on_the_seed_and_its_place_alone():
    rooms = procedural.rooms(5, 3, 16)
    tail = procedural.rooms(2, 3, 16, first=3)
    for whole, part in zip(rooms, tail, strict=True):
        np.testing.assert_array_equal(whole[3:], part)
    assert not np.array_equal(procedural.rooms(5, 4, 16).images, rooms.images)


def test_a_finer_grid_shows_the_same_room():
    coarse, fine = procedural.rooms(4, 0, 16), procedural.rooms(4, 0, 48)
    np.testing.assert_array_equal(coarse.segments, fine.segments[:, 1::3, 1::3])
    blocks = fine.images.reshape(4, 16, 3, 16, 3, 3).mean(axis=(2, 4))
    assert np.abs(blocks - coarse.images).mean() < 2.0


# The sphere


def monomials(domain, degree):
    """All x^a y^b z^c of at most `degree` at the points: they span the harmonics up to it."""
    x, y, z = domains.coordinates(domain).astype(float).T
    powers = [
        x**a * y**b * z**c
        for a in range(degree + 1)
        for b in range(degree + 1 - a)
        for c in range(degree + 1 - a - b)
    ]
    return np.stack(powers, axis=-1)


def test_sphere_fields_are_band_limited():
    domain = Domain("sphere", (20, 40))
    fields = procedural.sphere_fields(5, 0, domain)[..., 0]
    for degree, is_enough in ((procedural.DEGREE, True), (procedural.DEGREE - 1, False)):
        basis = monomials(domain, degree)
        fit = basis @ np.linalg.lstsq(basis, fields.T, rcond=1e-10)[0]
        assert (np.abs(fit - fields.T).max() < 1e-5) == is_enough


def test_sphere_fields_lie_in_the_unit_interval_and_fill_it():
    fields = procedural.sphere_fields(200, 1, Domain("sphere", (60, 120), "corners"))
    assert fields.dtype == np.float32
    assert fields.min() > 0
    assert fields.max() < 1
    assert np.all(np.abs(fields - 0.5).max(axis=(1, 2)) > 0.38)


def test_sphere_fields_are_isotropic():
    # the variance is the same at every latitude, within 5 standard errors
    fields = procedural.sphere_fields(1500, 2, Domain("sphere", (6, 12)))[..., 0]
    variance = fields.var(axis=0).reshape(6, 12)
    assert np.abs(variance / variance.mean() - 1).max() < 5 * np.sqrt(2 / 1500)


def test_a_finer_sphere_shows_the_same_functions():
    coarse = Domain("sphere", (7, 10), "corners")
    fine = domains.interleaved(coarse)
    a, b = (procedural.sphere_fields(3, 0, domain) for domain in (coarse, fine))
    np.testing.assert_allclose(b[:, domains.index_map(coarse, fine)], a, atol=1e-6)
    np.testing.assert_array_equal(procedural.sphere_fields(2, 0, coarse), a[:2])
    poles = a.reshape(3, 7, 10)[:, [0, -1]]
    assert np.ptp(poles, axis=-1).max() < 1e-6


# Chairs


@pytest.mark.parametrize("size", [16, 32])
def test_a_chair_is_one_piece_that_stands_and_has_a_back(size):
    chairs = procedural.chairs(40, 0, size)[..., 0]
    assert set(np.unique(chairs)) == {0, 1}
    for chair in chairs:
        assert ndimage.label(chair)[1] == 1
        assert chair[:, :, 0].any()
        top = np.flatnonzero(chair.any(axis=(0, 1)))[-1]
        assert top + 1 >= 0.7 * size
        depth = np.flatnonzero(chair[:, :, top].any(axis=0))
        assert depth.min() > size / 2
        np.testing.assert_array_equal(chair, chair[::-1])  # left and right are alike


def test_chairs_differ_and_a_finer_grid_shows_the_same_ones():
    chairs = procedural.chairs(30, 0, 16)
    assert len(np.unique(chairs.reshape(30, -1), axis=0)) == 30
    np.testing.assert_array_equal(procedural.chairs(12, 0, 16), chairs[:12])
    fine = procedural.chairs(30, 0, 48)
    np.testing.assert_array_equal(fine[:, 1::3, 1::3, 1::3], chairs)
    with pytest.raises(ValueError, match="size=8: legs would vanish; use 16"):
        procedural.chairs(1, 0, 8)
