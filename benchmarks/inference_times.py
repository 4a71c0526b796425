"""Inference times of VAMoH and Functa at the five published sizes: the table of the source talk.

  python -m benchmarks.inference_times [--cases=polymnist,celeba] [--batches=1] [--repeats=20]

`reconstruct` finds the latent of an item and evaluates its function on the same grid, `super` on
2 R - 1 points an axis, as the released VAMoH. VAMoH encodes in one pass, Functa (T) takes T steps
of gradients from 0. Parameters are untrained and data random: no time depends on them. Networks:
VAMoH at its published sizes (`released`: the protocol of the release, `ours`: our default with the
same widths, latents and components), Functa with the published 14 layers of 512 and 256 latents;
the sizes of the talk's baselines are not known. Neighbours are found beforehand: they belong to the
grid.

Programs are compiled ahead, several at once, and warm. Printed are the median and the 95th
percentile of both parts in turn, waited for at their end, the medians of each part alone, and how
many times longer Functa takes, beside the published factor (one GPU, batch and scope not stated).
Milliseconds are of a batch. A measurement ends after --limit seconds, five repeats at least, and
what does not fit the device's memory says so. On a CPU choose cases and batches: Functa (10) on
32^3 voxels takes 0.4 PFLOP at batch 64.
"""

import argparse
import functools
import importlib
import os
import time
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

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
FEWEST = 5  # calls on the clock
LINE = "{:10}{:12}{:>5}  {:16}" + "{:>11}" * 4 + "{:>9}  {}"


class Parts(NamedTuple):
    """A model, for one item; arrays are passed, so that programs do not hold them as constants."""

    find: Callable  # (found, values [N, C]) -> latent [Z]
    draw: Callable  # (drawn, latent) -> values [n, C]
    found: tuple  # arrays of `find`
    drawn: dict  # {task: arrays of `draw`}


class Times(NamedTuple):
    """Seconds of a batch."""

    median: float  # both parts
    p95: float
    find: float  # median
    draw: float
    repeats: int


def main():
    """Measures what the flags ask for and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = lambda text: text.split(",")
    parser.add_argument("--cases", type=listed, default=list(CASES), help="with commas")
    parser.add_argument("--batches", type=listed, default=["1", "64"], help="with commas")
    parser.add_argument("--tasks", type=listed, default=list(PUBLISHED), help="with commas")
    parser.add_argument("--repeats", type=int, default=200, help="calls on the clock, at most")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of a measurement")
    flags = parser.parse_args()
    print(LINE.format("case", "task", "batch", "model", "median ms", "p95 ms", "latent ms",
                      "function ms", "repeats", "Functa / it (published)"))  # fmt: skip
    for case in flags.cases:
        for batch, task, times in measure(case, flags):
            report(case, task, batch, times)
    device = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0))
    print(f"device: {device}, {cores} cores, jax {jax.__version__}")


def report(case, task, batch, times):
    """Prints a line a model; `times` are its `Times` by name, None where memory was short."""
    for name, mine in times.items():
        factors = ""
        if mine and name.startswith("VAMoH"):
            for steps, published in zip(NUM_STEPS, PUBLISHED[task][case], strict=True):
                theirs = times[f"Functa ({steps})"]
                factor = f"{theirs.median / mine.median:.2f}" if theirs else "-"
                factors += f"{factor} ({published})  "
        shown = [f"{1e3 * value:.3f}" for value in mine[:4]] if mine else ["no memory"] * 4
        repeats = mine.repeats if mine else 0
        print(LINE.format(case, task, batch, name, *shown, repeats, factors).rstrip(), flush=True)


def measure(case, flags):
    """Times all models; yields (batch, task, {name: Times})."""
    name, domain, num_channels, kind, num_levels = CASES[case]
    finer = domains.resized(domain, [2 * size - 1 for size in domain.shape])
    targets = {task: finer if task == "super" else domain for task in flags.tasks}
    rng = np.random.default_rng(0)
    shape = (np.prod(domain.shape), num_channels)
    batches = {int(size): rng.random((int(size), *shape), np.float32) for size in flags.batches}
    field = Field("random", domain, *[batches[min(batches)]] * 3, kind, num_levels, "", "")
    models = {}
    for label in ("released", "ours"):
        config = vamoh_config(name, label, case)
        models[f"VAMoH, {label}"] = vamoh_parts(config, field, targets)
    for num_steps in NUM_STEPS:
        models[f"Functa ({num_steps})"] = functa_parts(domain, targets, num_channels, num_steps)
    with futures.ThreadPoolExecutor() as pool:  # XLA compiles without the interpreter's lock
        compiling = {
            size: {name: submit(pool, parts, values) for name, parts in models.items()}
            for size, values in batches.items()
        }
    for size, values in batches.items():
        programs = jax.tree.map(lambda job: job.result(), compiling[size])
        times = {
            name: clock(programs[name], parts, jax.device_put(values), flags)
            for name, parts in models.items()
        }
        for task in targets:
            yield size, task, {name: mine[task] for name, mine in times.items()}


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


def vamoh_parts(config, field, targets):
    """Returns the parts of VAMoH."""
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
        params, geometry = arrays
        mask = jnp.ones(len(values), bool)
        return net.apply({"params": params}, values, mask, geometry, method="encode")[0]

    def draw(arrays, z):
        params, coords = arrays
        return render(jax.random.key(0), net, params, z, coords).mean

    drawn = {task: jax.device_put((params, place(target))) for task, target in targets.items()}
    return Parts(find, draw, jax.device_put((params, geometry)), drawn)


def functa_parts(domain, targets, num_channels, num_steps):
    """Returns the same of Functa."""
    net, coords = functa.Functa(num_channels, latent_size=256), functa.coordinates(domain)
    params = functa.init(jax.random.key(0), net, coords.shape[-1])

    def find(arrays, values):
        params, coords = arrays
        mask = jnp.ones(len(values), bool)
        return functa.fit(net, params, values, mask, coords, num_steps=num_steps).latent

    def draw(arrays, z):
        params, coords = arrays
        return functa.render(net, params, z, coords)

    place = functa.coordinates
    drawn = {task: jax.device_put((params, place(target))) for task, target in targets.items()}
    return Parts(find, draw, jax.device_put((params, coords)), drawn)


def submit(pool, parts, values):
    """Compiles in the pool: {"find" or a task: the program's future}, of a whole batch."""
    find, draw = (jax.jit(jax.vmap(part, in_axes=(None, 0))) for part in (parts.find, parts.draw))
    z = jax.eval_shape(find, parts.found, values)
    lowered = {task: draw.lower(arrays, z) for task, arrays in parts.drawn.items()}
    lowered["find"] = find.lower(parts.found, values)
    return {name: pool.submit(program.compile) for name, program in lowered.items()}


def clock(programs, parts, values, flags):
    """Times finding, drawing and both in turn: {task: Times, or None where memory is short}."""

    def seconds(call):
        try:
            for _ in range(WARM):
                jax.block_until_ready(call())
            times = []
            while len(times) < flags.repeats and (sum(times) < flags.limit or len(times) < FEWEST):
                began = time.perf_counter()
                jax.block_until_ready(call())
                times.append(time.perf_counter() - began)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None
        return times

    find, times = functools.partial(programs["find"], parts.found, values), {}
    finding = seconds(find)
    for task, arrays in parts.drawn.items():
        draw = functools.partial(programs[task], arrays)
        drawing = finding and seconds(functools.partial(draw, find()))
        whole = drawing and seconds(lambda: draw(find()))  # noqa: B023
        times[task] = whole and Times(
            np.median(whole), np.percentile(whole, 95), np.median(finding), np.median(drawing),
            len(whole),
        )  # fmt: skip
    return times


if __name__ == "__main__":
    main()
