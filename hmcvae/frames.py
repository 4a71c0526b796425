"""Columns of a data frame: their kinds, their codes, and imputed values written back.

A column of the frame becomes a `Feature`: a modelled column with its kind and labels, a constant,
or one that is left as it is. Numbers follow `columns.infer`; text, booleans and pandas categories
become categories; dates are refused, since neither codes nor categories would keep their meaning.
A declared kind overrides all of it.

NaN, None and pd.NA are missing. Numbers come out in double precision. Only missing cells are ever
written, so observed ones keep every bit.
"""

import numbers
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmcvae import columns
from hmcvae.columns import Column

MAX_CATEGORIES = 128  # the width of the softmax of every categorical column follows the largest
MAX_MAGNITUDE = 1e100  # squares of deviations stay finite
DROP = "drop"  # a declared kind: leave the column out of the model
_DATE = re.compile(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?$")


class Feature(NamedTuple):
    """How one column of a frame enters the model; at most one of the last two fields is given."""

    name: str
    column: Column | None = None  # kind and labels of a modelled column
    constant: Any = None  # what missing cells are filled with where all observed ones are equal


def describe(frame: pd.DataFrame, declared: Mapping[str, Any] | None = None) -> tuple[Feature, ...]:
    """Describes the columns of a frame.

    A column without observed cells will be left as it is, with a warning.

    Args:
      frame: N rows.
      declared: column name -> kind, "drop", or {"kind": kind, "categories": [labels]}; columns that
        are not named are inferred.

    Returns:
      One feature a column, in order.

    Raises:
      ValueError, TypeError: the first defect, with column, value and remedy.
    """
    declared, names = dict(declared or {}), [str(name) for name in frame.columns]
    for name in declared:
        if name not in names:
            raise ValueError(
                f"the schema declares column {name!r}, which the table lacks; its columns are "
                f"{', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
            )
    features = tuple(
        _describe(name, frame.iloc[:, i], declared.get(name)) for i, name in enumerate(names)
    )
    for i, feature in enumerate(features):
        if declared.get(feature.name) != DROP and frame.iloc[:, i].isna().all():
            warnings.warn(
                f"column {feature.name!r} has no observed value and is left as it is",
                UserWarning,
                stacklevel=2,
            )
    return features


def encode(features: Sequence[Feature], frame: pd.DataFrame) -> np.ndarray:
    """Turns the modelled columns of a frame into numbers.

    A category that the feature does not know counts as missing, with a warning.

    Args:
      features: one a column of the frame, from `describe`.
      frame: N rows.

    Returns:
      [N, D] float64 reals and codes of the D modelled columns, NaN where missing.

    Raises:
      ValueError, TypeError: text in a column of numbers, or a number that is infinite or too large.
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
    if declared == DROP:
        return Feature(name)
    observed = series[series.notna()]
    if observed.empty:
        return Feature(name)
    if declared is not None:
        return _describe_declared(name, observed, declared)
    if _holds_numbers(name, observed):
        return _describe_numbers(name, observed)
    return _describe_labels(name, _labels(name, observed))


def _describe_declared(name, observed, declared):
    entry = declared if isinstance(declared, Mapping) else {"kind": declared}
    if set(entry) - {"kind", "categories"} or not isinstance(entry.get("kind"), str):
        raise ValueError(
            f"column {name!r}: the schema entry {declared!r} is not understood; write a kind, or "
            f'{{"kind": kind, "categories": [labels]}}'
        )
    kind = entry["kind"]
    if kind not in ("bernoulli", "categorical"):
        return _describe_numbers(name, observed, Column(name, kind))
    labels = tuple(entry.get("categories", ())) or _labels(name, observed)
    if kind == "bernoulli" and len(labels) > 2:
        raise ValueError(
            f"column {name!r} is declared bernoulli but has {len(labels)} distinct values; declare "
            f"it categorical, or give it exactly 2"
        )
    return _describe_labels(name, labels, kind)


def _describe_numbers(name, observed, column=None):
    values = _numbers(Column(name, "gaussian"), observed)
    if (values == values[0]).all():
        return Feature(name, None, values[0].item())
    known = np.ones((len(values), 1), bool)
    if column is not None:
        columns.check(columns.Schema((column,)), values[:, None], known)
        return Feature(name, column)
    column = columns.infer(values[:, None], known, [name]).columns[0]
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
    if all(_is_date(value) for value in values):
        raise ValueError(
            f"column {name!r} holds dates or times such as {str(values[0])!r}, which have no kind "
            f"here; replace it by numbers (days since the first, month, weekday), or declare it "
            f"{DROP!r} in the schema"
        )
    if all(_is_number(value) for value in values):
        return True
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
        if not isinstance(value, str | numbers.Real | np.bool_):
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
    known = {label: code for code, label in enumerate(column.categories)}
    values, observed = series.astype(object).tolist(), series.notna().to_numpy()
    codes = np.full(len(values), np.nan)
    for row in np.flatnonzero(observed):
        try:
            codes[row] = known.get(values[row], np.nan)
        except TypeError:  # not hashable: a list, say
            raise TypeError(
                f"column {column.name!r}, row {series.index[row]}: argument must be a string or a "
                f"number, not {type(values[row]).__name__!r}"
            ) from None
    unseen = np.flatnonzero(observed & np.isnan(codes))
    if len(unseen):
        warnings.warn(
            f"column {column.name!r}: {len(unseen)} cells hold categories that were not there when "
            f"the model was fitted, such as {values[unseen[0]]!r}; they are treated as missing",
            UserWarning,
            stacklevel=4,
        )
    return codes


def _numbers(column, series):
    """Reads numbers: [N] float64, NaN where missing."""
    values, observed = series.astype(object).tolist(), series.notna().to_numpy()
    out = np.full(len(values), np.nan)
    for row in np.flatnonzero(observed):
        try:
            out[row] = float(values[row])
        except (TypeError, ValueError, OverflowError) as error:
            refused = TypeError if isinstance(error, TypeError) else ValueError
            raise refused(
                f"column {column.name!r}, row {series.index[row]}: argument must be a string or a "
                f"number that fits double precision, not {str(values[row])[:40]!r}"
            ) from None
    large = observed & ~(np.abs(out) <= MAX_MAGNITUDE)
    if large.any():
        row = int(np.argmax(large))
        raise ValueError(
            f"column {column.name!r}, row {series.index[row]}: {values[row]!r} is infinity or too "
            f"large; expected numbers up to {MAX_MAGNITUDE:g}, or a missing entry"
        )
    return out


def _plain(value):
    # labels are Python scalars; whole floats become integers, so that a label is 3 and not 3.0
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


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
