"""Linear regression with dropout noise in two phases: the smallest experiment with every part."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from launch.experiment import Experiment, gradient_phase

ROWS, COLUMNS = 24, 8


def make(config):
    if config.dropout >= 1:
        raise ValueError(f"config.dropout={config.dropout}: expected a rate below 1")
    seeds = tuple(range(config.first_seed, config.first_seed + config.splits))
    tables = [_table(seed) for seed in seeds]

    def loss(key, step, params, data, batch):
        x, y = data["x"][batch], data["y"][batch]
        keep = jax.random.bernoulli(key, 1 - config.dropout, x.shape)
        hidden = jnp.tanh((x * keep) @ params["first"]["kernel"])
        error = hidden @ params["second"]["kernel"] + params["bias"] - y
        value = jnp.mean(error**2)
        value = jnp.where(step == config.nan_step, jnp.nan, value)
        return value, {"mean_error": jnp.mean(error), "keep": jnp.mean(keep.astype(jnp.float32))}

    def init(key):
        first, second = jax.random.split(key)
        return {
            "first": {"kernel": jax.random.normal(first, (COLUMNS, config.hidden)) / 3},
            "second": {"kernel": jax.random.normal(second, (config.hidden,)) / 3},
            "bias": jnp.zeros(()),
        }

    def add_parameter(key, params):
        return {**params, "bias": params["bias"] + 0.1 * jax.random.normal(key)}

    def batches(phase, start, num):
        time.sleep(config.sleep)
        index = [
            [np.random.default_rng((seed, phase, step)).permutation(ROWS)[: config.batch]
             for step in range(start, start + num)]
            for seed in seeds
        ]  # fmt: skip
        return np.array(index, np.int32)

    def evaluate(key, params, data, phase_name, is_last):
        if phase_name == "warm":
            return {}, {}
        score = jax.jit(jax.vmap(lambda p, d: loss(key, 0, p, d, np.arange(ROWS))[0]))
        flat = {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        return {"mse": np.asarray(score(params, data))}, flat

    def figures(arrays, rows, directory):
        (directory / "curve.txt").write_text(f"{len(rows)} rows, {sorted(arrays)}\n")

    return Experiment(
        init=init,
        phases=(
            gradient_phase("warm", config.warm_steps, loss, optax.sgd(0.05, momentum=0.9)),
            gradient_phase(
                "main", config.main_steps, loss, optax.adam(0.01), prepare=add_parameter
            ),
        ),
        data={name: np.stack([t[name] for t in tables]) for name in tables[0]},
        batches=batches,
        evaluate=evaluate,
        figures=figures,
        replica_seeds=seeds,
        rules=(("first/kernel", jax.sharding.PartitionSpec(None, "model")),),
        meta={"rows": ROWS, "data": os.environ.get("TOY_DATA", "made")},
    )


def _table(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    y = np.sin(x @ rng.normal(size=COLUMNS)) + 0.1 * rng.normal(size=ROWS)
    return {"x": x, "y": y.astype(np.float32)}
