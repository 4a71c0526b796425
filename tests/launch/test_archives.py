"""The user's own fields: grids, masks, types and units; every defect is one sentence."""

import numpy as np
import pytest

from functions import domains
from functions.domains import Domain
from launch.data import fields


def save(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def everything(field):
    """Puts the parts of a field together in the order of the file, by a value that names items."""
    values = np.concatenate([field.train, field.valid, field.test])
    return values[np.argsort(values[:, 0, 0])]


def numbered(*shape, num=10):
    """Reals in [0, 1] whose first point tells the place of the item."""
    values = np.random.default_rng(0).random((num, *shape))
    values[(slice(None),) + (0,) * len(shape)] = np.arange(num) / num
    return values


@pytest.mark.parametrize(
    ("shape", "domain", "grid"),
    [
        ((5, 7, 3), "image", (5, 7)),
        ((5, 7), "image", (5, 7)),
        ((3, 4, 5), "voxels", (3, 4, 5)),
        ((6,), "series", (6,)),
        ((6, 2), "series", (6,)),
        ((2, 3, 4, 1), "video", (2, 3, 4)),
    ],
)
def test_grids_of_every_domain_with_and_without_channels(tmp_path, shape, domain, grid):
    values = numbered(*shape)
    field = fields.read_npz(save(tmp_path, values=values), domain=domain)
    assert field.name == "mine"
    assert field.domain == Domain(domain, grid)
    assert (field.kind, field.num_levels, field.unit) == ("continuous_bernoulli", 0, None)
    assert field.train_mask is None
    assert (len(field.train), len(field.valid), len(field.test)) == (8, 1, 1)
    num_channels = shape[-1] if len(shape) > len(grid) else 1
    flat = values.reshape(10, np.prod(grid), num_channels)
    np.testing.assert_array_equal(everything(field), flat.astype(np.float32))
    np.save(tmp_path / "mine.npy", values)
    alone = fields.read_npz(tmp_path / "mine.npy", domain=domain, convention="corners")
    assert alone.domain.convention == "corners"
    np.testing.assert_array_equal(alone.train, field.train)


@pytest.mark.parametrize(
    ("dtype", "high", "kind", "num_levels"),
    [
        (np.uint8, 256, "logistic", 256),
        (np.int64, 200, "logistic", 256),
        (np.uint8, 2, "bernoulli", 2),
        (bool, 2, "bernoulli", 2),
    ],
)
def test_integers_are_levels(tmp_path, dtype, high, kind, num_levels):
    values = np.random.default_rng(0).integers(0, high, (12, 4, 4, 2)).astype(dtype)
    field = fields.read_npz(save(tmp_path, values=values))
    assert (field.kind, field.num_levels, field.train.dtype) == (kind, num_levels, np.uint8)
    assert field.train.max() == high - 1


def test_the_likelihood_may_be_chosen(tmp_path):
    path = save(tmp_path, values=np.random.default_rng(0).normal(size=(9, 4, 4)))
    field = fields.read_npz(path, kind="gaussian")
    assert field.kind == "gaussian"
    assert field.train.min() < 0


def test_reals_are_rescaled_by_what_is_observed_and_keep_their_unit(tmp_path):
    values = np.random.default_rng(0).normal(280.0, 10.0, (12, 5, 4))
    mask = np.random.default_rng(1).random(values.shape) < 0.8
    mask[:, 0, 0] = True
    raw = np.where(mask, values, 1e9)
    field = fields.read_npz(save(tmp_path, values=raw, mask=mask), rescale=True)
    seen = field.train[field.train_mask], field.valid[field.valid_mask], field.test[field.test_mask]
    seen = np.concatenate(seen)
    assert (seen.min(), seen.max()) == (0.0, 1.0)
    offset, scale = field.unit
    assert (offset, offset + scale) == (values[mask].min(), pytest.approx(values[mask].max()))
    np.testing.assert_allclose(
        np.sort(offset + scale * seen[:, 0]), np.sort(values[mask]), atol=1e-4
    )


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_nothing_under_the_mask_matters(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = (rng.random((10, 4, 3, 2)) * (200 if dtype == np.uint8 else 1)).astype(dtype)
    mask = rng.random((10, 4, 3)) < 0.5
    mask[:, 1, 1] = True
    prints = set()
    for under in (0, 255) if dtype == np.uint8 else (np.nan, -np.inf, 7.0):
        filled = np.where(mask[..., None], values, np.array(under, dtype))
        field = fields.read_npz(save(tmp_path, values=filled, mask=mask))
        prints.add(field.fingerprint)
        assert np.isfinite(field.train).all()
        assert field.train_mask.shape == field.train.shape[:2]
    assert len(prints) == 1
    mask[0, 0, 0] = ~mask[0, 0, 0]
    other = fields.read_npz(save(tmp_path, values=np.nan_to_num(values), mask=mask))
    assert other.fingerprint not in prints


# Coordinates


def test_points_in_any_order_find_their_place(tmp_path):
    values, rng = numbered(5, 4, 2), np.random.default_rng(3)
    rows, columns = np.linspace(-3.0, 1.0, 5), np.linspace(10.0, 16.0, 4)
    coords = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(20, 2)
    mask = rng.random((10, 5, 4)) < 0.9
    mask[:, 0, 0] = True
    plain = fields.read_npz(save(tmp_path, values=values, mask=mask))
    order = rng.permutation(20)
    points, seen = values.reshape(10, 20, 2)[:, order], mask.reshape(10, 20)[:, order]
    path = save(tmp_path, values=points, mask=seen, coords=coords[order])
    assert fields.read_npz(path).fingerprint == plain.fingerprint
    one = save(tmp_path, values=points[..., 0], mask=seen, coords=coords[order])
    np.testing.assert_array_equal(fields.read_npz(one).train[..., 0], plain.train[..., 0])


@pytest.mark.parametrize("convention", ["centres", "corners"])
@pytest.mark.parametrize("form", ["axes", "coords"])
def test_the_sphere_is_turned_north_up_and_its_convention_found(tmp_path, convention, form):
    domain = Domain("sphere", (5, 8), convention)
    latitude, longitude = domains.latitudes_longitudes(domain)
    values = numbered(5, 8, 1)
    plain = fields.read_npz(save(tmp_path, values=values), domain="sphere", convention=convention)
    assert plain.domain == domain
    # south first, from the date line: -180, -135, ... are the last four columns and the first four
    turned = np.roll(values[:, ::-1], 4, axis=2)
    south, west = latitude[::-1], np.roll(longitude, 4)
    west = np.where(west >= 180, west - 360, west)
    if form == "axes":
        path = save(tmp_path, values=turned, latitude=south, longitude=west)
    else:
        coords = np.stack(np.meshgrid(south, west, indexing="ij"), -1).reshape(40, 2)
        path = save(tmp_path, values=turned.reshape(10, 40, 1), coords=coords)
    assert fields.read_npz(path, domain="sphere").fingerprint == plain.fingerprint


# Splits


def test_the_split_of_the_file_is_kept_and_completed(tmp_path):
    values = numbered(4, 4, num=20)
    names = np.array(["train"] * 15 + ["test"] * 5)
    place = lambda part: np.rint(part[:, 0, 0] * 20).astype(int).tolist()
    path = save(tmp_path, values=values, split=names)
    field = fields.read_npz(path)
    assert place(field.test) == list(range(15, 20))
    assert len(field.valid) == 2
    assert sorted(place(field.train) + place(field.valid)) == list(range(15))
    names[:3] = "valid"
    path = save(tmp_path, values=values, split=names)
    field = fields.read_npz(path, num_test=2)
    assert (place(field.valid), place(field.test)) == ([0, 1], [15, 16])
    assert place(field.train) == list(range(3, 15))


def test_the_split_depends_on_the_seed(tmp_path):
    path = save(tmp_path, values=numbered(4, 4, num=30))
    a, b, c = (fields.read_npz(path, seed=seed).fingerprint for seed in (0, 0, 1))
    assert a == b != c


# Refusals

GRID = np.full((9, 4, 4), 0.5)


def with_entry(value, at=(3, 1, 2)):
    values = GRID.copy()
    values[at] = value
    return values


LAT, LON = np.linspace(90, -90, 4), np.arange(4) * 90.0
POINTS = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"values": with_entry(np.nan)}, {}, r"item 3, point 6: the value \[nan\] is not finite"),
        ({"values": with_entry(1.5)}, {}, r"item 3, point 6: .*1.5.* mark the point as unobserved"),
        ({"values": with_entry(np.inf)}, {"kind": "gaussian"}, r"\[inf\] is not finite"),
        ({"values": with_entry(np.inf)}, {"rescale": True}, "cannot be rescaled|not in"),
        ({"values": GRID}, {"rescale": True}, "values go from 0.5 to 0.5, which cannot be resc"),
        ({"values": GRID[:0]}, {}, r"values \(0, 16, 1\) are empty; give 1 item or more"),
        ({"values": GRID[:2]}, {}, "mine.npz': there are 2 training items to draw 1 valid, 1 test"),
        ({"values": GRID, "mask": np.ones((9, 4))}, {}, r"mask \(9, 4\) does not fit"),
        ({"values": GRID, "mask": GRID > 1}, {}, "item 0: no point is observed; leave the item"),
        ({"values": GRID[0]}, {}, r"values \(4, 4\) are no fields of the domain 'image'; the axes"),
        ({"values": GRID[..., None, None]}, {}, "items, then 2 grid axes, then channels or none"),
        ({"values": GRID.astype(int) + 300}, {}, "integers from 300 to 300 are no levels 0..255"),
        ({"values": GRID.astype(int) - 1}, {}, "integers from -1 to -1 are no levels"),
        ({"values": GRID.astype(int) + 3}, {"kind": "bernoulli"}, "not a level from 0 to 1"),
        ({"values": GRID.astype(int)}, {"rescale": True}, "which are levels already"),
        ({"values": GRID}, {"kind": "logistic"}, "'logistic' needs levels, but values are reals"),
        ({"values": GRID}, {"kind": "normal"}, "likelihood 'normal' is unknown; use one of logi"),
        ({"values": GRID}, {"domain": "globe"}, "domain 'globe' is unknown; use one of image"),
        ({"values": GRID[..., None][..., :0]}, {}, r"values \(9, 16, 0\) are empty"),
        ({"values": GRID.astype(str)}, {}, "values has the type <U.*; write numbers"),
        ({"images": GRID}, {}, "holds the arrays images; expected values and"),
        ({"values": GRID, "msk": GRID}, {}, "holds the arrays values, msk; expected"),
        ({"values": GRID, "split": np.array(["train"] * 8)}, {}, r"split \(8,\) holds train; exp"),
        ({"values": GRID, "split": np.array(["dev"] * 9)}, {}, "holds dev; expected 9 entries"),
        ({"values": GRID}, {"domain": "sphere"}, "unknown where the rows of the sphere lie; add"),
        (
            {"values": GRID, "latitude": LAT / 2, "longitude": LON},
            {"domain": "sphere"},
            "latitudes from 45 to -45 and longitudes from 0 to 270 are no whole sphere",
        ),
        (
            {"values": GRID, "latitude": LAT, "longitude": LON},
            {"domain": "sphere", "convention": "centres"},
            "are no whole sphere",
        ),
        (
            {"values": GRID, "latitude": LAT},
            {"domain": "sphere"},
            "4 rows and 4 columns; expected as many entries in the arrays latitude and longitude",
        ),
        (
            {"values": GRID.reshape(9, 16), "coords": POINTS[:12]},
            {},
            r"coords \(12, 2\) do not place 16 points .*; expected finite numbers \[16, 2\]",
        ),
        (
            {"values": GRID.reshape(9, 16), "coords": np.where(POINTS == 3, 2, POINTS)},
            {},
            r"do not fill a grid of \(3, 3\), each point once",
        ),
        (
            {"values": GRID.reshape(9, 16), "coords": POINTS**2},
            {},
            "are not evenly spaced .steps from 1 to 5.; interpolate",
        ),
    ],
)
def test_a_defect_is_one_sentence(tmp_path, arrays, options, message):
    path = save(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        fields.read_npz(path, **options)
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value) or "domain" in options


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz' does not exist; check the path"):
        fields.read_npz(tmp_path / "none.npz")
    path = save(tmp_path, values=GRID)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"mine.npz' is no readable npz or npy file \("):
        fields.read_npz(path)
    np.savez(path, values=np.array([{"a": 1}]))
    with pytest.raises(ValueError, match=r"no readable npz or npy file \(Object arrays"):
        fields.read_npz(path)
