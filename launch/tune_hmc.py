"""Tunes HMC on a two-dimensional density and draws what happened.

  python -m launch.tune_hmc --config=configs/tune_wave.py --workdir=runs/wave [--config.field=value]

Leaves in the working directory: result.json (acceptance and effective samples per gradient before
and after, times, versions), config.json, arrays.npz, figures/*.png and figures/chains.gif.
"""

import sys
import time

from launch import train, workdir
from launch.workdir import Refused


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code: 0 finished, 2 refused before anything started."""
    try:
        options = train.parse(argv)
        directory = workdir.open_workdir(options.workdir)
        missing = {"target", "transitions", "leapfrog"} - set(options.config)
        if missing:
            raise Refused(
                f"--config: has no field {sorted(missing)[0]!r}; give one of configs/tune_*.py"
            )
        result = tune(options.config, directory)
    except (Refused, ValueError) as refusal:
        print(f"launch.tune_hmc: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{'':8}{'acceptance':>12}{'ESS/gradient':>14}{'E log p':>10}{'Stein':>9}")
    for when in ("before", "after"):
        row = result[when]
        print(
            f"{when:8}{row['acceptance']:12.3f}{row['ess_per_gradient']:14.5f}"
            f"{row['objective']:10.3f}{row['discrepancy']:9.3f}"
        )
    print(f"tuned in {result['tuning_seconds']:.1f} s; figures and numbers in {directory}")
    return 0


def tune(config, directory) -> dict:
    """Tunes, measures, saves and draws; returns what result.json holds."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from tqdm import tqdm

    from hmcvae import densities, tuning
    from launch import report, tune_figures

    if config.target not in densities.TARGETS:
        raise Refused(
            f"config.target={config.target!r}: expected one of {sorted(densities.TARGETS)}"
        )
    if config.frames < 1 or config.steps < config.frames:
        raise Refused(
            f"config.frames={config.frames}: expected 1 or more, and at most config.steps"
            f"={config.steps}"
        )
    began = time.perf_counter()
    target = densities.TARGETS[config.target]
    mean, log_var = jnp.array(target.mean), jnp.array(target.log_var)
    options = config.to_dict()["tuner"]
    options["accept_target"] = options["accept_target"] or None
    tuner = tuning.build(target.log_density, num_leapfrog=config.leapfrog, **options)
    tune_key, measure_key = jax.random.split(jax.random.key(config.seed))

    @jax.jit
    def advance(state, keys):
        return jax.lax.scan(lambda s, k: tuner.step(k, s, mean, log_var), state, keys)

    state = first = tuner.init(mean, config.transitions, config.step_size)
    keys = jax.random.split(tune_key, config.steps)
    chunks = np.array_split(np.arange(config.steps), config.frames)
    watch = _watcher(config, target, mean, log_var)
    frames = [(0, *watch(first.parameters))]
    history, seconds = [], []
    with tqdm(total=config.steps, desc=config.target, unit="step") as bar:
        for rows in chunks:
            start = time.perf_counter()
            state, metrics = jax.block_until_ready(advance(state, keys[rows]))
            seconds.append(time.perf_counter() - start)
            history.append(jax.device_get(metrics))
            frames.append((rows[-1] + 1, *watch(state.parameters)))
            bar.update(len(rows))
            accept = float(metrics.accept_prob[-1].mean())
            bar.set_postfix(log_p=f"{metrics.objective[-1]:.3f}", accept=f"{accept:.2f}")

    history = jax.tree.map(lambda *x: np.concatenate(x), *history)
    arrays = _grid(target) | {
        "proposal_mean": np.array(mean),
        "proposal_std": np.exp(0.5 * np.array(log_var)),
        "objective": history.objective,
        "discrepancy": history.discrepancy,
        "inflation": np.exp(history.log_inflation),
        "acceptance": history.accept_prob,
        "divergences": history.divergences,
        "step_size": np.exp(history.log_step_size),
    }
    names = ("frame_step", "frame_path", "frame_inflation", "frame_accept")
    arrays |= {n: np.stack(x) for n, x in zip(names, zip(*frames, strict=True), strict=True)}
    result = {"config": config.to_dict(), "tuning_seconds": sum(seconds)}
    result["steps_per_second"] = config.steps / sum(seconds)
    for when, parameters in (("before", first.parameters), ("after", state.parameters)):
        found, result[when] = _measure(measure_key, config, target, mean, log_var, parameters)
        arrays |= {f"{name}_{when}": value for name, value in found.items()}

    workdir.write_atomic(directory / "arrays.npz", lambda file: np.savez(file, **arrays))
    with np.load(directory / "arrays.npz") as stored:
        arrays = dict(stored)
    for name in ("chains", "step_sizes", "curves"):
        getattr(tune_figures, name)(arrays, directory / "figures" / f"{name}.png")
    tune_figures.animation(arrays, directory / "figures" / "chains.gif")
    result["seconds"] = time.perf_counter() - began
    result |= report.environment()
    workdir.write_json(directory / "config.json", config.to_dict())
    workdir.write_json(directory / "result.json", result)
    return result


def _watcher(config, target, mean, log_var):
    """Makes the function that draws the frame of given parameters, always with the same noise."""
    import jax
    import numpy as np

    from hmcvae import hmc

    @jax.jit
    def paths(parameters):
        def one(key):
            start_key, chain_key = jax.random.split(key)
            start = hmc.inflate(start_key, mean, log_var, parameters.log_inflation)
            chain = hmc.run(
                chain_key,
                start,
                target.log_density,
                parameters.log_step_size,
                num_leapfrog=config.leapfrog,
                log_momentum_var=parameters.log_momentum_var,
                gradient="none",
                keep_path=True,
            )
            return chain.path, chain.info.accept_prob.mean()

        return jax.vmap(one)(jax.random.split(jax.random.key(config.seed), 200))

    def watch(parameters):
        path, accept = jax.device_get(paths(parameters))
        return path[: config.shown_chains], np.exp(parameters.log_inflation), accept.mean()

    return watch


def _measure(key, config, target, mean, log_var, parameters):
    """Runs many chains once, and a few for long: (arrays, numbers)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from hmcvae import diagnostics, hmc, stein

    repeats = -(-config.measure_transitions // config.transitions)

    def chains(key, num, repeats):
        def one(key):
            start_key, chain_key = jax.random.split(key)
            start = hmc.inflate(start_key, mean, log_var, parameters.log_inflation)
            tile = lambda table: jnp.tile(table, (repeats, 1))
            return hmc.run(
                chain_key,
                start,
                target.log_density,
                tile(parameters.log_step_size),
                num_leapfrog=config.leapfrog,
                log_momentum_var=tile(parameters.log_momentum_var),
                gradient="none",
                keep_path=True,
            )

        return jax.vmap(one)(jax.random.split(key, num))

    run = jax.jit(chains, static_argnums=(1, 2))
    many = run(key, config.measure_chains, 1)
    long = run(jax.random.fold_in(key, 1), 50, repeats).path
    draws = long[:, 1 + long.shape[1] // 10 :]
    draws = jnp.concatenate([draws, jnp.sum(draws**2, axis=-1, keepdims=True)], axis=-1)
    gradients = draws.shape[0] * draws.shape[1] * config.leapfrog
    ess = np.asarray(diagnostics.effective_sample_size(draws)) / gradients
    discrepancy = stein.sksd(many.position[:1000], many.score[:1000], statistic="U")
    arrays = {
        "path": many.path[: config.shown_chains],
        "ends": many.position[:2000],
        "inflation": np.exp(parameters.log_inflation),
        "log_step_size": parameters.log_step_size,
        "log_momentum_var": parameters.log_momentum_var,
        "accept": many.info.accept_prob.mean(0),
    }
    numbers = {
        "acceptance": float(many.info.accept_prob.mean()),
        "divergences": float(many.info.is_divergent.mean()),
        "objective": float(many.log_density.mean()),
        "discrepancy": float(discrepancy),
        "ess_per_gradient": float(ess[:-1].min()),
        "ess_per_gradient_of_squared_norm": float(ess[-1]),
        "step_size": float(np.exp(parameters.log_step_size).mean()),
        "inflation": np.exp(parameters.log_inflation).tolist(),
    }
    return {name: np.asarray(value) for name, value in arrays.items()}, numbers


def _grid(target, size=201):
    import jax
    import numpy as np

    axis = np.linspace(-target.limit, target.limit, size, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.asarray(jax.jit(jax.vmap(target.log_density))(points)).reshape(size, size)
    return {"grid": axis, "log_density": values}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
