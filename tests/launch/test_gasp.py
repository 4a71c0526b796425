"""GASP end to end: configs train and are scored and drawn, a lost game stops a run."""

import importlib
import json

import jax
import numpy as np
import pytest

from functions import tasks
from functions.domains import Domain
from launch import compare, evaluate, loop, render, train
from launch.data import fields
from launch.data.items import Items
from launch.experiments import gasp
from tests.functions.programs import jit
from tests.launch import runs

CONFIG = "--config=configs/gasp_digits.py:smoke"
SMALL = {  # compiles fast
    "model__discriminator__points": (4,),
    "model__discriminator__neighbours": (9,),
    "model__discriminator__channels": (4,),
}
EVERY = ("gasp_digits", "gasp_era5", "gasp_shapenet", "gasp_polymnist", "gasp_celeba")


def config_of(name="gasp_digits", variant="smoke", **changes):
    out = importlib.import_module(f"configs.{name}").get_config(variant)
    out.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return out


def run(path, **changes):
    config = config_of(**changes)
    return loop.run(gasp.make(config), config, path)


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
    experiment = gasp.make(config_of(evaluate__completion_steps=0))
    params = experiment.init(jax.random.key(0))
    stacked = jax.tree.map(lambda a: np.asarray(a)[None], params)
    score = lambda params: experiment.evaluate(jax.random.key(1), params, None, "train", True)[0]
    want = score(stacked)
    broken = jax.tree.map(lambda a: np.full_like(a, np.nan), stacked)
    assert score(broken | {"average": stacked["average"]}) == want
    assert "psnr" not in want  # there is no inference without a descent


LOST = {
    # nothing holds the discriminator back, and the generator cannot move
    "sure_discriminator_alarm": {
        "train__learning_rate": 0.0, "train__discriminator_rate": 0.1, "train__penalty": 0.0,
        "train__watch__loss": 0.5,
    },
    # the penalty allows no slope at all
    "blind_discriminator_alarm": {
        "train__penalty": 1e4, "train__lazy": 1, "train__discriminator_rate": 0.05,
        "train__watch__contrast": 0.02,
    },
    # weights so large that every function is -1 or 1 everywhere
    "collapsed_generator_alarm": {"train__learning_rate": 1.0, "train__watch__variety": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_lost_game_raises_its_alarm_first(name):
    config = config_of(train__watch__horizon=5, **SMALL, **LOST[name])
    experiment = gasp.make(config)
    phase, key, num = experiment.phases[0], jax.random.key(0), 80
    geometry = jax.tree.map(lambda a: a[0], experiment.data)

    @jit
    def play(state, batches):
        def step(state, at):
            return phase.step(jax.random.fold_in(key, at[0]), at[0], state, geometry, at[1])

        return jax.lax.scan(step, state, (np.arange(num), batches))[1]

    batches = jax.tree.map(lambda a: a[0], experiment.batches(0, 0, num))
    metrics = play(phase.init(key, experiment.init(key)), batches)
    raised = {alarm: np.flatnonzero(np.isinf(metrics[alarm])) for alarm in gasp.ALARMS}
    first = {alarm: at[0] if at.size else num for alarm, at in raised.items()}
    assert min(first, key=first.get) == name
    assert 5 < first[name] < num


def test_program_says_that_a_game_is_lost(tmp_path, capsys):
    small = [f"--config.{name.replace('__', '.')}={value}" for name, value in SMALL.items()]
    words = [CONFIG, *small, f"--workdir={tmp_path}", "--config.train.watch.norm=0.001"]
    assert train.main(["train", *words]) == 3
    said = capsys.readouterr().err
    assert "step 0: exploding_gradients_alarm of replica 0 (seed 0) is inf;" in said
    assert "Traceback" not in said
    assert not (tmp_path / "result.json").exists()


def test_data_of_ones_own_with_holes_and_nan_and_two_seeds(tmp_path):
    """Series of two channels with NaN where nothing was observed; scores are finite."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (40, 1))
    wave = 0.5 + 0.4 * np.sin(np.linspace(0, 6, 24) + phase)
    values = np.stack([wave, 1.0 - wave], axis=-1).astype(np.float32)
    mask = rng.random(wave.shape) > 0.3
    np.savez(tmp_path / "mine.npz", values=np.where(mask[..., None], values, np.nan), mask=mask)
    changes = {
        "data__name": f"npz:{tmp_path / 'mine.npz'}",
        "data__domain": "series",
        **SMALL,
        "train__num_points": 12,
        "evaluate__num_items": 3,
        "seeds": 2,
    }
    metrics = run(tmp_path / "run", **changes)["metrics"]
    assert np.isfinite(metrics["psnr"]["replicas"]).all()
    assert np.ptp(metrics["psnr"]["replicas"]) > 0
    assert "psnr_left" in metrics
    assert "psnr_top" not in metrics  # a series has none
    assert (tmp_path / "run" / "figures" / "completions.png").exists()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("variant", ["", "paper", "smoke"])
def test_configs_fit_together(name, variant):
    """Shapes of a whole training step, without the data, memory or time of one."""
    config = config_of(name, variant)
    gasp.check(config)
    domain, channels, kind, levels = {
        "gasp_digits": (Domain("image", (8, 8)), 1, "logistic", 17),
        "gasp_era5": (Domain("sphere", (24, 48), "corners"), 1, "continuous_bernoulli", 0),
        "gasp_shapenet": (Domain("voxels", (16, 16, 16)), 1, "bernoulli", 2),
        "gasp_polymnist": (Domain("image", (28, 28)), 3, "logistic", 256),
        "gasp_celeba": (Domain("image", (64, 64)), 3, "logistic", 256),
    }[name]
    values = np.zeros((70, *domain.shape, channels), np.uint8 if levels else np.float32)
    parts = {"train": values, "valid": values[:2], "test": values[:4]}
    field = fields.make("zeros", Items(domain, parts, kind, levels, "zeros"))
    experiment = gasp.build(config, field)
    phase = experiment.phases[0]
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: phase.init(key, experiment.init(key)))
    data = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), experiment.data)
    batch = jax.tree.map(lambda a: a[0, 0], experiment.batches(0, 0, 1))
    new, metrics = jax.eval_shape(phase.step, key, 0, state, data, batch)
    assert jax.tree.map(lambda a: a.shape, new) == jax.tree.map(lambda a: a.shape, state)
    assert all(metric.shape == () for metric in metrics.values())


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
