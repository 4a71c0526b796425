"""Domains: stored numbers, geometry, and neighbours against brute force."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from functions import domains
from functions.domains import Domain

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ["c0", "c1"]
SHAPES = {
    "image": (5, 7),
    "voxels": (3, 4, 5),
    "sphere": (6, 8),
    "series": (9,),
    "video": (4, 3, 5),
}


def load(name, group):
    with np.load(GOLDEN / f"{name}.npz") as archive:
        prefix = f"{group}."
        return {k[len(prefix) :]: archive[k] for k in archive.files if k.startswith(prefix)}


def close(got, want, tolerance=1e-10):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def squared_distances(a, b):
    return np.sum((np.asarray(a)[:, None] - np.asarray(b)[None]) ** 2, axis=-1)


# Coordinates


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("group", ["image_square", "image_rect", "voxel"])
def test_golden_grids(case, group):
    g = load("coordinate_grids", f"{case}.{group}")
    channels, *shape = g["shape"]
    domain = Domain("voxels" if group == "voxel" else "image", tuple(shape), "corners")
    close(domains.coordinates(domain), g["coords_per_axis"], 1e-6)
    close(domains.paper_coordinates(domain), g["coords_formula"], 1e-6)
    close(domains.paper_coordinates(domain), g["coords_ref_float32"], 1e-6)
    finer = domains.interleaved(domain)
    assert finer.shape == tuple(g["super_shape"])
    close(domains.paper_coordinates(finer), g["super_coords_formula"], 1e-6)
    values = np.arange(channels * np.prod(shape)).reshape(channels, *shape)
    at = domains.positions(domain).astype(int).T
    np.testing.assert_array_equal(values[:, *at].T, g["features_of_arange"])


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_golden_sphere(case):
    g = load("coordinate_grids", f"{case}.sphere")
    for prefix in ("", "super_"):
        domain = Domain("sphere", tuple(g[f"{prefix}shape"]), "corners")
        row, column = np.divmod(g[f"{prefix}index"], domain.shape[1])
        latitude, longitude = domains.latitudes_longitudes(domain)
        close(latitude[row], g[f"{prefix}latitude"])
        close(longitude[column], g[f"{prefix}longitude"])
        close(domains.positions(domain)[g[f"{prefix}index"]], g[f"{prefix}coords"])
    domain = Domain("sphere", tuple(g["shape"]), "corners")
    weights = domains.cell_weights(domain)[g["index"]]
    close(weights / weights.sum(), g["cos_lat_weight"] / g["cos_lat_weight"].sum())
    small = load("coordinate_grids", f"{case}.sphere_small")
    domain = Domain("sphere", tuple(small["shape"]))  # the paper has one convention
    close(domains.paper_coordinates(domain), small["coords"], 1e-6)


@pytest.mark.parametrize("convention", domains.CONVENTIONS)
@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_and_ranges(kind, convention):
    domain = Domain(kind, SHAPES[kind], convention)
    coords = domains.coordinates(domain)
    assert coords.dtype == np.float32
    assert coords.shape == (np.prod(domain.shape), 3 if kind == "sphere" else len(domain.shape))
    assert domains.positions(domain).shape == coords.shape
    if kind == "sphere":
        close(np.linalg.norm(coords, axis=-1), 1.0, 1e-6)
        return
    for axis, size in enumerate(domain.shape):  # every axis by its own size, symmetric about 0
        edge = 1.0 if convention == "corners" else 1 - 1 / size
        values = np.unique(coords[:, axis])
        assert len(values) == size
        close(values, np.linspace(-edge, edge, size), 1e-6)
    assert (np.diff(coords[: domain.shape[-1], -1]) > 0).all()  # the last axis is the fastest


def test_axis_of_one_point():
    for convention in domains.CONVENTIONS:
        assert domains.coordinates(Domain("image", (1, 1), convention)).tolist() == [[0, 0]]


def test_coarse_centre_is_the_mean_of_its_fine_ones():
    coarse, fine = (domains.coordinates(Domain("image", shape)) for shape in ((5, 7), (10, 14)))
    means = fine.reshape(5, 2, 7, 2, 2).mean(axis=(1, 3))
    close(means.reshape(-1, 2), coarse, 1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_interleaved_corners_contain_the_domain(kind):
    domain = Domain(kind, SHAPES[kind], "corners")
    finer = domains.interleaved(domain)
    index = domains.index_map(domain, finer)
    even = np.arange(np.prod(finer.shape)).reshape(finer.shape)[(np.s_[::2],) * len(finer.shape)]
    np.testing.assert_array_equal(index, even.ravel())
    close(domains.coordinates(finer)[index], domains.coordinates(domain), 1e-6)
    close(domains.positions(domain)[domains.index_map(domain, domain)], domains.positions(domain))


def test_index_map_finds_no_point_that_is_not_there():
    domain = Domain("sphere", (5, 6), "corners")
    other = domains.resized(domain, (9, 11))  # the released size: longitudes do not align
    index = domains.index_map(domain, other).reshape(5, 6)
    np.testing.assert_array_equal(index[:, 0], np.arange(0, 99, 22))
    assert (index[:, 1:] == -1).all()
    coarse, fine = Domain("series", (3,)), Domain("series", (9,))
    np.testing.assert_array_equal(domains.index_map(coarse, fine), [1, 4, 7])
    np.testing.assert_array_equal(domains.index_map(coarse, Domain("series", (6,))), [-1, -1, -1])


def test_weights_are_equal_or_cosines_of_latitude():
    for kind, shape in SHAPES.items():
        assert domains.cell_weights(Domain(kind, shape)).sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(domains.cell_weights(Domain("image", (4, 2))), 0.125)
    weights = domains.cell_weights(Domain("sphere", (60, 8)))
    close(weights, np.repeat(weights[::8], 8))
    height = domains.positions(Domain("sphere", (60, 8)))[:, 2]
    assert weights @ height == pytest.approx(0.0, abs=1e-12)
    assert weights @ height**2 == pytest.approx(1 / 3, abs=1e-3)  # as over the whole sphere


@pytest.mark.parametrize(
    ("domain", "match"),
    [
        (Domain("imagee", (4, 4)), "kind 'imagee' is unknown; did you mean 'image'"),
        (Domain("torus", (4, 4)), "use one of image, voxels, sphere, series, video"),
        (Domain("image", (4, 4), "corner"), "did you mean 'corners'"),
        (Domain("image", (3, 4, 4)), "needs a tuple of 2; .* leave out the channels"),
        (Domain("series", 4), "needs a tuple of 1"),
        (Domain("image", (4, 0)), "every size must be an integer of at least 1"),
        (Domain("image", (4, 4.0)), "every size must be an integer of at least 1"),
    ],
)
def test_impossible_domains(domain, match):
    for function in (domains.check, domains.coordinates, domains.positions, domains.cell_weights):
        with pytest.raises(ValueError, match=match):
            function(domain)


def test_other_errors():
    image = Domain("image", (1, 4))
    with pytest.raises(ValueError, match="use `coordinates`"):
        domains.paper_coordinates(image)
    with pytest.raises(ValueError, match="latitudes need a 'sphere'"):
        domains.latitudes_longitudes(image)
    with pytest.raises(ValueError, match="needs a tuple of 2"):
        domains.resized(image, (4,))
    with pytest.raises(ValueError, match="only domains of one kind share points"):
        domains.index_map(image, Domain("sphere", (1, 4)))


# Farthest points and neighbours


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "group", ["integer_grid", "regular_grid", "jittered_grid", "jittered_grid_fourier"]
)
def test_golden_picks_and_neighbours(case, group):
    g = load("point_sampling", f"{case}.{group}")
    points, num = g["points"], int(g["num_out"])
    picks = domains.farthest_points(points, num)
    # on the regular grid upstream follows the rounding of tied distances; the exact order is ours
    name = "first_wins_exact" if group == "regular_grid" else "ref"
    np.testing.assert_array_equal(picks, g[f"fps_index_{name}"])
    if f"covering_radius_{name}" in g:
        to_pick = np.sqrt(squared_distances(points, points[picks]))
        radius = np.minimum.accumulate(to_pick, axis=1).max(axis=0)
        close(radius, g[f"covering_radius_{name}"])
    for k in (4, 9):
        index = domains.nearest(points, points, k)
        distance = np.linalg.norm(points[index] - points[:, None], axis=-1)
        close(np.sort(distance, axis=1), g[f"knn{k}_distance_sorted"], 1e-6)
        assert (np.diff(distance, axis=1) >= -1e-12).all()
        unique = g[f"knn{k}_unique"]
        want = g[f"knn{k}_index_sorted_ref"]
        np.testing.assert_array_equal(np.sort(index, axis=1)[unique], want[unique])


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind != "sphere"])
def test_ties_go_to_the_lowest_index_whatever_the_rounding(kind):
    domain = Domain(kind, SHAPES[kind])
    points = domains.positions(domain)
    num, k = len(points) // 3, 6
    exact = squared_distances(points, points)  # small integers
    picks, reached = [0], exact[0].copy()
    for _ in range(num - 1):
        picks.append(int(np.argmax(reached)))
        reached = np.minimum(reached, exact[picks[-1]])
    everyone = np.broadcast_to(np.arange(len(points)), exact.shape)
    neighbours = np.lexsort((everyone, exact), axis=1)[:, :k]
    for scale, shift in ((1.0, 0.0), (2 / 63, -1.0), (0.1, 0.3)):
        moved = scale * points + shift
        np.testing.assert_array_equal(domains.farthest_points(moved, num), picks)
        np.testing.assert_array_equal(domains.nearest(moved, moved, k), neighbours)


def test_neighbours_on_the_sphere_are_great_circle_neighbours():
    domain = Domain("sphere", (7, 10))
    rows, columns = np.radians(domains.latitudes_longitudes(domain)[0]), np.arange(10) * np.pi / 5
    latitude, longitude = np.repeat(rows, 10), np.tile(columns, 7)
    haversine = (
        np.sin((latitude[:, None] - latitude) / 2) ** 2
        + np.cos(latitude[:, None])
        * np.cos(latitude)
        * np.sin((longitude[:, None] - longitude) / 2) ** 2
    )
    everyone = np.broadcast_to(np.arange(70), (70, 70))
    want = np.lexsort((everyone, haversine.round(9)), axis=1)[:, :11]
    points = domains.positions(domain)
    np.testing.assert_array_equal(domains.nearest(points, points, 11), want)


def test_neighbours_wrap_around_the_sphere():
    domain = Domain("sphere", (6, 12))
    points = domains.positions(domain)
    index = domains.nearest(points, points, 5)
    for r, c in ((2, 0), (3, 11)):  # both sides of the meridian 0
        rows, columns = np.divmod(index[12 * r + c], 12)
        beside = {(int(a - r), int(b - c) % 12) for a, b in zip(rows, columns, strict=True)}
        assert {(0, 0), (0, 1), (0, 11)} <= beside
    domain = Domain("sphere", (6, 4))  # latitudes 75, 45, ...: over the pole is as near as south
    points = domains.positions(domain)
    np.testing.assert_array_equal(domains.nearest(points, points[:1], 5), [[0, 1, 3, 2, 4]])


def test_coincident_points_are_picked_once():
    domain = Domain("sphere", (3, 4), "corners")  # four points on each pole
    points = domains.positions(domain)
    picks = domains.farthest_points(points, 12)
    np.testing.assert_array_equal(np.sort(picks), np.arange(12))
    assert set(picks[:6] // 4) == {0, 1, 2}
    np.testing.assert_array_equal(domains.nearest(points, points[[3, 8]], 2), [[0, 1], [8, 9]])
    np.testing.assert_array_equal(domains.farthest_points(np.zeros((3, 2)), 3), [0, 1, 2])
    # a tie far wider than k: 90 points on the pole, of which the lowest two are wanted
    crowd = domains.positions(Domain("sphere", (3, 90), "corners"))
    np.testing.assert_array_equal(domains.nearest(crowd, crowd[[89, 180]], 2), [[0, 1], [180, 181]])


def test_picks_cover_within_twice_the_best_and_are_nested():
    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=(9, 2))
        distance = np.sqrt(squared_distances(points, points))
        every = domains.farthest_points(points, 9, start=seed % 9)
        for num in (2, 3, 4):
            picks = domains.farthest_points(points, num, start=seed % 9)
            np.testing.assert_array_equal(picks, every[:num])
            radius = distance[picks].min(axis=0).max()
            subsets = itertools.combinations(range(9), num)
            best = min(distance[list(subset)].min(axis=0).max() for subset in subsets)
            assert best <= radius <= 2 * best


# Tables


def test_tables_are_picks_and_neighbours_of_every_level():
    points = domains.positions(Domain("image", (6, 7)))
    stages = ((42, 4), (16, 9), (16, 5), (3, 16))
    level = points
    for table, (num, k) in zip(domains.tables(points, stages), stages, strict=True):
        kept = np.arange(num) if num == len(level) else domains.farthest_points(level, num)
        np.testing.assert_array_equal(table.centre, kept)
        np.testing.assert_array_equal(table.index, domains.nearest(level, level[kept], k))
        np.testing.assert_array_equal(table.index[:, 0], kept)  # a point is its own neighbour
        assert [a.dtype for a in table] == [np.int32, np.int32, np.float32]
        difference = level[table.index] - level[kept][:, None]
        unit = np.linalg.norm(difference) / np.linalg.norm(table.offset)
        close(table.offset * unit, difference, 1e-5)
        assert np.mean(np.sum(table.offset**2, axis=-1)) == pytest.approx(1.0, rel=1e-5)
        level = level[kept]
    for a, b in zip(
        domains.tables(points, stages), domains.tables(0.1 * points + 0.3, stages), strict=True
    ):
        np.testing.assert_array_equal(a.index, b.index)
        close(a.offset, b.offset, 1e-6)


def test_tables_of_a_single_neighbour_have_zero_offsets():
    (table,) = domains.tables(domains.positions(Domain("series", (5,))), ((2, 1),))
    np.testing.assert_array_equal(table.offset, 0.0)


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_golden_tables_in_feature_space(case):
    g = load("point_sampling", f"{case}.jittered_grid_fourier")
    features = g["points"]
    (table,) = domains.tables(g["points_2d"], ((20, 9),), features=features)
    np.testing.assert_array_equal(table.centre, g["fps_index_ref"])
    unique = g["knn9_unique"][table.centre]
    want = g["knn9_index_sorted_ref"][table.centre]
    np.testing.assert_array_equal(np.sort(table.index, axis=1)[unique], want[unique])
    difference = features[table.index] - features[table.centre][:, None]
    close(table.offset, difference, 1e-6)


def test_tables_follow_a_permutation_of_the_points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 3))
    order = np.concatenate([[0], 1 + rng.permutation(59)])  # the first pick stays the first
    stages = ((20, 7), (20, 4), (5, 6))
    plain, moved = domains.tables(points, stages), domains.tables(points[order], stages)
    np.testing.assert_array_equal(order[moved[0].centre], plain[0].centre)
    np.testing.assert_array_equal(order[moved[0].index], plain[0].index)
    for a, b in zip(plain[1:], moved[1:], strict=True):
        np.testing.assert_array_equal(a.centre, b.centre)
        np.testing.assert_array_equal(a.index, b.index)
        np.testing.assert_array_equal(a.offset, b.offset)
    start = int(np.flatnonzero(order == 7)[0])
    picks = domains.farthest_points(points[order], 9, start)
    np.testing.assert_array_equal(order[picks], domains.farthest_points(points, 9, start=7))


PUBLISHED = {
    "polymnist": (Domain("image", (28, 28)), ((196, 9), (49, 9), (25, 9))),
    "shapes3d": (Domain("image", (64, 64)), ((1024, 16), (256, 16), (64, 16))),
    "celeba_hq": (
        Domain("image", (64, 64)),
        (
            *((4096, 9), (1024, 9), (1024, 9), (256, 9), (256, 9)),
            *((64, 9), (64, 9), (16, 9), (1, 16)),  # 16 of 16: the release reads 9 of them
        ),
    ),
    "voxels": (Domain("voxels", (32, 32, 32)), ((4096, 27), (512, 27), (64, 27), (16, 16))),
    # the poles crowd a latitude-longitude grid: with the published 16 neighbours 5 % are not read
    "era5": (Domain("sphere", (46, 90)), ((1024, 64), (256, 9), (64, 9), (32, 9), (16, 9))),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_point_reaches_the_top(name):
    domain, stages = PUBLISHED[name]
    stack = domains.tables(domains.positions(domain), stages)
    reached = np.arange(stages[-1][0])
    for table in reversed(stack):
        reached = np.unique(table.index[reached])
    np.testing.assert_array_equal(reached, np.arange(np.prod(domain.shape)))


def test_polar_points_are_out_of_reach_of_the_published_neighbourhoods():
    domain = Domain("sphere", (46, 90))
    (table,) = domains.tables(domains.positions(domain), ((1024, 16),))
    unread = np.setdiff1d(np.arange(4140), table.index)
    latitude, _ = domains.latitudes_longitudes(domain)
    assert 0.04 < len(unread) / 4140 < 0.06
    assert np.abs(latitude[unread // 90]).min() > 75


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        (((10, 3),), "number of centres of stage 0 is 10, but there are 9 points"),
        (((4, 3), (5, 3)), "number of centres of stage 1 is 5, .* from 1 to 4"),
        (((4, 3), (2, 5)), "number of neighbours of stage 1 is 5, .* from 1 to 4"),
        (((4, 0),), "number of neighbours of stage 0 is 0"),
        (((0, 3),), "number of centres of stage 0 is 0"),
    ],
)
def test_impossible_stages(stages, match):
    points = domains.positions(Domain("series", (9,)))
    with pytest.raises(ValueError, match=match):
        domains.tables(points, stages)


def test_impossible_searches():
    points = np.zeros((3, 2))
    with pytest.raises(ValueError, match="num is 4, but there are 3 points"):
        domains.farthest_points(points, 4)
    with pytest.raises(ValueError, match="k is 4, but there are 3 points"):
        domains.nearest(points, points, 4)
    with pytest.raises(ValueError, match="features have 2 rows, but there are 3 points"):
        domains.tables(points, ((2, 2),), features=np.zeros((2, 8)))
