"""A working directory: it remembers the config that it belongs to, and whether the run is finished.

Files are written whole or not at all: to a temporary name beside the target, then renamed. Imports
nothing heavy, so that a wrong request is refused at once.
"""

import json
import math
import os
import tempfile
from pathlib import Path

import ml_collections

# Fields that a resumed run may change: they move no number (mesh: beyond rounding).
FREE_FIELDS = ("mesh.", "loop.log_every", "loop.keep")


class Refused(Exception):
    """A request that cannot be served; the message is the sentence that the user reads."""


def open_workdir(workdir: str | Path) -> Path:
    """Makes the directory and checks that it can be written; returns its absolute path."""
    path = Path(workdir).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Refused(
            f"--workdir={workdir}: cannot be written ({error.strerror or error}); give a directory "
            f"that you may write to"
        ) from None
    return path


def open_run(workdir: str | Path) -> tuple[Path, ml_collections.ConfigDict]:
    """Opens a run of launch.train for a program that reads it; returns its path and its config.

    The mesh of the config becomes that of one device for a replica, whatever trained the run.
    """
    file = Path(workdir).expanduser() / "config.json"
    if not file.exists():
        raise Refused(f"{workdir} holds no config.json; give the --workdir of a run")
    config = ml_collections.ConfigDict(read_json(file))
    if "experiment" not in config:
        raise Refused(f"{workdir} is of another program; give the --workdir of a launch.train run")
    config.mesh.update({"replica": -1, "data": 1, "model": 1})
    return open_workdir(workdir), config


def is_begun(path: Path) -> bool:
    """Tells whether the directory holds a checkpoint; until then it belongs to no run."""
    folder = path / "checkpoints"
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def check_config(path: Path, config: dict) -> None:
    """Refuses a config other than the one the directory belongs to."""
    if not is_begun(path):
        return
    file = path / "config.json"
    if not file.exists():
        raise Refused(
            f"{path} holds checkpoints but no config.json, so it is unknown which run made them; "
            f"restore config.json or give another --workdir"
        )
    changed = {
        name: values
        for name, values in differences(read_json(file), normalise(config)).items()
        if not name.startswith(FREE_FIELDS)
    }
    if changed:
        listed = "; ".join(f"{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items())
        raise Refused(
            f"{path} belongs to a run of another config ({listed}); start it with its own config "
            f"or give another --workdir"
        )


def remember(path: Path, config: dict, meta: dict) -> None:
    """Writes config.json and meta.json; refuses data other than what a run began with."""
    check_config(path, config)
    file = path / "meta.json"
    if is_begun(path) and file.exists():
        changed = differences(read_json(file), normalise(meta))
        if changed:
            names = sorted({name.split(".")[0] for name in changed})
            raise Refused(
                f"{path}: the data is not what this run began with (meta.json differs in "
                f"{', '.join(names)}); restore the data or give another --workdir"
            )
    write_json(path / "config.json", config)
    write_json(file, meta)


def finished_result(path: Path) -> dict | None:
    """Returns result.json of a finished run, else None."""
    file = path / "result.json"
    return read_json(file) if file.exists() else None


def differences(old, new, prefix: str = "") -> dict[str, tuple]:
    """Compares two JSON values; returns dotted field name -> (old, new), "absent" where missing."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = {}
        for name in dict.fromkeys([*old, *new]):
            dotted = f"{prefix}.{name}" if prefix else name
            out |= differences(old.get(name, "absent"), new.get(name, "absent"), dotted)
        return out
    return {} if old == new else {prefix: (old, new)}


def normalise(value):
    """Returns a value as it would be read back from JSON: tuples as lists, non-finite as None."""
    if isinstance(value, dict):
        return {str(name): normalise(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return normalise(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def read_json(file: Path):
    """Reads a JSON file."""
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise Refused(
            f"{file} is damaged ({error}); restore it or give another --workdir"
        ) from None


def write_json(file: Path, value) -> None:
    """Writes a JSON file whole or not at all."""
    text = json.dumps(normalise(value), indent=2, allow_nan=False) + "\n"
    write_atomic(file, lambda stream: stream.write(text.encode()))


def write_atomic(file: Path, write) -> None:
    """Calls `write(binary stream)` on a temporary file and renames it to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
