"""GASP end to end: configs train and are scored and drawn, a lost game stops a run."""

import importlib
import json
import re

import jax
import numpy as np
import pytest

from functions import tasks
from functions.domains import Domain
from launch import compare, evaluate, loop, render, train
from launch.experiments import gasp
from tests.launch import runs

pytestmark = pytest.mark.slow  # whole programs

CONFIG = "--config=configs/gasp_digits.py:smoke"
SMALL = {  # compiles fast
    "model.discriminator.points": (4,),
    "model.discriminator.neighbours": (9,),
    "model.discriminator.channels": (4,),
}
EVERY = ("gasp_digits", "gasp_era5", "gasp_shapenet", "gasp_polymnist", "gasp_celeba")


def config_of(name="gasp_digits", variant="smoke", **changes):
    out = importlib.import_module(f"configs.{name}").get_config(variant)
    out.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The smoke run, by the program."""
    path = tmp_path_factory.mktemp("gasp")
    assert train.main(["train", CONFIG, f"--workdir={path}"]) == 0
    return path


def test_program_trains_scores_and_draws(trained):
    result = json.loads((trained / "result.json").read_text())
    scores = {key: value["mean"] for key, value in result["metrics"].items()}
    assert not [key for key, value in scores.items() if value is None]
    assert {"psnr", "ssim", "fd_mean", "fd_floor", "precision", "coverage", "audit_ratio"} <= {
        *scores
    }
    assert {f"psnr_{task}" for task in tasks.TASKS} <= {*scores}
    assert "fd_sample" not in scores
    drawn = {path.stem for path in (trained / "figures").glob("*.png")}
    assert drawn == {
        "audit", "completions", "interpolation", "reconstructions", "samples", "super_resolution",
        "training",
    }  # fmt: skip
    row = runs.rows(trained)[-1]
    assert row["loss"] == pytest.approx(row["discriminator_loss"] + row["penalty"], rel=1e-5)
    assert all(0 < row[name] < 1 for name in gasp.ALARMS)


def test_programs_that_read_runs_take_it(trained, tmp_path, capsys):
    assert evaluate.main(["evaluate", f"--workdir={trained}"]) == 0
    assert "psnr_inpaint" in capsys.readouterr().out
    task = ["--task=left", "--size=16", "--num=2", f"--output={tmp_path / 'left'}"]
    assert render.main(["render", f"--workdir={trained}", *task]) == 0
    assert (tmp_path / "left" / "1.png").exists()
    both = [f"--workdirs={trained},{trained}", f"--output={tmp_path / 'page'}"]
    assert compare.main(["compare", *both]) == 0
    assert "| drop90 |" in (tmp_path / "page" / "compare.md").read_text()


def test_the_averaged_generator_is_what_is_scored():
    config = config_of()
    field = gasp.load_field(config)
    experiment = gasp.build(config, field)
    whole = experiment.init(jax.random.key(0))
    geometry = jax.tree.map(lambda a: a[0], experiment.data)
    decode = gasp.make_field_model(config, field, geometry).decode
    broken = jax.tree.map(lambda a: np.full_like(a, np.nan), whole)
    for params in (whole, broken | {"average": whole["average"]}):
        mean = decode(None, params, np.ones(4, np.float32), geometry.coords)["mean"]
        assert np.isfinite(mean).all()


LOST = {
    # the penalty allows no slope at all
    "blind_discriminator_alarm": {
        "train.penalty": 1e4, "train.lazy": 1, "train.discriminator_rate": 0.05,
        "train.watch.contrast": 0.02,
    },
    # weights so large that every function is -1 or 1 everywhere
    "collapsed_generator_alarm": {"train.learning_rate": 1.0, "train.watch.variety": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_lost_game_stops_the_run_and_is_named(tmp_path, capsys, name):
    fields = {"train.steps": 80, "train.watch.horizon": 5, **SMALL, **LOST[name]}
    words = [f"--config.{field}={value}" for field, value in fields.items()]
    assert train.main(["train", CONFIG, *words, f"--workdir={tmp_path}"]) == 3
    said = capsys.readouterr().err
    assert re.search(rf"step \d+: {name} of replica 0 \(seed 0\) is inf;", said)
    assert "Traceback" not in said
    assert not (tmp_path / "result.json").exists()


def test_data_of_ones_own_with_holes_and_nan_and_two_seeds_without_inference(tmp_path):
    """Series of two channels with NaN where nothing was observed."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (40, 1))
    wave = 0.5 + 0.4 * np.sin(np.linspace(0, 6, 24) + phase)
    values = np.stack([wave, 1.0 - wave], axis=-1).astype(np.float32)
    mask = rng.random(wave.shape) > 0.3
    np.savez(tmp_path / "mine.npz", values=np.where(mask[..., None], values, np.nan), mask=mask)
    config = config_of()
    fields = {
        "data.name": f"npz:{tmp_path / 'mine.npz'}",
        "data.domain": "series",
        "train.num_points": 12,
        "evaluate.completion_steps": 0,
        "seeds": 2,
    }
    config.update_from_flattened_dict(SMALL | fields)
    result = loop.run(gasp.make(config), config, tmp_path / "run")
    assert "psnr" not in result["metrics"]
    losses = [row["replicas"]["generator_loss"] for row in runs.rows(tmp_path / "run")]
    assert np.isfinite(losses).all()
    assert np.ptp(losses[-1]) > 0
    assert (tmp_path / "run" / "figures" / "samples.png").exists()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("variant", ["", "paper", "smoke"])
def test_configs_fit_together(name, variant):
    """Shapes of the networks, and of a whole training step, without data, memory or time."""
    config = config_of(name, variant)
    gasp.check(config)
    shapes = {
        "gasp_digits": (Domain("image", (8, 8)), 1, "logistic", 17),
        "gasp_era5": (Domain("sphere", (24, 48), "corners"), 1, "continuous_bernoulli", 0),
        "gasp_shapenet": (Domain("voxels", (16, 16, 16)), 1, "bernoulli", 2),
        "gasp_polymnist": (Domain("image", (28, 28)), 3, "logistic", 256),
        "gasp_celeba": (Domain("image", (64, 64)), 3, "logistic", 256),
    }[name]
    experiment = gasp.build(config, runs.zeros(shapes))
    if variant == "smoke":
        runs.shapes_after(experiment)


REFUSED = [
    ({"model__representation": "mlp"}, r"representation='mlp': expected one of"),
    ({"model__latent_size": 0}, r"config.model.latent_size=0: expected 1 or more"),
    ({"model__discriminator__points": (16,)}, r"points, neighbours and channels a level"),
    ({"model__discriminator__channels": (0, 8)}, r"0, average pooling, belongs to config.paper"),
    ({"model__discriminator__neighbours": (9, 17)}, r"level 1 takes 17 of 16 points"),
    ({"paper": True}, r"one point and one channel, the logit, as last level"),
    ({"train__lazy": 0}, r"config.train.lazy=0: expected 1 or more"),
    ({"train__penalty": -1.0}, r"config.train.penalty=-1.0: expected 0 or more"),
    ({"train__average": 1.0}, r"config.train.average=1.0: expected a decay in \[0, 1\)"),
    ({"train__watch__variety": 0.0}, r"config.train.watch.variety=0.0: expected more than 0"),
    ({"evaluate__completion_steps": -1}, r"completion_steps=-1: expected 0, no inference, or"),
    ({"evaluate__noise": 0.0}, r"config.evaluate.noise=0.0: expected more than 0"),
    ({"evaluate__num_samples": 0}, r"config.evaluate.num_samples=0: expected more than 0"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_bad_config_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        gasp.make(config_of(**changes))
    assert "\n" not in str(refusal.value)
