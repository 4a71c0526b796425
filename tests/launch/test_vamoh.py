"""VAMoH end to end: every config trains, runs resume exactly, bad input is refused."""

import importlib
import json

import numpy as np
import pytest

from functions import tasks
from functions.domains import Domain
from launch import loop, train
from launch.experiments import vamoh
from tests.launch import runs, small_vamoh

pytestmark = pytest.mark.slow  # whole programs

PROCEDURAL = ("vamoh_digits", "vamoh_shapes3d", "vamoh_era5", "vamoh_shapenet")
NEEDS_DATA = ("vamoh_polymnist", "vamoh_celeba")
FIGURES = {"audit", "completions", "interpolation", "reconstructions", "samples"}


def config_of(name, variant="smoke", **changes):
    out = importlib.import_module(f"configs.{name}").get_config(variant)
    out.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return out


def run(path, name="vamoh_digits", **changes):
    config = config_of(name, **changes)
    return loop.run(vamoh.make(config), config, path)


@pytest.mark.parametrize("name", PROCEDURAL)
def test_config_trains_is_scored_and_drawn(name, tmp_path):
    result = run(tmp_path, name, train__steps=4, loop__steps_per_dispatch=2, evaluate__num_items=4)
    scores = {key: value["mean"] for key, value in result["metrics"].items()}
    not_finite = [key for key, value in scores.items() if value is None]
    assert not not_finite
    assert {"bits_per_dimension", "psnr_inpaint", "nll_drop90", "fd_mean", "audit_ratio"} <= {
        *scores
    }
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert drawn >= FIGURES | {"super_resolution", "training"}
    kind = result["meta"]["domain"]["kind"]
    assert ("globe" in drawn) == (kind == "sphere")
    assert ("iou" in scores) == (kind == "voxels")
    assert ("ssim" in scores) == (kind == "image")
    assert ("adjusted_rand" in scores) == (name == "vamoh_shapes3d")
    assert kind != "image" or {f"nll_{task}" for task in tasks.TASKS} <= {*scores}
    stored = json.loads((tmp_path / "result.json").read_text())
    assert len(stored["meta"]["fingerprint"]) == 64
    assert stored["config"]["model"]["prior"] == "realnvp"


@pytest.mark.parametrize("name", [*PROCEDURAL, *NEEDS_DATA])
@pytest.mark.parametrize("variant", ["", "paper"])
def test_full_configs_fit_together(name, variant):
    """Shapes of a whole training step, without the data, memory or time of one."""
    config = config_of(name, variant)
    vamoh.check(config)
    shapes = {
        "vamoh_digits": (Domain("image", (8, 8)), 1, "logistic", 17),
        "vamoh_shapes3d": (Domain("image", (64, 64)), 3, "logistic", 256),
        "vamoh_era5": (Domain("sphere", (46, 90), "corners"), 1, "continuous_bernoulli", 0),
        "vamoh_shapenet": (Domain("voxels", (16, 16, 16)), 1, "bernoulli", 2),
        "vamoh_polymnist": (Domain("image", (28, 28)), 3, "logistic", 256),
        "vamoh_celeba": (Domain("image", (64, 64)), 3, "logistic", 256),
    }[name]
    runs.shapes_after(vamoh.build(config, runs.zeros(shapes)))


def test_published_protocol_goes_through_its_stages(tmp_path):
    config = config_of("vamoh_digits", "paper,smoke")
    config.evaluate.num_items = 3
    result = loop.run(vamoh.make(config), config, tmp_path)
    rows = runs.rows(tmp_path)  # every 5 of 20 steps; uniform for 3, N(0, I) for 7
    kl_c = [row["kl_c"] for row in rows]
    assert kl_c[0] > 0
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert np.isfinite(result["metrics"]["psnr"]["mean"])


def parameters(path):
    with np.load(path / "arrays" / "train.npz") as stored:
        return dict(stored)


def test_interrupted_run_ends_in_the_same_parameters(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    small_vamoh.train(whole)
    with monkeypatch.context() as patch:
        patch.setenv("STOP_AT", "4")
        with pytest.raises(loop.Stopped):
            small_vamoh.train(cut)
    small_vamoh.train(cut)
    first, second = parameters(whole), parameters(cut)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_seeds_are_replicas_that_differ(tmp_path):
    small_vamoh.train(tmp_path, seeds=2)
    kernel = parameters(tmp_path)["hyper/emission_kernel"]
    assert kernel.shape[0] == 2
    assert not np.allclose(kernel[0], kernel[1])


def test_chunks_do_not_change_training(tmp_path):
    losses = []
    for chunk in (0, 16, 1000):
        path = tmp_path / str(chunk)
        small_vamoh.train(path, train__chunk=chunk)
        losses.append([row["loss"] for row in runs.rows(path)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=2e-4)


def test_data_of_ones_own_with_holes_and_nan(tmp_path):
    """A set of series with NaN where nothing was observed trains; scores are finite."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (40, 1))
    wave = 0.5 + 0.4 * np.sin(np.linspace(0, 6, 24) + phase)
    values = np.stack([wave, 1.0 - wave], axis=-1).astype(np.float32)  # two channels
    mask = rng.random(wave.shape) > 0.3
    np.savez(tmp_path / "mine.npz", values=np.where(mask[..., None], values, np.nan), mask=mask)
    changes = {
        "data__name": f"npz:{tmp_path / 'mine.npz'}",
        "data__domain": "series",
        "model__encoder__points": (8, 4),
        "model__encoder__neighbours": (7, 4),
        "evaluate__num_items": 3,
    }
    result = run(tmp_path / "run", **changes)
    psnr = result["metrics"]["psnr"]["mean"]
    assert np.isfinite(psnr)
    assert "psnr_left" in result["metrics"]
    assert "psnr_top" not in result["metrics"]  # a series has none
    assert (tmp_path / "run" / "figures" / "completions.png").exists()


REFUSED = [
    ({"model__representation": "mlp"}, r"representation='mlp': expected 'siren' or 'fourier'"),
    ({"model__bound": "tight"}, r"config.model.bound='tight': expected 'exact' or 'published'"),
    ({"model__likelihood": "beta"}, r"config.model.likelihood='beta'"),
    ({"model__likelihood": "bernoulli"}, r"likelihood 'bernoulli' expects 0 or 1"),
    ({"model__num_components": 0}, r"config.model.num_components=0: expected 1 or more"),
    ({"model__encoder__points": (16,)}, r"points, neighbours and channels a level"),
    (
        {"model__encoder__points": (100, 4)},
        r"config.model.encoder.points=\(100, 4\): level 0 takes",
    ),
    ({"model__encoder__neighbours": (9, 17)}, r"level 1 takes 17 of 16 points"),
    ({"data__num_test": 1}, r"digits has 1 test items: expected 2 or more"),
    ({"evaluate__num_items": 1}, r"config.evaluate.num_items=1: expected 2 or more"),
    ({"model__prior": "glow"}, r"prior 'glow' is unknown"),
    ({"train__max_missing": 1.0}, r"config.train.max_missing=1.0: expected a rate in \[0, 1\)"),
    ({"train__batch_size": 5000}, r"config.train.batch_size=5000: expected 1 to"),
    ({"train__num_points": 65}, r"config.train.num_points=65: expected 0 to 64"),
    ({"seeds": 0}, r"config.seeds=0: expected 1 or more"),
    ({"data__name": "digit"}, r"did you mean 'digits'"),
    ({"data__name": "mnist", "data__dir": "absent"}, r"configs/vamoh_digits.py runs without it"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_bad_config_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises((ValueError, OSError), match=sentence) as refusal:
        vamoh.make(config_of("vamoh_digits", **changes))
    assert "\n" not in str(refusal.value)


def test_program_refuses_before_anything_is_written(tmp_path, capsys):
    words = ["--config=configs/vamoh_digits.py:smoke", f"--workdir={tmp_path}"]
    assert train.main(["train", *words, "--config.model.bound=tight"]) == 2
    assert "config.model.bound='tight'" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
