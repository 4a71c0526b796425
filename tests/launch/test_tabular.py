import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae.columns import Column, Schema
from launch import evaluate, loop, metrics, train
from launch.data import published, tables
from launch.data.frames import Table
from launch.experiments import tabular, tabular_report

pytestmark = pytest.mark.slow  # whole programs

CONFIGS = Path(__file__).parents[2] / "configs"


def get_config(variant):
    spec = importlib.util.spec_from_file_location("config", CONFIGS / "hhvaem.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


@pytest.fixture(autouse=True)
def coarse_contours(monkeypatch):
    monkeypatch.setattr(tabular_report, "GRID", 5)  # they take longer than all the rest


def test_smoke_run_goes_through_three_stages_and_leaves_everything(tmp_path):
    config = get_config("diabetes,smoke")
    assert config.model.bound == "wake"
    config.splits = 2
    config.evaluate.probe_every = 5
    result = loop.run(train.load_experiment(config), config, tmp_path)
    assert list(result["phases"]) == ["marginal", "vi", "hmc"]
    scores = ("nll_x", "nll_y", "paper_nll_x", "paper_nll_y", "error_x", "rmse", "crps_x")
    for name in (*scores, "coverage50_x", "coverage90_x"):
        assert np.all(np.isfinite(result["metrics"][name]["replicas"]))
        assert len(result["metrics"][name]["replicas"]) == 2
    assert 0 < result["metrics"]["acceptance"]["mean"] <= 1
    drawn = {p.name for p in (tmp_path / "figures").iterdir()}
    assert drawn >= {"imputation.png", "posterior.png", "step_sizes.png", "training.png"}
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["published"]["paper_nll_x"] == [2.54, 0.13]
    assert len(set(meta["splits"])) == 2
    # mean of the probes of a window, near the final score that has more rows and samples
    watched = [r["probe_nll_x"] for r in metrics.read_rows(tmp_path) if r["phase"] == "hmc"]
    np.testing.assert_allclose(watched[-1], result["metrics"]["nll_x"]["mean"], rtol=0.3)


def test_published_protocol_trains_and_is_scored_again(tmp_path, capsys):
    config = get_config("diabetes,smoke,vaem,paper")
    result = loop.run(train.load_experiment(config), config, tmp_path)
    assert np.isfinite(result["metrics"]["paper_nll_x"]["mean"])
    words = ["evaluate", f"--workdir={tmp_path}", "--num_samples=24"]
    assert evaluate.main(words) == 0
    assert "2.78 +- 0.16" in capsys.readouterr().out  # the published score beside ours
    again = json.loads((tmp_path / "evaluate.json").read_text())
    assert again["num_samples"] == 24
    ours, first = (r["metrics"]["error_x"]["mean"] for r in (again, result))
    np.testing.assert_allclose(ours, first, rtol=0.1)
    assert evaluate.main(["evaluate", f"--workdir={tmp_path / 'absent'}"]) == 2
    assert evaluate.main([*words[:2], "--num_samples=0"]) == 2


def test_a_split_trained_alone_sees_what_it_sees_among_others():
    """With tests of the loop that replicas do not mix, this makes a split's result its own."""
    config = get_config("wine,smoke,vaem")
    config.splits = 3
    together = tabular.make(config)
    config.splits, config.data.first_split = 1, 2
    alone = tabular.make(config)
    assert alone.replica_seeds == together.replica_seeds[2:]
    assert alone.meta["splits"] == together.meta["splits"][2:]
    np.testing.assert_array_equal(alone.batches(1, 7, 4)[0], together.batches(1, 7, 4)[2])
    length = alone.data.x.shape[1]
    for one, three in zip(alone.data, together.data, strict=True):
        np.testing.assert_array_equal(one[0], three[2][:length] if one.ndim > 2 else three[2])


def test_batches_are_whole_epochs_in_another_order_and_resume_anywhere():
    config = get_config("wine,smoke")
    experiment = tabular.make(config)
    fold = tables.make_splits(tables.load("wine"))[0]
    size, n = config.train.batch_size, len(fold.train)
    steps = 4 * n // size
    index = experiment.batches(0, 0, steps)[0].reshape(-1)
    for epoch in range(steps * size // n):
        rows = index[epoch * n : (epoch + 1) * n]
        np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    np.testing.assert_array_equal(
        experiment.batches(0, 5, 3)[0], experiment.batches(0, 0, 8)[0][5:]
    )
    assert np.any(experiment.batches(1, 0, 3) != experiment.batches(0, 0, 3))


def test_scaling_sees_training_rows_only():
    table = tables.load("wine")
    fold = tables.make_splits(table)[0]
    spoiled = table._replace(x=table.x.copy())
    spoiled.x[fold.test] *= 100.0
    a, b = tabular.prepare(table, fold), tabular.prepare(spoiled, fold)
    jax.tree.map(np.testing.assert_array_equal, (a.train, a.scaler), (b.train, b.scaler))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model.layer_sizes": ()}, "layer_sizes"),
        ({"model.posterior": "nuts"}, "expected 'gaussian' or 'hmc'"),
        ({"model.posterior": "gaussian"}, "set hmc_steps to 0"),
        ({"train.hmc_steps": 0}, "set hmc_steps above 0"),
        ({"train.num_transitions": 0}, "there would be no chain"),
        ({"model.bound": "iwae"}, "expected one of elbo, iw, wake"),
        ({"model.bound": "wake", "model.reparameterised": False}, "set bound to 'elbo' or 'iw'"),
        ({"model.bound": "iw", "train.num_importance": 0}, "1 or more of each"),
        ({"model.networks": "resnet"}, "expected one of 'table', 'mnist'"),
        ({"model.networks": "mnist"}, "pixels have no marginal VAEs"),
        ({"model.networks": "mnist", "model.marginals": False}, "784"),
        (
            {"model.posterior": "gaussian", "train.hmc_steps": 0, "evaluate.probe_every": 5},
            "the probe watches",
        ),
        ({"evaluate.probe_every": 3}, "expected a divisor"),
        ({"splits": 11}, "within the 10 folds"),
        ({"paper": True}, "set learn_variance to False"),
        ({"train.gradient": "full"}, "expected 'detached' or 'exact'"),
        ({"train.max_missing": 0.0}, "a rate in"),
        ({"data.name": "wein"}, "did you mean 'wine'"),
        ({"data.path": "absent.csv"}, "does not exist"),
    ],
)
def test_impossible_configs_are_refused(change, match):
    config = get_config("wine,smoke")
    for name, value in change.items():
        config.update_from_flattened_dict({name: value})
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        tabular.make(config)


@pytest.mark.parametrize("variant", ["wien", "wine,boston", "wine,huge", "vae,vaem"])
def test_unknown_variants_are_refused(variant):
    with pytest.raises(ValueError, match="expected at most one of"):
        get_config(variant)


def test_noreparam_is_refused_where_it_would_change_nothing():
    with pytest.raises(ValueError, match="vaem has one latent layer"):
        get_config("vaem,noreparam")


SHAPES = {  # layers, posterior, bound of the models without marginals
    "VAE": (1, "gaussian", "elbo"),
    "MIWAE": (1, "gaussian", "iw"),
    "H-VAE": (2, "gaussian", "elbo"),
    "HMC-VAE": (1, "hmc", "wake"),
    "HH-VAE": (2, "hmc", "wake"),
}


def test_ten_words_make_the_ten_models_at_one_budget():
    budgets = set()
    for name, shape in SHAPES.items():
        for suffix in ("", "M"):
            config = get_config(f"boston,{name}{suffix}".lower())
            model = config.model
            assert model.name == name + suffix
            assert (len(model.layer_sizes), model.posterior, model.bound) == shape
            assert model.marginals == bool(suffix)
            tabular.check(config)
            budgets.add(config.train.vi_steps + config.train.hmc_steps)
            short = get_config(f"bank,short,{name}{suffix}".lower())
            assert short.train.vi_steps + short.train.hmc_steps == 10_000
            assert config.train.weight_decay == 0
            diabetes = get_config(f"diabetes,{name}{suffix}".lower()).train
            assert diabetes.weight_decay == 0.01  # of all models alike
            paper = get_config(f"boston,paper,{name}{suffix}".lower()).train
            assert paper.weight_decay == (0.01 if shape[1] == "gaussian" else 0.0)
            assert paper.clock_rate == (2 if name == "HH-VAE" else 1)
    assert budgets == {20_000}
    assert get_config("h-vae,paper,noreparam").train.weight_decay == 0
    transitions = [get_config(f"diabetes,{m}").train.num_transitions for m in ("hh-vae", "hmc-vae")]
    assert transitions == [10, 5]


@pytest.mark.parametrize(
    ("deep", "flat"),
    [("h-vae", "vae"), ("h-vaem", "vaem"), ("hh-vae", "hmc-vae"), ("hh-vaem", "hmc-vaem")],
)
def test_one_layer_makes_a_hierarchy_flat(deep, flat):
    """With `test_hierarchy_of_one_layer_is_a_flat_vae`: one module, one configuration."""
    ours, expected = get_config(f"boston,{deep}"), get_config(f"boston,{flat}")
    ours.model.layer_sizes = ours.model.layer_sizes[:1]
    ours.train.num_transitions = expected.train.num_transitions  # published: 15 and 10
    ours.model.name = expected.model.name
    assert ours.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    "words",
    [f"{name}{suffix}".lower() for name in SHAPES for suffix in ("", "M")]
    + ["h-vaem,noreparam", "hh-vae,noreparam"],
)
def test_every_model_trains_what_it_has(words):
    """Shapes only: phases follow one another, and nothing of another model is in the parameters."""
    config = get_config(f"diabetes,smoke,{words}")
    experiment = tabular.make(config)
    names = [phase.name for phase in experiment.phases]
    is_mixed, is_hmc = config.model.marginals, config.model.posterior == "hmc"
    assert names == ["marginal"] * is_mixed + ["vi"] + ["hmc"] * is_hmc
    data = jax.tree.map(lambda a: a[0], experiment.data)
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    for phase in experiment.phases:
        state = jax.eval_shape(phase.init, jax.random.key(0), params)
        batch = experiment.batches(0, 0, 1)[0, 0]
        after, found = jax.eval_shape(phase.step, jax.random.key(0), 0, state, data, batch)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert "loss" in found
        params = after.params
    assert ("marginal" in params, "hmc" in params) == (is_mixed, is_hmc)


def synthetic(n=60, d=5, seed=0, target_kind="bernoulli"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    mask = rng.random((n, d)) > 0.2
    mask[0] = False  # an empty row is legal
    columns = tuple(Column(f"x{i}", "gaussian") for i in range(d))
    y = (x[:, :1] > 0).astype(float)
    target = Schema((Column("y", target_kind),))
    return Table("mine", Schema(columns), x, mask, target, y, np.ones((n, 1), bool))


def test_own_tables_with_holes_and_a_binary_target_train(tmp_path):
    config = get_config("table,smoke,miwae")
    result = loop.run(tabular.build(config, synthetic()), config, tmp_path)
    assert 0 <= result["metrics"]["auroc"]["mean"] <= 1
    assert result["metrics"]["nll_y"]["mean"] > 0


def without_target(table):
    none = np.zeros((len(table.x), 0))
    return table._replace(target=Schema(()), y=none, y_mask=none.astype(bool))


@pytest.mark.parametrize(
    "table", [synthetic(3, 4), synthetic(12, 30), without_target(synthetic())],
    ids=["three rows", "wider than long", "no target"],
)  # fmt: skip
def test_unusual_tables_train(table, tmp_path):
    config = get_config("table,smoke,vaem")
    config.data.num_folds = 3
    result = loop.run(tabular.build(config, table), config, tmp_path)
    assert np.isfinite(result["metrics"]["paper_nll_x"]["mean"])
    assert ("nll_y" in result["metrics"]) == bool(table.target.num_columns)


def test_proper_scores_in_raw_units_do_not_depend_on_the_unit():
    """Nats in raw units move by the log of the factor, standardised ones not at all."""
    table = tables.load("wine")
    scaled = table._replace(x=table.x.copy())
    scaled.x[:, 2] *= 10.0
    schema = Schema(tuple(Column(c.name, "gaussian") for c in table.schema.columns))
    fold = tables.make_splits(table)[0]
    missing = ~fold.test_mask
    totals = []
    for t in (table, scaled):
        t = t._replace(schema=schema)
        split = tabular.prepare(t, fold)
        totals.append(tabular_report.split_jacobian(schema, split.scaler, t.x[fold.test], missing))
    np.testing.assert_allclose(totals[0] - totals[1], np.log(10.0) * missing[:, 2], atol=1e-5)


def test_published_scores_are_those_of_the_talk():
    assert published.scores("wine", "HH-VAEM")["paper_nll_x"] == (1.90, 0.17)
    assert published.scores("boston", "VAEM")["paper_nll_y"] == (0.85, 0.21)
    assert published.scores("mine", "VAEM") == {}


def test_another_batch_does_not_compile_again():
    experiment = tabular.make(get_config("wine,smoke"))
    phase = experiment.phases[1]
    params = experiment.init(jax.random.key(0))
    state = phase.init(jax.random.key(1), params)
    data = jax.tree.map(lambda a: jnp.asarray(a[0]), experiment.data)
    traces = []

    @jax.jit
    def step(key, step, state, data, batch):
        traces.append(1)
        return phase.step(key, step, state, data, batch)

    for i in range(3):
        batch = jnp.asarray(experiment.batches(1, i, 1)[0, 0])
        state, _ = step(jax.random.key(i), i, state, data, batch)
    assert len(traces) == 1


def test_draws_from_the_truth_are_covered_and_have_its_crps():
    """E CRPS of N(0, 1) under itself is 1 / sqrt(pi); only hidden real cells count."""
    table = synthetic(n=4000, d=3)
    scaler = tabular.columns.Scaler(np.full(3, 0.5), np.full(3, 2.0))
    rng = np.random.default_rng(1)
    truth, draws = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 99, 3))
    hidden = rng.random((4000, 3)) > 0.5
    truth[~hidden], draws[:, :, 1] = np.nan, 5.0
    hidden[:, 1] = False
    found = tabular_report._draw_metrics("x", table.schema, scaler, 2 * draws + 0.5, truth, hidden)
    np.testing.assert_allclose(found["crps_x"], 1 / np.sqrt(np.pi), rtol=0.03)
    np.testing.assert_allclose(found["coverage50_x"], 0.5, atol=0.03)
    np.testing.assert_allclose(found["coverage90_x"], 0.9, atol=0.02)


def test_a_limit_on_test_rows_keeps_the_first():
    config = get_config("wine,smoke,vae")
    config.evaluate.rows_per_block = 4
    table = tables.load("wine")
    whole, part = tabular.build(config, table), tabular.build(config, table, num_test=4)
    key = jax.random.key(0)
    params = jax.tree.map(lambda a: a[None], whole.init(key))
    arrays = [e.evaluate(key, params, e.data, "vi", False)[1] for e in (whole, part)]
    for name in ("x_true", "mask"):
        np.testing.assert_array_equal(arrays[0][name][:4], arrays[1][name])
    assert len(arrays[1]["x_mean"]) == 4
    assert np.all(np.isfinite(arrays[1]["x_mean"]))
