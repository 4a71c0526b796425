"""The mesh: sharded training equals unsharded training, on several devices and processes."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from launch import loop, sharding
from launch.workdir import Refused
from tests.launch import runs, sharded

pytestmark = pytest.mark.slow  # whole programs

MESH = AbstractMesh((1, 2, 2), sharding.AXES)
STATE = {
    "params": {"decoder": {"kernel": np.zeros((1, 6, 4)), "bias": np.zeros((1, 4))}},
    "mu": {"decoder": {"kernel": np.zeros((1, 6, 4))}},
    "count": np.zeros((1,)),
}


def test_sharded_equals_whole(tmp_path):
    process = runs.start(str(tmp_path), command=("-m", "tests.launch.sharded"), num_devices=8)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    for name in sharded.MESHES:
        runs.assert_close(tmp_path / f"{name}-whole", tmp_path / f"{name}-sharded")


def test_two_processes_go_on_where_one_was_stopped(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    runs.train(one)
    with monkeypatch.context() as patch:
        runs.interrupt(patch, (0, 3))
        with pytest.raises(loop.Stopped):
            runs.train(two)
    coordinator = f"--coordinator=127.0.0.1:{runs.free_port()}"
    command = (runs.CONFIG, f"--workdir={two}", "--config.mesh.data=2", coordinator)
    processes = [runs.start(*command, "--num_processes=2", f"--process_id={i}") for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    runs.assert_close(one, two)
    assert len(runs.rows(one)) == len(runs.rows(two))


def test_rules_cover_parameters_and_their_moments():
    out = sharding.state_sharding(MESH, STATE, ((r"decoder/kernel$", P(None, "model")),))
    assert out["params"]["decoder"]["kernel"].spec == P("replica", None, "model")
    assert out["mu"]["decoder"]["kernel"].spec == P("replica", None, "model")
    assert out["params"]["decoder"]["bias"].spec == P("replica")
    assert out["count"].spec == P("replica")


def test_description_adds_up_bytes_whole_and_on_one_device():
    shardings = sharding.state_sharding(MESH, STATE, ((r"decoder/kernel$", P(None, "model")),))
    shapes = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, np.float32, sharding=s), STATE, shardings
    )
    mesh, head, *rows, total = sharding.describe(MESH, shapes).splitlines()
    assert mesh == "mesh: replica 1, data 2, model 2; 4 devices"
    assert head.split()[:5] == ["leaf", "shape", "dtype", "bytes", "PartitionSpec"]
    moment = next(row for row in rows if row.startswith("mu/decoder/kernel "))
    assert moment.split() == [
        "mu/decoder/kernel", "1x6x4", "float32", "96", "('replica',", "None,", "'model')", "48"
    ]  # fmt: skip
    assert total.split() == ["4", "leaves", "212", "116"]


def test_rule_that_does_not_divide_names_the_leaf():
    state = {"kernel": np.zeros((1, 3))}
    with pytest.raises(Refused, match=r"state leaf kernel of shape \(3,\): axis 0 .* 4 parts"):
        sharding.state_sharding(MESH, state, (("kernel", P(("data", "model"))),))


def test_batch_that_does_not_divide_is_refused(monkeypatch, tmp_path):
    from launch import steps

    experiment = runs.toy.make(runs.config(batch=6))
    mesh = AbstractMesh((1, 4, 1), sharding.AXES)
    with pytest.raises(Refused, match=r"\[1 replicas, 2 steps.* config.mesh.data=4 parts"):
        steps.next_batch(experiment, mesh, 0, 0, 2)


def test_process_flags_come_together():
    with pytest.raises(Refused, match="expected all three or none"):
        sharding.start_processes("localhost:1", None, 0)


def test_one_device_mesh_takes_any_number_of_replicas():
    mesh = sharding.make_mesh({"replica": -1, "data": 1, "model": 1}, 7)
    assert dict(mesh.shape) == {"replica": 1, "data": 1, "model": 1}
    assert sharding.local_copy(STATE, mesh) is STATE
    assert jax.process_count() == 1
