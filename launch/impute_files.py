"""The table that `launch.impute` fills: read with its own text, written back without holes.

Observed cells of a CSV keep their characters, and those of a Parquet file their values: only
missing cells are ever replaced. Numbers that are whole wherever they are observed are filled with
whole numbers; categories are spelled as the file spells them. What may change in a CSV are quotes,
and blanks before an entry.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from hmcvae.frames import Feature
from launch.data import table_files
from launch.data.table_files import Dialect

IMP, ID = ".imp", ".id"  # what R's mice calls the number of an imputation and of a row
_WHOLE = re.compile(r"\s*[+-]?\d{1,15}\s*")  # digits that doubles hold exactly


class Source(NamedTuple):
    """A table of the user's as it is in its file."""

    frame: pd.DataFrame  # [N, D] typed
    missing: np.ndarray  # [N, D] bool
    text: pd.DataFrame | None  # [N, D] of str, of a CSV
    dialect: Dialect | None  # of a CSV
    arrow: pyarrow.Table | None  # of a Parquet file


def read(path: Path) -> Source:
    """Reads a CSV or Parquet file; raises as `launch.data.table_files` does."""
    table_files.check_exists(path)
    if path.suffix in table_files.PARQUET:
        arrow, text, dialect = table_files.read_arrow(path), None, None
        frame = arrow.to_pandas()
        whole = [_integer(field.type) for field in arrow.schema]
    else:
        arrow, dialect = None, table_files.scan(path)
        frame = table_files.read_csv(path, dialect)
        text = table_files.read_csv(path, dialect, as_text=True)
        whole = [_spelled_whole(frame[name], text[name]) for name in frame.columns]
    missing = frame.isna().to_numpy()
    for i, dtype in enumerate(whole):
        if dtype and missing[:, i].any() and not missing[:, i].all():
            frame.isetitem(i, frame.iloc[:, i].astype(dtype))
    return Source(frame, missing, text, dialect, arrow)


def complete(
    source: Source, features: Sequence[Feature], filled: pd.DataFrame
) -> pd.DataFrame | pyarrow.Table:
    """Puts values into the missing cells of a table.

    Args:
      source: N rows.
      features: how its D columns were read.
      filled: [N, D] the table with its holes filled, or some of them.

    Returns:
      A frame of str for a CSV, an Arrow table for a Parquet file.
    """
    news = source.missing & filled.notna().to_numpy()
    out = source.arrow if source.text is None else source.text.copy()
    for i in np.flatnonzero(news.any(axis=0)):
        i, rows = int(i), np.flatnonzero(news[:, i])
        values = filled.iloc[rows, i].tolist()
        if source.text is None:
            field = out.schema.field(i)
            cells = _replace(out.column(i).to_pylist(), rows, values)
            out = out.set_column(i, field, pyarrow.array(cells, field.type))
        else:
            cells = _replace(out.iloc[:, i].tolist(), rows, spell(source, features, i, values))
            out.isetitem(i, cells)
    return out


def spell(source: Source, features: Sequence[Feature], i: int, values: Sequence[Any]) -> list[str]:
    """Writes values of column i as its CSV does: labels by their first spelling, 7 digits."""
    column = features[i].column
    if source.text is None or (column is not None and not column.is_discrete):
        return [_word(value) for value in values]
    rows = np.flatnonzero(~source.missing[:, i])
    labels, words = (frame.iloc[rows, i].tolist() for frame in (source.frame, source.text))
    first = dict(zip(reversed(labels), reversed(words), strict=True))
    return [first.get(value, str(value)) for value in values]


def write(source: Source, table: pd.DataFrame | pyarrow.Table, stream: IO[bytes]) -> None:
    """Writes what `complete` returned."""
    if source.text is None:
        pyarrow.parquet.write_table(table, stream)
    else:
        _write_text(source.dialect, [table], stream)


def write_long(source: Source, tables: Iterable, stream: IO[bytes]) -> None:
    """Writes tables under one another, numbered as R's mice numbers them in its long format.

    Args:
      source: the table with its holes, imputation 0.
      tables: what `complete` returned, imputations 1, 2, ...
      stream: open for writing.
    """
    num = len(source.frame)
    if source.text is not None:

        def numbered(k, table):
            table = table.copy(deep=False)
            table.insert(0, IMP, str(k))
            table.insert(1, ID, [str(row + 1) for row in range(num)])
            return table

        all_tables = (
            numbered(k, table) for k, table in enumerate(itertools.chain([source.text], tables))
        )
        _write_text(source.dialect, all_tables, stream)
        return
    numbers = [pyarrow.field(name, pyarrow.int64()) for name in (IMP, ID)]
    schema = pyarrow.schema([*numbers, *source.arrow.schema])
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for k, table in enumerate(itertools.chain([source.arrow], tables)):
            columns = [pyarrow.array(np.full(num, k)), pyarrow.array(np.arange(num) + 1)]
            writer.write_table(pyarrow.Table.from_arrays([*columns, *table.columns], schema=schema))


def write_frame(source: Source, frame: pd.DataFrame, stream: IO[bytes]) -> None:
    """Writes a frame of numbers and text in the format of the source."""
    if source.text is None:
        pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame, preserve_index=False), stream)
    else:
        words = {name: [_word(value) for value in frame[name]] for name in frame.columns}
        _write_text(source.dialect, [pd.DataFrame(words, dtype=object)], stream)


def _integer(kind):
    """Name of the nullable pandas dtype of an Arrow integer, or None."""
    if not pyarrow.types.is_integer(kind):
        return None
    return str(kind).replace("int", "Int").replace("uI", "UI")


def _spelled_whole(series, text):
    if not pd.api.types.is_float_dtype(series.dtype):
        return None
    return "Int64" if all(map(_WHOLE.fullmatch, text[series.notna()])) else None


def _replace(cells, rows, values):
    for row, value in zip(rows, values, strict=True):
        cells[row] = value
    return cells


def _word(value):
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _write_text(dialect, frames, stream):
    text = io.TextIOWrapper(stream, dialect.encoding, newline="")
    # what the writer takes for the end of a line it quotes: both characters, whichever ends ours
    end = "\r\n"
    target = SimpleNamespace(
        write=lambda line: text.write(line.removesuffix(end) + dialect.newline)
    )
    writer = csv.writer(target, delimiter=dialect.sep, lineterminator=end)
    for k, frame in enumerate(frames):
        if k == 0:
            writer.writerow(frame.columns)
        writer.writerows(frame.itertuples(index=False, name=None))
    text.flush()
    text.detach()
