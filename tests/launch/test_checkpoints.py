"""Checkpoints: damaged ones are noticed and set aside, wrong shapes are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.checkpoints import Checkpoints
from launch.workdir import Refused

STATE = {"a": np.arange(6000, dtype=np.float32).reshape(2, 3000), "b": {"c": np.ones((2,), int)}}


def like(state=STATE):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), state)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints"
    with Checkpoints(path, keep=2) as checkpoints:
        for number in (1, 2, 5):
            state = jax.tree.map(lambda a, n=number: jnp.asarray(a * n), STATE)
            checkpoints.save(number, state, {"step": number})
    return path


def restore(path, state=STATE):
    with Checkpoints(path, keep=2) as checkpoints:
        return checkpoints.restore(lambda note: like(state))


def test_newest_is_restored_and_old_ones_go(saved):
    state, note = restore(saved)
    assert note["step"] == 5
    np.testing.assert_array_equal(state["a"], STATE["a"] * 5)
    assert sorted(p.name for p in saved.iterdir()) == ["2", "5"]


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_state_may_be_donated_while_it_is_saved(tmp_path):
    step = jax.jit(lambda a: a + 1, donate_argnums=0)
    value = jnp.zeros((1000, 1000))
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        for number in range(3):
            checkpoints.save(number, {"a": value}, {})
            value = step(value)
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        state, _ = checkpoints.restore(lambda note: like({"a": np.zeros((1000, 1000), np.float32)}))
    np.testing.assert_array_equal(state["a"], 2.0)


def flip(path):
    """Flips one bit in the largest file, where the arrays are."""
    file = max((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def truncate(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])


def remove_state(path):
    for file in (path / "state").rglob("*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, remove_state])
def test_damaged_checkpoint_is_set_aside(saved, damage):
    damage(saved / "5")
    with pytest.warns(RuntimeWarning, match=r"checkpoints/5 is damaged .* the one before it"):
        state, note = restore(saved)
    assert note["step"] == 2
    np.testing.assert_array_equal(state["a"], STATE["a"] * 2)
    assert (saved.parent / "checkpoints-damaged" / "5").is_dir()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_damaged_is_refused(saved):
    for number in ("2", "5"):
        flip(saved / number)
    with pytest.raises(Refused, match=r"none of the checkpoints \[5, 2\] can be read"):
        restore(saved)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({**STATE, "a": STATE["a"][:, :7]}, r"leaf a is float32\[2, 3000\] there, .*\[2, 7\]"),
        ({**STATE, "d": np.ones(2)}, r"leaf d is absent there"),
        ({"a": STATE["a"]}, r"leaf b/c is int.*has absent"),
    ],
)
def test_wrong_shape_names_the_leaf(saved, state, sentence):
    with pytest.raises(Refused, match=sentence):
        restore(saved, state)
