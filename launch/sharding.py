"""Where arrays live: one mesh with axes `replica`, `data`, `model`, from one device to many hosts.

State leaves are [R, ...] and sharded by replica, and by rules on their path along the model axis;
data leaves [R, ...] by replica; batches [R, steps, B, ...] by replica and along B. The program is
the same everywhere: `jax.jit` with these shardings.
"""

import math
import re

import chex
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from launch.workdir import Refused

AXES = ("replica", "data", "model")


def make_mesh(mesh_config, num_replicas: int) -> Mesh:
    """Builds the mesh that `config.mesh` describes.

    Args:
      mesh_config: has `replica`, `data`, `model`; replica -1 takes as many devices as divide the
        replicas among them.
      num_replicas: R.

    Returns:
      A mesh over the first replica * data * model devices, all axes `Auto`.
    """
    replica, data, model = (int(mesh_config[name]) for name in AXES)
    num_devices = jax.device_count()
    asked = f"config.mesh=(replica={replica}, data={data}, model={model})"
    if data < 1 or model < 1 or replica < -1 or replica == 0:
        raise Refused(f"{asked}: expected sizes of 1 or more, or -1 for replica")
    if replica == -1:
        limit = num_devices // (data * model)
        replica = max((n for n in range(1, limit + 1) if num_replicas % n == 0), default=1)
    if num_replicas % replica:
        raise Refused(f"{asked}: {num_replicas} replicas do not divide into {replica} equal groups")
    size = replica * data * model
    if size > num_devices:
        raise Refused(
            f"{asked}: needs {size} devices and {num_devices} can be used; lower mesh.replica, "
            f"mesh.data or mesh.model"
        )
    if jax.process_count() > 1 and size != num_devices:
        raise Refused(
            f"{asked}: uses {size} of {num_devices} devices, and several processes must use all; "
            f"raise mesh.data or the number of replicas, or start fewer processes"
        )
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((replica, data, model), AXES, types, devices=jax.devices()[:size])


def replica_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays [R, ...]."""
    return NamedSharding(mesh, PartitionSpec("replica"))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of stacked batches [R, steps, B, ...]."""
    return NamedSharding(mesh, PartitionSpec("replica", None, "data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, state: chex.ArrayTree, rules: tuple) -> chex.ArrayTree:
    """Returns the sharding of every leaf of a state.

    Args:
      mesh: from `make_mesh`.
      state: tree of arrays or of their shapes, leaves [R, ...].
      rules: ((regex, PartitionSpec without the replica axis), ...); the first whose regex is found
        in a leaf's path, such as `params/decoder/kernel`, holds. Optimiser moments have the path of
        their parameter inside theirs, so a rule covers them too; their scalars are left alone.

    Returns:
      Tree of shardings.
    """

    def leaf_sharding(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for regex, spec in rules if re.search(regex, name)), PartitionSpec())
        if len(spec) > leaf.ndim - 1:
            spec = PartitionSpec()
        for axis, names in enumerate(spec, start=1):
            names = names if isinstance(names, tuple) else (names,)
            parts = int(np.prod([mesh.shape[n] for n in names if n]))
            if leaf.shape[axis] % parts:
                raise Refused(
                    f"state leaf {name} of shape {leaf.shape[1:]}: axis {axis - 1} does not divide "
                    f"into the {parts} parts of its sharding rule {spec}; change the size or "
                    f"config.mesh"
                )
        return NamedSharding(mesh, PartitionSpec("replica", *spec))

    return jax.tree_util.tree_map_with_path(leaf_sharding, state)


def describe(mesh: Mesh, state: chex.ArrayTree) -> str:
    """Formats the layout of a state for people: a line a leaf, and totals.

    Args:
      mesh: from `make_mesh`.
      state: tree of arrays or of their shapes, with shardings.

    Returns:
      Path, shape, dtype, bytes, partition over the axes of the shape and bytes on one device.
    """
    rows = [("leaf", "shape", "dtype", "bytes", "PartitionSpec", "bytes a device")]
    total = share = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        width = leaf.dtype.itemsize
        whole = math.prod(leaf.shape) * width
        part = math.prod(leaf.sharding.shard_shape(leaf.shape)) * width
        total, share = total + whole, share + part
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = "x".join(map(str, leaf.shape))
        spec = str(tuple(leaf.sharding.spec))
        rows.append((name, shape, str(leaf.dtype), f"{whole:,}", spec, f"{part:,}"))
    rows.append((f"{len(rows) - 1} leaves", "", "", f"{total:,}", "", f"{share:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pads = "<<<><>"
    lines = [
        "  ".join(
            f"{cell:{pad}{width}}" for cell, pad, width in zip(row, pads, widths, strict=True)
        )
        for row in rows
    ]
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return "\n".join([f"mesh: {sizes}; {mesh.size} devices", *lines])


def put(tree: chex.ArrayTree, sharding: NamedSharding) -> chex.ArrayTree:
    """Moves host arrays, the same in every process, to the devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put_leaf(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put_leaf, tree)


def local_copy(tree: chex.ArrayTree, mesh: Mesh) -> chex.ArrayTree:
    """Returns arrays that this process can read whole: themselves where there is one process."""
    if jax.process_count() == 1:
        return tree
    gathered = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(np.asarray, gathered)


def start_processes(coordinator: str | None, num_processes: int | None, process_id: int | None):
    """Joins the processes of one run; without arguments, as the cluster's environment tells.

    Args:
      coordinator: host:port of process 0.
      num_processes: how many processes the run has.
      process_id: number of this one, from 0.
    """
    given = (coordinator, num_processes, process_id)
    if any(v is not None for v in given) and any(v is None for v in given):
        raise Refused(
            f"--coordinator={coordinator} --num_processes={num_processes} "
            f"--process_id={process_id}: expected all three or none"
        )
    jax.distributed.initialize(coordinator, num_processes, process_id)


def any_process(flag: bool) -> bool:
    """Tells whether `flag` is true in any process; all processes must call it together."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))
