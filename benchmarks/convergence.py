"""How far the learned chain of a trained run gets: its samples against a chain 60 times as long.

  python benchmarks/convergence.py --workdir=runs/wine

For the test rows of the first split, each with one draw of the marginal latents z: the encoder's
Gaussian, the learned chain of T transitions and the same table of step sizes repeated 2, 5 and 20
times, compared with the table repeated 60 times. Errors are those of the posterior mean of every
latent of every row, in posterior standard deviations; two exact samples of 1000 differ by 0.036 on
average (the floor).
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from hmcvae.model import Rows
from hmcvae.posterior import sample_eps
from launch import trained

REFERENCE = 60


def main():
    """Runs the comparison and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, help="a finished run with an HMC posterior")
    parser.add_argument("--num_samples", type=int, default=1000, help="chains a row")
    flags = parser.parse_args()
    run = trained.load(flags.workdir)
    model, params, schedule, table = run.model, run.params, run.schedule, run.table
    shown = jnp.asarray(run.fold.test_mask & table.mask[run.fold.test])
    x = jnp.asarray(run.standardise(table.x[run.fold.test], table.mask[run.fold.test]))
    z = model.apply({"params": params}, jax.random.key(1), x, shown, method="extract")
    rows = Rows(x, shown, z, None, None)

    @jax.jit
    def draw(params, keys):
        def one(key, row):
            return sample_eps(key, model, params, row, schedule=schedule)[0]

        return jax.vmap(jax.vmap(one), in_axes=(0, None))(keys, rows)

    def sample(repeats):
        log_step = jnp.tile(params["hmc"]["log_step_size"], (repeats, 1))
        longer = {**params, "hmc": {**params["hmc"], "log_step_size": log_step}}
        keys = jax.random.split(jax.random.key(1 + repeats), (flags.num_samples, len(x)))
        return np.asarray(draw(longer, keys))  # [S, B, d_tot]

    reference = sample(REFERENCE)
    centre, spread = reference.mean(axis=0), reference.std(axis=0)
    heads = model.apply({"params": params}, rows, method="encode")
    encoder = model.apply({"params": params}, None, *heads, method="draw")
    length = params["hmc"]["log_step_size"].shape[0]
    results = [("encoder", np.asarray(encoder.mean), np.exp(0.5 * np.asarray(encoder.log_var)))]
    for repeats in (1, 2, 5, 20):
        draws = sample(repeats)
        results.append((f"T = {repeats * length}", draws.mean(axis=0), draws.std(axis=0)))
    print(f"{table.name}: {len(x)} rows, {model.num_latents} latents, {flags.num_samples} chains")
    print(
        "| samples | mean error, average | mean error, largest | spread ratio |\n|---|---|---|---|"
    )
    for name, means, stds in results:
        error = np.abs(means - centre) / spread
        print(f"| {name} | {error.mean():.3f} | {error.max():.3f} | {(stds / spread).mean():.3f} |")


if __name__ == "__main__":
    main()
