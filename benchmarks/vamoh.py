"""Time and memory of VAMoH at the published sizes: a training step, and one reconstruction.

  python -m benchmarks.vamoh [--case=polymnist-32] [--repeats=10] [--chunk=0]

Cases: PolyMNIST (28 x 28 x 3, K = 4) at batch 32, CelebA-HQ (64 x 64 x 3, K = 10) at batch 4 and
32, each with the released protocol (`paper`: 0.24 and 136.6 M parameters) and with our defaults at
the same widths, latents and components (fewer parameters: a SIREN has no Fourier features). Data
are random: nothing here depends on them. Each case runs in a process of its own; a step is forward,
backward, clipping and Adam. RIVAL holds CPU seconds of a PyTorch implementation on one quiet core
of this class (forward, backward and Adam), measured elsewhere with the same sizes: it is not run
here. Memory is the peak of the whole process, JAX and its programs included. The aims are 5x
(PolyMNIST) and 3x (CelebA) on training and 5x on reconstruction.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time

CASES = {
    "polymnist-32": ("vamoh_polymnist", (28, 28), 32),
    "celeba-4": ("vamoh_celeba", (64, 64), 4),
    "celeba-32": ("vamoh_celeba", (64, 64), 32),
}
RIVAL = {  # CPU seconds: of a step, of a reconstruction; GB at peak
    "polymnist-32": (0.22, 0.02, None),
    "celeba-4": (3.15, 0.44, None),
    "celeba-32": (13.3, 0.44, 7.9),
}
SIZES = ("widths", "latent_size", "num_components", "hyper_widths", "gate_widths")


def main():
    """Runs the cases, each in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--mode", choices=("paper", "default"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--chunk", type=int, default=-1, help="train.chunk; 0 is without blocks")
    flags = parser.parse_args()
    if flags.mode:
        print(json.dumps(measure(flags.case, flags.mode, flags.repeats, flags.chunk)))
        return
    titles = ("", "parameters", "a step", "one reconstruction", "peak")
    print("{:22} {:>10} {:>30} {:>30} {:>8}".format(*titles))
    for case in [flags.case] if flags.case else CASES:
        for mode in ("paper", "default"):
            command = [sys.executable, "-m", "benchmarks.vamoh", f"--case={case}", f"--mode={mode}"]
            command += [f"--repeats={flags.repeats}", f"--chunk={flags.chunk}"]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row = json.loads(out.splitlines()[-1])
            cells = []
            for name, rival in zip(("step", "reconstruct"), RIVAL[case], strict=False):
                wall, cpu = row[name]
                cells.append(f"{cpu:.4f} cpu s {rival / cpu:5.1f}x {wall:.4f} s")
            size = f"{row['parameters'] / 1e6:.2f} M"
            print(f"{case:13} {mode:8} {size:>9} {cells[0]:>30} {cells[1]:>30} "
                  f"{row['peak_gb']:6.2f} GB")  # fmt: skip
    print(f"device: {row['device']}, {os.cpu_count()} cores")


def measure(case, mode, repeats, chunk):
    """Times one case; returns (wall, CPU) seconds, the least of each over repeats."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from functions.domains import Domain
    from functions.render import render
    from launch.data.fields import Field
    from launch.experiments import vamoh as experiment

    name, shape, batch = CASES[case]
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config("paper")
    if mode == "default":
        ours = module.get_config("")
        for size in SIZES:
            ours.model[size] = config.model[size]
        config = ours
        config.train.num_points = 0
    config.train.batch_size, config.train.chunk = batch, chunk
    num_points = shape[0] * shape[1]
    values = np.random.default_rng(0).integers(0, 256, (batch, num_points, 3), np.uint8)
    field = Field("random", Domain("image", shape), values, values, values, "logistic", 256, "", "")
    config.model.likelihood = "logistic"
    run = experiment.build(config, field)
    model = experiment.make_model(config, field)
    geometry = jax.tree.map(jnp.asarray, experiment.make_geometry(config, field.domain))
    phase = run.phases[0]

    state = jax.jit(lambda key: phase.init(key, run.init(key)))(jax.random.key(0))
    data = {"values": jnp.asarray(values), "mask": jnp.ones((batch, 1), bool)}
    step = jax.jit(phase.step, donate_argnums=2)
    seconds = {}

    def train(state, i):
        state, metrics = step(jax.random.key(i), i, state, geometry, data)
        return jax.block_until_ready(state), metrics

    state, _ = train(state, 0)
    times = []
    for i in range(1, repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        state, _ = train(state, i)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds["step"] = [min(column) for column in zip(*times, strict=True)]

    @jax.jit
    def reconstruct(params, values):
        mask = jnp.ones(num_points, bool)
        variables = {"params": params}
        z, _ = model.apply(variables, values, mask, geometry, method="encode")
        return render(jax.random.key(0), model, params, z, geometry.coords).mean

    image = jnp.asarray(values[0] / 255.0, jnp.float32)
    jax.block_until_ready(reconstruct(state.params, image))
    times = []
    for _ in range(3 * repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(reconstruct(state.params, image))
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds["reconstruct"] = [min(column) for column in zip(*times, strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return seconds | {
        "peak_gb": peak / 1e9,
        "parameters": size,
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    main()
