"""The page of launch.compare: Markdown tables and pictures, from what runs have left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from functions import domains, tasks
from launch.field_figures import fraction_curves, side_by_side

ABSENT = "-"
# Scores by their names in result.json: a title, and 1 or -1 where more or less is better.
RECONSTRUCTION = {
    "psnr": ("PSNR, dB", 1),
    "psnr_of_mean": ("PSNR of the mean error, dB", 1),
    "ssim": ("SSIM", 1),
    "accuracy": ("accuracy of cells", 1),
    "iou": ("IoU", 1),
    "rmse_raw": ("RMSE, raw unit", -1),
    "bits_per_dimension": ("bits a dimension", 0),  # likelihoods differ
}
COMPLETION = {
    "psnr": ("PSNR, dB", 1),
    "iou": ("IoU", 1),
    "rmse_raw": ("RMSE, raw unit", -1),
    "nll": ("NLL, nats a value", 0),
}
GENERATION = {
    "fd_mean": ("Fréchet distance", -1),
    "fd_sample": ("the same, of draws of y", -1),
    "fd_floor": ("the same, of training items", 0),
    "precision": ("precision", 1),
    "recall": ("recall", 1),
    "density": ("density", 1),
    "coverage": ("coverage", 1),
    "audit_ratio": ("distance to the nearest training item, over that of test items", 0),
}
APPROACH = {
    "vamoh": "variational autoencoder",
    "gasp": "adversarial",
    "functa": "meta-learning, then priors of latents",
}
GENERATE = {
    "vamoh": "forward pass",
    "gasp": "forward pass",
    "functa": "extra models of latents",
}
INTRODUCTION = f"""\
Means over test items, ± the population standard deviation over seeds where there are several.
Completions are scored on hidden points only, of all models the same; `left` means that the left
half is observed. Fréchet distances are of principal components of the training items, not FID.
**Bold**: the best of a row; {ABSENT}: there is no such score."""


class Run(NamedTuple):
    """What one run has left."""

    label: str  # of its column
    config: dict
    result: dict  # of result.json
    arrays: dict[str, np.ndarray]  # of its last evaluation


def num_scored(run: Run) -> int:
    """Returns how many test items the run has scored."""
    num_test = run.result["meta"]["items"]["test"]
    return min(run.config["evaluate"]["num_items"] or num_test, num_test)


def page(runs: Sequence[Run], drawn: dict[str, str]) -> str:
    """Returns the page as Markdown.

    Args:
      runs: of the same data.
      drawn: files of pictures by their titles, see `pictures`.
    """
    meta = runs[0].result["meta"]
    items = ", ".join(f"{number} {part}" for part, number in meta["items"].items())
    shape = " x ".join(map(str, meta["domain"]["shape"]))
    parts = [
        f"# {', '.join(run.label for run in runs)} on {meta['data']}",
        f"{meta['domain']['kind']}, {shape}; {items} items, {num_scored(runs[0])} of test scored.",
        INTRODUCTION,
        "## What they can do",
        _table(runs, {name: [can(run) for run in runs] for name, can in CAPABILITIES.items()}),
        "## Reconstruction",
        _scores(runs, RECONSTRUCTION | {"psnr_of_training_mean": ("PSNR of the mean item, dB", 0)}),
        "## Completion",
        *_completions(runs),
        "## Generation",
        *_generations(runs),
        "## Times",
        _table(runs, _times(runs)),
    ]
    for title, file in drawn.items():
        parts += [f"## {title}", f"![{title}]({file})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def pictures(runs: Sequence[Run], folder: Path) -> dict[str, str]:
    """Draws grids of pictures, a row a run; returns their files by titles."""
    own = _domain(runs[0].arrays)
    drawn = {}

    def draw(title, name, domain, rows):
        if not any(is_model for _, is_model, _ in rows):
            return
        arrays = {name: np.array(value) for name, value in domain._asdict().items()}
        arrays |= {f"row_{i}": _drawable(values, domain) for i, (*_, values) in enumerate(rows)}
        arrays["labels"] = np.array([label for label, _, _ in rows])
        arrays["is_model"] = np.array([is_model for _, is_model, _ in rows])
        side_by_side(arrays, folder / f"{name}.png")
        drawn[title] = f"{name}.png"

    generated = [
        (_line(run.label, name.removeprefix("generated_")), True, run.arrays[name])
        for run in runs
        for name in run.arrays
        if name.startswith("generated")
    ]
    draw("Generated items", "samples", own, generated)
    finding = [run for run in runs if "truth" in run.arrays]  # latents of items
    if not finding:
        return drawn
    if any(_score(run, "psnr_drop50") for run in finding):
        fraction_curves(_by_fraction(finding), folder / "dropped.png")
        drawn["Dropped points, by the share that is observed"] = "dropped.png"
    truth = finding[0].arrays["truth"]
    rows = [(run.label, True, run.arrays["reconstruction"]) for run in finding]
    draw("Reconstructions", "reconstructions", own, [("data", False, truth), *rows])
    for task in finding[0].arrays["tasks"]:
        rows, seen = [], None
        for run in finding:
            at = list(run.arrays["tasks"]).index(task)
            mask = run.arrays["completion_mask"][at]
            if seen is None or not np.array_equal(mask, seen):
                rows.append(("observed", False, np.where(mask[..., None], truth, np.nan)))
            rows.append((run.label, True, run.arrays["completion_mean"][at]))
            seen = mask
        draw(f"Completions: {task}", f"completions_{task}", own, [*rows, ("truth", False, truth)])
    common = set.intersection(*({n for n in r.arrays if n.startswith("render_")} for r in finding))
    if common:
        name = max(common, key=lambda name: int(name.removeprefix("render_")))
        finer = domains.resized(own, finding[0].arrays[name.replace("render", "shape")])
        nearest = domains.nearest(domains.coordinates(own), domains.coordinates(finer), 1)[:, 0]
        rows = [(run.label, True, run.arrays[name]) for run in finding]
        title = f"Super-resolution, {' x '.join(map(str, finer.shape))}"
        draw(title, "super_resolution", finer, [("data", False, truth[:, nearest]), *rows])
    return drawn


def _by_fraction(runs):
    """Gathers the scores of dropped points for `fraction_curves`."""
    shares = sorted(int(t.removeprefix("drop")) for t in tasks.TASKS if t.startswith("drop"))
    shares = shares[::-1]  # dropped
    arrays = {
        "models": np.array([run.label for run in runs]),
        "fraction": 1 - np.array(shares) / 100,
    }
    for i, run in enumerate(runs):
        for metric in ("psnr", "nll"):
            found = [_score(run, f"{metric}_drop{share}") for share in shares]
            seeds = len(run.result["replica_seeds"])
            values = [score["replicas"] if score else [np.nan] * seeds for score in found]
            arrays[f"{metric}_{i}"] = np.array(values, float).T
    return arrays


def _reconstruct(run):
    """Says how a whole item is reconstructed."""
    if _score(run, "psnr") is None:
        return "no"
    inner_steps = run.config["train"].get("inner_steps")
    return f"{inner_steps} gradient steps" if inner_steps else _complete(run)


def _complete(run):
    """Says how a part of an item is completed."""
    if _score(run, "psnr") is None:
        return "no"
    settings = run.config["evaluate"]
    if "completion_steps" not in settings:
        return "forward pass"
    starts = settings["num_samples"] if run.config["experiment"] == "gasp" else 1
    return f"descent, {settings['completion_steps']} steps from {starts} of the prior"


CAPABILITIES: dict[str, Callable[[Run], str]] = {
    "approach": lambda run: APPROACH[run.config["experiment"]],
    "training": lambda run: ", then ".join(run.result["phases"]),
    "generation": lambda run: GENERATE[run.config["experiment"]],
    "reconstruction": _reconstruct,
    "completion, in- and out-painting": _complete,
    "super-resolution": lambda run: "any" if "steps" in run.arrays else "no",
    "several completions of an item": lambda run: _yes("completion_std" in run.arrays),
    "likelihood": lambda run: _yes(_score(run, "bits_per_dimension") is not None),
    "segmentation": lambda run: _yes(run.arrays["num_components"] > 1),
}


def _yes(condition):
    return "yes" if condition else "no"


def _score(run, name):
    """Returns mean, std and replicas of a metric, or None where there is none."""
    found = run.result["metrics"].get(name)
    return None if found is None or found["mean"] is None else found


def _scores(runs, named, corner=""):
    """A table of scores, {name: (title, sign)}; empty where no run has any."""
    rows = {}
    for name, (title, sign) in named.items():
        found = [_score(run, name) for run in runs]
        if not any(found):
            continue
        means = [sign * score["mean"] for score in found if score]
        entries = [_entry(score) for score in found]
        if sign and len(means) > 1:
            best = [bool(score) and sign * score["mean"] == max(means) for score in found]
            pairs = zip(entries, best, strict=True)
            entries = [f"**{entry}**" if is_best else entry for entry, is_best in pairs]
        rows[title] = entries
    return _table(runs, rows, corner) if rows else ""


def _entry(score):
    if not score:
        return ABSENT
    spread = f" ± {score['std']:.2g}" if len(score["replicas"]) > 1 else ""
    return f"{score['mean']:.4g}{spread}"


def _completions(runs):
    """A table for every metric, a row a task."""
    for metric, (title, sign) in COMPLETION.items():
        yield _scores(runs, {f"{metric}_{task}": (task, sign) for task in tasks.TASKS}, title)


def _generations(runs):
    """A table for every way in which models make items; its name ends those of the scores."""
    names = [name for run in runs for name in run.result["metrics"] if name.startswith("fd_mean")]
    for ending in dict.fromkeys(name.removeprefix("fd_mean") for name in names):
        named = {f"{name}{ending}": title for name, title in GENERATION.items()}
        yield _scores(runs, named, ending.removeprefix("_"))


def _times(runs):
    """Rows of seconds, of all phases and seeds together, and of what they were taken on."""
    seconds = lambda part: [
        f"{sum(phase['seconds'].get(part, 0.0) for phase in run.result['phases'].values()):.0f}"
        for run in runs
    ]
    device = lambda of: f"{of['count']} {of['kind']}"
    return {
        "seeds, trained together": [len(run.result["replica_seeds"]) for run in runs],
        "training, s": seconds("train"),
        "compiling it, s": seconds("compile"),
        "scores, s": seconds("evaluate"),
        "device": [device(run.result["device"]) for run in runs],
        "commit": [(run.result["commit"] or ABSENT)[:7] for run in runs],
    }


def _table(runs, rows, corner=""):
    lines = [[corner, *(run.label for run in runs)], ["---"] * (len(runs) + 1)]
    lines += [[title, *map(str, entries)] for title, entries in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(label, ending):
    return f"{label}\n{ending}" if ending != "generated" else label


def _domain(arrays):
    shape = tuple(int(size) for size in arrays["shape"])
    return domains.Domain(str(arrays["kind"]), shape, str(arrays["convention"]))


def _drawable(values, domain):
    """Leaves out channels that are no picture, all but the first."""
    is_picture = values.shape[-1] == 1 or (values.shape[-1] == 3 and domain.kind != "voxels")
    return values if is_picture else values[..., :1]
