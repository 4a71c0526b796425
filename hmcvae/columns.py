"""Columns of a mixed table: their kinds, codes and standardisation.

A `Schema` is the static description of a table (hashable, safe as a static argument of `jax.jit`);
a `Scaler` holds the numbers that were fitted to its training rows. Kinds and the rule that infers
them are those of Peis et al. (2022), "Missing Data Imputation and Acquisition with Deep
Hierarchical Models and Hamiltonian Monte Carlo":

  gaussian     x real;            standardised (x - shift) / scale
  loggaussian  x real, x >= 0;    standardised (log(1 + x) - shift) / scale
  bernoulli    x in {0, 1};       left as it is
  categorical  x in {0..C-1};     left as it is, a code stored as a float

Not here: reading files (`launch.data.tables`) and densities (`hmcvae.likelihoods`). `mask` is True
where an entry is observed. Functions that only ever see whole tables (`infer`, `fit`, `check`,
`encode`, `decode`) run on the host with NumPy in double precision; `transform` and `inverse` work
on NumPy arrays (in their precision) and on JAX arrays inside `jit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("gaussian", "loggaussian", "bernoulli", "categorical")
MAX_DISCRETE = 10  # fewer distinct values than this: the column is discrete (Peis et al., 2022)


@dataclass(frozen=True)
class Column:
    """Describes one column: its name, kind, number of classes and the labels of its codes."""

    name: str
    kind: str
    num_classes: int = 1  # C for categorical, 1 otherwise
    categories: tuple = ()  # original labels, code i stands for categories[i]; () if x is the code

    def __post_init__(self):
        """Refuses descriptions that no density could follow."""
        if self.kind not in KINDS:
            raise ValueError(
                f"column {self.name!r}: kind {self.kind!r} is unknown; use one of "
                f"{', '.join(KINDS)}"
            )
        if (self.kind == "categorical") != (self.num_classes > 1):
            raise ValueError(
                f"column {self.name!r}: a {self.kind} column cannot have num_classes="
                f"{self.num_classes}; give at least 2 to a categorical column and 1 to any other"
            )
        num_codes = {"categorical": self.num_classes, "bernoulli": 2}.get(self.kind, 0)
        if self.categories and len(self.categories) != num_codes:
            raise ValueError(
                f"column {self.name!r}: {len(self.categories)} categories are given where a "
                f"{self.kind} column has {num_codes} codes; list one label a code"
            )

    @property
    def is_discrete(self) -> bool:
        """Tells whether the column holds codes."""
        return self.kind in ("bernoulli", "categorical")


@dataclass(frozen=True)
class Schema:
    """Describes the D columns of a table, in order."""

    columns: tuple[Column, ...]

    def __post_init__(self):
        """Refuses a schema in which two columns share a name."""
        object.__setattr__(self, "columns", tuple(self.columns))
        seen = set()
        for name in self.names:
            if name in seen:
                raise ValueError(f"column {name!r} appears twice; rename or drop one of the two")
            seen.add(name)

    @property
    def num_columns(self) -> int:
        """Counts the columns, D."""
        return len(self.columns)

    @property
    def max_classes(self) -> int:
        """Returns C, the largest `num_classes`: the width of the parameters of one column."""
        return max((column.num_classes for column in self.columns), default=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the D names."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Returns the D kinds."""
        return tuple(column.kind for column in self.columns)

    def indices(self, *kinds: str) -> tuple[int, ...]:
        """Returns the positions of the columns of the given kinds, ascending."""
        return tuple(i for i, column in enumerate(self.columns) if column.kind in kinds)

    def is_kind(self, *kinds: str) -> np.ndarray:
        """Returns [D] booleans, True where the column is of one of the given kinds."""
        return np.array([column.kind in kinds for column in self.columns], dtype=bool)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns a JSON-able form; `from_json` restores it exactly."""
        return [
            {
                "name": column.name,
                "kind": column.kind,
                "num_classes": column.num_classes,
                "categories": list(column.categories),
            }
            for column in self.columns
        ]

    @classmethod
    def from_json(cls, columns: Sequence[dict[str, Any]]) -> "Schema":
        """Builds the schema that `to_json` described."""
        return cls(
            tuple(
                Column(c["name"], c["kind"], c["num_classes"], tuple(c["categories"]))
                for c in columns
            )
        )


class Scaler(NamedTuple):
    """Standardisation of the D columns; zeros and ones for discrete columns."""

    shift: jax.Array  # [D] mean of x (gaussian) or of log(1 + x) (loggaussian)
    scale: jax.Array  # [D] standard deviation of the same


def infer(x: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> Schema:
    """Infers kinds from the observed values of a numeric table.

    Fewer than 10 distinct values make a column discrete: bernoulli if there are two, categorical
    otherwise. Of the rest, those that are never negative are loggaussian, the others gaussian.
    The paper applies this rule to all rows, training and test together.

    Args:
      x: [N, D] raw values; whatever sits under the mask is ignored.
      mask: [N, D] True = observed.
      names: D names.

    Returns:
      A schema whose discrete columns list their distinct values, ascending, as categories: pass
      `x` through `encode` to turn them into codes.

    Raises:
      ValueError: a column is all missing, holds a single value or an infinite one.
    """
    x, mask = _as_table(x, mask, len(names))
    columns = []
    for i, name in enumerate(names):
        values = x[mask[:, i], i]
        _check_values(name, values, np.flatnonzero(mask[:, i]))
        distinct = np.unique(values)
        if len(distinct) < MAX_DISCRETE:
            labels = tuple(_as_label(value) for value in distinct)
            if len(labels) == 2:
                columns.append(Column(name, "bernoulli", 1, labels))
            else:
                columns.append(Column(name, "categorical", len(labels), labels))
        else:
            columns.append(Column(name, "loggaussian" if distinct[0] >= 0 else "gaussian"))
    return Schema(tuple(columns))


def encode(column: Column, values: Sequence[Any], mask: np.ndarray) -> np.ndarray:
    """Turns the original values of one column into codes (discrete) or floats (real).

    Args:
      column: its description; a discrete column without categories already holds codes.
      values: N original values of any type.
      mask: [N] True = observed.

    Returns:
      [N] float64, NaN where missing.

    Raises:
      ValueError: a value is no category of the column, or is text in a column of numbers.
    """
    rows = np.flatnonzero(mask)
    observed = [values[row] for row in rows]
    out = np.full(len(mask), np.nan)
    if column.is_discrete and column.categories:
        codes = {label: code for code, label in enumerate(column.categories)}
        for row, value in zip(rows, observed, strict=True):
            if value not in codes:
                raise ValueError(
                    f"column {column.name!r}, row {row}: category {value!r} is not among the "
                    f"{len(codes)} known ones {_shorten(column.categories)}; add it to the schema "
                    f"or mark the entry as missing"
                )
        out[rows] = [codes[value] for value in observed]
        return out
    for row, value in zip(rows, observed, strict=True):
        try:
            out[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"column {column.name!r}, row {row}: {str(value)[:40]!r} is not a number, or too "
                f"large for one, but the column is {column.kind}; correct the entry, leave it "
                f"empty, or declare the column categorical"
            ) from None
    return out


def decode(column: Column, codes: np.ndarray) -> np.ndarray:
    """Turns codes back into the labels of a column; reals and unlabelled codes pass unchanged.

    Args:
      column: its description.
      codes: [N] codes as floats, NaN where missing.

    Returns:
      [N] labels (dtype object, None where missing) or the input.
    """
    if not column.categories:
        return codes
    labels = np.empty(len(codes), dtype=object)
    for row, code in enumerate(codes):
        labels[row] = None if np.isnan(code) else column.categories[int(code)]
    return labels


def check(schema: Schema, x: np.ndarray, mask: np.ndarray) -> None:
    """Refuses a table that no model could be fitted to, in one sentence.

    A row without a single observed entry is legal.

    Args:
      schema: the D columns.
      x: [N, D] raw reals and codes; whatever sits under the mask is ignored.
      mask: [N, D] True = observed.

    Raises:
      ValueError: no rows, a wrong shape, an infinite or NaN observed value, a column that is all
        missing or constant, a code out of range, or a negative value in a loggaussian column.
    """
    x, mask = _as_table(x, mask, schema.num_columns)
    for i, column in enumerate(schema.columns):
        rows = np.flatnonzero(mask[:, i])
        values = x[rows, i]
        _check_values(column.name, values, rows)
        if column.is_discrete:
            num_codes = max(column.num_classes, 2)
            bad = (values != np.floor(values)) | (values < 0) | (values >= num_codes)
            if bad.any():
                k = int(np.argmax(bad))
                raise ValueError(
                    f"column {column.name!r}, row {rows[k]}: {values[k]:g} is no code of a "
                    f"{column.kind} column with codes 0 to {num_codes - 1}; re-encode the column "
                    f"or raise its number of classes"
                )
        elif column.kind == "loggaussian" and values.min() < 0:
            k = int(np.argmin(values))
            raise ValueError(
                f"column {column.name!r}, row {rows[k]}: {values[k]:g} is negative, but a "
                f"loggaussian column holds values of at least 0; declare the column gaussian"
            )


def fit(schema: Schema, x: np.ndarray, mask: np.ndarray, *, ddof: int = 0) -> Scaler:
    """Fits shift and scale to the observed entries.

    Args:
      schema: the D columns.
      x: [N, D] raw values; whatever sits under the mask is ignored.
      mask: [N, D] True = observed.
      ddof: 0 divides the sum of squares by n, 1 by n - 1.

    Returns:
      Scaler of float64 [D]. A column that is constant or empty among these rows gets scale 1, so
      that a fold of a small table never divides by zero.
    """
    x, mask = _as_table(x, mask, schema.num_columns)
    shift, scale = np.zeros(schema.num_columns), np.ones(schema.num_columns)
    for i, column in enumerate(schema.columns):
        if column.is_discrete:
            continue
        values = x[mask[:, i], i]
        values = np.log1p(values) if column.kind == "loggaussian" else values
        if len(values):
            shift[i] = values.mean()
        if len(values) > ddof:
            std = values.std(ddof=ddof)
            if std > 1e-12 * np.abs(values).max():
                scale[i] = std
    return Scaler(shift, scale)


def transform(schema: Schema, scaler: Scaler, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Standardises raw values.

    Args:
      schema: the D columns, static.
      scaler: shift and scale [D].
      x: [..., D] raw reals and codes; whatever sits under the mask is ignored.
      mask: [..., D] True = observed.

    Returns:
      [..., D] standardised reals and unchanged codes, exactly 0 where missing. NumPy in, NumPy
      out (standardise a table in double precision, then cast); JAX in, JAX out.
    """
    xp = np if isinstance(x, np.ndarray) else jnp
    mask = xp.asarray(mask, dtype=bool)
    is_log = xp.broadcast_to(schema.is_kind("loggaussian"), x.shape)
    x = xp.where(mask, x, 0)
    x = xp.where(is_log, xp.log1p(xp.where(is_log, x, 0)), x)
    shift, scale = (_row(xp, leaf, x) for leaf in scaler)
    return xp.where(mask, (x - shift) / scale, 0)


def inverse(schema: Schema, scaler: Scaler, x: jax.Array, *, floor: bool = True) -> jax.Array:
    """Returns standardised values to raw units.

    Args:
      schema: the D columns, static.
      scaler: shift and scale [D].
      x: [..., D] standardised reals and codes.
      floor: keep loggaussian columns at 0 or above (the reference does so for features and not
        for targets).

    Returns:
      [..., D] raw reals and unchanged codes.
    """
    xp = np if isinstance(x, np.ndarray) else jnp
    shift, scale = (_row(xp, leaf, x) for leaf in scaler)
    x = x * scale + shift
    is_log = xp.broadcast_to(schema.is_kind("loggaussian"), x.shape)
    raw = xp.expm1(xp.where(is_log, x, 0))
    return xp.where(is_log, xp.maximum(raw, 0) if floor else raw, x)


def _as_table(x, mask, num_columns):
    x, mask = np.asarray(x, dtype=np.float64), np.asarray(mask, dtype=bool)
    if x.ndim != 2 or x.shape[1] != num_columns or mask.shape != x.shape:
        raise ValueError(
            f"values of shape {x.shape} and a mask of shape {mask.shape} do not fit a schema of "
            f"{num_columns} columns; both must be [rows, {num_columns}]"
        )
    if not len(x):
        raise ValueError("the table has no rows; give at least 2")
    return x, mask


def _check_values(name, values, rows):
    if not len(values):
        raise ValueError(f"column {name!r} has no observed value; drop it")
    if not np.isfinite(values).all():
        k = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"column {name!r}, row {rows[k]}: {values[k]} is not finite; correct the entry or mark "
            f"it as missing"
        )
    if (values == values[0]).all():
        raise ValueError(
            f"column {name!r} holds the single value {values[0]:g} in all its observed rows; drop "
            f"it, as nothing can be learned from it"
        )


def _as_label(value):
    return int(value) if float(value).is_integer() else float(value)


def _shorten(labels, limit=8):
    text = ", ".join(repr(label) for label in labels[:limit])
    return f"({text}, ...)" if len(labels) > limit else f"({text})"


def _row(xp, vector, like):
    # [D] -> [1, .., 1, D] of like's rank and precision: no promotion of either
    dtype = like.dtype if xp.issubdtype(like.dtype, xp.floating) else None
    return xp.reshape(xp.asarray(vector, dtype=dtype), (1,) * (like.ndim - 1) + (-1,))
