"""HH-VAE and its relatives on images: configs, training with either networks, figures, scores."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from hmcvae.columns import Column, Schema
from launch import loop
from launch.data.frames import Table
from launch.experiments import images, tabular

pytestmark = pytest.mark.slow  # whole programs

CONFIGS = Path(__file__).parents[2] / "configs"


def get_config(variant):
    spec = importlib.util.spec_from_file_location("config", CONFIGS / "hhvae.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def stripes(num=40):
    """A table of 28 x 28 images: the label says which rows of pixels are on."""
    labels = np.arange(num) % 10
    x = np.zeros((num, 28, 28), np.uint8)
    for image, label in zip(x, labels, strict=True):
        image[2 * label : 2 * label + 8] = 1
    names = [f"{i},{j}" for i in range(28) for j in range(28)]
    return Table(
        "mnist",
        Schema(tuple(Column(name, "bernoulli") for name in names)),
        x.reshape(num, -1),
        np.ones((num, 784), bool),
        Schema((Column("label", "categorical", 10, tuple(range(10))),)),
        labels[:, None].astype(float),
        np.ones((num, 1), bool),
    )


def test_convolutional_run_leaves_scores_and_pictures(tmp_path):
    config = get_config("mnist,smoke")
    config.evaluate.num_test = 3
    result = loop.run(images.build(config, stripes()), config, tmp_path)
    assert list(result["phases"]) == ["vi", "hmc"]
    for name in ("nll_x", "nll_y", "paper_nll_x", "accuracy"):
        assert np.isfinite(result["metrics"][name]["mean"])
    assert 0 < result["metrics"]["acceptance"]["mean"] <= 1
    assert result["meta"]["published"]["accuracy"] == [0.981, 0.005]
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    names = ("reconstructions", "prior", "training", "step_sizes", "acceptance")
    assert drawn == set(names)
    with np.load(tmp_path / "arrays" / "hmc.npz") as stored:
        arrays = dict(stored)
    shown = arrays["mask"]
    assert arrays["draws"].shape == (2, 3, 784)
    for filled in (arrays["mean"], *arrays["draws"]):
        np.testing.assert_array_equal(filled[shown], arrays["original"][shown])
    assert set(np.unique(arrays["draws"])) <= {0.0, 1.0}
    assert arrays["prior"].shape == (images.NUM_SAMPLES, 784)
    assert (0 < arrays["prior"]).all()
    assert (arrays["prior"] < 1).all()


def test_only_the_first_test_images_are_scored_and_training_does_not_see_it():
    config = get_config("digits,vae,smoke")
    table = images.load_table(config.data, config.paper)
    config.evaluate.num_test = 5
    few = images.build(config, table)
    config.evaluate.num_test = 0
    every = images.build(config, table)
    assert few.meta == every.meta
    jax.tree.map(np.testing.assert_array_equal, few.data, every.data)
    params = jax.tree.map(lambda leaf: leaf[None], few.init(jax.random.key(0)))
    shapes = []
    for experiment in (few, every):
        _, arrays = experiment.evaluate(jax.random.key(1), params, experiment.data, "vi", False)
        shapes.append(arrays["y_true"].shape)
    assert shapes == [(5, 1), (180, 1)]


def test_images_of_the_prior_average_to_the_decoder_under_it(key):
    """Both kinds of hierarchy draw from N(0, I) of the top layer downwards."""
    config = get_config("digits,h-vae,smoke")
    table = images.load_table(config.data, config.paper)
    means = []
    for is_reparameterised in (True, False):
        config.model.reparameterised = is_reparameterised
        model = tabular.make_model(config, table)
        params = model.init(key, model.blank_row())["params"]
        scaler = tabular.columns.Scaler(np.zeros(64, np.float32), np.ones(64, np.float32))
        drawn = images.sample_prior(jax.random.key(1), model, params, scaler, 500)
        assert drawn.shape == (500, 64)
        means.append(np.mean(drawn, axis=0))
    error = 4 * np.std(drawn, axis=0) / 500**0.5
    assert np.all(np.abs(means[0] - means[1]) < np.sqrt(2) * error + 1e-6)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("mnist,vae,paper", (100440, 0, (20,), 0.01, 2e-4)),
        ("mnist,hh-vae,paper", (99000, 1440, (20, 10), 0.0, 2e-4)),
        ("fashion_mnist,hmc-vae,paper", (99000, 1440, (20,), 0.0, 1e-3)),
    ],
)
def test_published_schedules(variant, expected):
    """Steps of both stages, latents, L2 and learning rate."""
    config = get_config(variant)
    train = config.train
    steps, sizes = (train.vi_steps, train.hmc_steps), config.model.layer_sizes
    assert (*steps, sizes, train.weight_decay, train.learning_rate) == expected
    assert (config.model.hidden, train.num_transitions, train.balance_steps) == (512, 10, 5000)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "celeba"])
def test_models_of_a_set_train_equally_long_by_default(name):
    for words in ("", ",short"):
        configs = [get_config(f"{name},{m}{words}") for m in ("vae", "miwae", "h-vae", "hh-vae")]
        assert len({c.train.vi_steps + c.train.hmc_steps for c in configs}) == 1
        assert {c.train.weight_decay for c in configs} == {0.0}
        for config in configs:
            images.check(config)


@pytest.mark.parametrize("variant", ["mnits", "mnist,digits", "mnist,vae,miwae", "mnist,vaem"])
def test_unknown_variants_are_refused(variant):
    with pytest.raises(ValueError, match="expected at most one of digits, mnist"):
        get_config(variant)


def test_impossible_configs_are_refused():
    config = get_config("digits,smoke")
    config.model.networks = "mnist"
    with pytest.raises(ValueError, match="read 784 columns"):
        images.make(config)
    config = get_config("digits,smoke")
    config.evaluate.num_test = -1
    with pytest.raises(ValueError, match="num_test=-1: expected a number of test"):
        images.make(config)
