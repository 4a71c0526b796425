"""Which gradient, objective and acceptance target tune HMC best in the same time.

    python -m benchmarks.tuning --seeds=3

For each target of the tuning paper and each way of tuning: seconds of the compiled loop; then from
20 000 chains of T transitions: mean log p(z_T) and the total variation distance between the end
points and the target on a 24 x 24 grid (independent draws would give "floor"); acceptance;
effective samples per gradient, of the squared norm, of 50 long chains. Mean over the seeds.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from hmcvae import densities, diagnostics, hmc, tuning

FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 3, "tuning runs of each kind")
flags.DEFINE_integer("transitions", 10, "T")
START = {"wave": 0.05, "dual_moon": 0.05, "gaussian_mixture": 0.02}  # step sizes
CELLS, FINE, CHAINS = 24, 20, 20_000
PUBLISHED = {"num_chains_stein": 30, "inflation_rate": 0.1, "accept_target": None}
WAYS = {
    "untuned": None,
    "published recipe": {"num_steps": 600, **PUBLISHED},
    "detached, no target": {"num_steps": 600, "accept_target": None},
    "detached (default)": {"num_steps": 600},
    "exact, same time": {"num_steps": 200, "gradient": "exact"},
    "exact, same steps": {"num_steps": 600, "gradient": "exact"},
    "chees, same time": {"num_steps": 300, "objective": "chees"},
}


def tune(name, seed, num_transitions, options):
    """Return parameters and the seconds of a warm run."""
    target = densities.TARGETS[name]
    mean, log_var = jnp.array(target.mean), jnp.array(target.log_var)
    if options is None:
        init = tuning.build(target.log_density).init
        return init(mean, num_transitions, START[name]).parameters, 0.0
    run = jax.jit(
        lambda key: tuning.tune(
            key,
            target.log_density,
            mean,
            log_var,
            num_transitions=num_transitions,
            initial_step_size=START[name],
            **options,
        )[0]
    )
    jax.block_until_ready(run(jax.random.key(seed)))
    begin = time.perf_counter()
    parameters = jax.block_until_ready(run(jax.random.key(seed)))
    return parameters, time.perf_counter() - begin


def run_chains(name, parameters, num, repeats=1):
    """Run chains whose table of step sizes is passed `repeats` times."""
    target = densities.TARGETS[name]
    mean, log_var = jnp.array(target.mean), jnp.array(target.log_var)
    steps, variances = (jnp.tile(table, (repeats, 1)) for table in parameters[:2])

    @jax.jit
    @jax.vmap
    def chain(key):
        start_key, chain_key = jax.random.split(key)
        return hmc.run(
            chain_key,
            hmc.inflate(start_key, mean, log_var, parameters.log_inflation),
            target.log_density,
            steps,
            log_momentum_var=variances,
            gradient="none",
            keep_path=repeats > 1,
        )

    return chain(jax.random.split(jax.random.key(99), num))


def cell_probabilities(name):
    """Integrate the target over the cells of its grid: [CELLS, CELLS], sums to one."""
    target, size = densities.TARGETS[name], CELLS * FINE
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * target.limit
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(jax.jit(jax.vmap(target.log_density))(points.astype(np.float32)))
    cells = np.asarray(density, np.float64).reshape(CELLS, FINE, CELLS, FINE).sum((1, 3))
    return cells / cells.sum()


def total_variation(points, cells, limit):
    edges = [[-limit, limit]] * 2
    counts, _, _ = np.histogram2d(*np.asarray(points).T, bins=CELLS, range=edges)
    inside = counts.sum() / len(points)
    return 0.5 * (np.abs(counts / len(points) - cells).sum() + 1 - inside)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; options are given as --name=value")
    length = FLAGS.transitions
    print(f"T={length}, L=5, {FLAGS.seeds} seeds, {jax.devices()[0].device_kind}")
    print("| target | tuning | s | E log p | TV | acceptance | ESS/gradient |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, target in densities.TARGETS.items():
        if name not in START:
            continue
        cells = cell_probabilities(name)
        draws = np.random.default_rng(0).multinomial(CHAINS, cells.ravel()) / CHAINS
        floor = 0.5 * np.abs(draws - cells.ravel()).sum()
        print(f"| {name} | independent draws (floor) | | | {floor:.3f} | | |")
        for way, options in WAYS.items():
            rows = []
            for seed in range(FLAGS.seeds if options else 1):
                parameters, seconds = tune(name, seed, length, options)
                end = run_chains(name, parameters, CHAINS)
                path = run_chains(name, parameters, 50, 1000 // length).path[:, 101:]
                square = jnp.sum(path**2, axis=-1, keepdims=True)
                ess = diagnostics.effective_sample_size(square)[0] / (square.size * 5)
                distance = total_variation(end.position, cells, target.limit)
                accept = end.info.accept_prob.mean()
                rows.append([seconds, end.log_density.mean(), distance, accept, ess])
            mean = np.mean(rows, axis=0)
            spread = np.ptp(np.array(rows)[:, 2]) / 2
            print(
                f"| {name} | {way} | {mean[0]:.2f} | {mean[1]:.3f} | {mean[2]:.3f} ± {spread:.3f} "
                f"| {mean[3]:.3f} | {mean[4]:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
