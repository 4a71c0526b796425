"""The tuning program: what it leaves behind, and what it refuses."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from launch import tune_hmc

pytestmark = pytest.mark.slow  # whole programs

NAMES = ["wave", "dual_moon", "mixture"]


def run(directory, *words, name="wave", variant=":smoke"):
    config = f"--config=configs/tune_{name}.py{variant}"
    return tune_hmc.main(["tune_hmc", config, f"--workdir={directory}", *words])


def test_leaves_numbers_and_pictures(tmp_path, capsys):
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "ESS/gradient" in out
    assert "before" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0 <= result["after"]["acceptance"] <= 1
    assert result["versions"]["jax"]
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert arrays["objective"].shape == (4,)
        assert arrays["frame_path"].shape == (3, 10, 4, 2)
    for name in ("chains", "step_sizes", "curves"):
        picture = iio.imread(tmp_path / "figures" / f"{name}.png")
        assert picture.std() > 5
    frames = iio.imread(tmp_path / "figures" / "chains.gif")
    assert len(frames) == 3
    assert np.any(frames[0] != frames[-1])
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_complete(name):
    import importlib.util

    spec = importlib.util.spec_from_file_location("config", f"configs/tune_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    full, smoke = module.get_config(), module.get_config("smoke")
    assert set(full) == set(smoke)
    with pytest.raises(ValueError, match="expected nothing or smoke"):
        module.get_config("fast")


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("--config.target=banana", "config.target='banana': expected one of"),
        ("--config.frames=9", "at most config.steps=4"),
        ("--config.tuner.objective=elbo", "objective is 'elbo'"),
        ("--config.stepsize=1", "did you mean step_size"),
    ],
)
def test_refuses(tmp_path, capsys, word, match):
    assert run(tmp_path, word) == 2
    assert match in capsys.readouterr().err
