"""Figures: every one is drawn from synthetic arrays, is small, and is written whole."""

import numpy as np
import pytest
from matplotlib.image import imread

from launch import figures

KINDS = np.array(["gaussian", "loggaussian", "bernoulli", "categorical", "loggaussian"])
NAMES = np.array(["height", "price of the house next door", "has garden", "colour", "traffic"])


def imputation(num_rows=60, repeats=1, with_probs=True):
    rng = np.random.default_rng(0)
    true = np.stack(
        [
            rng.normal(5.0, 2.0, num_rows),
            rng.gamma(2.0, 30.0, num_rows),
            rng.integers(0, 2, num_rows),
            rng.integers(0, 6, num_rows),
            np.exp(rng.normal(3.0, 2.5, num_rows)),
        ],
        axis=-1,
    )
    std = np.array([0.8, 12.0, 0.3, 0.5, 5.0]) * np.ones_like(true)
    mean = np.maximum(true + std * rng.normal(size=true.shape), 0.0)
    probs = rng.dirichlet(np.ones(6), true.shape)
    hit = rng.random(num_rows) < 0.7
    probs[np.flatnonzero(hit), 3, true[hit, 3].astype(int)] += 1
    probs[:, 2, 0] = np.clip(0.5 + 0.4 * (true[:, 2] - 0.5) + 0.2 * rng.normal(size=num_rows), 0, 1)
    mean[:, 2:4] = np.clip(mean[:, 2:4], 0, [1, 5])
    arrays = {
        "x_true": np.tile(true, repeats),
        "x_mean": np.tile(mean, repeats),
        "x_std": np.tile(std, repeats),
        "mask": rng.random((num_rows, 5 * repeats)) < 0.5,
        "names": np.tile(NAMES, repeats),
        "kinds": np.tile(KINDS, repeats),
    }
    if with_probs:
        arrays |= {
            "x_probs": np.tile(probs, (1, repeats, 1)),
            "num_classes": np.tile([1, 1, 1, 6, 1], repeats),
            "known": rng.random((num_rows, 5 * repeats)) < 0.9,
        }
    return arrays


def errors(num_columns=13):
    rng = np.random.default_rng(1)
    return {
        "error_model": rng.uniform(0.2, 0.9, num_columns),
        "error_baseline": rng.uniform(0.7, 1.1, num_columns),
        "names": np.array([f"column {i}" for i in range(num_columns)]),
        "kinds": np.array([KINDS[i % 5] for i in range(num_columns)]),
    }


def steps(with_before=True):
    rng = np.random.default_rng(2)
    before = np.log(rng.uniform(0.02, 0.05, (10, 15)))
    arrays = {
        "log_step_size": before + 0.05 * np.arange(15) + rng.normal(0, 0.1, (10, 15)),
        "layer_sizes": np.array([10, 5]),
    }
    return arrays | ({"log_step_size_before": before} if with_before else {})


def curves(num_replicas=3):
    rng = np.random.default_rng(3)
    rows = []
    for phase, names in (("marginal", ["loss"]), ("vi", ["loss", "kl"]), ("hmc", ["loss", "rate"])):
        for step in range(100, 3001, 100):
            row = {"phase": phase, "step": step, "seconds": 0.1 * step, "replicas": {}}
            for name in names:
                values = 5 * np.exp(-step / 800) + rng.normal(0, 0.2, num_replicas)
                row[name] = values.mean()
                row["replicas"][name] = values.tolist()
            rows.append(row)
    rows[0]["loss"] = np.nan
    rows[1]["loss"] = 1e6
    return rows


def posterior():
    grid = np.linspace(-3, 3, 60)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    log_density = np.logaddexp(
        -3 * ((x - 1) ** 2 + (y - 0.5) ** 2), -3 * ((x + 0.5) ** 2 + (y + 1) ** 2) + 0.5
    )
    rng = np.random.default_rng(4)
    centres = np.array([[1.0, 0.5], [-0.5, -1.0]])[rng.integers(0, 2, 300)]
    return {
        "grid_x": grid,
        "grid_y": grid,
        "log_density": log_density,
        "encoder_mean": np.array([0.3, 0.0]),
        "encoder_std": np.array([0.7, 0.5]),
        "samples": centres + 0.4 * rng.normal(size=(300, 2)),
    }


CURVE = {"step": np.arange(20) * 100, "acceptance": 0.95 - 0.01 * np.arange(20)}
REPLICAS = {"step": np.arange(4), "acceptance": np.random.default_rng(5).uniform(0.6, 1, (4, 3))}
ONE_PHASE = [{"phase": "all", "step": 5, "seconds": 1.0, "loss": 2.0}]
CASES = {
    "imputation": (figures.imputation_scatter, imputation()),
    "imputation_without_probs": (figures.imputation_scatter, imputation(with_probs=False)),
    "imputation_of_many_columns": (figures.imputation_scatter, imputation(2000, repeats=9)),
    "error": (figures.error_by_column, errors()),
    "error_of_many_columns": (figures.error_by_column, errors(85)),
    "acceptance": (figures.acceptance, CURVE),
    "acceptance_of_replicas": (figures.acceptance, REPLICAS),
    "steps": (figures.step_sizes, steps()),
    "steps_after_only": (figures.step_sizes, steps(with_before=False)),
    "curves": (figures.training_curves, curves()),
    "curves_of_one_row": (figures.training_curves, ONE_PHASE),
    "curves_of_no_row": (figures.training_curves, []),
    "acceptance_of_no_row": (figures.acceptance, {"step": np.zeros(0), "acceptance": np.zeros(0)}),
    "posterior": (figures.posterior_contours, posterior()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_drawn_small_and_whole(name, tmp_path):
    draw, arrays = CASES[name]
    path = tmp_path / f"{name}.png"
    draw(arrays, path)
    image = imread(path)
    assert image.shape[0] > 150
    assert image.shape[1] > 250
    assert image[..., :3].std() > 0.01 or "no_row" in name  # not blank
    assert path.stat().st_size < 150_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_figures_read_arrays_as_they_come_from_a_file(tmp_path):
    arrays = imputation()
    np.savez(tmp_path / "arrays.npz", **arrays)
    with np.load(tmp_path / "arrays.npz") as archive:
        figures.imputation_scatter(dict(archive), tmp_path / "a.png")
    figures.imputation_scatter(arrays, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_failing_figure_leaves_the_old_file(tmp_path):
    path = tmp_path / "acceptance.png"
    figures.acceptance(CURVE, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="could not convert string"):
        figures.acceptance(CURVE | {"acceptance": np.array(["text"] * 20)}, path)
    assert path.read_bytes() == before


def test_what_is_hidden_but_unknown_is_not_drawn(tmp_path):
    arrays = imputation()
    figures.imputation_scatter(arrays, tmp_path / "a.png")
    x_true = np.where(arrays["known"], arrays["x_true"], 1e9)
    figures.imputation_scatter(arrays | {"x_true": x_true}, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_column_with_nothing_hidden_says_so(tmp_path):
    arrays = imputation()
    arrays["mask"][:, 1] = True
    figures.imputation_scatter(arrays, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
