"""Program: trains the toy experiment on several meshes of emulated devices, below a directory."""

import sys
from pathlib import Path

import jax

from tests.launch import runs

MESHES = {  # name -> (replicas, mesh that shards it)
    "data": (1, dict(mesh__data=8)),
    "all": (2, dict(mesh__replica=-1, mesh__data=2, mesh__model=2)),
}

if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    base = Path(sys.argv[1])
    for name, (splits, mesh) in MESHES.items():
        common = dict(splits=splits, batch=8, warm_steps=1, main_steps=4)
        runs.train(base / f"{name}-whole", mesh__replica=1, **common)
        runs.train(base / f"{name}-sharded", **common, **mesh)
    state, _ = runs.restored(
        base / "all-sharded", splits=2, batch=8, warm_steps=1, main_steps=4, **mesh
    )
    kernel, moment = state.params["first"]["kernel"], state.opt_state[0].mu["first"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 8, 2), kernel.sharding
    assert moment.sharding == kernel.sharding
