"""What a run leaves behind: a summary of its scores, and the facts that make them reproducible."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import numpy as np

from launch.workdir import normalise

PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy", "orbax-checkpoint")


def summarise(metrics: dict) -> dict:
    """Returns per metric the replicas' values, their mean and population standard deviation."""
    out = {}
    for name, values in metrics.items():
        values = np.asarray(values, np.float64).reshape(-1)
        out[name] = {"mean": values.mean(), "std": values.std(), "replicas": values}
    return normalise(out)


def format_table(summary: dict, published: dict | None = None) -> str:
    """Formats the output of `summarise` for people, beside published (mean, std) by name."""
    if not summary:
        return "no metrics"
    published = published or {}
    count = len(next(iter(summary.values()))["replicas"])
    width = max(len(name) for name in summary)

    def number(value):
        return "nan" if value is None else f"{value:.4g}"

    lines = [f"{'':<{width}}  {'mean':>10}"]
    if count > 1:
        lines[0] += f"  {'std':>10}"
    if published:
        lines[0] += f"  {'published':>14}"
    for name, scores in summary.items():
        line = f"{name:<{width}}  {number(scores['mean']):>10}"
        if count > 1:
            line += f"  {number(scores['std']):>10}"
        if name in published:
            mean, std = published[name]
            digits = 2 if std >= 0.01 else 3  # as printed in the source
            line += f"  {f'{mean:.{digits}f} +- {std:.{digits}f}':>14}"
        lines.append(line)
    if count > 1:
        lines.append(f"({count} replicas)")
    return "\n".join(lines)


def environment() -> dict:
    """Returns the device, the versions and the commit that a result depends on."""
    import jax  # here, so that the table of a finished run is shown at once

    devices = jax.devices()
    return {
        "device": {
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Hash of the checkout that this file belongs to, "+" added if files differ from it."""

    def git(*words):
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
