"""Renders what a model of functions has learned at any resolution.

  python -m launch.render --workdir=runs/digits --task=super_resolution --size=512 [--num=4]

Tasks: `reconstruct` and `super_resolution` show the model whole test items; `inpaint`, `outpaint`,
`left`, `right`, `top`, `bottom` and `drop10` to `drop90` show parts of them; `segmentation` draws
the components of a mixture and how sure it is of them; `interpolate` goes from one item to another;
`samples` come from the prior. Values that are shown decide z; a picture is a function of z alone.

Writes arrays.npz, figure.png and, of images, a PNG of every picture in full resolution to
renders/<task>_<size>/ in the run, over what an earlier call has put there. The run itself is not
touched. Exit codes: 0 done; 2 refused; 130 stopped by Ctrl-C.
"""

import argparse
import importlib
import math
import os
import sys
from pathlib import Path

from launch import workdir
from launch.workdir import Refused

MODELS = ("vamoh", "gasp", "functa")  # experiments on functions
PICTURE_BYTES = 150  # a point, while its coordinates are made and its figure is drawn


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(render(flags))
    except (Refused, ValueError, OSError, MemoryError) as refusal:
        if flags.debug:
            raise
        print(f"launch.render: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def render(flags) -> str:
    """Restores the run, renders what the flags ask for, writes it, and returns the report."""
    sizes = _sizes(flags)
    directory, config = workdir.open_run(flags.workdir)
    if config.experiment not in MODELS:
        raise Refused(
            f"{flags.workdir} is a run of experiment {config.experiment!r}; expected one of "
            f"{', '.join(MODELS)}"
        )
    if flags.data_dir:
        config.data.dir = flags.data_dir

    import jax
    import numpy as np
    from PIL import Image

    from launch import loop
    from launch.experiments import field_render

    module = importlib.import_module(f"launch.experiments.{config.experiment}")
    field = module.load_field(config)
    domain = field_render.resolution(field.domain, flags.task, sizes)
    _check_memory(flags, domain, field.train.shape[-1])
    experiment = module.build(config, field)
    state, note = loop.load(experiment, config, directory)
    if note["phase"] != experiment.phases[-1].name:
        raise Refused(
            f"{flags.workdir} is in phase {note['phase']!r}, before the last one; train it further"
        )
    params, data = jax.tree.map(lambda a: a[0], (state.params, experiment.data))
    rendered = field_render.render(
        jax.random.key(flags.seed), module.make_field_model(config, field, data), params, field,
        flags.task, domain,
        num=flags.num, estimate=flags.estimate, is_drawn=flags.z == "sample", chunk=flags.chunk,
        paper=config.paper,
    )  # fmt: skip

    size = "x".join(map(str, domain.shape))
    folder = directory / "renders" / f"{flags.task}_{size}"
    if flags.output:
        folder = Path(flags.output).expanduser()
    else:  # pictures of an earlier call
        for stale in folder.glob("*.png"):
            stale.unlink()
    workdir.write_atomic(folder / "arrays.npz", lambda file: np.savez(file, **rendered.arrays))
    for name, picture in rendered.pictures.items():
        save = Image.fromarray(picture).save
        workdir.write_atomic(folder / f"{name}.png", lambda file, save=save: save(file, "png"))
    rendered.draw(rendered.arrays, folder / "figure.png")
    return (
        f"{flags.task}: {flags.num} of {field.name} at {size} points, {flags.estimate}, seed "
        f"{flags.seed}, from step {note['step']} of {flags.workdir}\n"
        f"{folder}: arrays.npz, figure.png and {len(rendered.pictures)} pictures"
    )


def _check_memory(flags, domain, num_channels):
    """Refuses pictures that the host cannot hold; the device takes them in chunks."""
    num_points = math.prod(domain.shape)
    needed = num_points * (4 * num_channels * flags.num + PICTURE_BYTES)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise Refused(
            f"--size={flags.size}: {flags.num} renders of {num_points} points and their figure "
            f"take about {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free; lower --size or "
            f"--num"
        )


def _sizes(flags):
    """Reads --size; refuses numbers that cannot be."""
    for name in ("num", "chunk"):
        if getattr(flags, name) < 1:
            raise Refused(f"--{name}={getattr(flags, name)}: expected 1 or more")
    if flags.size is None:
        return ()
    words = flags.size.split("x")
    if not all(word.isdecimal() and int(word) for word in words):
        raise Refused(
            f"--size={flags.size}: expected a number of points such as 512, or one an axis such as "
            f"512x512"
        )
    return tuple(map(int, words))


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="directory of a run of launch.train; its first seed")
    add("--task", required=True, help="one of the tasks above")
    add("--size", help="points along the first axis in space, others in proportion, or of all axes "
        "as 8x512x512; if absent, as the data, and super_resolution four times that")  # fmt: skip
    add("--num", type=int, default=4, help="test items, the first; pairs of them; or samples (4)")
    add("--seed", type=int, default=0, help="of masks, latents and sampled values (0)")
    add("--estimate", choices=("mean", "most_probable", "sample"), default="mean",
        help="of a value: its mean (if absent), that of the most probable component of a mixture, "
        "or a draw")  # fmt: skip
    add("--z", choices=("mean", "sample"), default="mean",
        help="of a test item's latent: the best one (if absent) or a draw")  # fmt: skip
    add("--chunk", type=int, default=16384, help="points at a time; bounds the memory (16384)")
    add("--output", help="another folder for the files")
    add("--data_dir", help="folder of the data on this machine")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
