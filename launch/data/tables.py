"""Tables: the ten of Peis et al. (2022), the user's own, their splits and test masks.

Preparation follows the published protocol: text becomes codes in sorted order, the two constant
columns of naval and the index of avocado are dropped, kinds are inferred from all rows.
"""

import difflib
import gzip
import hashlib
import io
import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import sklearn.datasets

from launch.data import table_files
from launch.data.frames import Table, from_frame, text_as_numbers
from launch.data.sources import DATA_DIR, SOURCES

NAMES = ("wine", "diabetes", *SOURCES)


class Split(NamedTuple):
    """One fold: rows to train on, rows to test on, and what is observed of the latter."""

    train: np.ndarray  # [n] row indices, ascending
    test: np.ndarray  # [m] row indices, ascending
    test_mask: np.ndarray  # [m, D] bool, True = shown to the model; never True where missing
    fingerprint: str  # sha256 of the table and of the three arrays above


def load(
    name: str, data_dir: str | Path | None = None, *, paper: bool = False, verify: bool = True
) -> Table:
    """Loads one of the ten tables of the paper.

    Args:
      name: one of `NAMES`; wine and diabetes come with scikit-learn, the others from `data_dir`.
      data_dir: folder with one folder a table; None or "" reads HMCVAE_DATA_DIR.
      paper: drop the first row of every yacht and insurance file, which the reference
        implementation takes for a header (307 rows of 308, 9820 of 9822).
      verify: compare checksums, besides shapes.

    Returns:
      The table in raw units.

    Raises:
      ValueError: unknown name, or a file that is not the one that was tested.
      FileNotFoundError: the folder or the file is absent; says what is expected and its origin.
    """
    if name in ("wine", "diabetes"):
        bunch = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        return from_frame(bunch.frame, name=name, target=("target",))
    if name not in SOURCES:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; use one of {', '.join(NAMES)}"
        raise ValueError(f"table {name!r} is unknown{hint}")
    source = SOURCES[name]
    data_dir = str(data_dir or os.environ.get(DATA_DIR, ""))
    if not data_dir:
        raise FileNotFoundError(
            f"table {name!r} needs a data folder holding {_expected(source)}; set config.data.dir "
            f"or the variable {DATA_DIR}, and get the data from {source.origin}"
        )
    frames = [_read(name, source, file, Path(data_dir), verify) for file in source.files]
    if paper and name in ("yacht", "insurance"):
        frames = [frame.iloc[1:].reset_index(drop=True) for frame in frames]
    if name == "insurance":
        train, evaluation, answers = frames
        frame = pd.concat([train, evaluation.join(answers)], ignore_index=True)
    else:
        (frame,) = frames
    frame = frame.drop(columns=list(source.drop))
    return from_frame(text_as_numbers(frame), name=name, target=source.target)


def read_csv(
    path: str | Path,
    target: str | tuple[str, ...] = (),
    schema_path: str | Path | None = None,
    *,
    sep: str | None = None,
) -> Table:
    """Reads a table of the user's from a CSV or Parquet file.

    Empty entries, NaN, None, NA and null are missing. Numbers follow the rule of
    `hmcvae.columns.infer`; text and booleans become categories in sorted order; dates are refused.

    Args:
      path: *.csv (also compressed: *.csv.gz) or *.parquet, the first line of a CSV is its header.
      target: name or names of the target columns; () for none.
      schema_path: JSON file {"column": kind or "drop" or {"kind": kind, "categories": [labels]}};
        it overrides inference for the columns that it names. Declare all columns, with categories,
        where later files may lack some of the labels.
      sep: separator of a CSV; None takes the most frequent of , ; and tab in the header.

    Returns:
      The table in raw units, named after the file.

    Raises:
      ValueError: the first defect found, in one sentence.
      FileNotFoundError: there is no such file.
    """
    frame = table_files.read_frame(path, sep)
    declared = None if schema_path is None else table_files.read_schema(schema_path)
    return from_frame(frame, name=Path(path).name.split(".")[0], target=target, declared=declared)


def make_splits(table: Table, num_folds: int = 10, seed: int = 0) -> tuple[Split, ...]:
    """Makes shuffled folds, with the half of each test fold that the model gets to see.

    Every row is tested in exactly one fold. Test masks are Bernoulli(0.5) per entry, drawn once
    (Peis et al., 2022, protocol of the imputation experiments). The result depends on the seed,
    the number of rows and columns, and the fold only.

    Args:
      table: N rows.
      num_folds: K, at most N.
      seed: of the shuffle and of the masks.

    Returns:
      K splits.
    """
    num_rows, num_columns = table.x.shape
    if not 2 <= num_folds <= num_rows:
        raise ValueError(
            f"num_folds={num_folds} does not fit a table of {num_rows} rows; use 2 to {num_rows}"
        )
    order = np.random.default_rng([seed, 0]).permutation(num_rows)
    content = hashlib.sha256(json.dumps([table.schema.to_json(), table.target.to_json()]).encode())
    for values, mask in ((table.x, table.mask), (table.y, table.y_mask)):
        content.update(np.where(mask, values, 0.0).astype("<f8").tobytes())
        content.update(mask.astype("u1").tobytes())
    splits = []
    for fold, test in enumerate(np.array_split(order, num_folds)):
        test = np.sort(test)
        train = np.setdiff1d(order, test)
        coins = np.random.default_rng([seed, 1, fold]).random((len(test), num_columns)) < 0.5
        test_mask = coins & table.mask[test]
        digest = content.copy()
        for array in (train.astype("<i8"), test.astype("<i8"), test_mask.astype("u1")):
            digest.update(array.tobytes())
        splits.append(Split(train, test, test_mask, digest.hexdigest()))
    return tuple(splits)


def _expected(source):
    return " and ".join(f"{file.path}[.gz]" for file in source.files)


def _read(name, source, file, data_dir, verify):
    candidates = [data_dir / file.path, data_dir / f"{file.path}.gz"]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"table {name!r}: neither {file.path} nor {file.path}.gz is in {str(data_dir)!r}; get "
            f"it from {source.origin}"
        )
    damaged = f"table {name!r}: {str(path)!r} is damaged or another edition"
    remedy = f"get it again from {source.origin}"
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{damaged} (it does not unpack: {error}); {remedy}") from None
    digest = hashlib.sha256(content).hexdigest()
    if verify and digest != file.sha256:
        raise ValueError(
            f"{damaged}: its uncompressed sha256 is {digest[:12]}... where {file.sha256[:12]}... "
            f"is expected; {remedy}"
        )
    try:
        frame = pd.read_csv(
            io.BytesIO(content), keep_default_na=False, na_values=[], **file.options
        )
    except (ValueError, UnicodeDecodeError) as error:  # parser errors are ValueErrors
        raise ValueError(f"{damaged} (it does not parse: {error}); {remedy}") from None
    if frame.shape != file.shape:
        raise ValueError(f"{damaged}: it has the shape {frame.shape}, not {file.shape}; {remedy}")
    return frame
