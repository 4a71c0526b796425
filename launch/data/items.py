"""Items of a set of fields: their parts, the draw of absent parts, validation.

What every source ends in: `launch.data.fields.make` turns it into a record,
`launch.data.builders.write` into files.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from functions.domains import Domain

PARTS = ("train", "valid", "test")
KINDS = ("logistic", "continuous_bernoulli", "bernoulli", "gaussian")


class Items(NamedTuple):
    """Values by part, and what they mean; `Field` describes the fields that both have."""

    domain: Domain
    values: Mapping[str, Sequence[np.ndarray]]  # part -> [I, *grid, C] uint8 levels or float32
    kind: str
    num_levels: int
    origin: str
    masks: Mapping[str, np.ndarray] | None = None  # part -> [I, *grid] bool, True = observed
    unit: tuple[float, float] | None = None
    segments: np.ndarray | None = None  # [J, *grid] of the test items, where these are given
    labels: Mapping[str, np.ndarray] | None = None  # part -> [I] or [I, F]


def split(
    parts: Mapping[str, np.ndarray],
    seed: int,
    *,
    num_valid: int | None = None,
    num_test: int | None = None,
) -> dict[str, np.ndarray]:
    """Draws the parts that are absent from the training items, without replacement.

    Args:
      parts: indices of the items of "train", and of "valid" and "test" where they are given.
      seed: of the draw.
      num_valid: validation items to draw; None is a tenth of the training items, at least 1.
      num_test: the same for the test items.

    Returns:
      Indices of the three parts. Training items come in random order where anything was drawn, so
      that the first of them are a fair sample.

    Raises:
      ValueError: there are too few items, or a number is given for a part that is.
    """
    for part, num in (("valid", num_valid), ("test", num_test)):
        if num is not None and part in parts:
            raise ValueError(
                f"num_{part}={num}: the {part} items are given, {len(parts[part])} of them; leave "
                f"the number out"
            )
    train = np.asarray(parts.get("train", []), int)
    tenth = max(1, round(0.1 * len(train)))
    absent = {
        part: tenth if num is None else num
        for part, num in (("valid", num_valid), ("test", num_test))
        if part not in parts
    }
    if len(train) <= sum(absent.values()):
        drawn = ", ".join(f"{num} {part}" for part, num in absent.items())
        wish = f" to draw {drawn} items from" if absent else ""
        raise ValueError(f"there are {len(train)} training items{wish}; give more items")
    result = {part: np.asarray(rows, int) for part, rows in parts.items()}
    if absent:
        train = np.random.default_rng(seed).permutation(train)
        for part, num in absent.items():
            result[part], train = train[:num], train[num:]
        result["train"] = train
    return result


def draw(
    items: Items, seed: int, *, num_valid: int | None = None, num_test: int | None = None
) -> Items:
    """Takes the parts that are absent out of the training items, as `split` says."""
    given = {part: np.arange(len(values)) for part, values in items.values.items()}
    rows = split(given, seed, num_valid=num_valid, num_test=num_test)

    def take(arrays):
        if arrays is None:
            return None
        return {p: arrays[p if p in given else "train"][r] for p, r in rows.items()}

    return items._replace(
        values=take(items.values), masks=take(items.masks), labels=take(items.labels)
    )


def check(what: str, values: np.ndarray, mask: np.ndarray | None, kind: str, num_levels: int):
    """Refuses values that the likelihood cannot explain; what is not observed may be anything.

    Args:
      what: begins the message, such as "data set 'x', train".
      values: [I, N, C].
      mask: [I, N] bool, True = observed; None = all of them.
      kind: one of `KINDS`.
      num_levels: of uint8 values.

    Raises:
      ValueError: the first defect, with item, point and remedy.
    """
    if kind not in KINDS:
        raise ValueError(f"{what}: likelihood {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if not values.size:
        raise ValueError(f"{what}: values {values.shape} are empty; give 1 item or more")
    observed = np.ones(values.shape[:2], bool) if mask is None else mask
    empty = np.flatnonzero(~observed.any(axis=1))
    if empty.size:
        raise ValueError(f"{what}, item {empty[0]}: no point is observed; leave the item out")
    if values.dtype == np.uint8:
        is_right, rule = values < num_levels, f"a level from 0 to {num_levels - 1}"
    elif kind == "gaussian":
        is_right, rule = np.isfinite(values), "finite"
    else:
        is_right, rule = (values >= 0) & (values <= 1), "in [0, 1], where rescale would bring it"
    is_wrong = ~is_right.all(axis=-1) & observed
    if is_wrong.any():
        item, point = np.argwhere(is_wrong)[0]
        if not np.isfinite(values[item, point]).all():
            rule = "finite"
        raise ValueError(
            f"{what}, item {item}, point {point}: the value {values[item, point].tolist()} is not "
            f"{rule}; correct it, or mark the point as unobserved in the mask"
        )
