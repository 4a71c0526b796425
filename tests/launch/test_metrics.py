"""Metrics: windows do not depend on dispatches or interruptions; damaged tails are dropped."""

import json

import numpy as np
import pytest

from launch import metrics, report


def record(path, dispatches, *, log_every=4, window=None, step=0, total=10):
    values = np.arange(2.0 * total).reshape(total, 2)
    with metrics.Recorder(path, log_every=log_every, window=window, offset=step) as recorder:
        for num in dispatches:
            part = {"loss": values[step : step + num]}
            recorder.add("fit", step, part, seconds=1.0, offset=0, is_last=step + num == total)
            step += num
        return recorder.pending


def test_rows_hold_window_means(tmp_path):
    record(tmp_path, [10])
    rows = metrics.read_rows(tmp_path)
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert rows[0]["replicas"]["loss"] == [3.0, 4.0]
    assert rows[0]["loss"] == 3.5
    assert rows[-1]["replicas"]["loss"] == [17.0, 18.0]


def test_rows_do_not_depend_on_dispatches_or_interruptions(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    record(tmp_path / "a", [10])
    record(tmp_path / "b", [3, 3, 4])
    pending = json.loads(json.dumps(record(tmp_path / "c", [3, 3])))
    record(tmp_path / "c", [4], window=pending, step=6)
    rows = metrics.read_rows(tmp_path / "a")
    assert rows == metrics.read_rows(tmp_path / "b")
    assert rows == metrics.read_rows(tmp_path / "c")


def test_truncation_drops_later_rows_and_a_torn_line(tmp_path):
    record(tmp_path, [10])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "fit", "st')
    metrics.truncate_rows(tmp_path, ["fit"], 0, 8)
    assert [row["step"] for row in metrics.read_rows(tmp_path)] == [4, 8]
    metrics.truncate_rows(tmp_path, ["fit"], 0, -1)
    assert metrics.read_rows(tmp_path) == []


def test_nan_is_null_in_the_file_and_nan_when_read(tmp_path):
    with metrics.Recorder(tmp_path, log_every=1) as recorder:
        recorder.add("fit", 0, {"auroc": np.array([[np.nan]])}, seconds=0, offset=0, is_last=True)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert np.isnan(metrics.read_rows(tmp_path)[0]["auroc"])


def test_progress_prints_lines_without_a_terminal(capsys):
    progress = metrics.Progress("fit", 5, 10)
    progress.update(2, 1.0)
    progress.update(3, 0.5)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fit: 10/10 steps (100%), ")
    assert lines[0].endswith("loss 0.5")


def test_summary_and_table():
    summary = report.summarise({"rmse": np.array([1.0, 3.0]), "auroc": np.array([np.nan, 1.0])})
    assert summary["rmse"] == {"mean": 2.0, "std": 1.0, "replicas": [1.0, 3.0]}
    table = report.format_table(summary)
    assert "2 replicas" in table
    assert "nan" in table
    assert report.format_table({}) == "no metrics"
    one = report.format_table(report.summarise({"rmse": [2.0]}), {"rmse": (1.5, 0.25)})
    assert one.split() == ["mean", "published", "rmse", "2", "1.50", "+-", "0.25"]
    fine = report.format_table(report.summarise({"nll": [0.2]}), {"nll": (0.094, 0.003)})
    assert "0.094 +- 0.003" in fine


def test_environment_names_versions():
    facts = report.environment()
    assert facts["versions"]["jax"]
    assert facts["device"]["count"] >= 1


@pytest.mark.parametrize("name", metrics.RESERVED)
def test_reserved_names_are_those_of_a_row(tmp_path, name):
    record(tmp_path, [10])
    assert name in metrics.read_rows(tmp_path)[0]
