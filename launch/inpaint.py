"""Fills holes in images by posterior samples, one row of the picture a model.

  python -m launch.inpaint --workdirs=runs/vae,runs/hh-vae [--mask=square] [--target=7]

Masks: `square` hides a hole of 2 x --size pixels a side at a random place, the same in all images;
`border` all but the middle, --size pixels wide; `left`, `right`, `top`, `bottom` a half; `drop10`
to `drop90` as many per cent of the pixels, others in every image. Runs with a tuned chain sample by
HMC, those of the importance-weighted bound by resampling, others from the encoder. A hole is filled
with the mean of what the samples decode to, or with one of them (--show=draw).

Scores are log probabilities: -log 1/S sum_s prod_d p(x_d | eps_s) over the hidden pixels d,
divided by their number. Writes figure.png, arrays.npz and scores.json to inpaint/<mask> in the
first run. The runs themselves are not touched. Exit codes: 0 done; 2 refused; 130 stopped.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from launch import workdir
from launch.workdir import Refused

HALVES = ("left", "right", "top", "bottom")
DROPS = tuple(f"drop{percent}" for percent in range(10, 100, 10))
MASKS = ("square", "border", *HALVES, *DROPS)
OWN = "own"  # --target: every image's own class


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(inpaint(flags))
    except (Refused, ValueError, OSError) as refusal:
        if flags.debug:
            raise
        print(f"launch.inpaint: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def inpaint(flags) -> str:
    """Restores the runs, fills the holes, writes what it found, and returns the report."""
    for name in ("num", "num_samples"):
        if getattr(flags, name) < 1:
            raise Refused(f"--{name}={getattr(flags, name)}: expected 1 or more")
    paths = [path for path in flags.workdirs.split(",") if path]
    if not paths:
        raise Refused("--workdirs is empty; give one run or several, joined by commas")

    import jax

    from launch import image_figures, trained
    from launch.data import image_tables
    from launch.experiments import images
    from launch.metrics import say

    runs = [trained.load(path, flags.data_dir) for path in paths]
    first = runs[0]
    for path, run in zip(paths, runs, strict=True):
        if run.table.name not in image_tables.SHAPES:
            raise Refused(f"{path} is a run of the table {run.table.name!r}, which is no images")
        if run.fold.fingerprint != first.fold.fingerprint:
            raise Refused(
                f"{path} and {paths[0]} were trained on other images or splits; give runs of one "
                f"table and split"
            )
    shape = image_tables.SHAPES[first.table.name]
    rng = np.random.default_rng(flags.seed)
    num = min(flags.num, len(first.fold.test))
    rows = rng.choice(first.fold.test, num, replace=False)
    shown = make_mask(rng, flags.mask, shape, num, flags.size)
    target = read_target(first.table, rows, flags.target)
    original = np.float32(first.table.x[rows])

    completed = []
    for i, (path, run) in enumerate(zip(paths, runs, strict=True)):
        began = time.monotonic()
        key = jax.random.fold_in(jax.random.key(flags.seed), i)
        done = images.complete(
            key, run.model, run.params, run.scaler, original, shown, target,
            num_samples=flags.num_samples, schedule=run.schedule,
        )  # fmt: skip
        completed.append(jax.device_get(done))
        say(f"{path}: {run.name}, {time.monotonic() - began:.0f} s")
    hidden = (~shown).sum(axis=1)
    scores = [-done.log_prob / hidden for done in completed]
    names = trained.labels([run.name for run in runs], paths)
    filled = np.stack([getattr(done, flags.show) for done in completed])
    arrays = {
        "shape": np.array(shape),
        "rows": rows,
        "original": original,
        "mask": shown,
        "models": np.array(names),
        "filled": filled,
        "mean": np.stack([done.mean for done in completed]),
        "draw": np.stack([done.draw for done in completed]),
        "nll_hole": np.stack(scores),
    }
    result = {
        **{name: getattr(flags, name) for name in ("mask", "size", "num_samples", "seed", "show")},
        "table": first.table.name,
        "target": flags.target,
        "rows": rows,
        "hidden_columns": hidden,
        "models": [
            {
                "workdir": path,
                "name": name,
                "nll_hole": score.mean(),
                "standard_error": score.std() / np.sqrt(len(score)),
                "by_image": score,
                "acceptance": done.acceptance.mean(),
            }
            for path, name, score, done in zip(paths, names, scores, completed, strict=True)
        ],
    }
    folder = Path(flags.output or Path(paths[0]) / "inpaint" / flags.mask).expanduser()
    workdir.write_atomic(folder / "arrays.npz", lambda file: np.savez(file, **arrays))
    workdir.write_json(folder / "scores.json", result)
    image_figures.inpainting(arrays, folder / "figure.png")
    lines = [f"{flags.mask}: {num} images of {first.table.name}, nats a hidden pixel"]
    lines += [
        f"  {m['name']:<24} {m['nll_hole']:.4f} +- {m['standard_error']:.4f}"
        for m in result["models"]
    ]
    return "\n".join([*lines, f"{folder}: figure.png, arrays.npz, scores.json"])


def make_mask(rng, name: str, shape: tuple[int, int, int], num: int, size: int | None = None):
    """Draws which pixels are shown.

    Args:
      rng: NumPy generator.
      name: one of `MASKS`.
      shape: height, width, colours; the colours of a pixel are hidden together.
      num: images.
      size: half the side of the square, or the width of the border; None is a quarter of the
        image's side, as published for the square.

    Returns:
      [num, D] bool, True = shown; every image hides at least one pixel.
    """
    height, width, colours = shape
    if name not in MASKS:
        raise ValueError(f"mask {name!r} is unknown; use one of {', '.join(MASKS)}")
    if size is not None and name not in ("square", "border"):
        raise ValueError(f"size={size}: mask {name!r} has no size; leave it out")
    size = height // 4 if size is None else size
    if not 1 <= size < height / 2:
        raise ValueError(f"size={size}: expected 1 to {(height - 1) // 2} for {height} pixels")
    row, column = np.indices((height, width))
    if name in DROPS:
        coins = rng.random((num, height, width))
        shown = coins >= int(name.removeprefix("drop")) / 100
        shown &= coins > coins.min(axis=(1, 2), keepdims=True)
    elif name == "square":
        top, left = rng.integers(0, (height - 2 * size, width - 2 * size))
        is_inside = (row >= top) & (row < top + 2 * size)
        shown = ~(is_inside & (column >= left) & (column < left + 2 * size))
    elif name == "border":
        is_middle = (row >= size) & (row < height - size)
        shown = is_middle & (column >= size) & (column < width - size)
    else:
        along, length = (column, width) if name in ("left", "right") else (row, height)
        is_second = 2 * along >= length
        shown = is_second if name in ("left", "top") else ~is_second
    shown = np.broadcast_to(shown, (num, height, width))
    return shown.repeat(colours).reshape(num, -1)


def read_target(table, rows, word: str | None):
    """Returns the labels [n, 1] to condition on, as codes, or None.

    Args:
      table: the images.
      rows: [n] which of them.
      word: a class of the table's label, "own" for that of every image, or None.
    """
    if word is None:
        return None
    if not table.target.num_columns:
        raise Refused(f"--target={word}: {table.name!r} has no labels; leave it out")
    if word == OWN:
        return np.float32(table.y[rows])
    classes = [str(label) for label in table.target.columns[0].categories]
    if word not in classes:
        raise Refused(f"--target={word}: expected {OWN} or one of {', '.join(classes)}")
    return np.full((len(rows), 1), classes.index(word), np.float32)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.inpaint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdirs", required=True, help="runs of launch.train on images, joined by commas; the "
        "first split of each")  # fmt: skip
    add("--mask", default="square", help="one of the masks above (square)")
    add("--size", type=int, help="pixels: half the square's side, or the border's width; a quarter "
        "of the image's side if absent")  # fmt: skip
    add("--num", type=int, default=12, help="test images, drawn at random (12)")
    add("--num_samples", type=int, default=100, help="posterior samples of each (100)")
    add("--seed", type=int, default=0, help="of images, holes and samples (0)")
    add("--target", help=f"class that the images are said to have, or {OWN} for each its own; "
        "unknown to the models if absent")  # fmt: skip
    add("--show", choices=("mean", "draw"), default="mean",
        help="fill holes with the mean (if absent) or with one draw of the posterior")  # fmt: skip
    add("--output", help="another folder for the files")
    add("--data_dir", help="folder of the images on this machine")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
