"""From a pandas frame to a `Table`: features and targets as numbers, with their masks.

Kinds, labels and codes are those of `hmcvae.frames`; here, a column that nothing can be learned
from is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmcvae import columns, frames
from hmcvae.columns import Schema


class Table(NamedTuple):
    """A mixed table in raw units: features and targets, each with its schema and mask."""

    name: str
    schema: Schema  # D features
    x: np.ndarray  # [N, D] float64 raw reals and codes, NaN where missing
    mask: np.ndarray  # [N, D] bool, True = observed
    target: Schema  # P targets
    y: np.ndarray  # [N, P] float64 raw reals and codes, NaN where missing
    y_mask: np.ndarray  # [N, P] bool, True = observed


def from_frame(
    frame: pd.DataFrame,
    *,
    name: str,
    target: Sequence[str] = (),
    declared: Mapping[str, Any] | None = None,
) -> Table:
    """Builds and checks a table.

    Args:
      frame: N rows; None and NaN are missing.
      name: what to call the table.
      target: names of the P target columns; the other columns are the features.
      declared: column name -> kind, "drop", or {"kind": kind, "categories": [labels]}; columns that
        are not named are inferred.

    Returns:
      The table, features and targets in the order of the frame and of `target`.

    Raises:
      ValueError: the first defect, with column, row, and remedy.
    """
    declared, names = dict(declared or {}), [str(column) for column in frame.columns]
    target = (target,) if isinstance(target, str) else tuple(target)
    for column in target:
        if column not in names:
            raise ValueError(
                f"target column {column!r} is not in {name!r}{frames.nearest(column, names)}"
            )
    for column in {c for c in names if names.count(c) > 1}:
        raise ValueError(f"{name!r} has two columns named {column!r}; rename or drop one of them")
    if not len(frame):
        raise ValueError(f"{name!r} has a header but no rows; give at least 2 rows")
    features = frames.describe(frame, declared)
    for feature in features:
        if feature.column is None and declared.get(feature.name) != frames.DROP:
            _refuse(feature)
    schema, values = frames.schema(features), frames.encode(features, frame)
    for column in target:
        if column not in schema.names:
            raise ValueError(f"target column {column!r} is declared 'drop'; declare its kind")
    if set(schema.names) <= set(target):
        raise ValueError(f"{name!r} has no feature columns beside its targets; give at least one")
    mask = ~np.isnan(values)
    columns.check(schema, values, mask)

    def pick(wanted):
        index = [schema.names.index(column) for column in wanted]
        kept = Schema(tuple(schema.columns[i] for i in index))
        return kept, values[:, index], mask[:, index]

    inputs = [column for column in schema.names if column not in target]
    return Table(name, *pick(inputs), *pick(target))


def text_as_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Replaces text columns of 10 labels or more by their codes, which are then numbers like any.

    So does the paper, also with dates.
    """
    frame = frame.copy()
    for i, name in enumerate(frame.columns):
        labels = sorted(set(frame.iloc[:, i].dropna()))
        if isinstance(labels[0], str) and len(labels) >= columns.MAX_DISCRETE:
            frame[name] = frame[name].map({label: float(code) for code, label in enumerate(labels)})
    return frame


def _refuse(feature):
    if feature.constant is None:
        raise ValueError(f"column {feature.name!r} has no observed value; drop it")
    raise ValueError(
        f"column {feature.name!r} holds the single value {feature.constant!r} in all its observed "
        f"rows; drop it, as nothing can be learned from it"
    )
