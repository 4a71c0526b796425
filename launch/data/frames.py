"""From a pandas frame to a `Table`: kinds of columns, codes, missing entries.

Numbers follow `hmcvae.columns.infer`; text and booleans become categories in sorted order; dates
are refused, since neither codes nor categories would keep their meaning. A declared kind overrides
all of it.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmcvae import columns
from hmcvae.columns import Column, Schema

MAX_CATEGORIES = 128  # the width of the softmax of every categorical column follows the largest
DROP = "drop"  # a declared kind: leave the column out
_DATE = re.compile(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?$")


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
    text_as_numbers: bool = False,
) -> Table:
    """Builds and checks a table.

    Args:
      frame: N rows; None and NaN are missing.
      name: what to call the table.
      target: names of the P target columns; the other columns are the features.
      declared: column name -> kind, "drop", or {"kind": kind, "categories": [labels]}; columns that
        are not named are inferred.
      text_as_numbers: treat the codes of text columns as the paper does, as numbers like any other
        (10 labels or more become a loggaussian column, and so do dates).

    Returns:
      The table, features and targets in the order of the frame and of `target`.

    Raises:
      ValueError: the first defect, with column, row, and remedy.
    """
    declared, names = dict(declared or {}), [str(column) for column in frame.columns]
    target = (target,) if isinstance(target, str) else tuple(target)
    for kind, wanted in (("target", target), ("declared", declared)):
        for column in wanted:
            if column not in names:
                raise ValueError(
                    f"{kind} column {column!r} is not in {name!r}{_nearest(column, names)}"
                )
    for column in {c for c in names if names.count(c) > 1}:
        raise ValueError(f"{name!r} has two columns named {column!r}; rename or drop one of them")
    if not len(frame):
        raise ValueError(f"{name!r} has a header but no rows; give at least 2 rows")
    described = {}
    for i, column in enumerate(names):
        if declared.get(column) != DROP:
            series = frame.iloc[:, i]
            described[column] = _describe(column, series, declared.get(column), text_as_numbers)
    for column in target:
        if column not in described:
            raise ValueError(f"target column {column!r} is declared {DROP!r}; declare its kind")
    features = [column for column in described if column not in target]
    if not features:
        raise ValueError(f"{name!r} has no feature columns beside its targets; give at least one")
    schema, x, mask = _stack([described[column] for column in features], len(frame))
    target_schema, y, y_mask = _stack([described[column] for column in target], len(frame))
    columns.check(schema, x, mask)
    columns.check(target_schema, y, y_mask)
    return Table(name, schema, x, mask, target_schema, y, y_mask)


def _stack(described, num_rows):
    schema = Schema(tuple(column for column, _ in described))
    empty = np.zeros((num_rows, 0))
    x = np.stack([values for _, values in described], axis=-1) if described else empty
    return schema, x, ~np.isnan(x)


def _describe(name, series, declared, text_as_numbers):
    """Returns the description of one column and its values [N], NaN where missing."""
    mask = series.notna().to_numpy()
    if not mask.any():
        raise ValueError(f"column {name!r} has no observed value; drop it")
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        series = series.astype(object)
        dtype = series.infer_objects().dtype
    if declared is not None:
        return _describe_declared(name, series, mask, declared)
    is_number = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
    if is_number:
        return _describe_numbers(name, series.astype(float).to_numpy(float, na_value=np.nan), mask)
    values = _plain(series)
    if not text_as_numbers:
        _refuse_dates(name, values, mask)
    _refuse_mixture(name, values, mask)
    labels = _labels(name, values, mask)
    if len(labels) == 1:
        raise ValueError(
            f"column {name!r} holds the single value {labels[0]!r} in all its observed rows; drop "
            f"it, as nothing can be learned from it"
        )
    if text_as_numbers and len(labels) >= columns.MAX_DISCRETE:
        codes = {label: float(code) for code, label in enumerate(labels)}
        numbers = np.array([codes.get(value, np.nan) for value in values])
        return _describe_numbers(name, numbers, mask)
    if len(labels) > MAX_CATEGORIES:
        raise ValueError(
            f"column {name!r} holds text with {len(labels)} distinct values, more than the "
            f"{MAX_CATEGORIES} that a categorical column may have; group the rare ones, or declare "
            f"the column {DROP!r} in the schema"
        )
    column = _discrete(name, labels)
    return column, columns.encode(column, values, mask)


def _describe_numbers(name, numbers, mask):
    column = columns.infer(numbers[:, None], mask[:, None], [name]).columns[0]
    return column, columns.encode(column, numbers.tolist(), mask)


def _describe_declared(name, series, mask, declared):
    entry = declared if isinstance(declared, Mapping) else {"kind": declared}
    unknown = set(entry) - {"kind", "categories"}
    if unknown or not isinstance(entry.get("kind"), str):
        raise ValueError(
            f"column {name!r}: the schema entry {declared!r} is not understood; write a kind, or "
            f'{{"kind": kind, "categories": [labels]}}'
        )
    kind, values = entry["kind"], _plain(series)
    if kind not in ("bernoulli", "categorical"):
        column = Column(name, kind)
        return column, columns.encode(column, values, mask)
    labels = tuple(entry.get("categories", ())) or _labels(name, values, mask)
    if kind == "bernoulli" and len(labels) != 2:
        raise ValueError(
            f"column {name!r} is declared bernoulli but has {len(labels)} distinct values; declare "
            f"it categorical, or give it exactly 2"
        )
    column = Column(name, kind, 1 if kind == "bernoulli" else len(labels), labels)
    return column, columns.encode(column, values, mask)


def _discrete(name, labels):
    if len(labels) == 2:
        return Column(name, "bernoulli", 1, labels)
    return Column(name, "categorical", len(labels), labels)


def _plain(series):
    # Python scalars; whole floats become integers, so that a label is 3 and not 3.0
    values = series.astype(object).tolist()
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]


def _labels(name, values, mask):
    distinct = {value for value, seen in zip(values, mask, strict=True) if seen}
    try:
        return tuple(sorted(distinct))
    except TypeError:
        types = sorted({type(value).__name__ for value in distinct})
        raise ValueError(
            f"column {name!r} mixes values of the types {', '.join(types)}; give it a single type"
        ) from None


def _refuse_dates(name, values, mask):
    rows = np.flatnonzero(mask)
    first = values[rows[0]]
    is_date = hasattr(first, "year") or all(
        isinstance(values[row], str) and _DATE.match(values[row].strip()) for row in rows
    )
    if is_date or hasattr(first, "total_seconds"):
        raise ValueError(
            f"column {name!r} holds dates or times such as {str(first)!r}, which have no kind "
            f"here; replace it by numbers (days since the first, month, weekday), or declare it "
            f"{DROP!r} in the schema"
        )


def _refuse_mixture(name, values, mask):
    rows = [row for row in np.flatnonzero(mask) if isinstance(values[row], str)]
    is_number = [_is_number(values[row]) for row in rows]
    num_numbers = sum(is_number) + int(mask.sum()) - len(rows)
    if rows and num_numbers >= mask.sum() / 2:
        row = rows[is_number.index(False)] if False in is_number else rows[0]
        raise ValueError(
            f"column {name!r}, row {row}: {values[row]!r} is text, but {num_numbers} of the "
            f"{int(mask.sum())} observed entries are numbers; correct the entry, leave it empty if "
            f"it is missing, or declare the column categorical in the schema"
        )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_000, no file format does


def _nearest(name, names):
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; its columns are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
