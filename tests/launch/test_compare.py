"""The page that compares runs: what it says of runs with known scores, and what it refuses."""

import json

import numpy as np
import pytest

from configs import gasp_digits, vamoh_digits
from functions import domains
from functions.domains import Domain
from launch import compare

DOMAIN = Domain("image", (5, 7))
N = 35
META = {
    "data": "made",
    "fingerprint": "0123456789abcdef",
    "domain": DOMAIN._asdict(),
    "items": {"train": 20, "valid": 4, "test": 6},
}
TASKS = ("inpaint", "drop50")


def score(*replicas):
    values = [float(value) for value in replicas]
    return {"mean": np.mean(values), "std": np.std(values), "replicas": values}


def leave(path, model, metrics, *, meta=META, config=None, finds=True, seed=0):
    """Writes what a finished run leaves: config.json, result.json and arrays."""
    rng = np.random.default_rng(seed)
    drawn = lambda *shape: rng.random((*shape, 1)).astype(np.float32)
    config = (config or {"VAMoH": vamoh_digits, "GASP": gasp_digits}[model]).get_config("smoke")
    arrays = {"generated": drawn(9, N), "steps": drawn(1, 3, N), "num_components": np.array(1)}
    arrays |= {name: np.array(value) for name, value in DOMAIN._asdict().items()}
    if finds:
        truth = np.random.default_rng(9).random((4, N, 1))
        finer = domains.resized(DOMAIN, (10, 14))
        arrays |= {"truth": truth, "reconstruction": drawn(4, N), "tasks": np.array(TASKS)}
        arrays |= {f"completion_{name}": drawn(2, 4, N) for name in ("mean", "std")}
        arrays["completion_mask"] = np.stack([np.arange(N) < 20, rng.random(N) < 0.5])[:, None]
        arrays["completion_mask"] = np.broadcast_to(arrays["completion_mask"], (2, 4, N))
        arrays |= {"render_10": drawn(3, 140), "shape_10": np.array(finer.shape)}
    (path / "arrays").mkdir(parents=True)
    np.savez(path / "arrays" / "train.npz", **arrays)
    seconds = {"compile": 1.0, "train": 61.6, "evaluate": 2.0}
    result = {
        "metrics": metrics,
        "phases": {"train": {"metrics": metrics, "seconds": seconds}},
        "replica_seeds": [0, 1],
        "device": {"kind": "cpu", "count": 1},
        "commit": "abcdef0123",
        "meta": meta | {"model": model},
    }
    (path / "config.json").write_text(json.dumps(config.to_dict()))
    (path / "result.json").write_text(json.dumps(result))
    return str(path)


@pytest.fixture
def runs(tmp_path):
    vamoh = {"psnr": score(20, 22), "psnr_inpaint": score(14, 14), "fd_mean": score(3, 3)}
    vamoh |= {"psnr_drop50": score(15, 16), "psnr_drop90": score(11, 12)}
    vamoh |= {"bits_per_dimension": score(1.5, 1.5), "nll_inpaint": score(2, 2)}
    gasp = {"psnr": score(18, 18), "psnr_inpaint": score(15, 15), "fd_mean": score(1, 2)}
    return [
        leave(tmp_path / "first", "VAMoH", vamoh),
        leave(tmp_path / "second", "GASP", gasp, seed=1),
    ]


def call(runs, output):
    return compare.main(["compare", f"--workdirs={','.join(runs)}", f"--output={output}"])


def test_page_has_capabilities_scores_times_and_pictures(runs, tmp_path, capsys):
    assert call(runs, tmp_path / "page") == 0
    assert "2 runs on made" in capsys.readouterr().out
    text = (tmp_path / "page" / "compare.md").read_text()
    assert text.startswith("# VAMoH, GASP on made\n")
    assert "20 train, 4 valid, 6 test items, 6 of test scored" in text
    for row in (
        "| likelihood | yes | no |",
        "| reconstruction | forward pass | descent, 3 steps from 3 of the prior |",
        "| PSNR, dB | **21 ± 1** | 18 ± 0 |",
        "| bits a dimension | 1.5 ± 0 | - |",
        "| PSNR, dB | VAMoH | GASP |\n| --- | --- | --- |\n| inpaint | 14 ± 0 | **15 ± 0** |",
        "| NLL, nats a value | VAMoH | GASP |\n| --- | --- | --- |\n| inpaint | 2 ± 0 | - |",
        "| Fréchet distance | 3 ± 0 | **1.5 ± 0.5** |",  # less is better
        "| training, s | 62 | 62 |",
    ):
        assert row in text
    for name in ("samples", "reconstructions", "completions_drop50", "super_resolution", "dropped"):
        assert f"({name}.png)" in text
        assert (tmp_path / "page" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_inference_has_its_samples_only(runs, tmp_path):
    other = leave(tmp_path / "third", "GASP", {"fd_mean": score(1)}, finds=False)
    assert call([runs[0], other], tmp_path / "page") == 0
    text = (tmp_path / "page" / "compare.md").read_text()
    assert "| reconstruction | forward pass | no |" in text
    assert "samples.png" in text


def test_runs_of_one_model_are_told_apart_by_their_directories(runs, tmp_path):
    twin = leave(tmp_path / "twin", "VAMoH", {"psnr": score(1)}, seed=2)
    assert call([*runs, twin], tmp_path / "page") == 0
    text = (tmp_path / "page" / "compare.md").read_text()
    assert "|  | VAMoH, first | GASP | VAMoH, twin |" in text


def test_what_does_not_compare_is_refused_in_one_sentence(runs, tmp_path, capsys):
    def refused(*paths):
        assert call(paths, tmp_path / "page") == 2
        said = capsys.readouterr().err
        assert said.startswith("launch.compare: ")
        assert said.count("\n") == 1
        assert not (tmp_path / "page").exists()
        return said

    others = {
        "data": META | {"data": "other"},
        "items": META | {"items": META["items"] | {"train": 19}},
        "fingerprint": META | {"fingerprint": "f" * 16},
    }
    paths = {name: leave(tmp_path / name, "VAMoH", {}, meta=meta) for name, meta in others.items()}
    assert "the data is other of the one and made of the other" in refused(runs[0], paths["data"])
    assert "the number of items is" in refused(runs[0], paths["items"])
    assert "fingerprint of data and splits is ffffffffffff" in refused(
        runs[0], paths["fingerprint"]
    )
    assert "expected two runs or more" in refused(runs[0])
    (tmp_path / "second" / "result.json").unlink()
    assert "is not finished; train it to its end first" in refused(*runs)
    file = tmp_path / "first" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"experiment": "tabular"}))
    assert "a run of experiment 'tabular'; expected one of vamoh" in refused(*runs)
    assert "holds no config.json" in refused(str(tmp_path / "nowhere"), runs[1])


def test_another_number_of_test_items_is_refused(runs, tmp_path, capsys):
    file = tmp_path / "second" / "config.json"
    config = json.loads(file.read_text())
    config["evaluate"]["num_items"] = 5
    file.write_text(json.dumps(config))
    assert call(runs, tmp_path / "page") == 2
    assert "the number of test items scored is 5 of the one and 6" in capsys.readouterr().err
