"""Columns of a data frame: their kinds, their codes, and imputed values written back.

A column of the frame becomes a `Feature`: a modelled column with its kind and labels, a constant,
or one without a model. Numbers follow `columns.infer`; text, booleans and pandas categories become
categories in sorted order; dates are refused, since neither codes nor categories would keep their
meaning. A declared kind overrides all of it.

NaN, None and pd.NA are missing. Numbers come out in double precision. Only missing cells are ever
written, so observed ones keep every bit.
"""

import difflib
import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmcvae import columns
from hmcvae.columns import Column, Schema

MAX_CATEGORIES = 128  # the width of the softmax of every categorical column follows the largest
MAX_MAGNITUDE = 1e100  # squares of deviations stay finite
DROP = "drop"  # a declared kind: leave the column out of the model
_DATE = re.compile(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?$")


class Feature(NamedTuple):
    """How one column of a frame enters the model; at most one of the last two fields is given."""

    name: str
    column: Column | None = None  # kind and labels of a modelled column
    constant: Any = None  # the value of all observed cells, where they are equal


def describe(
    frame: pd.DataFrame, declared: Mapping[str, Any] | str | None = None
) -> tuple[Feature, ...]:
    """Describes the columns of a frame.

    Args:
      frame: N rows.
      declared: column name -> kind, "drop", or {"kind": kind, "categories": [labels]}; columns that
        are not named are inferred. A kind alone is that of all columns.

    Returns:
      One feature a column, in order.

    Raises:
      ValueError, TypeError: the first defect, with column, row and remedy.
    """
    names = [str(name) for name in frame.columns]
    declared = dict.fromkeys(names, declared) if isinstance(declared, str) else dict(declared or {})
    for name in declared:
        if name not in names:
            raise ValueError(
                f"the schema declares column {name!r}, which the table lacks{nearest(name, names)}"
            )
    return tuple(
        _describe(name, frame.iloc[:, i], declared.get(name)) for i, name in enumerate(names)
    )


def nearest(name: str, names: Sequence[str]) -> str:
    """Ends a sentence about an unknown name by the one that may be meant, or by all."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; its columns are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def schema(features: Sequence[Feature]) -> Schema:
    """Returns the D modelled columns."""
    return Schema(tuple(feature.column for feature in features if feature.column is not None))


def encode(features: Sequence[Feature], frame: pd.DataFrame) -> np.ndarray:
    """Turns the modelled columns of a frame into numbers.

    A category that the feature does not know counts as missing, with a warning.

    Args:
      features: one a column of the frame, from `describe`.
      frame: N rows.

    Returns:
      [N, D] float64 reals and codes of the D modelled columns, NaN where missing.

    Raises:
      ValueError: text in a column of numbers, or a number that is infinite or too large.
    """
    parts = []
    for i, feature in enumerate(features):
        if feature.column is not None:
            read = _codes if feature.column.is_discrete else _numbers
            parts.append(read(feature.column, frame.iloc[:, i]))
    return np.stack(parts, axis=-1) if parts else np.zeros((len(frame), 0))


def fill(feature: Feature, series: pd.Series, codes: np.ndarray | None = None) -> pd.Series:
    """Fills the missing cells of one column, in the column's own dtype.

    Args:
      feature: its description.
      series: N cells.
      codes: [N] reals or codes of a modelled column, read where `series` is missing.

    Returns:
      The column; the series itself if it lacks nothing, or if nothing is known of it.
    """
    rows = np.flatnonzero(series.isna())
    if not len(rows) or (feature.column is None and feature.constant is None):
        return series
    if feature.column is None:
        values = np.array([feature.constant] * len(rows), dtype=object)
    else:
        values = columns.decode(feature.column, codes[rows])
    dtype = series.dtype
    numpy_dtype = getattr(dtype, "numpy_dtype", dtype)
    if pd.api.types.is_bool_dtype(dtype):
        values = values.astype(bool)
    elif pd.api.types.is_integer_dtype(dtype):
        limits = np.iinfo(numpy_dtype)
        whole = [min(max(round(value), int(limits.min)), int(limits.max)) for value in values]
        values = np.array(whole, numpy_dtype)
    elif pd.api.types.is_float_dtype(dtype):
        values = values.astype(numpy_dtype)
    out = series.copy()
    out.iloc[rows] = values
    return out


def _describe(name, series, declared):
    series = series.reset_index(drop=True)  # messages count rows from 0
    observed = series.dropna()
    if declared == DROP or observed.empty:
        return Feature(name)
    if declared is not None:
        return _describe_declared(name, series, declared)
    if _holds_numbers(name, observed):
        return _describe_numbers(name, series)
    return _describe_labels(name, _labels(name, observed))


def _describe_declared(name, series, declared):
    entry = declared if isinstance(declared, Mapping) else {"kind": declared}
    if set(entry) - {"kind", "categories"} or not isinstance(entry.get("kind"), str):
        raise ValueError(
            f"column {name!r}: the schema entry {declared!r} is not understood; write a kind, or "
            f'{{"kind": kind, "categories": [labels]}}'
        )
    kind = entry["kind"]
    if kind not in ("bernoulli", "categorical"):
        return _describe_numbers(name, series, Column(name, kind))
    labels = tuple(entry.get("categories", ())) or _labels(name, series.dropna())
    if kind == "bernoulli" and len(labels) > 2:
        raise ValueError(
            f"column {name!r} is declared bernoulli but has {len(labels)} distinct values; declare "
            f"it categorical, or give it exactly 2"
        )
    feature = _describe_labels(name, labels, kind)
    if feature.column is not None:  # refuse labels that the schema lacks
        columns.encode(feature.column, series.astype(object).tolist(), series.notna().to_numpy())
    return feature


def _describe_numbers(name, series, column=None):
    values = _numbers(column or Column(name, "gaussian"), series)
    values = values[~np.isnan(values)]
    if (values == values[0]).all():
        return Feature(name, None, _plain(series.dropna().iloc[0]))
    if column is not None:
        return Feature(name, column)
    column = columns.infer(values[:, None], np.ones((len(values), 1), bool), [name]).columns[0]
    if column.is_discrete and 2 * len(np.unique(values)) > len(values):
        # with so few rows that no value comes back, their number says nothing of categories
        column = Column(name, "loggaussian" if values.min() >= 0 else "gaussian")
    return Feature(name, column)


def _describe_labels(name, labels, kind=None):
    if len(labels) == 1:
        return Feature(name, None, labels[0])
    if len(labels) > MAX_CATEGORIES:
        raise ValueError(
            f"column {name!r} holds {len(labels)} distinct categories, more than the "
            f"{MAX_CATEGORIES} that a column may have; group the rare ones, or declare the column "
            f"{DROP!r} in the schema"
        )
    if kind == "bernoulli" or (kind is None and len(labels) == 2):
        return Feature(name, Column(name, "bernoulli", 1, labels))
    return Feature(name, Column(name, "categorical", len(labels), labels))


def _holds_numbers(name, observed):
    """Tells numbers from labels, and refuses what is neither or both."""
    dtype = observed.dtype
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    if pd.api.types.is_numeric_dtype(dtype):
        return True
    values = observed.tolist()
    if all(map(_is_number, values)):
        return True
    if all(map(_is_date, values)):
        raise ValueError(
            f"column {name!r} holds dates or times such as {str(values[0])!r}, which have no kind "
            f"here; replace it by numbers (days since the first, month, weekday), or declare it "
            f"{DROP!r} in the schema"
        )
    looks = [_is_number(value) or _spells_number(value) for value in values]
    if 2 * sum(looks) >= len(values):
        k = looks.index(False) if False in looks else 0
        raise ValueError(
            f"column {name!r}, row {observed.index[k]}: {values[k]!r} is text, but {sum(looks)} of "
            f"the {len(values)} observed entries are numbers; correct the entry, leave it empty if "
            f"it is missing, or declare the column categorical in the schema"
        )
    return False


def _labels(name, observed):
    """Lists the distinct values as Python scalars, in order."""
    values = observed.astype(object).tolist()
    for row, value in zip(observed.index, values, strict=True):
        if not isinstance(value, str | bool | np.bool_) and not _is_number(value):
            raise TypeError(
                f"column {name!r}, row {row}: argument must be a string or a number, not "
                f"{type(value).__name__!r}"
            )
    distinct = {_plain(value) for value in values}
    try:
        return tuple(sorted(distinct))
    except TypeError:
        types = sorted({type(value).__name__ for value in distinct})
        raise ValueError(
            f"column {name!r} mixes values of the types {', '.join(types)}; give it a single type"
        ) from None


def _codes(column, series):
    """Looks labels up: [N] float64, NaN where missing or unknown."""
    values, observed = series.astype(object).tolist(), series.notna().to_numpy()
    labels = set(column.categories)
    known = np.array([isinstance(value, Hashable) and value in labels for value in values])
    unseen = np.flatnonzero(observed & ~known)
    if len(unseen):
        warnings.warn(
            f"column {column.name!r}: {len(unseen)} cells hold categories that were not there when "
            f"the model was fitted, such as {values[unseen[0]]!r}; they are treated as missing",
            UserWarning,
            stacklevel=4,
        )
    return columns.encode(column, values, known & observed)


def _numbers(column, series):
    """Reads numbers: [N] float64, NaN where missing."""
    values, observed = series.astype(object).tolist(), series.notna().to_numpy()
    out = columns.encode(column, values, observed)
    large = observed & ~(np.abs(out) <= MAX_MAGNITUDE)
    if large.any():
        row = int(np.argmax(large))
        raise ValueError(
            f"column {column.name!r}, row {row}: {values[row]!r} is not finite, or beyond "
            f"{MAX_MAGNITUDE:g}; correct the entry, or leave it empty if it is missing"
        )
    return out


def _plain(value):
    # labels are Python scalars; whole floats become integers, so that a label is 3 and not 3.0
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value):
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_date(value):
    if isinstance(value, str):
        return bool(_DATE.match(value.strip()))
    return hasattr(value, "year") or hasattr(value, "total_seconds")


def _spells_number(value):
    if not isinstance(value, str) or "_" in value:  # Python reads 1_000, no file format does
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
