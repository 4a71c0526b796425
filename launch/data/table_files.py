"""Files of tables: CSV and Parquet as pandas frames, and what is wrong with them in one sentence.

A CSV file is UTF-8 text whose first line names the columns; it may be compressed (*.csv.gz). It is
scanned once before pandas reads it, in bounded memory: pandas would fill short rows, keep NUL bytes
and take its time with a header of a million columns.
"""

import csv
import gzip
import itertools
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow
import pyarrow.parquet

MISSING = ("", "NaN", "nan", "NAN", "None", "none", "null", "NULL", "NA", "N/A", "<NA>")
PARQUET = (".parquet", ".pq")
MAX_COLUMNS = 10_000
MAX_LINE = 1 << 22  # characters of a line
BOM = "\ufeff"


class Dialect(NamedTuple):
    """How a CSV file is written."""

    sep: str  # between entries
    newline: str  # end of its first line
    encoding: str  # utf-8, or utf-8-sig where a byte order mark leads


def read_frame(path: str | Path, sep: str | None = None) -> pd.DataFrame:
    """Reads a table: numbers, booleans and text as pandas infers them, what is missing as NaN.

    Args:
      path: *.csv, *.csv.gz or *.parquet.
      sep: separator of a CSV; None takes the most frequent of , ; and tab in the header.

    Raises:
      ValueError: the first defect of the file.
      FileNotFoundError: there is no such file.
    """
    path = Path(path)
    check_exists(path)
    if path.suffix in PARQUET:
        return read_arrow(path).to_pandas()
    return read_csv(path, scan(path, sep))


def check_exists(path: Path) -> None:
    """Refuses what is no file."""
    if not path.is_file():
        raise FileNotFoundError(f"table {str(path)!r} does not exist; check the path")


def scan(path: Path, sep: str | None = None) -> Dialect:
    """Checks a CSV file line by line, a line in memory at a time."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as stream:
            lines = _lines(path, stream)
            first = next(lines, "")
            if not first.strip(f"{BOM} \r\n"):
                state = "has an empty first line" if first else "is empty"
                raise ValueError(f"{str(path)!r} {state}; it needs a header line and rows")
            encoding = "utf-8-sig" if first.startswith(BOM) else "utf-8"
            first = first.removeprefix(BOM)
            sep = sep or max(",;\t", key=first.count)
            lines = itertools.chain([first], lines)
            _scan_rows(path, csv.reader(lines, delimiter=sep, skipinitialspace=True))
            return Dialect(sep, "\r\n" if first.endswith("\r\n") else "\n", encoding)
    except (csv.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def read_csv(path: Path, dialect: Dialect, *, as_text: bool = False) -> pd.DataFrame:
    """Reads a CSV file that was scanned; `as_text` keeps every entry's own characters."""
    options = {"dtype": str} if as_text else {"na_values": list(MISSING), "low_memory": False}
    try:
        frame = pd.read_csv(
            path, sep=dialect.sep, encoding=dialect.encoding, skipinitialspace=True,
            index_col=False, keep_default_na=False, **options,
        )  # fmt: skip
    except (ValueError, OSError, EOFError) as error:  # errors of the parser are ValueErrors
        raise _unreadable(path, error) from None
    if as_text:
        return frame
    for i, (_, column) in enumerate(frame.items()):
        # pandas overlooks what is missing among text that follows an integer of more than 64 bits
        if not pd.api.types.is_numeric_dtype(column) and column.isin(MISSING).any():
            frame.isetitem(i, column.mask(column.isin(MISSING)))
    return frame


def read_arrow(path: Path) -> pyarrow.Table:
    """Reads a Parquet file."""
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is no readable Parquet file ({error}); write it again"
        ) from None
    _check_header(path, table.column_names)
    return table


def read_schema(path: str | Path) -> dict[str, Any]:
    """Reads declared kinds from a JSON file."""
    try:
        declared = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"schema {str(path)!r} is no readable JSON file ({error})") from None
    if not isinstance(declared, dict):
        raise ValueError(
            f"schema {str(path)!r} holds a {type(declared).__name__}; write an object such as "
            f'{{"age": "loggaussian", "colour": "categorical"}}'
        )
    return declared


def _lines(path, stream):
    count = 0
    while line := stream.readline(MAX_LINE):
        count += 1
        if "\0" in line:
            raise ValueError(
                f"{str(path)!r} holds a NUL character in line {count}, so it is no text in UTF-8; "
                f"save the table as CSV in UTF-8"
            )
        if len(line) == MAX_LINE:
            raise ValueError(
                f"{str(path)!r} has more than {MAX_LINE} characters in line {count}; give every "
                f"row of the table its own line, and the table at most {MAX_COLUMNS} columns"
            )
        yield line


def _scan_rows(path, reader):
    names = next(reader)
    _check_header(path, names)
    for row in reader:
        is_blank = not "".join(row[:1]).strip() and len(row) < 2
        if len(row) != len(names) and not is_blank:
            raise _unreadable(
                path, f"line {reader.line_num} has {len(row)} entries, the header {len(names)}"
            )


def _check_header(path, names):
    if len(names) > MAX_COLUMNS:
        raise ValueError(
            f"{str(path)!r} has {len(names)} columns; give a table of at most {MAX_COLUMNS}, such "
            f"as the columns that matter"
        )
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{str(path)!r} has two columns named {name!r}; rename or drop one")
        if not str(name).strip():
            raise ValueError(f"{str(path)!r} has a column without a name; name it or drop it")


def _unreadable(path, reason):
    return ValueError(
        f"{str(path)!r} is no readable CSV file ({str(reason).strip().rstrip('.')}); give every "
        f"row as many entries as the header, in UTF-8"
    )
