"""The command line: what it runs, and the one sentence for everything wrong with it."""

import json
import sys
from pathlib import Path

import pytest

from launch import train
from tests.launch import runs


def call(capsys, *arguments):
    code = train.main(["train", *arguments])
    return code, capsys.readouterr()


def test_trains_prints_scores_and_says_when_finished(tmp_path, capsys):
    command = (runs.CONFIG, f"--workdir={tmp_path}", "--config.main_steps=3")
    code, printed = call(capsys, *command)
    assert code == 0
    assert "mse" in printed.out
    assert "main: 3/3 steps (100%)" in printed.err
    assert json.loads((tmp_path / "config.json").read_text())["main_steps"] == 3
    code, again = call(capsys, *command)
    assert code == 0
    assert "this run is finished" in again.out
    assert again.out.endswith(printed.out.splitlines()[-1] + "\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.sede=3"], "--config.sede: there is no such field; did you mean seed?"),
        (["--config.kep=3"], "there is no such field; did you mean loop.keep?"),
        (["--config.loop.kep=3"], "did you mean loop.keep?"),
        (["--config.qqq=3"], "there is no such field; expected one of batch,"),
        (["--config.seed=abc"], "--config.seed=abc: expected a value of type int, such as 7"),
        (["--config.seed=1.5"], "expected a value of type int"),
        (["--config.loop=3"], "this is a group of fields; set one of --config.loop."),
        (["--config.seed"], "expected --config.seed=<value>"),
        (["--wokdir=x"], "Did you mean: workdir"),
        (["stray"], "'stray': expected options of the form --name=value only"),
        (["--config.dropout=2"], "config.dropout=2.0: expected a rate below 1"),
        (["--config.experiment=nowhere.toy"], "'nowhere.toy': there is no such module"),
        (["--config.experiment=tabluar"], "did you mean tabular?"),
        (["--config.experiment=json.decoder"], "json.decoder has no function make(config)"),
        (["--config.mesh.data=64"], "needs 64 devices"),
        (["--config.nan_step=0"], "phase 'warm', step 0: loss of replica 0 (seed 0) is nan"),
    ],
)
def test_wrong_request_is_one_sentence(tmp_path, capsys, arguments, sentence):
    code, printed = call(capsys, runs.CONFIG, f"--workdir={tmp_path}", *arguments)
    assert code == (3 if "nan" in sentence else 2)
    assert sentence in printed.err
    assert "Traceback" not in printed.err
    if code == 2:
        assert len(printed.err.splitlines()) == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([runs.CONFIG], "--workdir is missing"),
        (["--workdir=x"], "--config is missing"),
        (["--config=tests/launch/toy_confg.py", "--workdir=x"], "there is no such config file"),
        ([runs.CONFIG, "--workdir=/dev/null/x"], "--workdir=/dev/null/x: cannot be written"),
    ],
)
def test_incomplete_request_is_one_sentence(capsys, arguments, sentence):
    code, printed = call(capsys, *arguments)
    assert code == 2
    assert sentence in printed.err
    assert len(printed.err.splitlines()) == 1


def test_debug_shows_where_an_experiment_refuses(tmp_path, capsys):
    with pytest.raises(ValueError, match="expected a rate below 1"):
        call(capsys, runs.CONFIG, f"--workdir={tmp_path}", "--config.dropout=2", "--debug")


def test_sigterm_code(tmp_path, capsys, monkeypatch):
    runs.interrupt(monkeypatch, (1, 3))
    code, printed = call(capsys, runs.CONFIG, f"--workdir={tmp_path}")
    assert code == 143
    assert "stopped by a signal at phase 'main', step 3 of 7" in printed.err


def test_partition_is_printed_and_nothing_is_trained(tmp_path, capsys):
    workdir = tmp_path / "absent"
    code, printed = call(capsys, runs.CONFIG, f"--workdir={workdir}", "--partition")
    assert code == 0
    assert not workdir.exists()
    warm, main = printed.out.removeprefix("phase warm\n").split("phase main\n")
    assert warm.splitlines()[0] == "mesh: replica 1, data 1, model 1; 1 devices"
    assert warm.splitlines()[-1].split() == ["6", "leaves", "296", "296"]
    assert "opt_state/0/mu/first/kernel   1x8x4  float32    128  ('replica', None, 'model')" in main
    assert main.splitlines()[-1].split() == ["10", "leaves", "448", "448"]


def test_help_is_useful(capsys):
    code, printed = call(capsys, "--help")
    assert code == 0
    assert "python -m launch.train" in printed.out
    assert "--workdir: directory of the run" in printed.out
    assert "--partition: print the partition of the state" in printed.out
    _, printed = call(capsys, runs.CONFIG, "--help")
    assert "--config.loop.keep=2" in printed.out


def test_mistakes_are_found_before_jax_is_imported(tmp_path):
    code = (
        "import sys; from launch import train; "
        f"code = train.main(['train', {runs.CONFIG!r}, '--config.sede=3', '--workdir=x']); "
        "assert code == 2; assert 'jax' not in sys.modules"
    )
    process = runs.start(command=("-c", code))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert sys.argv  # the caller's own is left alone


def test_config_of_another_program_is_refused(tmp_path, capsys):
    config = Path(__file__).parents[2] / "configs" / "tune_wave.py"
    assert train.main(["train", f"--config={config}", f"--workdir={tmp_path}"]) == 2
    assert "has no field 'experiment'" in capsys.readouterr().err
