"""VAMoH on meshes and processes: the numbers are those of one device.

Sharded sums are taken in another order, so losses agree to float32 rounding (rtol 1e-5). Adam
divides by the root of the second moment, which makes of a rounding error in a gradient near zero a
fraction of a step, not of the gradient: parameters agree to a hundredth of one step, 3e-5.
"""

import numpy as np
import pytest

from launch import evaluate, workdir
from launch.metrics import read_rows
from tests.launch import runs, small_vamoh

pytestmark = pytest.mark.slow  # whole programs

STEP = 3e-3  # the learning rate: what Adam moves a parameter by in one of the first steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs <K>/whole on one device and <K>/sharded on eight, for K = 2 and 3 components."""
    path = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        process = runs.start(str(path), command=("-m", "tests.launch.small_vamoh"), num_devices=8)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return path


def assert_same_training(path, other):
    left, right = runs.arrays(path, "train"), runs.arrays(other, "train")
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=0, atol=STEP / 100, err_msg=name)
    losses = [[row["loss"] for row in read_rows(run)] for run in (path, other)]
    assert len(losses[0]) == small_vamoh.FIELDS["train.steps"]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("num_components", [2, 3])
def test_eight_devices_equal_one(trained, num_components):
    path = trained / str(num_components)
    assert_same_training(path / "whole", path / "sharded")


def test_run_of_a_mesh_is_opened_on_one_device(trained):
    """Checksums make sure that what is read is what eight devices have written."""
    path = trained / "2" / "sharded"
    assert workdir.read_json(path / "config.json")["mesh"]["model"] == 2
    assert evaluate.main(["evaluate", f"--workdir={path}"]) == 0
    assert workdir.read_json(path / "evaluate.json")["step"] == small_vamoh.FIELDS["train.steps"]


def train_in_two(path, num_components, monkeypatch, *, num_devices, stop=None):
    """Trains in two processes over which the emission is sharded; returns exit codes, output."""
    command = (
        *small_vamoh.CONFIG, f"--workdir={path}", f"--config.model.num_components={num_components}",
        f"--config.mesh.data={num_devices}", "--config.mesh.model=2",
        f"--coordinator=127.0.0.1:{runs.free_port()}", "--num_processes=2",
    )  # fmt: skip
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    processes = [runs.start(*command, "--process_id=0", num_devices=num_devices)]
    if stop is not None:  # in one of them only
        monkeypatch.setenv("STOP_AT", str(stop))
    processes.append(runs.start(*command, "--process_id=1", num_devices=num_devices))
    monkeypatch.delenv("STOP_AT", raising=False)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], "\n".join(outputs)


def test_two_processes_equal_one(trained, tmp_path, monkeypatch):
    codes, output = train_in_two(tmp_path, 3, monkeypatch, num_devices=2)
    assert codes == [0, 0], output
    assert_same_training(trained / "3" / "whole", tmp_path)


def test_two_processes_stop_together_and_go_on(trained, tmp_path, monkeypatch):
    codes, output = train_in_two(tmp_path, 2, monkeypatch, num_devices=1, stop=4)
    assert codes == [143, 143], output
    assert "at phase 'train', step 4 of 6" in output
    codes, output = train_in_two(tmp_path, 2, monkeypatch, num_devices=1)
    assert codes == [0, 0], output
    assert_same_training(trained / "2" / "whole", tmp_path)
