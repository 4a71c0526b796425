"""The acquisition program on two small runs of one table: files, curves, costs, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hmcvae.acquire import Episode
from launch import acquire, acquire_figures, episodes, trained
from launch.data import tables
from tests.launch import small_tables

pytestmark = pytest.mark.slow  # whole programs

FEATURES = ["age", "dose", "group", "noise"]


def make_run(path, data, model, **changes):
    of_data = {"data.path": str(data), "data.target": "y", "data.num_folds": 4, "splits": 2}
    small_tables.make_run(path, f"table,{model}", **of_data, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a Gaussian posterior and one with HMC, and their table of 61 rows with holes."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(61, 4)), columns=FEATURES)
    frame["group"] = rng.choice(["a", "b", "c"], 61)
    frame["y"] = 3 * frame["age"] + (frame["group"] == "a")
    frame.loc[rng.random(61) < 0.2, "dose"] = np.nan
    frame.loc[:2, "y"] = np.nan
    frame.to_csv(folder / "study.csv", index=False)
    for model in ("vaem", "hh-vaem"):
        make_run(folder / model, folder / "study.csv", model)
    return folder


def call(runs, *words, models="vaem,hh-vaem", output="out"):
    workdirs = ",".join(str(runs / model) for model in models.split(","))
    words = (f"--workdir={workdirs}", f"--output={runs / output}", "--samples=16", *words)
    return acquire.main(["acquire", *words])


def test_leaves_curves_areas_and_pictures(runs, capsys):
    assert call(runs, "--rewards=kl,mi", "--bins=4", "--num_rows=9") == 0
    printed = capsys.readouterr()
    labels = ["VAEM + kl", "VAEM + mi", "HH-VAEM + mi"]
    for label in labels:
        assert label in printed.out
        assert f"{label}: split 1, 9 rows" in printed.err
    assert "HH-VAEM + kl is left out" in printed.err
    folder = runs / "out"
    curves = pd.read_csv(folder / "curves.csv")
    assert list(dict.fromkeys(curves["method"])) == labels
    assert len(curves) == 3 * 2 * (len(FEATURES) + 1)
    values = curves[["error", "nll_y", "paper_nll_y", "features", "spent"]]
    assert np.all(np.isfinite(values))
    for _, curve in curves.groupby(["method", "split"]):
        assert curve["features"].iloc[0] == 0
        assert curve["features"].is_monotonic_increasing
        assert 3 < curve["features"].iloc[-1] <= 4  # some doses are truly missing
    result = json.loads((folder / "result.json").read_text())
    areas = pd.read_csv(folder / "areas.csv")
    one = curves.query("method == 'VAEM + mi' and split == 1")["error"]
    area = areas.query("method == 'VAEM + mi' and split == 1")["error"].item()
    np.testing.assert_allclose(area, np.mean((one.values[1:] + one.values[:-1]) / 2))
    np.testing.assert_allclose(result["areas"]["VAEM + mi"]["error"][1], area)
    assert result["rows"] == 9
    assert set(result["seconds_per_step"]) == set(labels)
    with np.load(folder / "arrays.npz") as arrays:
        acquire_figures.errors({"study": arrays, "again": arrays}, folder / "errors.png")
    for name in ("curves.png", "measured.png", "errors.png"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture).std() > 5
    assert not list(folder.rglob("*.tmp"))


def test_all_features_known_is_one_prediction_whatever_the_order(runs):
    """The last points of two rewards are of the same rows and differ by Monte-Carlo noise only."""
    words = ("--rewards=order,random", "--samples=400")
    assert call(runs, *words, models="vaem", output="end") == 0
    curves = pd.read_csv(runs / "end" / "curves.csv")
    last = curves[curves["step"] == len(FEATURES)].pivot(
        index="split", columns="method", values="nll_y"
    )
    np.testing.assert_allclose(last["VAEM + order"], last["VAEM + random"], atol=0.05)


def test_costs_and_budget_reach_the_episodes(runs):
    costs = runs / "costs.json"
    costs.write_text(json.dumps({"age": 5.0, "noise": 0.5}))
    words = (f"--costs={costs}", "--budget=2.5", "--rewards=mi", "--min_gain=-9", "--bins=3")
    assert call(runs, *words, models="vaem", output="costs") == 0
    with np.load(runs / "costs" / "arrays.npz") as arrays:
        known = dict(zip(arrays["names"], arrays["measured"][0, -1], strict=True))
        assert arrays["spent"].max() <= 2.5
    assert known["age"] == 0
    assert known["group"] == known["noise"] == 1
    result = json.loads((runs / "costs" / "result.json").read_text())
    assert result["costs"] == [5.0, 1.0, 1.0, 0.5]


def test_rows_are_those_of_each_split_and_the_same_for_every_run(runs):
    loaded = episodes.load([str(runs / "vaem"), str(runs / "hh-vaem")])
    assert list(loaded) == ["VAEM", "HH-VAEM"]
    first, second = loaded.values()
    num = episodes.count_rows(first, 0)
    assert 0 < num <= 15
    for number, (split, other) in enumerate(zip(first, second, strict=True)):
        assert split.number == number
        at = episodes.choose_rows(split, num, seed=0)
        np.testing.assert_array_equal(at, episodes.choose_rows(other, num, seed=0))
        assert set(at) <= set(split.fold.test)
        assert not set(at) & set(split.fold.train)
        rows = episodes.blank_rows(split, at)
        assert np.all(rows.y_known)
        assert not np.any(rows.shown)


def test_discrete_targets_are_scored_by_their_errors():
    probs = np.zeros((2, 3, 1, 3))  # [T + 1, B, P, C]
    probs[0, :, 0, 0], probs[1, [0, 1, 2], 0, [0, 1, 1]] = 1, 1
    zeros = np.zeros((2, 3))
    episode = Episode(
        np.array([[2, -1, 0]]), zeros[:1], zeros, np.zeros((2, 3, 1)), probs, zeros, zeros, zeros
    )
    table = tables.load("wine")._replace(y=np.array([[0.0], [1.0], [2.0]]))
    curves = episodes.summarise(episode, table, np.arange(3))
    np.testing.assert_allclose(curves["error"], [2 / 3, 1 / 3])
    np.testing.assert_allclose(curves["features"], [0, 2 / 3])
    measured = episodes.when_measured(episode.chosen, 4)
    np.testing.assert_allclose(measured, [[0, 0, 0, 0], [1 / 3, 0, 1 / 3, 0]])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--rewards=mi,krasnov"], "did you mean 'kraskov'?"),
        (["--rewards="], "give one or several of each"),
        (["--samples=1"], "--samples=1: expected 2 or more"),
        (["--samples=5"], "expected more than bins=7"),
        (["--budget=0"], "expected a positive number"),
        (["--costs=absent.json"], "there is no such file"),
    ],
)
def test_refusals(runs, capsys, words, match):
    assert call(runs, *words, models="vaem") == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"agee": 1}', "did you mean 'age'?"),
        ('{"age": -1}', "expected a positive number"),
        ('{"age": true}', "expected a positive number"),
        ("[1, 2]", "found list"),
        ('{"age": ', "is damaged"),
    ],
)
def test_costs_that_are_none_are_refused(tmp_path, content, match):
    file = tmp_path / "costs.json"
    file.write_text(content)
    with pytest.raises(acquire.Refused, match=match.replace("?", r"\?")):
        acquire.read_costs(str(file), tuple(FEATURES))


def test_run_before_its_last_stage_is_not_taken_for_a_model_without_hmc(runs, capsys):
    make_run(runs / "cut-off", runs / "study.csv", "hh-vaem", num_stages=2)
    assert call(runs, models="vaem,cut-off") == 2
    assert "cut-off stands in stage 'vi', not 'hmc'; train it further" in capsys.readouterr().err


def test_runs_that_do_not_belong_together_are_refused(runs, capsys):
    assert call(runs, "--rewards=kl", models="hh-vaem") == 2
    assert "none of the runs has a Gaussian posterior" in capsys.readouterr().err
    assert call(runs, models="absent") == 2
    assert "holds no config.json" in capsys.readouterr().err
    make_run(runs / "other", runs / "study.csv", "vaem", **{"data.split_seed": 1})
    assert call(runs, models="vaem,other") == 2
    assert "other tables or splits" in capsys.readouterr().err


def test_advice_names_what_is_not_known_by_its_use_for_a_unit_of_cost(runs):
    run = trained.load(runs / "vaem")
    known = {"age": 0.5, "group": "b", "dose": None}
    free, dear = (run.advise(known, num_samples=50, costs=c) for c in (None, {"dose": 2.0}))
    assert {advice.name for advice in free} == {"dose", "noise"}
    by_name = {advice.name: advice for advice in free}
    for advice in dear:
        assert advice.gain == by_name[advice.name].gain
        cost = 2.0 if advice.name == "dose" else 1.0
        expected = advice.gain / cost if advice.gain > 0 else advice.gain * cost
        np.testing.assert_allclose(advice.rate, expected, rtol=1e-6)
    assert run.advise(known | {"dose": 1, "noise": 2}, num_samples=50) == ()


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"agee": 1.0}, "did you mean 'age'?"),
        ({"group": "d"}, "is not among the 3 known ones"),
        ({"age": "old"}, "is not a number"),
        ({"age": np.inf}, "expected a finite number"),
    ],
)
def test_rows_that_are_none_of_the_table_get_no_advice(runs, row, match):
    with pytest.raises(ValueError, match=match.replace("?", r"\?")):
        trained.load(runs / "vaem").advise(row)
