"""Figures of functions: drawn for every kind of domain, small, whole, and the right way up."""

import numpy as np
import pytest
from matplotlib.image import imread

from functions.domains import Domain, coordinates
from launch import field_figures as figures

DOMAINS = {
    "image": (Domain("image", (9, 11)), 3),
    "grey image": (Domain("image", (12, 12)), 1),
    "voxels": (Domain("voxels", (6, 5, 7)), 1),
    "sphere": (Domain("sphere", (8, 16), "corners"), 1),
    "series": (Domain("series", (30,)), 1),
    "series of three": (Domain("series", (30,)), 3),
    "video": (Domain("video", (4, 6, 8)), 3),
}


def fields(name, *lead, seed=0, shape=None):
    """Draws smooth functions [*lead, N, C] in [0, 1]."""
    domain, num_channels = DOMAINS[name]
    x = coordinates(domain._replace(shape=shape or domain.shape))
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1.5, (*lead, num_channels, x.shape[1]))
    phase = rng.uniform(0, 2 * np.pi, (*lead, 1, num_channels))
    return 0.5 + 0.45 * np.cos(x @ np.swapaxes(weights, -1, -2) + phase)


def base(name):
    domain, _ = DOMAINS[name]
    return {
        "kind": np.array(domain.kind),
        "shape": np.array(domain.shape),
        "convention": np.array(domain.convention),
    }


def reconstructions(name):
    data = fields(name, 3)
    level = data.mean(axis=-1)
    return base(name) | {
        "data": data,
        "mean": fields(name, 3, seed=1),
        "most_probable": fields(name, 3, seed=2),
        "segments": (3 * level).astype(int),
        "entropy": level,
        "num_components": np.array(3),
    }


def completions(name):
    truth = fields(name, 2)
    mask = np.ones((3, *truth.shape[:2]), bool)
    mask[0, :, 10:20] = False
    mask[1, :, truth.shape[1] // 2 :] = False
    mask[2] = np.random.default_rng(1).random(truth.shape[:2]) < 0.3
    arrays = {
        "tasks": np.array(["in-paint", "half", "drop 70 %"]),
        "truth": truth,
        "mask": mask,
        "mean": np.where(mask[..., None], truth, fields(name, 3, 2, seed=1)),
        "samples": fields(name, 3, 2, 2, seed=2),
        "psnr": np.arange(6.0).reshape(3, 2) + 20,
    }
    if name.startswith("series"):
        arrays["std"] = np.where(mask[..., None], 0.01, 0.1) * np.ones_like(arrays["mean"])
    return base(name) | arrays


def super_resolution(name):
    finer, finest = ([factor * size for size in DOMAINS[name][0].shape] for factor in (2, 3))
    finest[-1] -= 1
    return base(name) | {
        "input": fields(name, 2),
        f"render_{finer[0]}": fields(name, 2, shape=tuple(finer)),
        f"render_{finest[0]}": fields(name, 2, shape=tuple(finest)),
        f"shape_{finest[0]}": np.array(finest),
    }


def side_by_side(name):
    rows = {f"row_{i}": fields(name, 2, seed=i) for i in range(3)}
    labels = {"labels": np.array(["data", "one", "other"])}
    return base(name) | rows | labels | {"is_model": np.array([False, True, True])}


def samples(name, count=5):
    return base(name) | {"samples": fields(name, count)}


def audit(name):
    pair = {"samples": fields(name, 3), "nearest": fields(name, 3, seed=1)}
    return base(name) | pair | {"ratio": np.array([0.2, 1.0, 1.3])}


def interpolation(name):
    return base(name) | {"steps": fields(name, 2, 4)}


def globe(name):
    return base(name) | {
        "truth": fields(name),
        "mean": fields(name, seed=1),
        "std": 0.1 * fields(name, seed=2),
        "mask": np.arange(128) < 80,
        "unit": np.array([202.66, 118.27]),
        "unit_name": np.array("temperature (K)"),
    }


def fraction_curves(_):
    fraction = np.array([0.1, 0.3, 0.5, 0.9])
    noise = np.random.default_rng(0).normal(0, 0.3, (4, 3, 4))
    return {
        "models": np.array(["refined by HMC", "encoder only"]),
        "fraction": fraction,
        "psnr_0": 20 + 10 * fraction + noise[0],
        "psnr_1": 18 + 10 * fraction + noise[1],
        "nll_0": -2 - fraction + noise[2],
        "nll_1": (-1 - fraction + noise[3])[:1],
    }


ON_FIELDS = (
    reconstructions, completions, super_resolution, side_by_side, samples, audit, interpolation,
)  # fmt: skip
CASES = [(make, name) for make in ON_FIELDS for name in DOMAINS]
CASES += [(globe, "sphere"), (fraction_curves, "curves")]


def draw(make, arrays, path):
    getattr(figures, make.__name__)(arrays, path)
    return path.read_bytes()


def pixels(path):
    return (255 * imread(path)[..., :3]).round().astype(int)


@pytest.mark.parametrize(("make", "name"), CASES)
def test_a_figure_is_drawn_small_and_whole(make, name, tmp_path):
    path = tmp_path / "figure.png"
    assert draw(make, make(name), path).startswith(b"\x89PNG")
    height, width, _ = pixels(path).shape
    assert 80 < height < 1500
    assert 250 < width < 1200
    assert pixels(path).std() > 5  # not blank
    assert path.stat().st_size < 300_000
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def changed(value):
    if value.dtype == bool:
        return ~value
    if value.dtype.kind in "US":
        return np.array([f"{text}!" for text in np.atleast_1d(value)]).reshape(value.shape)
    return value[..., ::-1, :] * 0.9 if value.ndim > 1 and value.shape[-1] < 4 else value * 0.7


@pytest.mark.parametrize("make", [*ON_FIELDS, globe, fraction_curves])
def test_every_array_changes_the_picture(make, tmp_path):
    name = "series" if make in (completions, side_by_side) else "image"
    name = "sphere" if make is globe else name
    arrays = make(name)
    before = draw(make, arrays, tmp_path / "before.png")
    for key in set(arrays) - set(base(name)) - {k for k in arrays if k.startswith("shape_")}:
        other = arrays | {key: changed(arrays[key]).astype(arrays[key].dtype, copy=False)}
        if arrays[key].dtype.kind in "US":
            other[key] = changed(arrays[key])
        if key == "num_components":
            other[key] = arrays[key] + 1
        assert draw(make, other, tmp_path / "after.png") != before, key


@pytest.mark.parametrize("name", DOMAINS)
def test_every_kind_of_domain_shows_its_values(name, tmp_path):
    before = draw(samples, samples(name), tmp_path / "before.png")
    after = base(name) | {"samples": fields(name, 5, seed=1)}
    assert draw(samples, after, tmp_path / "after.png") != before


def test_arrays_may_come_from_a_file(tmp_path):
    arrays = completions("image")
    np.savez(tmp_path / "arrays.npz", **arrays)
    with np.load(tmp_path / "arrays.npz") as archive:
        read = draw(completions, dict(archive), tmp_path / "a.png")
    assert read == draw(completions, arrays, tmp_path / "b.png")


def test_an_image_is_shown_exactly_and_row_by_row(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (12, 3))
    arrays = {"kind": np.array("image"), "shape": np.array([3, 4]), "samples": values[None] / 255}
    draw(samples, arrays, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    rows, columns = np.where((image[..., None, :] == values).all(-1).any(-1))
    field = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    # 37 pixels a square, less a thin frame
    assert (field.shape[0] / 3, field.shape[1] / 4) == pytest.approx((37, 37), abs=1.1)
    centres = field[np.ix_((18, 55, 92), (18, 55, 92, 129))]
    np.testing.assert_array_equal(centres.reshape(12, 3), values)


def ink(path):
    """Returns the mean position, downwards and to the right, of what is not white or grey."""
    image = pixels(path).astype(float)
    weight = np.ptp(image, axis=-1)
    rows, columns = np.indices(weight.shape)
    return (rows * weight).sum() / weight.sum(), (columns * weight).sum() / weight.sum()


def place_of(kind, shape, where, path):
    values = np.zeros((*shape, 3 if kind == "video" else 1))
    values[where] = np.array([0.0, 1.0, 0.0]) if kind == "video" else 1.0
    field = values.reshape(1, -1, values.shape[-1])
    draw(samples, {"kind": kind, "shape": shape, "samples": field}, path)
    return ink(path)


def test_the_last_axis_of_voxels_is_up(tmp_path):
    low, _ = place_of("voxels", (5, 5, 5), np.s_[:, :, :2], tmp_path / "low.png")
    high, _ = place_of("voxels", (5, 5, 5), np.s_[:, :, 3:], tmp_path / "high.png")
    assert low > high + 20


def test_a_video_runs_from_left_to_right(tmp_path):
    _, early = place_of("video", (4, 6, 6), np.s_[0], tmp_path / "early.png")
    _, late = place_of("video", (4, 6, 6), np.s_[3], tmp_path / "late.png")
    assert late > early + 200


def test_north_is_up_and_east_is_right_on_a_globe(tmp_path):
    def redness(where):
        values = np.zeros((18, 36, 1))
        values[where] = 1.0
        arrays = {"kind": "sphere", "shape": (18, 36), "samples": values.reshape(1, -1, 1)}
        draw(samples, arrays, tmp_path / "globe.png")
        red, _, blue = np.moveaxis(pixels(tmp_path / "globe.png"), -1, 0)
        return np.argwhere(red - blue > 100).mean(axis=0)

    latitude, longitude = figures.CENTRE
    column = int(longitude // 10)
    assert redness(np.s_[:4])[0] < redness(np.s_[9:11])[0] - 20
    assert redness(np.s_[:, column + 1 : column + 5])[1] > redness(np.s_[:, column - 1])[1] + 10
    assert latitude > 0  # else the first line would compare with nothing


@pytest.mark.parametrize("name", ["image", "voxels", "sphere", "video"])
def test_a_hidden_value_is_shown_in_the_truth_only(name, tmp_path):
    arrays = completions(name)
    one = arrays | {"tasks": arrays["tasks"][:1], "mask": arrays["mask"][:1, :1]}
    one |= {key: arrays[key][:1, :1] for key in ("mean", "samples", "psnr")}
    one["truth"] = arrays["truth"][:1]
    draw(completions, one, tmp_path / "a.png")
    one["truth"] = np.where(one["mask"][0, ..., None], one["truth"], 1 - one["truth"])
    draw(completions, one, tmp_path / "b.png")
    differs = (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any(axis=-1)
    axis = 0 if name == "video" else 1  # along which the parts lie, the truth last
    assert np.argwhere(differs)[:, axis].min() > 0.75 * differs.shape[axis]


def test_an_unknown_value_is_hatched_whatever_it_is(tmp_path):
    arrays = samples("image")
    arrays["samples"][:, 20:40] = np.nan
    known = draw(samples, arrays, tmp_path / "a.png")
    arrays["samples"][:, 20:40, 1:] = 0.7
    assert draw(samples, arrays, tmp_path / "b.png") == known


def test_what_does_not_fit_a_page_is_left_out(tmp_path):
    few = draw(samples, samples("image", 28), tmp_path / "few.png")
    arrays = samples("image", 28)
    many = arrays | {"samples": np.concatenate([arrays["samples"]] * 20)}
    assert draw(samples, many, tmp_path / "many.png") == few


BAD = {
    "points": (samples, {"shape": np.array([9, 10])}, "samples has shape .* needs .*90, 1 or 3"),
    "channels": (samples, {"samples": np.zeros((5, 99, 2))}, "keep the channels last"),
    "kind": (samples, {"kind": np.array("imge")}, "kind 'imge'"),
    "axes": (samples, {"shape": np.array([99])}, "shape .*99.* 'image' needs"),
    "globe": (globe, {"kind": np.array("image")}, "a globe is a 'sphere'"),
    "render": (super_resolution, {"shape_27": np.array([27, 31])}, "render_27 has shape"),
    "late": (audit, {"ratio": np.array(["a", "b", "c"])}, "Unknown format code"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_failing_figure_says_why_and_leaves_the_old_file(case, tmp_path):
    make, change, message = BAD[case]
    arrays, path = make("sphere" if make is globe else "image"), tmp_path / "figure.png"
    before = draw(make, arrays, path)
    with pytest.raises(ValueError, match=message):
        draw(make, arrays | change, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
