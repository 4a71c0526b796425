"""Marks, best cells, counts, gaps and the page, on cells that were made up."""

import csv
import io

import numpy as np
import pytest

from launch import results, results_page
from launch.data import published


def cell(table, model, split, metrics, *, preset="default", changes="", digest="a", **more):
    return {
        "status": "finished",
        "table": table,
        "model": model,
        "preset": preset,
        "changes": changes,
        "digest": f"{digest}-{table}-{model}-{preset}",
        "split": split,
        "metrics": metrics,
        "run": {
            "name": f"{table}-{model}-{preset}-{changes}-{digest}-{split}",
            "replicas": 1,
            "wall_seconds": 100.0,
            "seconds": {"vi": {"compile": 1.0, "train": 90.0, "evaluate": 5.0}},
        },
        "written": f"2026-01-01T00:00:0{split}+00:00",
        "config": {"seed": 0, "model": {"name": model}, "train": {"hmc_steps": len(model)}},
        "device": {"kind": "cpu"},
        "commit": "0123456789",
    } | more


def wine(model, x, y, **options):
    """Cells of wine, a split for each of the given scores."""
    return [
        cell("wine", model, i, {"paper_nll_x": a, "paper_nll_y": b}, **options)
        for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]


def arrange(*cells):
    return results.arrange(results.group(cells))


@pytest.mark.parametrize(
    ("values", "metric", "theirs", "expected"),
    [
        ([1.0, 1.0], "paper_nll_x", (2.0, 0.1), "better"),
        ([3.0, 3.0], "paper_nll_x", (2.0, 0.1), "worse"),
        ([3.0, 3.0], "accuracy", (2.0, 0.1), "better"),
        ([2.06, 2.06], "paper_nll_x", (2.0, 0.1), "equal"),  # 2 * 0.1 / sqrt(10) = 0.063
        ([2.07, 2.07], "paper_nll_x", (2.0, 0.1), "worse"),
        ([2.0, 2.8], "paper_nll_x", (2.0, 0.1), "equal"),  # sample variance 0.32, by two: 0.16
        ([2.2], "paper_nll_x", (2.0, 0.1), "equal"),  # one split: 2 * 0.1 * sqrt(1.1) = 0.21
        ([2.22], "paper_nll_x", (2.0, 0.1), "worse"),
        ([np.nan, 1.0], "paper_nll_x", (2.0, 0.1), "worse"),
    ],
)
def test_mark(values, metric, theirs, expected):
    assert results.mark(np.array(values), metric, theirs) == expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("nll_x", "low"), ("accuracy", "high"), ("coverage90_x", "middle"), ("rmse", "low")],
)
def test_best_knows_the_direction(metric, expected):
    means = {"low": 0.2, "middle": 0.85, "high": 0.99, "none": np.nan}
    assert results.best(means, metric) == expected
    assert results.best({"low": 0.2, "none": np.nan}, metric) is None


def test_settings_are_not_averaged_and_the_newest_are_shown():
    old = wine("VAEM", [9.0, 9.0], [9.0, 9.0], digest="old", written="2025-01-01")
    rows, superseded = arrange(*old, *wine("VAEM", [1.0, 2.0], [0.0, 0.0]))
    (row,) = rows.values()
    assert row["VAEM"].mean("paper_nll_x") == 1.5
    assert [group.mean("paper_nll_x") for group in superseded] == [9.0]
    assert "## Older settings" in results_page.page(rows, superseded)


def test_counts():
    others = [c for m in published.MODELS[:4] for c in wine(m, [3.0], [0.3])]
    rows, _ = arrange(*others, *wine("HH-VAEM", [1.8], [0.4]))
    assert results.below_published(rows, "HH-VAEM") == {"wine": False}  # the target's is above
    assert results.is_best(rows, "HH-VAEM", "paper_nll_x") == {"wine": True}
    assert results.is_best(rows, "HH-VAEM", "paper_nll_y") == {"wine": False}
    assert results.is_best(rows, "HH-VAEM", "nll_x") == {}  # not measured
    rows, _ = arrange(*others[1:], *wine("HH-VAEM", [1.8], [0.1]))
    assert results.below_published(rows, "HH-VAEM") == {"wine": True}
    assert results.is_best(rows, "HH-VAEM", "paper_nll_x") == {}  # only four were run


def test_row_without_changes_stands_for_its_table():
    rows, _ = arrange(
        *wine("HH-VAEM", [1.0], [0.1], changes="train.vi_steps=1", digest="b"),
        *wine("HH-VAEM", [2.0], [0.1]),
    )
    assert results.row_of(rows, "wine", "default")["HH-VAEM"].mean("paper_nll_x") == 2.0
    assert results.row_of(rows, "wine", "paper") == {}


def test_models_are_compared_on_the_splits_that_they_share():
    hard_first = wine("VAEM", [9.0, 2.0], [0.3, 0.3])
    rows, _ = arrange(*hard_first, *wine("HH-VAEM", [1.0, 3.0], [0.1, 0.1])[1:])
    (row,) = rows.values()
    assert results.common_means(row, "paper_nll_x") == {"VAEM": 2.0, "HH-VAEM": 3.0}
    (gap,) = results.gaps(rows, "HH-VAEM", "paper_nll_x")
    assert gap.default == -1.0
    assert "| **5.50 ± 3.50** ≈ |" in results_page.page(rows)
    rows, _ = arrange(hard_first[0], *wine("HH-VAEM", [1.0, 3.0], [0.1, 0.1])[1:])
    assert np.isnan(list(results.common_means(*rows.values(), "paper_nll_x").values())).all()


def test_gap_and_what_remains_of_it():
    rows, _ = arrange(
        *wine("VAEM", [2.5], [0.3]),
        *wine("HH-VAEM", [2.4], [0.1]),
        *wine("VAEM", [3.0], [0.3], preset="paper"),
        *wine("HH-VAEM", [2.0], [0.1], preset="paper"),
    )
    (gap,) = results.gaps(rows, "HH-VAEM", "paper_nll_x")
    np.testing.assert_allclose(gap[1:], [3.01 - 1.90, 1.0, 0.1])
    share = results.share_of_published([gap], "default")
    np.testing.assert_allclose(share, 0.1 / 1.11)
    assert np.isnan(results.share_of_published([], "default"))


def test_page_shows_means_marks_best_and_what_was_not_run():
    cells = [*wine("VAEM", [2.0, 2.2], [0.1, 0.3]), *wine("HH-VAEM", [2.4], [0.1])]
    rows, _ = arrange(*cells)
    page = results_page.page(rows, asked=[("boston", "HH-VAEM", "default", "")])
    lines = page.splitlines()
    features = lines[lines.index(f"## {results_page.TITLES['paper_nll_x']}") :]
    assert (
        "| wine | *published* | 10 | 3.01 ± 0.61 | 2.76 ± 0.48 | 2.85 ± 0.56 | 2.83 ± 0.46 "
        "| **1.90 ± 0.17** |"
    ) in features
    (ours,) = [line for line in features[:12] if line.startswith("| wine | default |")]
    assert "| **2.10 ± 0.10** ▲ |" in ours
    assert "| 2.40 ▼ (1) |" in ours
    assert ours.count("not run") == 3
    (boston,) = [line for line in features[:12] if line.startswith("| boston | default |")]
    assert boston.count("not run") == 5
    assert "Default HH-VAEM has a mean below the published HH-VAEM in both scores on 0 of 1" in page
    assert "| train.hmc_steps | 4 | 7 |" in page  # what is unequal between models is said
    assert "| wine | default | HH-VAEM | 1 | 100 | 100 | 1 | 90 | 5 | 4.0% | cpu |" in page


def test_page_of_nothing_says_so():
    page = results_page.page({}, asked=[("mnist", "HH-VAE", "default", "")])
    assert "| mnist | default |  | not run |" in page
    assert "## Time" not in page


def test_csv_holds_every_metric_of_every_setting():
    old = wine("VAEM", [9.0], [9.0], digest="old", written="2025-01-01")
    cells = [*old, *wine("VAEM", [2.0, 2.2], [0.1, 0.3])]
    for c in cells:
        c["metrics"] |= {"acceptance": None}
    lines = list(csv.DictReader(io.StringIO(results_page.table_csv(results.group(cells)))))
    assert len(lines) == 6
    (ours,) = [r for r in lines if r["metric"] == "paper_nll_x" and r["splits"] == "2"]
    assert float(ours["mean"]) == pytest.approx(2.1)
    assert float(ours["std"]) == pytest.approx(0.1)
    assert ours["mark"] == "better"
    assert {r["mean"] for r in lines if r["metric"] == "acceptance"} == {"nan"}
