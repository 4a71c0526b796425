"""Cost of the three stages and of the test pass of HH-VAEM at boston's sizes, compilation apart.

  python benchmarks/hhvaem.py [--replicas 1 10] [--json out.json]

The table is drawn at random with the shape and kinds of boston (506 rows; 11 real columns, one
Bernoulli, one categorical of 9 classes), so no file is needed and every machine does the same work:
stage 1 trains all 13 columns in a step of batch 100, stage 3 runs T = 10 transitions of L = 5
leapfrog steps with 30 Stein chains every tenth step, the test pass 1000 chains for 51 rows. Rates
are the median of the repeats; FLOPs come from XLA's cost analysis of the compiled program, the
machine's rate from a 2048 x 2048 float32 matrix product in the same process.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae.columns import Column, Schema
from launch.data.frames import Table
from launch.experiments import tabular

STEPS = {"marginal": 500, "vi": 500, "hmc": 50}


def boston_like(seed=0) -> Table:
    """Draws a table of boston's shape: five latent factors behind 13 columns and a target."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(506, 5))
    x = np.exp(0.3 * factors @ rng.normal(size=(5, 13)) + 0.1 * rng.normal(size=(506, 13)))
    columns = [Column(f"x{i}", "loggaussian") for i in range(13)]
    columns[3], columns[8] = Column("x3", "bernoulli"), Column("x8", "categorical", 9)
    x[:, 3] = factors[:, 0] > 1.5
    x[:, 8] = np.digitize(factors[:, 1], np.linspace(-1.5, 1.5, 8))
    y = np.exp(0.3 * factors @ rng.normal(size=(5, 1)))
    seen = np.ones_like(x, bool)
    target = Schema((Column("y", "loggaussian"),))
    return Table("boston-like", Schema(tuple(columns)), x, seen, target, y, seen[:, :1])


def matrix_rate(size=2048, repeats=5) -> float:
    """Measures float32 GFLOP/s of one large matrix product."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = [_seconds(lambda: product(a)) for _ in range(repeats)]
    return 2 * size**3 / min(times) / 1e9


def measure(replicas, repeats):
    """Times every stage for a number of replicas and returns rows of the report."""
    spec = importlib.util.spec_from_file_location(
        "config", Path(__file__).parents[1] / "configs" / "hhvaem.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("boston,paper")  # the rival's protocol
    config.splits = replicas
    config.data.num_folds = max(replicas, 10)
    experiment = tabular.build(config, boston_like())
    data = jax.device_put(experiment.data)
    keys = jax.random.split(jax.random.key(0), replicas)
    params = jax.vmap(experiment.init)(keys)
    rows = []
    for index, phase in enumerate(experiment.phases):
        num = STEPS[phase.name]
        state = jax.vmap(phase.init)(keys, params)
        batches = jnp.asarray(experiment.batches(index, 0, num))
        dispatch = jax.jit(_dispatch(phase, num)).lower(keys, state, data, batches)
        started = time.perf_counter()
        compiled = dispatch.compile()
        compile_s = time.perf_counter() - started
        state = jax.block_until_ready(compiled(keys, state, data, batches))
        args = (keys, state, data, batches)
        times = [_seconds(lambda: compiled(*args)) / num for _ in range(repeats)]  # noqa: B023
        rows.append({"stage": phase.name, "seconds": float(np.median(times)), "compile": compile_s})
        params = state.params
    started = time.perf_counter()
    experiment.evaluate(jax.random.key(1), params, data, "hmc", False)
    first = time.perf_counter() - started
    started = time.perf_counter()
    experiment.evaluate(jax.random.key(2), params, data, "hmc", False)
    seconds = time.perf_counter() - started
    rows.append({"stage": "test", "seconds": seconds, "compile": first - seconds})
    return [row | {"replicas": replicas} for row in rows]


def _dispatch(phase, num):
    def replica(key, state, data, batches):
        def body(state, inputs):
            step, batch = inputs
            state, _ = phase.step(jax.random.fold_in(key, step), step, state, data, batch)
            return state, None

        return jax.lax.scan(body, state, (jnp.arange(num), batches))[0]

    def run(keys, state, data, batches):
        if keys.shape[0] == 1:
            args = jax.tree.map(lambda a: a[0], (keys, state, data, batches))
            return jax.tree.map(lambda a: a[None], replica(*args))
        return jax.vmap(replica)(keys, state, data, batches)

    return run


def _seconds(call):
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def main():
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], help="replicas at a time")
    parser.add_argument("--repeats", type=int, default=5, help="timed dispatches a stage")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    flags = parser.parse_args()
    rate = matrix_rate()
    device = jax.devices()[0]
    print(f"{device.device_kind} x {jax.device_count()}, jax {jax.__version__}, "
          f"matrix product {rate:.0f} GFLOP/s")  # fmt: skip
    print("| replicas | stage | ms a step | compile s |\n|---|---|---|---|")
    rows = []
    for replicas in flags.replicas:
        for row in measure(replicas, flags.repeats):
            rows.append(row)
            print(f"| {row['replicas']} | {row['stage']} | {1e3 * row['seconds']:.3f} | "
                  f"{row['compile']:.1f} |", flush=True)  # fmt: skip
    if flags.json:
        report = {"device": device.device_kind, "gflops": rate, "rows": rows}
        flags.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
