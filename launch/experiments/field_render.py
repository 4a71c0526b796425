"""Pictures for launch.render: the latents of a task, and their functions at any resolution.

Items are rendered one after another, points in chunks, and every render goes to the host at once:
memory on the device does not grow with the number of items, nor with the resolution beyond the
coordinates and one output.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import to_rgb

from functions import domains, tasks
from functions.domains import Domain
from launch import field_figures
from launch.data.fields import Field, to_unit
from launch.experiments.field_model import FieldModel
from launch.experiments.field_report import STEPS
from launch.field_panels import COLOURS

WHOLE = ("reconstruct", "super_resolution", "segmentation")  # tasks that hide nothing
TASKS = (*WHOLE, *tasks.TASKS, "samples", "interpolate")
FACTOR = 4  # of super-resolution where no size is given


class Rendered(NamedTuple):
    """What launch.render writes."""

    arrays: dict[str, np.ndarray]  # what `draw` takes, `z` [..., Z], and what it leaves out
    pictures: dict[str, np.ndarray]  # [H, W] or [H, W, 3] uint8 by name; of images only
    draw: Callable  # a function of `launch.field_figures`


def resolution(domain: Domain, task: str, sizes: tuple[int, ...]) -> Domain:
    """Returns the domain to render on.

    Args:
      domain: of the data.
      task: one of `TASKS`.
      sizes: one size for every axis; or one, of the first axis in space, others in proportion and
        the frames of a video kept; or none, for the resolution that suits the task.

    Raises:
      ValueError: an unknown task, or another number of sizes.
    """
    if task not in TASKS:
        close = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(TASKS)}"
        raise ValueError(f"task {task!r} is unknown; {hint}")
    if len(sizes) == len(domain.shape):
        return domains.resized(domain, sizes)
    if len(sizes) > 1:
        raise ValueError(
            f"size has {len(sizes)} axes, but a domain of kind {domain.kind!r} has "
            f"{len(domain.shape)}; give one number, or one an axis"
        )
    num_times = 1 if domain.kind == "video" else 0
    space = domain.shape[num_times:]
    first = sizes[0] if sizes else (FACTOR if task == "super_resolution" else 1) * space[0]
    scaled = [max(1, round(first * size / space[0])) for size in space]
    return domains.resized(domain, [*domain.shape[:num_times], *scaled])


def render(
    key: jax.Array,
    model: FieldModel,
    params: dict,
    field: Field,
    task: str,
    domain: Domain,
    *,
    num: int,
    estimate: str,
    is_drawn: bool,
    chunk: int,
    paper: bool,
) -> Rendered:
    """Renders test items, samples or interpolations.

    Args:
      key: typed PRNG key, consumed once.
      model: what has been trained.
      params: its parameters, of one seed.
      field: the data.
      task: one of `TASKS`.
      domain: where to render, see `resolution`.
      num: how many of the first test items, pairs of them, or samples.
      estimate: what `decode` of the model calls that which is taken for the value.
      is_drawn: draw latents of an item instead of taking the best one.
      chunk: points at a time.
      paper: hide what the released code hides.

    Returns:
      Arrays and pictures.

    Raises:
      ValueError: more items than there are, a task without meaning on the domain, or something
        that the model does not have.
    """
    key_mask, key_z, key_render = jax.random.split(key, 3)
    values = shown = None
    if task == "samples":
        z = jax.vmap(model.generate[""], in_axes=(0, None))(jax.random.split(key_z, num), params)
    else:
        values, shown = _items(key_mask, field, task, num, paper)
        z = _latents(key_z, model, params, task, values, shown, is_drawn)
    if task == "interpolate":
        z = _paths(model, params, z[:num], z[num:])
    wanted = {"value": estimate}
    if task == "segmentation":
        wanted |= {"segments": "segment", "entropy": "entropy"}
    coords = jnp.asarray(model.coordinates(domain))

    @jax.jit
    def at(params, key, z, coords):
        out = model.decode(key, params, z, coords, chunk=chunk)
        absent = [name for name in wanted.values() if name not in out]
        if absent:
            raise ValueError(
                f"{absent[0]} is not what this model gives; it has {', '.join(sorted(out))}"
            )
        return {name: out[source] for name, source in wanted.items()}

    latents = z.reshape(-1, z.shape[-1])
    keys = jax.random.split(key_render, len(latents))
    parts = [jax.device_get(at(params, *pair, coords)) for pair in zip(keys, latents, strict=True)]
    out = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    out = {name: a.reshape(*z.shape[:-1], *a.shape[1:]) for name, a in out.items()}
    num_channels = field.test.shape[-1]
    num_drawn = 3 if num_channels == 3 and domain.kind != "voxels" else 1
    out["value"], whole = out["value"][..., :num_drawn], out["value"]
    values = None if values is None else values[..., :num_drawn]
    arrays, draw = _arrange(out, model.num_components, field.domain, domain, task, values, shown)
    arrays |= {"z": np.asarray(z)} | ({"unit": np.array(field.unit)} if field.unit else {})
    if num_drawn < num_channels:  # channels that are no picture: the first is drawn
        arrays["all_channels"] = whole
    return Rendered(arrays, _pictures(out, domain, model.num_components), draw)


def _items(key, field, task, num, paper):
    """Returns the first test items [num, N, C] and what the task shows of them [num, N]."""
    num_items = 2 * num if task == "interpolate" else num
    if num_items > len(field.test):
        raise ValueError(
            f"num={num} takes {num_items} test items, but {field.name} has {len(field.test)}; "
            f"lower it"
        )
    values = np.asarray(to_unit(field.test[:num_items], field.num_levels))
    shown = np.ones(values.shape[:2], bool)
    if field.test_mask is not None:
        shown = field.test_mask[:num_items]
    if task in tasks.TASKS:
        make = lambda key: jnp.asarray(tasks.mask(task, key, field.domain, paper=paper))
        shown = shown & np.asarray(jax.vmap(make)(jax.random.split(key, num_items)))
    return values, shown


def _latents(key, model, params, task, values, shown, is_drawn):
    """Finds the latents of items, one after another: [num, Z]."""
    if not model.reconstruct:
        raise ValueError(f"task {task!r} needs latents of items, which this model does not find")
    find = model.complete if task in tasks.TASKS else model.reconstruct
    if is_drawn:
        find = lambda *item: model.draw(*item, 1)[0]

    @jax.jit
    def run(params, *items):
        return jax.lax.map(lambda item: find(item[0], params, *item[1:]), items)

    return run(params, jax.random.split(key, len(values)), values, shown)


def _paths(model, params, start, end):
    """Returns latents [num, STEPS, Z] between pairs, along great circles of the base space."""
    over = lambda function, *items: jax.vmap(lambda item: function(params, item))(*items)
    u = [over(model.to_base, z) for z in (start, end)]
    path = jax.vmap(lambda a, b: tasks.interpolate(a, b, STEPS))(*u)
    return over(model.from_base, path.reshape(-1, path.shape[-1])).reshape(path.shape)


def _arrange(out, num_components, own, domain, task, values, shown):
    """Names the arrays as the figure of the task wants them; returns both."""
    located = lambda domain: {name: np.array(v) for name, v in domain._asdict().items()}
    if task == "samples":
        return located(domain) | {"samples": out["value"]}, field_figures.samples
    if task == "interpolate":
        return located(domain) | {"steps": out["value"]}, field_figures.interpolation
    seen = np.where(shown[..., None], values, np.nan)  # hatched where hidden
    if task == "segmentation":
        nearest = domains.nearest(domains.coordinates(own), domains.coordinates(domain), 1)[:, 0]
        arrays = located(domain) | {"data": seen[:, nearest], "mean": out["value"]}
        arrays |= {name: out[name] for name in ("segments", "entropy")}
        arrays["num_components"] = np.array(num_components)
        return arrays, field_figures.reconstructions
    size = domain.shape[0]
    arrays = located(own) | {"input": seen}
    arrays |= {f"render_{size}": out["value"], f"shape_{size}": np.array(domain.shape)}
    return arrays, field_figures.super_resolution


def _pictures(out, domain, num_components):
    """Returns images in full resolution by name: the place among the renders, and what it is."""
    if domain.kind != "image":
        return {}
    colours = np.array([to_rgb(colour) for colour in COLOURS])
    paint = {
        "value": lambda value: value[..., 0] if value.shape[-1] == 1 else value,
        "segments": lambda segments: colours[segments % len(colours)],
        "entropy": lambda entropy: entropy / np.log(max(num_components, 2)),
    }
    pictures = {}
    for name, stack in out.items():
        num_axes = 2 if name == "value" else 1
        for index in np.ndindex(stack.shape[:-num_axes]):
            picture = paint[name](stack[index])
            picture = np.clip(np.nan_to_num(picture), 0.0, 1.0).reshape(
                *domain.shape, *picture.shape[1:]
            )
            label = "_".join([*map(str, index), *([] if name == "value" else [name])])
            pictures[label] = np.round(255 * picture).astype(np.uint8)
    return pictures
