"""Many steps of all replicas as one program on the mesh: states, batches, the compiled dispatch."""

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae.compiling import RUN_ONCE
from launch import sharding
from launch.experiment import Phase, stream
from launch.workdir import Refused


def dispatch_size(num_steps: int, limit: int) -> int:
    """Splits a phase into equal dispatches of at most `limit` steps; the last may be shorter."""
    count = -(-num_steps // limit)
    return -(-num_steps // count)


def next_batch(experiment, mesh, index, start, size):
    """Puts the batches of one dispatch on the devices; a short one is padded by its last batch."""
    num = min(size, experiment.phases[index].num_steps - start)
    batch = experiment.batches(index, start, num)
    num_replicas, parts = len(experiment.replica_seeds), mesh.shape["data"]
    for leaf in jax.tree.leaves(batch):
        if leaf.ndim < 3 or leaf.shape[:2] != (num_replicas, num) or leaf.shape[2] % parts:
            raise Refused(
                f"batches of shape {leaf.shape}: expected [{num_replicas} replicas, {num} steps, "
                f"batch, ...] with a batch that divides into config.mesh.data={parts} parts"
            )
    if num < size:
        batch = jax.tree.map(lambda b: b[:, np.minimum(np.arange(size), num - 1)], batch)
    return sharding.put(batch, sharding.batch_sharding(mesh))


def init_state(experiment, seed, mesh, index, params):
    """Makes the state [R, ...] that a phase begins with, from the parameters of the last one."""
    phase, seeds = experiment.phases[index], np.array(experiment.replica_seeds, np.uint32)

    def init(root, seed, params):
        if index == 0:
            params = experiment.init(jax.random.fold_in(stream(root, "init", 0), seed))
        key = jax.random.fold_in(stream(root, f"{phase.name}/init", 0), seed)
        return phase.init(key, params)

    def init_all(seed, seeds, params):
        return jax.vmap(init, in_axes=(None, 0, 0))(jax.random.key(seed), seeds, params)

    shapes = jax.eval_shape(init_all, np.uint32(seed), seeds, params)
    out = sharding.state_sharding(mesh, shapes, experiment.rules)
    program = jax.jit(init_all, out_shardings=out, compiler_options=RUN_ONCE)
    return program(np.uint32(seed), seeds, params)


def state_like(experiment, mesh, phase_name):
    """Returns shapes and shardings of the state in a phase."""
    names = [phase.name for phase in experiment.phases]
    if phase_name not in names:
        raise Refused(
            f"the checkpoint is of phase {phase_name!r}, and this config has {', '.join(names)}; "
            f"start with the code that made it or give another --workdir"
        )

    def build(key):
        params = experiment.init(key)
        for phase in experiment.phases[: names.index(phase_name) + 1]:
            state = phase.init(key, params)
            params = state.params
        return state

    keys = jax.eval_shape(
        lambda: jax.random.split(jax.random.key(0), len(experiment.replica_seeds))
    )
    shapes = jax.eval_shape(jax.vmap(build), keys)
    out = sharding.state_sharding(mesh, shapes, experiment.rules)
    return jax.tree.map(
        lambda s, o: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=o), shapes, out
    )


def compile_steps(experiment, mesh, phase: Phase, size: int, seed: int, state, data, batch):
    """Compiles `size` steps of a phase, for all replicas, as one program.

    Returns:
      (state, data, batch, first step) -> (state, metrics by name [size, R]); the state is donated.
    """
    num_replicas = len(experiment.replica_seeds)
    seeds = np.array(experiment.replica_seeds, np.uint32)
    is_single = num_replicas == 1
    has_short = phase.num_steps % size > 0

    def one(key, seed, step, state, data, batch):
        return phase.step(jax.random.fold_in(key, seed), step, state, data, batch)

    every = one if is_single else jax.vmap(one, in_axes=(None, 0, None, 0, 0, 0))

    def train_steps(state, data, batches, first, seed, seeds):
        root = jax.random.key(seed)
        if is_single:  # no vmap of one: batched linear algebra is slower
            state, data, batches, seeds = jax.tree.map(
                lambda a: a[0], (state, data, batches, seeds)
            )

        def body(state, i):
            step = first + i
            axis = 0 if is_single else 1
            at = lambda b: jax.lax.dynamic_index_in_dim(b, i, axis, keepdims=False)
            batch = jax.tree.map(at, batches)
            key = stream(root, phase.name, step)
            new, metrics = every(key, seeds, step, state, data, batch)
            if has_short:  # steps past the end of the phase leave no trace
                is_real = step < phase.num_steps
                new = jax.tree.map(lambda n, o: jnp.where(is_real, n, o), new, state)
            return new, metrics

        state, metrics = jax.lax.scan(body, state, jnp.arange(size))
        if is_single:
            state = jax.tree.map(lambda a: a[None], state)
        return state, {name: v.reshape(size, num_replicas) for name, v in metrics.items()}

    out = jax.tree.map(lambda a: a.sharding, state), sharding.replicated(mesh)
    jitted = jax.jit(train_steps, donate_argnums=0, out_shardings=out)
    constants = np.uint32(seed), seeds
    lowered = jitted.lower(state, data, batch, np.int32(0), *constants)
    if "loss" not in lowered.out_info[1]:
        raise Refused(
            f"phase {phase.name!r}: its step returns the metrics {sorted(lowered.out_info[1])}; "
            f"expected 'loss' among them"
        )
    compiled = lowered.compile()
    return lambda state, data, batch, first: compiled(state, data, batch, first, *constants)
