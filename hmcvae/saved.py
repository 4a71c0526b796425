"""Fitted values in one file that executes no code: a NumPy archive with a JSON text in it.

An archive (.npz) is a zip of arrays without objects, readable by NumPy alone. Its member "about" is
a JSON text; every other member is an array, named by the path to it: "params_/encoder/kernel".
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def write(path: str | os.PathLike, about: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes one file, whole or not at all.

    Args:
      path: its name.
      about: what JSON can hold.
      arrays: nested dicts of arrays, without objects and without "/" in their keys.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **_flatten(arrays))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `write` wrote: (about, arrays)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
        about = json.loads(str(members.pop("about")))
    except (ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{str(path)!r} is no file of a fitted estimator ({error}); write it with save()"
        ) from None
    arrays: dict[str, Any] = {}
    for name, value in members.items():
        *folders, leaf = name.split("/")
        node = arrays
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return about, arrays


def _flatten(tree, prefix=""):
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.asarray(value)
    return flat
