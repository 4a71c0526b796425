"""The tables program on toy tables: cells, resume, refusals; and once on wine."""

import json
import os
import signal

import numpy as np
import pytest

from configs import tables_mnist, tables_uci
from launch import cells, loop, results, tables
from launch.workdir import Refused
from tests.launch import runs, toy_tables

pytestmark = pytest.mark.slow  # whole programs

TOY = (
    "--config.base=tests/launch/toy_tables.py",
    "--config.tables=wine",
    "--config.models=vaem",
    "--config.splits=3",
    "--config.replicas=2",
)


def run(path, *words, variant=":small", base=TOY):
    return tables.main(
        ["tables", f"--config=configs/tables_uci.py{variant}", f"--workdir={path}", *base, *words]
    )


def toy(**changes):
    config = tables_uci.get_config()
    config.update(base="tests/launch/toy_tables.py", tables=("wine",), models=("vaem",), splits=3)
    config.update(changes)
    return config


def contents(path):
    return {file.name: json.loads(file.read_text()) for file in (path / "cells").iterdir()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Three splits, of which two train together."""
    path = tmp_path_factory.mktemp("tables")
    assert run(path) == 0
    return path


def test_leaves_a_file_a_cell_and_a_page(filled):
    found = list(contents(filled).values())
    assert sorted(cell["split"] for cell in found) == [0, 1, 2]
    assert sorted(cell["run"]["replicas"] for cell in found) == [1, 2, 2]
    for cell in found:
        assert cell["config"]["data"]["first_split"] == cell["split"]
        assert np.isfinite(cell["metrics"]["paper_nll_x"])
        assert set(cell["run"]["seconds"]["main"]) == {"compile", "train", "evaluate"}
        assert cell["run"]["wall_seconds"] > 0
        assert cell["versions"]["jax"]
    assert len({cell["fingerprint"] for cell in found}) == 3
    assert len({cell["digest"] for cell in found}) == 1
    page = (filled / "results.md").read_text()
    assert "| wine | default | 3 |" in page
    assert "not run" in page
    assert (filled / "results.csv").read_text().count("\nwine,VAEM,default,") == 2
    for directory in (filled / "runs").iterdir():
        kept = {entry.name for entry in directory.iterdir()}
        assert kept == {"result.json", "meta.json", "config.json", "metrics.jsonl", "figures"}


def test_does_nothing_twice_and_only_what_is_new(filled, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(tables, "_train", lambda run, *rest: trained.append(run))
    monkeypatch.setattr(tables, "_prune", lambda *rest: None)
    before = contents(filled)
    assert run(filled) == 0
    assert contents(filled) == before
    with pytest.raises(FileNotFoundError):  # nothing was written for the fourth
        run(filled, "--config.splits=4", "--debug")
    assert [[cell.split for cell in group] for group in trained] == [[3]]


def test_stopped_goes_on_and_gives_the_same_numbers(filled, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        begun = []
        make = toy_tables.make

        def interrupted(config):
            begun.append(config.data.first_split)
            experiment = make(config)

            def batches(phase, start, num):
                if config.data.first_split == 2 and (phase, start) == (1, 3):
                    os.kill(os.getpid(), signal.SIGTERM)
                return experiment.batches(phase, start, num)

            return experiment._replace(batches=batches)

        patch.setattr(toy_tables, "make", interrupted)
        assert run(tmp_path) == 143
        assert begun == [0, 2]
        assert len(contents(tmp_path)) == 2
        begun.clear()
        patch.setattr(toy_tables, "make", lambda config: begun.append(1) or make(config))
        assert run(tmp_path) == 0
    assert begun == [1]
    ours, theirs = contents(tmp_path), contents(filled)
    assert ours.keys() == theirs.keys()
    for name, cell in ours.items():
        assert cell["metrics"] == theirs[name]["metrics"]
        assert (cell["run"]["wall_seconds"] is None) == (cell["split"] == 2)


def test_a_split_is_the_same_cell_alone_and_among_others(filled, tmp_path):
    assert run(tmp_path, "--config.first_split=1", "--config.splits=1") == 0
    (alone,), together = contents(tmp_path).items(), contents(filled)
    name, cell = alone
    assert cell["digest"] == together[name]["digest"]
    assert cell["config"] == together[name]["config"]
    np.testing.assert_allclose(
        cell["metrics"]["paper_nll_x"], together[name]["metrics"]["paper_nll_x"], rtol=1e-5
    )


def test_another_setting_is_another_cell_and_is_not_averaged(filled, tmp_path):
    for file in (filled / "cells").iterdir():
        (tmp_path / "cells").mkdir(exist_ok=True)
        (tmp_path / "cells" / file.name).write_bytes(file.read_bytes())
    words = ("--config.splits=1", "--config.overrides=main_steps=8")
    assert run(tmp_path, *words) == 0
    assert len(contents(tmp_path)) == 4
    groups = results.group(cells.read_all(tmp_path))
    assert sorted(len(group.cells) for group in groups) == [1, 3]
    page = (tmp_path / "results.md").read_text()
    assert "| wine | default | 3 |" in page
    assert "| wine | default, main_steps=8 | 1 |" in page


@pytest.mark.parametrize(
    ("field", "value", "is_same"),
    [
        ("seed", 1, False),
        ("main_steps", 8, False),
        ("data.split_seed", 1, False),
        ("loop.keep", 7, True),
        ("mesh.data", 2, True),
        ("data.dir", "elsewhere", True),
    ],
)
def test_digest_is_of_what_moves_numbers(field, value, is_same):
    first = cells.plan(toy())
    second = cells.plan(toy(overrides=f"{field}={value}"))
    assert (first[0].digest == second[0].digest) == is_same


def test_digest_is_of_the_data(monkeypatch):
    first = cells.plan(toy())
    load = toy_tables.load_table
    changed = lambda *args: (t := load(*args))._replace(x=t.x + 1)
    monkeypatch.setattr(toy_tables, "load_table", changed)
    second = cells.plan(toy())
    assert {c.digest for c in first}.isdisjoint(c.digest for c in second)


def test_a_table_is_loaded_once(monkeypatch):
    loaded = []
    load = toy_tables.load_table
    monkeypatch.setattr(
        toy_tables, "load_table", lambda data, paper: loaded.append(data.name) or load(data, paper)
    )
    cells.plan(toy(tables=("wine,boston",), models=("VAEM", "HH-VAEM")))
    assert loaded == ["wine", "boston"]


def test_runs_hold_consecutive_splits_of_the_same_settings():
    planned = cells.plan(toy(models=("vaem", "hh-vaem"), splits=4))
    missing = [cell for cell in planned if cell.split != 1]
    grouped = [[(c.model, c.split) for c in run] for run in cells.together(missing, 2)]
    expected = [[0], [2, 3]]
    assert grouped == [[(m, s) for s in ss] for m in ("VAEM", "HH-VAEM") for ss in expected]


def test_a_failing_split_is_recorded_and_the_others_are_trained(tmp_path, capsys):
    words = ("--config.splits=2", "--config.overrides=nan_split=1")
    assert run(tmp_path, *words) == 3
    found = {cell["split"]: cell for cell in contents(tmp_path).values()}
    assert found[0]["status"] == "finished"
    assert found[1]["status"] == "failed"
    assert "loss of replica 0 (seed 1) is nan" in found[1]["reason"]
    assert "## Failed cells" in (tmp_path / "results.md").read_text()
    assert "failed cells: wine-vaem-default-s1" in capsys.readouterr().err
    assert run(tmp_path, *words) == 3  # and is not tried again


def test_renders_what_is_there(filled, tmp_path):
    output = tmp_path / "page.md"
    words = (f"--output={output}", "--render_only", "--config.tables=boston,wine")
    assert run(filled, *words) == 0
    assert "| boston | default |  | not run |" in output.read_text()
    assert output.with_suffix(".csv").exists()
    assert run(tmp_path / "empty", "--render_only") == 0  # nothing was run: says so


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("--config.tables=wein", "config variant 'wein,vaem'"),
        ("--config.models=vaen", "config variant 'wine,vaen'"),
        ("--config.presets=fair", "'fair' is unknown; expected default or paper"),
        ("--config.splits=5", "expected splits within the 4 folds"),
        ("--config.splits=0", "expected 1 or more"),
        ("--config.first_split=-1", "expected 0 or more"),
        ("--config.data_dir=absent", "is not in 'absent'"),
        ("--config.overrides=main_step=3", "did you mean main_steps"),
        ("--config.overrides=main_steps=many", "expected a value of type int"),
        ("--config.base=configs/absent.py", "there is no such file"),
        ("--config.table=wine", "did you mean tables"),
    ],
)
def test_refuses_before_anything_is_trained(tmp_path, capsys, word, match):
    assert run(tmp_path, word) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_refuses_the_config_of_another_program(tmp_path, capsys):
    words = ["tables", runs.CONFIG, f"--workdir={tmp_path}"]
    assert tables.main(words) == 2
    assert "give one of configs/tables_*.py" in capsys.readouterr().err


def test_refuses_words_that_name_no_model():
    with pytest.raises(Refused, match="expected one name of each kind"):
        cells.resolve(tables_uci.get_config("smoke"), "wine", "paper", "default")


def test_configs_are_complete():
    for module, variants in (
        (tables_uci, tables_uci.VARIANTS),
        (tables_mnist, ("", "short", "smoke")),
    ):
        for variant in variants:
            assert set(module.get_config(variant)) == tables.FIELDS
        with pytest.raises(ValueError, match="config variant 'huge'"):
            module.get_config("huge")


def test_wine_from_the_command_to_the_page(tmp_path):
    change = "model.layer_sizes=(1,)"  # has no figure of the posterior to compute
    words = ("--config.models=vae", "--config.splits=1", f"--config.overrides={change}")
    assert run(tmp_path, *words, variant=":smoke", base=()) == 0
    (cell,) = contents(tmp_path).values()
    assert {"nll_x", "accuracy"} <= set(cell["metrics"])
    assert "vi" in cell["phases"]
    page = (tmp_path / "results.md").read_text()
    assert f"| wine | default, smoke {change} | 1 |" in page
    assert "3.01 ± 0.61" in page
    assert loop.finished_result(next((tmp_path / "runs").iterdir()))["metrics"]["nll_x"]
