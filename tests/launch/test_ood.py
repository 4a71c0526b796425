"""Out-of-distribution scores: their definition, how foreign rows are read, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hmcvae.columns import Column, Schema
from hmcvae.model import Rows
from launch import ood
from launch.data import image_tables, tables
from launch.data.frames import Table
from tests.launch import small_images

pytestmark = pytest.mark.slow  # whole programs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    small_images.train(path, "vae", vi_steps=600)
    return path


def call(*words):
    return ood.main(["ood", *map(str, words)])


def noise(name, kinds, num=30, seed=0):
    """A table of noise with one column of each kind; 2 classes each are a categorical's."""
    rng = np.random.default_rng(seed)
    columns, x = [], []
    for i, kind in enumerate(kinds):
        classes = 3 if kind == "categorical" else 1
        columns.append(Column(f"{name}{i}", kind, classes))
        is_code = kind in ("bernoulli", "categorical")
        x.append(rng.integers(0, max(classes, 2), num) if is_code else rng.gamma(2.0, size=num))
    x = np.stack(x, axis=-1).astype(float)
    none = np.zeros((num, 0))
    mask = rng.random(x.shape) < 0.9
    return Table(name, Schema(tuple(columns)), x, mask, Schema(()), none, none > 0)


def test_a_score_is_the_mean_density_of_what_is_observed():
    """A decoder that ignores its input leaves nothing to average: the density is known."""
    run = small_images.untrained("digits,vae,smoke", small_images.digits())
    decoder = jax.tree.map(jnp.zeros_like, run.params["decoder"])
    decoder["layer1"]["affine"]["bias"] = logits = jnp.linspace(-2.0, 2.0, 64)
    x = np.float32(run.table.x[:7])
    mask = np.random.default_rng(0).random(x.shape) < 0.5
    hidden = np.where(mask, x, np.nan)
    scores = ood.log_scores(
        jax.random.key(0), run.model, {**run.params, "decoder": decoder},
        Rows(hidden, mask, None, None, None), num_samples=30, schedule=run.schedule,
    )  # fmt: skip
    prob = jax.nn.sigmoid(logits)
    density = np.where(x == 1, prob, 1 - prob)
    np.testing.assert_allclose(scores, np.log(density).sum(1, where=mask), rtol=1e-4)


def test_scores_average_densities_and_not_their_logarithms():
    run = small_images.untrained("digits,h-vae,smoke", small_images.digits())
    params = {**run.params, "decoder": jax.tree.map(lambda w: 4 * w, run.params["decoder"])}
    x = np.float32(run.table.x[:3])
    rows = Rows(x, np.ones(x.shape, bool), None, None, None)
    found = ood.log_scores(
        jax.random.key(0), run.model, params, rows, num_samples=3000, schedule=run.schedule
    )
    mean, log_var = run.model.apply({"params": params}, rows, method="encode")
    noise = jax.random.normal(jax.random.key(1), (3000, *mean.shape))
    eps = mean + jnp.exp(0.5 * log_var) * noise
    logits = run.model.apply({"params": params}, eps, method="decode")[1][..., 0]
    log_density = jnp.where(x == 1, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)).sum(-1)
    expected = jax.nn.logsumexp(log_density, axis=0) - np.log(3000)
    weight = jnp.exp(log_density - expected)
    error = jnp.std(weight, axis=0) / 3000**0.5
    assert np.all(np.abs(found - expected) < 6 * error)
    assert np.all(expected - log_density.mean(axis=0) > 12 * error)  # the two means do differ


def test_columns_of_the_same_names_are_read_by_the_models_own_codes_and_scales(tmp_path):
    table = tables.load("diabetes")
    run = small_images.untrained("diabetes,vaem,smoke", table, "hhvaem")
    frame = pd.DataFrame(table.x, columns=list(table.schema.names))
    sex = table.schema.names.index("sex")
    frame["sex"] = np.array(table.schema.columns[sex].categories)[table.x[:, sex].astype(int)]
    frame = frame[list(table.schema.names[::-1])].assign(extra=np.arange(len(frame)))
    frame.loc[3, "bmi"] = np.nan
    path = tmp_path / "new.csv"
    frame.iloc[:40].to_csv(path, index=False)
    seen = ood.other_rows(jax.random.key(0), run, ood.read_other(str(path), None), np.arange(40))
    expected = ood.own_rows(jax.random.key(0), run, np.arange(40))
    bmi = table.schema.names.index("bmi")
    assert not seen.mask[3, bmi]
    assert seen.mask.sum() == seen.mask.size - 1
    np.testing.assert_allclose(seen.x[seen.mask], expected.x[seen.mask], rtol=1e-4, atol=1e-5)


def test_other_columns_are_cropped_and_standardised_by_themselves():
    own = noise("own", ("gaussian", "bernoulli", "categorical"))
    run = small_images.untrained("table,vae,smoke", own, "hhvaem")
    other = noise("other", ("loggaussian", "bernoulli", "categorical", "gaussian"), seed=1)
    seen = ood.other_rows(jax.random.key(0), run, other, np.arange(30))
    assert seen.z is None
    np.testing.assert_array_equal(seen.mask, other.mask[:, :3])
    real = seen.x[seen.mask[:, 0], 0]
    np.testing.assert_allclose([real.mean(), real.std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(seen.x[:, 1], np.where(seen.mask[:, 1], other.x[:, 1], 0))


def test_mixed_rows_are_encoded_by_the_marginal_vaes_of_their_own_run():
    own = noise("own", ("gaussian",) * 2)
    run = small_images.untrained("table,vaem,paper,smoke", own, "hhvaem")
    table = noise("other", ("categorical", "loggaussian", "gaussian"), seed=1)
    other = small_images.untrained("table,hh-vaem,smoke", table, "hhvaem")
    seen = ood.other_rows(jax.random.key(0), run, other, np.arange(30))
    theirs = ood.own_rows(jax.random.key(0), other, np.arange(30))
    np.testing.assert_array_equal(seen.z, theirs.z[:, :2])
    np.testing.assert_array_equal(seen.mask, table.mask[:, :2])
    assert (seen.z[~seen.mask] == 0).all()


def test_a_model_that_explains_rows_is_given_rows_and_no_latents_of_another_run():
    own = noise("own", ("gaussian",) * 2)
    run = small_images.untrained("table,vaem,smoke", own, "hhvaem")
    fitting = noise("other", ("loggaussian", "gaussian", "gaussian"), seed=1)
    other = small_images.untrained("table,vaem,smoke", fitting, "hhvaem")
    seen = ood.other_rows(jax.random.key(0), run, other, np.arange(30))
    by_table = ood.other_rows(jax.random.key(0), run, fitting, np.arange(30))
    np.testing.assert_array_equal(seen.x, by_table.x)
    assert np.abs(seen.x[seen.mask]).min() > 0
    codes = noise("other", ("categorical", "gaussian"), seed=1)
    other = small_images.untrained("table,vaem,smoke", codes, "hhvaem")
    with pytest.raises(ValueError, match=r"explains these \(config.model.end_to_end=False\)"):
        ood.other_rows(jax.random.key(0), run, other, np.arange(30))


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (("gaussian",), "table 'other' has 1 columns and 'own' 2"),
        (("gaussian", "bernoulli"), "is bernoulli with 1 classes, but takes the place of 'own1'"),
        (("categorical", "gaussian"), "give a run of 'other' with marginal VAEs"),
    ],
)
def test_tables_that_do_not_fit_are_refused(kinds, sentence):
    run = small_images.untrained("table,vae,smoke", noise("own", ("gaussian",) * 2), "hhvaem")
    with pytest.raises(ValueError, match=sentence):
        ood.other_rows(jax.random.key(0), run, noise("other", kinds), np.arange(5))


def test_images_of_other_shapes_are_refused():
    run = small_images.untrained("digits,vae,smoke", small_images.digits())
    other = small_images.digits(name="mnist")
    with pytest.raises(ValueError, match="give images of one shape"):
        ood.other_rows(jax.random.key(0), run, other, np.arange(5))


def test_program_ranks_the_models_own_rows_above_noise(run, tmp_path, capsys):
    table = image_tables.load("digits")
    coins = np.random.default_rng(0).random((100, 64)) < 0.5
    path = tmp_path / "noise.csv"
    pd.DataFrame(coins.astype(int), columns=list(table.schema.names)).to_csv(path, index=False)
    words = (f"--workdir={run}", f"--other={path}", "--num=60", "--num_samples=20")
    assert call(*words) == 0
    folder = run / "ood" / "noise"
    printed = capsys.readouterr().out
    assert str(folder) in printed
    scores = json.loads((folder / "scores.json").read_text())
    stored = small_images.arrays(folder / "scores.npz")
    above = stored["own"][:, None] > stored["other"]
    np.testing.assert_allclose(scores["auroc"], above.mean(), atol=1e-6)  # its definition
    assert scores["auroc"] > 0.9
    assert scores["average_precision"] > 0.9
    assert scores["num"] == 60
    with Image.open(folder / "figure.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0
    assert call(f"--workdir={run}", "--other=digits", "--num=60", "--num_samples=20") == 0
    same = json.loads((run / "ood" / "digits" / "scores.json").read_text())
    assert abs(same["auroc"] - 0.5) < 4 * np.sqrt(121 / (12 * 60 * 60))  # error of a rank test


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--other=digit"], "--other=digit: neither a run, a file nor a table; did you mean"),
        (["--other=digits", "--observed=0"], "--observed=0.0: expected a share above 0"),
        (["--other=digits", "--num=0"], "--num=0: expected 1 or more"),
        (["--other=absent.csv"], "'absent.csv' does not exist"),
        (["--other=digits", "--workdir=absent"], "absent holds no config.json"),
    ],
)
def test_wrong_requests_are_one_sentence(run, capsys, words, sentence):
    assert call(f"--workdir={run}", *words) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.splitlines()) == 1


def test_runs_of_other_experiments_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"experiment": "vamoh", "mesh": {}}')
    assert call(f"--workdir={tmp_path}", "--other=digits") == 2
    assert "is a run of experiment 'vamoh'; expected 'tabular' or" in capsys.readouterr().err
