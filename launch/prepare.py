"""Turns your own images, fields or voxels into a versioned TFDS data set.

  python -m launch.prepare --kind=images --source=<folder> --name=mydata --output=<dir> --size=64
  python -m launch.prepare --kind=fields --source=<npz> --name=mydata --output=<dir> --domain=sphere
  python -m launch.prepare --kind=voxels --source=<npz> --name=mydata --output=<dir>

Writes <dir>/<name>/<version>, whole or not at all, as array_record, without TensorFlow; train on it
by --config.data.name=prepared:<dir>/<name>/<version>. Folders train/, valid/ and test/ of images
and the array `split` of an npz are kept; parts that are absent are drawn. launch/data/archives.py
lists the arrays of an npz. Exit codes: 0 done; 2 refused, nothing written; 130 stopped.
"""

import argparse
import re
import sys
from pathlib import Path

from launch.workdir import Refused

KINDS = ("images", "fields", "voxels")
_ONLY_FOR = {  # flags that belong to some kinds
    "size": ("images",),
    "channels": ("images",),
    "domain": ("fields",),
    "likelihood": ("fields", "voxels"),
    "rescale": ("fields",),
}


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(prepare(flags))
    except (Refused, ValueError, OSError) as refusal:
        if flags.debug:
            raise
        print(f"launch.prepare: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def prepare(flags) -> str:
    """Reads and checks the source, writes the data set, and returns the report."""
    _check(flags)
    items = _read(flags)

    from launch.data import builders

    output = Path(flags.output).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--output={flags.output}: cannot be written ({error.strerror})") from None
    folder = builders.write(items, flags.name, output, flags.version)
    first = items.values["train"][0]
    sizes = " x ".join(map(str, items.domain.shape))
    counts = ", ".join(f"{len(values)} {part}" for part, values in items.values.items())
    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    unit = "" if items.unit is None else "; raw = {:g} + {:g} value".format(*items.unit)
    return (
        f"{flags.name} {flags.version}: {counts}\n"
        f"{items.domain.kind} {sizes} ({items.domain.convention}), {first.shape[-1]} channels of "
        f"{first.dtype}, likelihood {items.kind}{unit}\n"
        f"{num_bytes / 1e6:.2f} MB in {folder}\n"
        f"train on it by --config.data.name=prepared:{folder}"
    )


def _check(flags):
    if not re.fullmatch(r"[a-z][a-z0-9_]*", flags.name):
        raise Refused(
            f"--name={flags.name}: expected a lower case letter, then letters, digits and _"
        )
    if not re.fullmatch(r"\d+\.\d+\.\d+", flags.version):
        raise Refused(f"--version={flags.version}: expected three numbers such as 1.0.0")
    for flag, kinds in _ONLY_FOR.items():
        if getattr(flags, flag) and flags.kind not in kinds:
            raise Refused(f"--{flag} is for --kind={' or '.join(kinds)} only; leave it out")
    for flag in ("size", "num_valid", "num_test"):
        value = getattr(flags, flag)
        if value is not None and value < 1:
            raise Refused(f"--{flag}={value}: expected 1 or more")


def _read(flags):
    from launch.data import archives, pictures
    from launch.data.items import draw

    counts = {"num_valid": flags.num_valid, "num_test": flags.num_test}
    if flags.kind == "images":
        options = {"size": flags.size, "channels": flags.channels, "convention": flags.convention}
        return pictures.read_folder(flags.source, seed=flags.seed, **options, **counts)
    items = archives.read(
        Path(flags.source),
        "voxels" if flags.kind == "voxels" else flags.domain or "image",
        flags.convention,
        kind=flags.likelihood,
        rescale=flags.rescale,
    )
    return draw(items, flags.seed, **counts)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--source", required=True, help="folder of image files, or npz or npy file")
    add("--kind", required=True, choices=KINDS, help="what the source holds")
    add("--name", required=True, help="of the data set")
    add("--output", required=True, help="folder of data sets")
    add("--version", default="1.0.0", help="of the data set (1.0.0)")
    add("--size", type=int, help="images: pixels of the side, of the middle square; else their own")
    add("--channels", type=int, choices=(1, 3), help="images: 1 if absent and all files are grey")
    add("--domain", help="fields: image (if absent), voxels, sphere, series or video")
    add("--convention", choices=("centres", "corners"), help="where the points of a grid lie")
    add("--likelihood", help="logistic, continuous_bernoulli, bernoulli or gaussian; else by type")
    add("--rescale", action="store_true", help="fields: bring reals to [0, 1] and keep the unit")
    add("--num_valid", type=int, help="validation items to draw; a tenth if absent")
    add("--num_test", type=int, help="test items to draw; a tenth if absent")
    add("--seed", type=int, default=0, help="of the draw (0)")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
