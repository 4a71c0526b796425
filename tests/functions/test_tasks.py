"""Masks against loops over indices, random ones against their probabilities, paths in a circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions import domains, tasks
from functions.domains import Domain

IMAGE, VOXELS, SERIES = (
    Domain("image", (7, 9)),
    Domain("voxels", (3, 5, 8)),
    Domain("series", (11,)),
)
SPHERE, VIDEO = Domain("sphere", (5, 7)), Domain("video", (4, 6, 9))
ALL = (IMAGE, VOXELS, SERIES, SPHERE, VIDEO)


def by_point(domain, is_observed):
    """Evaluates a predicate of the index tuple at every point, row-major."""
    return np.array([is_observed(index) for index in np.ndindex(*domain.shape)])


@pytest.mark.parametrize("domain", ALL, ids=lambda d: d.kind)
def test_hole_is_a_centred_third(domain):
    spatial = slice(1, None) if domain.kind == "video" else slice(None)
    sizes = domain.shape[spatial]

    def is_inside(index):
        # as many points before the hole as after it, or one fewer
        starts = [(size - size // 3) // 2 for size in sizes]
        ok = zip(index[spatial], starts, sizes, strict=True)
        return all(start <= i < start + size // 3 for i, start, size in ok)

    hole = ~tasks.inpaint(domain)
    assert hole.dtype == bool
    np.testing.assert_array_equal(hole, by_point(domain, is_inside))
    np.testing.assert_array_equal(tasks.outpaint(domain), hole)
    frames = domain.shape[0] if domain.kind == "video" else 1
    assert hole.sum() == frames * np.prod([size // 3 for size in sizes])


@pytest.mark.parametrize(
    ("kind", "shape", "side"),
    [
        ("image", (28, 28), 9),
        ("image", (64, 64), 21),
        ("sphere", (46, 90), 15),
        ("voxels", (32, 32, 32), 10),
    ],
)
def test_released_hole(kind, shape, side):
    domain = Domain(kind, shape)
    want = by_point(domain, lambda index: any(not 5 <= i < 5 + side for i in index))
    np.testing.assert_array_equal(tasks.inpaint(domain, paper=True), want)
    np.testing.assert_array_equal(tasks.outpaint(domain, paper=True), ~want)


def test_released_hole_ends_at_the_edge_and_may_not_fit():
    domain = Domain("image", (18, 7))
    assert tasks.outpaint(domain, paper=True).sum() == 6 * 2
    for small, paper, least in (
        (Domain("image", (2, 2)), False, 3),
        (Domain("image", (5, 5)), True, 6),
    ):
        with pytest.raises(ValueError, match=f"give at least {least} points an axis"):
            tasks.inpaint(small, paper=paper)


@pytest.mark.parametrize("domain", ALL, ids=lambda d: d.kind)
@pytest.mark.parametrize("paper", [False, True])
def test_opposite_halves_partition_the_points(domain, paper):
    pairs = [("left", "right")] + [("top", "bottom")] * (len(domain.shape) > 1)
    for one, other in pairs:
        first = tasks.half(domain, one, paper=paper)
        np.testing.assert_array_equal(first, ~tasks.half(domain, other, paper=paper))
        assert 0 < first.sum() <= first.size / 2


@pytest.mark.parametrize("domain", [IMAGE, VOXELS, VIDEO], ids=lambda d: d.kind)
def test_halves_of_a_grid(domain):
    *_, height, width = domain.shape
    left = by_point(domain, lambda index: index[-1] < width // 2)
    top = by_point(domain, lambda index: index[-2] < height // 2)
    np.testing.assert_array_equal(tasks.half(domain, "left"), left)
    np.testing.assert_array_equal(tasks.half(domain, "top"), top)


@pytest.mark.parametrize("convention", ["centres", "corners"])
@pytest.mark.parametrize("shape", [(5, 7), (6, 8)])
def test_halves_of_the_sphere_are_hemispheres(shape, convention):
    domain = Domain("sphere", shape, convention)
    latitude, longitude = domains.latitudes_longitudes(domain)
    latitude, longitude = (g.ravel() for g in np.meshgrid(latitude, longitude, indexing="ij"))
    np.testing.assert_array_equal(tasks.half(domain, "top"), latitude > 1e-9)
    np.testing.assert_array_equal(tasks.half(domain, "left"), longitude >= 180)
    released = by_point(domain, lambda index: index[1] < shape[1] // 2)
    np.testing.assert_array_equal(tasks.half(domain, "left", paper=True), released)


def test_half_errors():
    with pytest.raises(ValueError, match="side is 'up', but it must be one of left, right"):
        tasks.half(IMAGE, "up")
    with pytest.raises(ValueError, match="a series has no top; use 'left' or 'right'"):
        tasks.half(SERIES, "top")


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_drop_is_bernoulli_at_every_point(key, rate):
    keys = jax.random.split(key, 4000)
    kept = np.asarray(jax.vmap(lambda k: tasks.drop(k, SERIES, rate))(keys), float)
    error = np.sqrt(rate * (1 - rate) / len(kept))
    assert np.all(np.abs(kept.mean(axis=0) - (1 - rate)) <= 4 * error)
    counts = kept.sum(axis=1)  # independent points: a binomial count, not a fixed share
    variance = 11 * rate * (1 - rate)
    assert abs(counts.var() - variance) <= 4 * variance * np.sqrt(2 / len(kept))


def test_every_item_has_its_own_rate(key):
    batch, num_points, top = 3000, 200, 0.6
    kept = np.asarray(tasks.drop_per_item(key, num_points, top, batch))
    assert kept.shape == (batch, num_points)
    assert kept.dtype == bool
    share = 1 - kept.mean(axis=1)  # mean and variance of rho ~ U(0, top), and binomial noise
    noise = (top / 2 - top**2 / 3) / num_points
    variance = top**2 / 12 + noise
    assert abs(share.mean() - top / 2) < 4 * np.sqrt(variance / batch)
    assert abs(share.var() - variance) < 4 * variance * np.sqrt(2 / batch)
    assert np.all(tasks.drop_per_item(key, 7, 0.0, 3))
    assert not np.all(np.any(tasks.drop_per_item(key, 1, 1.0, 50), axis=1))


@pytest.mark.parametrize("rate", [30, -0.1])
def test_rates_are_probabilities(key, rate):
    with pytest.raises(ValueError, match=f"^rate is {rate}, but a probability"):
        tasks.drop(key, IMAGE, rate)
    with pytest.raises(ValueError, match=f"^max_rate is {rate}, but a probability"):
        tasks.drop_per_item(key, 5, rate, 2)


def test_subsets_are_uniform_and_distinct(key):
    draw = jax.jit(jax.vmap(lambda k: tasks.subset(k, 6, 3)))
    index = draw(jax.random.split(key, 4000))
    assert index.shape == (4000, 3)
    assert index.dtype == jnp.int32
    names, counts = np.unique(np.sort(index, axis=1), axis=0, return_counts=True)
    assert len(names) == 20  # every 3 of 6, none with a repeat
    error = np.sqrt(4000 * 0.05 * 0.95)
    assert np.all(np.abs(counts - 200) < 4 * error)
    np.testing.assert_array_equal(np.sort(tasks.subset(key, 7, 7)), np.arange(7))
    with pytest.raises(ValueError, match="num is 8, but there are 7 points"):
        tasks.subset(key, 7, 8)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_under_vmap(key, name):
    keys = jax.random.split(key, 3)
    masks = jax.vmap(lambda k: tasks.mask(name, k, IMAGE))(keys)
    for k, got in zip(keys, masks, strict=True):
        want = tasks.mask(name, k, IMAGE)
        np.testing.assert_array_equal(got, want)
        assert want.shape == (63,)
        assert want.dtype == bool
    assert bool(jnp.any(masks[0] != masks[1])) == name.startswith("drop")


def test_tasks_mean_what_they_say(key):
    domain = Domain("sphere", (46, 90))
    assert {"inpaint", "outpaint", "left", "right", "top", "bottom"} < set(tasks.TASKS)
    for name in ("left", "right", "top", "bottom"):
        np.testing.assert_array_equal(tasks.mask(name, key, domain), tasks.half(domain, name))
    for name in ("inpaint", "outpaint"):
        got = tasks.mask(name, key, domain, paper=True)
        np.testing.assert_array_equal(got, getattr(tasks, name)(domain, paper=True))
    east = tasks.mask("left", key, domain, paper=True)
    np.testing.assert_array_equal(east, tasks.half(domain, "right"))
    for percent in (10, 30, 50, 70, 90):
        kept = np.mean(tasks.mask(f"drop{percent}", key, domain))
        assert abs(kept - (1 - percent / 100)) < 4 * np.sqrt(0.25 / 4140)


@pytest.mark.parametrize(
    ("name", "hint"), [("in-paint", "did you mean 'inpaint'"), ("xyz", "use one of inpaint, ")]
)
def test_unknown_task(key, name, hint):
    with pytest.raises(ValueError, match=f"task '{name}' is unknown; {hint}"):
        tasks.mask(name, key, IMAGE)


def test_path_keeps_the_norm_and_its_pace(key):
    u0, u1 = jax.random.normal(key, (2, 33))
    u1 = u1 * jnp.linalg.norm(u0) / jnp.linalg.norm(u1)
    path = jax.jit(tasks.interpolate, static_argnums=2)(u0, u1, 9)
    np.testing.assert_allclose(path[0], u0, atol=1e-6)
    np.testing.assert_allclose(path[-1], u1, atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(path, axis=-1), jnp.linalg.norm(u0), rtol=1e-5)
    steps = jnp.linalg.norm(jnp.diff(path, axis=0), axis=-1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    for u in path:  # in the plane of the ends
        residual = jnp.linalg.lstsq(jnp.stack([u0, u1], 1), u[:, None])[0]
        np.testing.assert_allclose(jnp.stack([u0, u1], 1) @ residual, u[:, None], atol=1e-5)


def test_path_in_the_plane():
    path = tasks.interpolate(jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0]), 4)
    angle = np.radians([0, 30, 60, 90])
    np.testing.assert_allclose(path, 2 * np.stack([np.cos(angle), np.sin(angle)], 1), atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, 0.0])
def test_ends_without_a_circle_are_joined_by_the_line(key, factor):
    u0 = jax.random.normal(key, (5,))
    u1 = factor * u0
    path = tasks.interpolate(u0, u1, 5)
    assert jnp.all(jnp.isfinite(path))
    np.testing.assert_allclose(path[jnp.array([0, -1])], jnp.stack([u0, u1]), atol=1e-6)
    if factor:
        np.testing.assert_allclose(path[2], 0.5 * (u0 + u1), atol=1e-6)


def test_boxes_are_boxes_seen_from_inside_or_outside(key):
    domain = Domain("voxels", (4, 5, 6))
    masks = np.asarray(jax.jit(lambda k: tasks.box_per_item(k, domain, 400))(key))
    seen_inside = 0
    for mask in masks.reshape(-1, *domain.shape):
        found = []
        for part in (mask, ~mask):
            axes = [np.flatnonzero(part.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
            found.append(part.any() and part[np.ix_(*(range(a[0], a[-1] + 1) for a in axes))].all())
        assert any(found)
        seen_inside += found[0] and not found[1]
    assert 100 < seen_inside < 300
    assert 0.2 < masks.mean() < 0.8
    assert len({mask.tobytes() for mask in masks}) > 300
