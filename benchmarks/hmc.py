"""Leapfrog steps and effective samples per second against blackjax and numpyro.

    python -m benchmarks.hmc                    # 1, 100, 1000 chains; a markdown table
    python -m benchmarks.hmc --json=hmc.json --chains=1,10,10000

Claim: at least 1.3 times the faster of the two. Every sampler does the same work on the same
density (wave): T transitions of L leapfrog steps, one step size, unit mass, all positions and the
mean acceptance returned; chains are the batch of a `vmap`. Programs are compiled and warm, runs of
the three alternate, `block_until_ready`, the median counts. Effective samples per second are the
rate of transitions times the effective samples per transition of one long run of each sampler with
the same settings, so that short chains are not asked for their own autocorrelation.
"""

import json
import platform
import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from numpyro.infer.hmc import hmc as numpyro_hmc

from hmcvae import densities, hmc
from hmcvae.diagnostics import effective_sample_size

FLAGS = flags.FLAGS
flags.DEFINE_list("chains", ["1", "100", "1000"], "numbers of chains")
flags.DEFINE_integer("transitions", 30, "T")
flags.DEFINE_integer("leapfrog", 5, "L")
flags.DEFINE_float("step_size", 0.1, "of every leapfrog step")
flags.DEFINE_integer("repeats", 31, "timed runs of each sampler")
flags.DEFINE_string("json", None, "also write the numbers here")


def ours(step_size, num_transitions, num_leapfrog):
    log_step = jnp.full(num_transitions, jnp.log(step_size))

    def chain(key, start):
        out = hmc.run(
            key,
            start,
            densities.wave,
            log_step,
            num_leapfrog=num_leapfrog,
            gradient="none",
            keep_path=True,
        )
        return out.path[1:], out.info.accept_prob.mean()

    return lambda key, starts: jax.vmap(chain)(jax.random.split(key, len(starts)), starts)


def with_blackjax(step_size, num_transitions, num_leapfrog):
    sampler = blackjax.hmc(densities.wave, step_size, jnp.ones(2), num_leapfrog)

    def chain(key, start):
        def body(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.acceptance_rate)

        keys = jax.random.split(key, num_transitions)
        _, (path, acceptance) = jax.lax.scan(body, sampler.init(start), keys)
        return path, acceptance.mean()

    return lambda key, starts: jax.vmap(chain)(jax.random.split(key, len(starts)), starts)


def with_numpyro(step_size, num_transitions, num_leapfrog):
    init, sample = numpyro_hmc(potential_fn=lambda z: -densities.wave(z), algo="HMC")

    def chain(key, start):
        state = init(
            start,
            num_warmup=0,
            step_size=step_size,
            num_steps=num_leapfrog,
            trajectory_length=None,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            rng_key=key,
        )

        def body(state, _):
            state = sample(state)
            return state, (state.z, state.accept_prob)

        _, (path, acceptance) = jax.lax.scan(body, state, None, length=num_transitions)
        return path, acceptance.mean()

    return lambda key, starts: jax.vmap(chain)(jax.random.split(key, len(starts)), starts)


SAMPLERS = {"ours": ours, "blackjax": with_blackjax, "numpyro": with_numpyro}


def measure(num_chains, num_transitions, num_leapfrog, step_size, repeats):
    """Time one call of every sampler, alternating: {name: [seconds]}, {name: acceptance}."""
    starts = jax.random.normal(jax.random.key(1), (num_chains, 2))
    programs, compile_time, acceptance = {}, {}, {}
    for name, make in SAMPLERS.items():
        programs[name] = jax.jit(make(step_size, num_transitions, num_leapfrog))
        begin = time.perf_counter()
        out = jax.block_until_ready(programs[name](jax.random.key(0), starts))
        compile_time[name] = time.perf_counter() - begin
        acceptance[name] = float(out[1].mean())
    seconds = {name: [] for name in SAMPLERS}
    keys = jax.block_until_ready(list(jax.random.split(jax.random.key(2), repeats)))
    calls = max(1, min(20, 1000 // num_chains))  # a timed run of a small batch is several calls
    for key in keys:
        for name, program in programs.items():
            begin = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(program(key, starts))
            seconds[name].append((time.perf_counter() - begin) / calls)
    return seconds, compile_time, acceptance


def efficiency(num_leapfrog, step_size, num_chains=100, num_transitions=2000):
    """Measure effective samples per transition of each sampler: {name: mean over dimensions}."""
    starts = jax.random.normal(jax.random.key(1), (num_chains, 2))
    result = {}
    for name, make in SAMPLERS.items():
        path, _ = jax.jit(make(step_size, num_transitions, num_leapfrog))(jax.random.key(3), starts)
        draws = np.asarray(path)[:, num_transitions // 10 :]
        sizes = effective_sample_size(jnp.asarray(draws))
        result[name] = float(jnp.min(sizes)) / (draws.shape[0] * draws.shape[1])
    return result


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; options are given as --name=value")
    steps, leapfrog, size = FLAGS.transitions, FLAGS.leapfrog, FLAGS.step_size
    per_transition = efficiency(leapfrog, size)
    rows = []
    for num_chains in map(int, FLAGS.chains):
        seconds, compile_time, acceptance = measure(
            num_chains, steps, leapfrog, size, FLAGS.repeats
        )
        median = {name: float(np.median(s)) for name, s in seconds.items()}
        rival = min(median["blackjax"], median["numpyro"])
        for name in SAMPLERS:
            transitions = num_chains * steps / median[name]
            rows.append(
                {
                    "chains": num_chains,
                    "sampler": name,
                    "leapfrog_per_s": transitions * leapfrog,
                    "ess_per_s": transitions * per_transition[name],
                    "times_faster_than_best_rival": rival / median[name],
                    "acceptance": acceptance[name],
                    "first_call_s": compile_time[name],
                    "quartiles_ms": [
                        1e3 * float(q) for q in np.quantile(seconds[name], (0.25, 0.75))
                    ],
                }
            )
    device = jax.devices()[0]
    print(
        f"wave, T={steps}, L={leapfrog}, step {size}; {device.device_kind}, jax {jax.__version__}"
    )
    print("| chains | sampler | leapfrog steps/s | ESS/s | x best rival | acceptance | first s |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for r in rows:
        print(
            f"| {r['chains']} | {r['sampler']} | {r['leapfrog_per_s'] / 1e6:.3g} M "
            f"| {r['ess_per_s']:,.0f} | {r['times_faster_than_best_rival']:.2f} "
            f"| {r['acceptance']:.3f} | {r['first_call_s']:.2f} |"
        )
    if FLAGS.json:
        facts = {"device": device.device_kind, "machine": platform.machine(), "rows": rows}
        with open(FLAGS.json, "w") as file:
            json.dump(facts, file, indent=1)


if __name__ == "__main__":
    app.run(main)
