"""Imports point one way, and the libraries touch neither TensorFlow, nor the network, nor disks."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"hmcvae", "functions", "launch", "configs", "benchmarks", "tests"}
LIBRARY = {"jax", "flax", "optax", "distrax", "numpy", "chex"}
SIDE_EFFECTS = {"http", "requests", "shutil", "socket", "subprocess", "tempfile", "urllib"}
EXTRA = {  # libraries of one file, used at set-up or on the host, never inside `jit`
    ("hmcvae", "estimator.py"): {"sklearn", "pandas"},
    ("hmcvae", "estimator_base.py"): {"sklearn", "pandas"},
    ("hmcvae", "frames.py"): {"pandas"},
    ("functions", "domains.py"): {"scipy"},  # the k-d tree
    ("functions", "metrics.py"): {"scipy", "sklearn"},
}
FROM_HMCVAE = {"hmc", "stein", "likelihoods", "gaussian"}  # all that functions/ may use


def forbidden(room, name, module):
    """Tells why file `name` of `room` must not import `module`, or None."""
    top, *rest = module.split(".")
    if top in {"tensorflow", "clu"}:
        return "TensorFlow stays out of the training environment"
    if room == "configs":  # several may share their fields
        is_fine = top in {"ml_collections", "configs", *sys.stdlib_module_names}
        return None if is_fine else "a config holds plain values"
    if top in {"configs", "benchmarks", "tests"}:
        return f"{top}/ is never imported"
    if room not in {"hmcvae", "functions"}:
        return None
    if top in SIDE_EFFECTS:
        return "a library touches neither network nor disk"
    if top in OURS:
        if top == room:
            return None
        if (room, top) == ("functions", "hmcvae"):
            is_fine = bool(rest) and rest[0] in FROM_HMCVAE
            return None if is_fine else f"only {sorted(FROM_HMCVAE)} are shared"
        return f"{room} does not know {top}"
    extra = EXTRA.get((room, name), set())
    is_fine = top in LIBRARY | extra | set(sys.stdlib_module_names)
    return None if is_fine else "not a dependency of the libraries"


def imports(source, package):
    """Lists the modules that a source imports, at any depth, as absolute names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ["hmcvae", "functions", "launch", "configs"])
def test_room_imports_only_what_it_may(room):
    wrong = []
    for file in sorted((ROOT / room).rglob("*.py")):
        package = ".".join(file.relative_to(ROOT).parent.parts)
        for module in imports(file.read_text(), package):
            reason = forbidden(room, file.name, module)
            if reason:
                wrong.append(f"{file.relative_to(ROOT)} imports {module}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("hmcvae", "from functions import siren"),
        ("hmcvae", "import launch.loop"),
        ("hmcvae", "import tensorflow as tf"),
        ("hmcvae", "from urllib import request"),
        ("hmcvae", "def f():\n    import pandas"),
        ("functions", "from hmcvae import model"),
        ("functions", "import hmcvae"),
        ("configs", "import jax"),
        ("configs", "from launch import loop"),
        ("functions", "import scipy"),
        ("launch", "from configs import hhvaem"),
        ("launch", "from tests.launch import toy"),
    ],
)
def test_forbidden_import_is_found(room, line):
    assert any(forbidden(room, "model.py", module) for module in imports(line, room))


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("functions", "from hmcvae import hmc, stein"),
        ("functions", "from hmcvae.likelihoods import log_prob"),
        ("hmcvae", "from . import hmc"),
        ("hmcvae", "import numpy as np\nfrom flax import linen as nn\nimport math"),
        ("launch", "from hmcvae.model import HVAE"),
        ("configs", "from configs._vamoh import base"),
    ],
)
def test_allowed_import_is_not_found(room, line):
    assert not any(forbidden(room, "model.py", module) for module in imports(line, room))
