"""What the experiments on functions (VAMoH, GASP, Functa) share.

`FieldModel` is what scores and pictures ask of a trained model, whichever it is. The rest binds a
config to a `Field` the same way for all: data, checks, batches, optimiser, meta data.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

from functions.domains import Domain
from launch.data import fields
from launch.data.fields import Field
from launch.experiment import shuffled_rows


class FieldModel(NamedTuple):
    """A trained model of functions, as functions for one item; `params` are those of one seed.

    A latent z [Z] decides the function. A model without inference has None for the three that find
    latents of an item, from values [N, C] at the points of the data and a mask [N].
    """

    coordinates: Callable[[Domain], np.ndarray]  # -> [n, d], what `decode` takes
    decode: Callable[..., dict]
    # (key, params, z, coords, *, chunk=, seen=) -> {"mean": [n, C]} and, where the model has them,
    # "sample", "most_probable" [n, C], "segment" [n] int and "entropy" [n]; seen is None or
    # (values [n, C], mask [n]), what was observed at these coordinates
    generate: dict[str, Callable]  # (key, params) -> z, by the ending of its scores' names
    to_base: Callable  # (params, z) -> u, distributed as N(0, I) if z is as the prior
    from_base: Callable  # (params, u) -> z
    reconstruct: Callable | None = None  # (key, params, values, mask) -> z
    complete: Callable | None = None  # the same, of an item of which a part is shown
    draw: Callable | None = None  # (key, params, values, mask, num) -> [num, Z] it may have
    num_components: int = 1


def load(config, kind: str | None = None) -> Field:
    """Loads the data set that the config names; `kind` is the likelihood of a user's own file."""
    data = config.data
    return fields.load(
        data.name,
        data.dir or None,
        num_train=data.num_train or None,
        num_test=data.num_test or None,
        size=data.size or None,
        seed=data.seed,
        convention=data.convention or None,
        domain=data.domain or None,
        kind=kind,
        rescale=data.rescale,
    )


def refuse(name: str, value, expected: str):
    """Raises the sentence about a field of the config."""
    raise ValueError(f"config.{name}={value!r}: expected {expected}")


def check(config):
    """Refuses what no model can do."""
    for name in ("num_items", "num_generated"):
        if config.evaluate[name] == 1 or config.evaluate[name] < 0:
            refuse(f"evaluate.{name}", config.evaluate[name], "2 or more")
    if config.seeds < 1:
        refuse("seeds", config.seeds, "1 or more")


def check_data(config, field: Field, groups: tuple[str, ...] = ("train",)):
    """Refuses data that cannot be trained on or scored.

    Args:
      config: of the run.
      field: the data.
      groups: of the config that have a `batch_size` of training items.
    """
    num_items, num_points, _ = field.train.shape
    for group in groups:
        if not 0 < config[group].batch_size <= num_items:
            refuse(
                f"{group}.batch_size", config[group].batch_size,
                f"1 to the {num_items} training items of {field.name}",
            )  # fmt: skip
    if not 0 <= config.train.num_points <= num_points:
        refuse(
            "train.num_points", config.train.num_points,
            f"0 to {num_points}, the points of {field.name}",
        )  # fmt: skip
    if len(field.test) < 2:
        raise ValueError(f"{field.name} has {len(field.test)} test items: expected 2 or more")
    is_unit = field.num_levels or (np.nanmin(field.train) >= 0 and np.nanmax(field.train) <= 1)
    if not is_unit:
        raise ValueError(
            f"{field.name} has values outside [0, 1], where scores and pictures mean little; set "
            f"config.data.rescale=True, the unit is kept"
        )


def stages(config, group: str, domain: Domain) -> tuple[tuple[int, int], ...]:
    """Returns (points, neighbours) a level of a PointConv network, after checking them.

    Args:
      config: of the run.
      group: of config.model that has `points`, `neighbours` and `channels`.
      domain: of the data.
    """
    options = config.model[group]
    found = tuple(zip(options.points, options.neighbours, strict=True))
    above = math.prod(domain.shape)
    for level, stage in enumerate(found):
        for name, value in zip(("points", "neighbours"), stage, strict=True):
            if not 0 < value <= above:
                raise ValueError(
                    f"config.model.{group}.{name}={tuple(options[name])}: level {level} takes "
                    f"{value} of {above} points; expected no more than the level before has"
                )
        above = stage[0]
    return found


def rows(config, num_items: int, size: int, phase: int, start: int, num: int) -> np.ndarray:
    """Returns the items of `num` shuffled batches from batch `start` on: [R, num, size] int32."""
    drawn = [
        shuffled_rows((config.seed, seed, phase), num_items, start * size, num * size)
        for seed in range(config.seeds)
    ]
    return np.stack(drawn).reshape(config.seeds, num, size)


def batch(field: Field, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the training items of rows [...]: stored values [..., N, C], mask [..., N or 1]."""
    mask = np.ones((*rows.shape, 1), bool) if field.train_mask is None else field.train_mask[rows]
    return {"values": field.train[rows], "mask": mask}


def adam(train) -> optax.GradientTransformation:
    """Makes Adam with clipped gradients: warm-up and cosine decay to a hundredth, if asked for."""
    rate, warmup = train.learning_rate, round(train.warmup * train.steps)
    if train.decay:
        rate = optax.warmup_cosine_decay_schedule(
            0.0, rate, warmup, train.steps, end_value=0.01 * rate
        )
    elif warmup:
        rate = optax.linear_schedule(0.0, rate, warmup)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), optax.adam(rate))


def meta(model: str, field: Field) -> dict:
    """Returns what meta.json says of a run: the model's name and the data."""
    return {
        "model": model,
        "data": field.name,
        "origin": field.origin,
        "fingerprint": field.fingerprint,
        "domain": field.domain._asdict(),
        "items": {part: len(getattr(field, part)) for part in ("train", "valid", "test")},
    }
