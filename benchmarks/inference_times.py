"""Inference times of VAMoH and Functa at the five published sizes: the table of the source talk.

  python -m benchmarks.inference_times [--cases=polymnist,celeba] [--batches=1] [--repeats=20]

`reconstruct` finds the latent of an item and evaluates its function on the same grid, `super` on
2 R - 1 points an axis, as the released VAMoH. VAMoH encodes in one pass, Functa (T) takes T steps
of gradients from 0. Parameters are untrained and data random: no time depends on them. Networks:
VAMoH at its published sizes (`released`: the protocol of the release, `ours`: our default with the
same widths, latents and components), Functa with the published 14 layers of 512 and 256 latents;
the sizes of the talk's baselines are not known. Neighbours are found beforehand: they belong to the
grid.

Programs are compiled ahead and warm, every call is waited for. Printed are the median and the 95th
percentile of the whole program, the medians of its two parts run alone, and how many times longer
Functa takes, beside the published factor (one GPU, batch and scope not stated). Seconds are of a
batch. On a CPU choose cases and batches: Functa (10) on 32^3 voxels takes 0.4 PFLOP at batch 64.
"""

import argparse
import importlib
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from functions import domains, encodings, functa, vamoh
from functions.domains import Domain
from functions.render import render
from launch.data.fields import Field
from launch.experiments import field_model
from launch.experiments import vamoh as experiment

CASES = {  # config of VAMoH, domain, channels, kind, levels
    "polymnist": ("vamoh_polymnist", Domain("image", (28, 28)), 3, "logistic", 256),
    "shapes3d": ("vamoh_shapes3d", Domain("image", (64, 64)), 3, "logistic", 256),
    "celeba": ("vamoh_celeba", Domain("image", (64, 64)), 3, "logistic", 256),
    "era5": ("vamoh_era5", Domain("sphere", (46, 90), "corners"), 1, "continuous_bernoulli", 0),
    "shapenet": ("vamoh_shapenet", Domain("voxels", (32, 32, 32)), 1, "bernoulli", 2),
}
PUBLISHED = {  # times longer than VAMoH: Functa (3), Functa (10)
    "reconstruct": {
        "polymnist": (3.64, 11.28), "shapes3d": (3.28, 10.22), "celeba": (2.29, 7.11),
        "era5": (2.55, 7.96), "shapenet": (3.04, 9.54),
    },
    "super": {
        "polymnist": (3.62, 11.23), "shapes3d": (3.25, 10.09), "celeba": (2.08, 6.46),
        "era5": (2.53, 7.63), "shapenet": (1.45, 4.56),
    },
}  # fmt: skip
SIZES = ("widths", "latent_size", "num_components", "hyper_widths", "gate_widths")
NUM_STEPS = (3, 10)
WARM = 2  # calls before the clock


def main():
    """Measures what the flags ask for and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = lambda text: text.split(",")
    parser.add_argument("--cases", type=listed, default=list(CASES), help="with commas")
    parser.add_argument("--batches", type=listed, default=["1", "64"], help="with commas")
    parser.add_argument("--tasks", type=listed, default=list(PUBLISHED), help="with commas")
    parser.add_argument("--repeats", type=int, default=200)
    flags = parser.parse_args()
    head = ("case", "task", "batch", "model", "median s", "p95 s", "latent s", "function s",
            "Functa / it (published)")  # fmt: skip
    print(
        ("{:10}{:12}{:>5}  {:16}" + "{:>11}" * 4 + "  {}").format(*head, "Functa / it (published)")
    )
    for case in flags.cases:
        for batch in map(int, flags.batches):
            for task in flags.tasks:
                report(case, task, batch, measure(case, task, batch, flags.repeats))
    device = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0))
    print(f"device: {device}, {cores} cores, {flags.repeats} repeats, jax {jax.__version__}")


def report(case, task, batch, times):
    """Prints a line a model; `times` are (median, p95, latent, function) by its name."""
    for name, numbers in times.items():
        factors = [
            f"{times[f'Functa ({steps})'][0] / numbers[0]:.2f} ({published})"
            for steps, published in zip(NUM_STEPS, PUBLISHED[task][case], strict=True)
        ]
        line = ("{:10}{:12}{:5}  {:16}" + "{:11.5f}" * 4).format(case, task, batch, name, *numbers)
        print(line + ("  " + ", ".join(factors) if name.startswith("VAMoH") else ""), flush=True)


def measure(case, task, batch, repeats):
    """Times all models on one task: {name: (median, p95, of the latent, of the function)}."""
    name, domain, num_channels, kind, num_levels = CASES[case]
    finer = domains.resized(domain, [2 * size - 1 for size in domain.shape])
    target = finer if task == "super" else domain
    rng = np.random.default_rng(0)
    values = rng.random((batch, np.prod(domain.shape), num_channels), np.float32)
    field = Field("random", domain, *[values] * 3, kind, num_levels, "", "")
    times = {}
    for label in ("released", "ours"):
        model = vamoh_parts(vamoh_config(name, label, case), field, target)
        times[f"VAMoH, {label}"] = clock(*model, values, repeats)
    for num_steps in NUM_STEPS:
        model = functa_parts(domain, target, num_channels, num_steps)
        times[f"Functa ({num_steps})"] = clock(*model, values, repeats)
    return times


def vamoh_config(name, label, case):
    """Returns the config of the release, or ours at its sizes."""
    module = importlib.import_module(f"configs.{name}")
    config = released = module.get_config("paper")
    if label == "ours":
        config = module.get_config("")
        for size in SIZES:
            config.model[size] = released.model[size]
        if case == "shapenet":  # as its docstring has it, for 32^3 cells
            config.model.encoder.points = (4096, 512, 64)
    return config


def vamoh_parts(config, field, target):
    """Returns (values -> z, z -> values at the target, what both take first), for one item."""
    stages = field_model.stages(config, "encoder", field.domain)
    tables = domains.tables(domains.positions(field.domain), stages)
    place = domains.paper_coordinates if config.paper else domains.coordinates
    coords, features = place(field.domain), None
    if config.paper:  # its neighbours are others, and as many
        tables = tuple(table._replace(offset=None) for table in tables)
        table = encodings.frequencies(config.model.num_frequencies, coords.shape[-1])
        features = encodings.fourier_features(table, coords)
    geometry = vamoh.Geometry(coords, tables, features)
    net = experiment.make_model(config, field)
    params = jax.jit(lambda key: vamoh.init(key, net, geometry))(jax.random.key(0))

    def find(arrays, values):
        params, geometry, _ = arrays
        mask = jnp.ones(len(values), bool)
        return net.apply({"params": params}, values, mask, geometry, method="encode")[0]

    def draw(arrays, z):
        params, _, coords = arrays
        return render(jax.random.key(0), net, params, z, coords).mean

    return find, draw, jax.device_put((params, geometry, place(target)))


def functa_parts(domain, target, num_channels, num_steps):
    """Returns the same of Functa."""
    net, coords = functa.Functa(num_channels, latent_size=256), functa.coordinates(domain)
    params = functa.init(jax.random.key(0), net, coords.shape[-1])

    def find(arrays, values):
        params, coords, _ = arrays
        mask = jnp.ones(len(values), bool)
        return functa.fit(net, params, values, mask, coords, num_steps=num_steps).latent

    def draw(arrays, z):
        params, _, coords = arrays
        return functa.render(net, params, z, coords)

    return find, draw, jax.device_put((params, coords, functa.coordinates(target)))


def clock(find, draw, arrays, values, repeats):
    """Returns the median and the 95th percentile of the whole, and the medians of its parts."""
    find, draw = (jax.vmap(part, in_axes=(None, 0)) for part in (find, draw))
    values = jax.device_put(values)

    def seconds(function, inputs):
        program = jax.jit(function).lower(arrays, inputs).compile()
        for _ in range(WARM):
            out = jax.block_until_ready(program(arrays, inputs))
        found = []
        for _ in range(repeats):
            began = time.perf_counter()
            jax.block_until_ready(program(arrays, inputs))
            found.append(time.perf_counter() - began)
        return found, out

    whole, _ = seconds(lambda arrays, values: draw(arrays, find(arrays, values)), values)
    finding, z = seconds(find, values)
    drawing, _ = seconds(draw, z)
    return np.median(whole), np.percentile(whole, 95), np.median(finding), np.median(drawing)


if __name__ == "__main__":
    main()
