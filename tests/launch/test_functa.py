"""Functa end to end: configs train and are scored, latents resume and are stored, refusals."""

import importlib
import json

import jax
import numpy as np
import pytest

from functions import functa as library
from functions.domains import Domain
from launch import loop, render, train
from launch.data import fields
from launch.experiments import functa
from tests.launch import runs, small_functa

pytestmark = pytest.mark.slow  # whole programs

NAMES = tuple(f"functa_{name}" for name in ("digits", "polymnist", "celeba", "era5", "shapenet"))
SHAPES = {
    "functa_digits": (Domain("image", (8, 8)), 1, "logistic", 17),
    "functa_polymnist": (Domain("image", (28, 28)), 3, "logistic", 256),
    "functa_celeba": (Domain("image", (64, 64)), 3, "logistic", 256),
    "functa_era5": (Domain("sphere", (46, 90), "corners"), 1, "continuous_bernoulli", 0),
    "functa_shapenet": (Domain("voxels", (16, 16, 16)), 1, "bernoulli", 2),
}
TASKS = {"psnr_inpaint", "psnr_3_steps_inpaint", "psnr_4_steps_inpaint", "psnr_drop90"}
GENERATED = {"fd_mean", "fd_mean_diffusion", "fd_floor", "audit_ratio", "audit_ratio_diffusion"}


def config_of(name, variant="smoke", **changes):
    out = importlib.import_module(f"configs.{name}").get_config(variant)
    out.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return out


def arrays(path, phase):
    with np.load(path / "arrays" / f"{phase}.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke config, trained by the program."""
    path = tmp_path_factory.mktemp("functa")
    words = ["--config=configs/functa_digits.py:smoke", f"--workdir={path}"]
    assert train.main(["train", *words]) == 0
    return path


def test_smoke_config_is_scored_and_drawn(finished):
    result = json.loads((finished / "result.json").read_text())
    scores = {key: value["mean"] for key, value in result["metrics"].items()}
    assert not [key for key, value in scores.items() if value is None]
    assert TASKS | GENERATED | {"psnr", "ssim", "psnr_3_steps", "psnr_of_training_mean"} <= {
        *scores
    }
    assert scores["psnr"] == scores["psnr_3_steps"]
    assert "fd_floor_diffusion" not in scores
    assert {*result["phases"]} == {"train", "fit", "prior"}
    drawn = {path.stem for path in (finished / "figures").glob("*.png")}
    assert drawn == {
        "audit", "audit_diffusion", "completions", "interpolation", "reconstructions", "samples",
        "samples_diffusion", "super_resolution", "training",
    }  # fmt: skip


def test_stored_latents_are_the_fits_of_the_items(finished):
    config = config_of("functa_digits")
    field = functa.load_field(config)
    experiment = functa.build(config, field)
    state, _ = loop.load(experiment, config, finished)
    params = jax.tree.map(lambda a: np.asarray(a[0]), state.params)
    stored = arrays(finished, "fit")
    assert stored["train_latents"].shape == (1, len(field.train), 4)
    assert stored["test_latents"].shape == (1, 6, 4)
    net = functa.make_networks(config, field).net
    coords = library.coordinates(field.domain)
    for part in ("train", "test"):
        place = [0, -1] if part == "train" else [0, 5]
        for i in place:
            values = fields.to_unit(getattr(field, part)[i], field.num_levels)
            seen = np.ones(len(coords), bool)
            error, fitted = library.meta_loss(net, params, values, seen, coords)
            latents, mse = stored[f"{part}_latents"][0, i], stored[f"{part}_mse"][0, i]
            np.testing.assert_allclose(latents, fitted.latent, rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(mse, error, rtol=1e-4)
    np.testing.assert_array_equal(params["latents"], stored["train_latents"][0])  # frozen since


def test_a_trained_run_is_rendered(finished, capsys):
    """By the program of every model; what is completed is decided by what is shown."""
    call = lambda *words: render.main(["render", f"--workdir={finished}", "--num=2", *words])
    assert call("--task=reconstruct", "--size=11") == 0
    with np.load(finished / "renders" / "reconstruct_11x11" / "arrays.npz") as stored:
        latents = stored["z"]
        assert stored["render_11"].shape == (2, 121, 1)
    test_latents = arrays(finished, "fit")["test_latents"][0, :2]
    np.testing.assert_allclose(latents, test_latents, rtol=1e-3, atol=1e-6)
    assert call("--task=left", "--z=sample") == 0
    with np.load(finished / "renders" / "left_8x8" / "arrays.npz") as stored:
        assert np.isnan(stored["input"]).sum() == 2 * 32
        assert np.ptp(stored["z"], axis=0).min() > 0
    assert call("--task=segmentation") == 2
    assert "segment is not what this model gives; it has mean" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in one go, on one device."""
    path = tmp_path_factory.mktemp("whole")
    small_functa.train(path)
    return path


def test_fitting_goes_on_where_it_was_cut_off(whole, tmp_path):
    with pytest.raises(loop.Stopped, match="phase 'fit', step 4 of 7"):
        small_functa.train(tmp_path, stop_at=(1, 4))
    small_functa.train(tmp_path)
    for phase in ("fit", "prior"):
        want, found = arrays(whole, phase), arrays(tmp_path, phase)
        assert want.keys() == found.keys()
        for name, value in want.items():
            np.testing.assert_array_equal(value, found[name], err_msg=name)
    assert np.all(found["['mse']"] > 0)  # of all items, the last of a batch that is not full too
    assert not np.allclose(found["['latents']"][:, -1], 0.0)


def test_items_are_fitted_on_many_devices_as_on_one(whole, tmp_path):
    command = ("-m", "tests.launch.small_functa")
    process = runs.start(str(tmp_path), command=command, num_devices=4)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    one, many = arrays(whole, "fit"), arrays(tmp_path, "fit")
    for name in ("['latents']", "['mse']"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "variant"), [*((n, "") for n in NAMES), ("functa_celeba", "paper")]
)
def test_configs_fit_together(name, variant):
    """Shapes of a step of every phase, without the data, memory or time of one."""
    config = config_of(name, variant)
    functa.check(config)
    params = runs.shapes_after(functa.build(config, runs.zeros(SHAPES[name])))
    assert params["latents"].shape == (130, config.model.latent_size)


def test_every_item_is_fitted_once():
    config = config_of("functa_digits", data__num_train=100, fit__batch_size=16)
    experiment = functa.make(config)
    phase = experiment.phases[1]
    rows = experiment.batches(1, 0, phase.num_steps)["rows"][0]
    np.testing.assert_array_equal(rows.ravel()[:100], np.arange(100))
    assert rows.shape == (7, 16)
    assert np.all(rows.ravel()[100:] == 99)


REFUSED = [
    ({"model__latent_size": 0}, r"config.model.latent_size=0: expected 1 or more"),
    ({"train__inner_steps": 0}, r"config.train.inner_steps=0: expected 1 or more"),
    ({"evaluate__inner_steps": (3, 0)}, r"evaluate.inner_steps=\(3, 0\): expected numbers of"),
    ({"evaluate__num_items": 1}, r"config.evaluate.num_items=1: expected 2 or more"),
    ({"seeds": 0}, r"config.seeds=0: expected 1 or more"),
    ({"fit__batch_size": 5000}, r"config.fit.batch_size=5000: expected 1 to"),
    ({"train__num_points": 65}, r"config.train.num_points=65: expected 0 to 64"),
    ({"prior__warmup": 1.5}, r"config.prior.warmup=1.5: expected a share"),
    ({"data__num_test": 1}, r"digits has 1 test items: expected 2 or more"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_bad_config_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        functa.make(config_of("functa_digits", **changes))
    assert "\n" not in str(refusal.value)
