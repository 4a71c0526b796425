"""Fills the holes of a table, with their uncertainty, and reports how far to trust it.

  python -m launch.impute --data=holes.csv --output=filled.csv [--samples=20] [--schema=kinds.json]
      [--target=price] [--max_seconds=120] [--seed=0] [--overwrite]

Reads a CSV (*.csv, *.csv.gz) or Parquet file whose empty cells, NaN, NA, None and null are missing,
prints how it reads every column, trains HH-VAEM (`hmcvae.estimator.HHVAEImputer`), and writes in
the format of the data:

  filled.csv               the table: observed cells as they were; means of numbers, most probable
                           categories
  filled.imputations.csv   multiple imputation: the table (.imp = 0) and --samples joint draws of
                           its missing cells (.imp = 1, 2, ...), rows numbered by .id from 1: the
                           long format that R's mice reads (as.mids)
  filled.intervals.csv     a line a missing cell: row, column, what was filled, quantiles of the
                           draws of a number (5, 25, 50, 75, 95 %), probability of a category;
                           neither in a column of one value
  filled.html              what is missing, how columns were read, observed against imputed values,
                           calibration on held-out cells, which column tells of which

For the calibration a tenth of the observed cells is hidden from training; all observed cells serve
to fill the table. A tenth that is lost costs little, and what the report says is then true of the
model that filled it.

--schema is a JSON file {"column": kind}: gaussian, loggaussian, bernoulli, categorical, or drop for
a column that says nothing of others, such as a name or a number of a person; it stays as it is.
--target names the column that matters most, such as one that you would predict. It is filled like
any other, wherever it is missing; the report begins with how well, and with what tells of it.

Files appear whole, and all or none of them, unless the machine stops between two names. Exit codes:
0 done; 2 refused; 130 stopped.
"""

import argparse
import functools
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from hmcvae import frames
from hmcvae.estimator import HHVAEImputer
from hmcvae.frames import DROP, Feature
from launch import impute_checks, impute_files, impute_report
from launch.data import table_files
from launch.impute_files import ID, IMP, Source
from launch.metrics import say
from launch.workdir import Refused, write_atomic

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FILES = {
    "": "the completed table",
    ".imputations": "multiple imputations: .imp 0 has the holes, 1, 2, ... fill them",
    ".intervals": "quantiles of the draws of every missing cell",
}
MAX_LINES = 60  # columns that are printed
READ_AS = {
    "gaussian": "number",
    "loggaussian": "number of 0 or more (log)",
    "bernoulli": "two categories",
    "categorical": "categories",
}


def main(argv: list[str]) -> int:
    """Runs the program; returns its exit code."""
    flags = _parser().parse_args(argv[1:])
    try:
        print(impute(flags))
    except (Refused, ValueError, OSError, FloatingPointError) as refusal:
        if flags.debug:
            raise
        print(f"launch.impute: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def impute(flags) -> str:
    """Fills the table, writes the files, and returns what to say at the end."""
    paths = output_paths(flags)
    source, features = read(flags)
    rows = describe(source, features)
    print(format_columns(flags.data, source, rows), flush=True)
    began = time.monotonic()
    is_modelled = np.array([feature.column is not None for feature in features])
    hidden = impute_checks.choose(flags.seed, source.frame, is_modelled)
    imputer = HHVAEImputer(
        schema=declare(features), random_state=flags.seed, time_budget=flags.max_seconds, verbose=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said in the table of columns
        imputer.fit(impute_checks.without(source.frame, hidden))
        say(f"trained in {time.monotonic() - began:.0f} s; filling and checking")
        filled = imputer.transform(source.frame)
        holes = np.flatnonzero(source.missing.any(axis=1))
        drawn = imputer.sample(source.frame.iloc[holes], flags.samples)
        held_out = impute_checks.check(imputer, source.frame, hidden, flags.samples)
        influence = impute_checks.influence(imputer, flags.seed, source.frame, flags.samples)
        codes = frames.encode(features, source.frame)
        draws = np.stack([frames.encode(features, one) for one in drawn])
    draws[:, ~np.isnan(codes[holes])] = np.nan
    names = [feature.name for feature in features if feature.column is not None]
    facts = impute_report.Facts(
        title=f"Imputation of {Path(flags.data).name}",
        summary=_summary(flags, source, imputer, time.monotonic() - began),
        files=[(paths[ending].name, what) for ending, what in FILES.items()],
        inferred=rows,
        features=features,
        missing=source.missing,
        codes=codes,
        draws=draws,
        held_out=held_out,
        influence=influence,
        target=names.index(flags.target) if flags.target else None,
    )
    completed = functools.partial(_completed, source, features, holes, drawn)
    writers = {
        "": lambda file: impute_files.write(
            source, impute_files.complete(source, features, filled), file
        ),
        ".imputations": lambda file: impute_files.write_long(source, completed(), file),
        ".intervals": lambda file: impute_files.write_frame(
            source, intervals(source, features, holes, draws, filled), file
        ),
        ".html": lambda file: file.write(impute_report.render(facts).encode()),
    }
    publish({paths[ending]: write for ending, write in writers.items()})
    return "\n".join(f"{path}" for path in paths.values())


def output_paths(flags) -> dict[str, Path]:
    """Names the files by their endings; refuses flags that cannot be served."""
    data, output = Path(flags.data).expanduser(), Path(flags.output).expanduser()
    if flags.samples < 2:
        raise Refused(f"--samples={flags.samples}: expected 2 or more; 20 do for 90 % intervals")
    if flags.max_seconds is not None and not flags.max_seconds > 0:
        raise Refused(f"--max_seconds={flags.max_seconds}: expected a positive number")
    if flags.seed < 0:
        raise Refused(f"--seed={flags.seed}: expected 0 or more")
    wanted = data.suffix if data.suffix in table_files.PARQUET else ".csv"
    if output.suffix != wanted:
        raise Refused(
            f"--output={flags.output}: expected a name ending in {wanted}, the format of --data"
        )
    paths = {ending: output.with_name(output.stem + ending + wanted) for ending in FILES}
    paths[".html"] = output.with_suffix(".html")
    for path in paths.values():
        if path.exists() and (not flags.overwrite or path.is_dir() or path.samefile(data)):
            remedy = "give another --output" if path.is_dir() else "give --overwrite to replace it"
            if data.exists() and path.samefile(data):
                remedy = "it is the data itself; give another --output"
            raise Refused(f"{path} exists already; {remedy}")
    return paths


def read(flags) -> tuple[Source, tuple[Feature, ...]]:
    """Reads the table and how its columns are to be treated, or refuses it."""
    source = impute_files.read(Path(flags.data).expanduser())
    names = [str(name) for name in source.frame.columns]
    if not len(source.frame):
        raise Refused(f"{flags.data} has a header but no rows")
    for name in {IMP, ID} & set(names):
        raise Refused(f"{flags.data} has a column {name!r}, which the output needs; rename it")
    declared = table_files.read_schema(flags.schema) if flags.schema else {}
    try:
        features = frames.describe(source.frame, declared)
    except TypeError as error:  # lists, say, in a Parquet file
        raise Refused(f"{flags.data}: {error}") from None
    is_filled = [f.column is not None or f.constant is not None for f in features]
    if not source.missing[:, is_filled].any():
        raise Refused(
            f"{flags.data} has no cell to fill: nothing is missing in the columns that have a model"
        )
    if not any(feature.column is not None for feature in features):
        raise Refused(f"{flags.data} has no column of two or more values to learn from")
    if flags.target and flags.target not in names:
        raise Refused(
            f"--target={flags.target} is no column of {flags.data}"
            f"{frames.nearest(flags.target, names)}"
        )
    if flags.target and features[names.index(flags.target)].column is None:
        raise Refused(
            f"--target={flags.target}: the column has no model, as it is dropped, empty or of one "
            f"value; name another"
        )
    return source, features


def declare(features: tuple[Feature, ...]) -> dict:
    """Turns descriptions into a schema, so that held-out cells do not change them."""
    return {
        f.name: DROP
        if f.column is None and f.constant is None
        else {"kind": f.column.kind, "categories": list(f.column.categories)}
        for f in features
        if f.column is not None or f.constant is None
    }


def describe(source: Source, features: tuple[Feature, ...]) -> list[tuple[str, ...]]:
    """Lists the columns: a header, then name, missing share, kind and range or categories."""
    rows = [("column", "missing", "read as", "values")]
    for i, feature in enumerate(features):
        observed = source.frame.iloc[~source.missing[:, i], i]
        share = f"{source.missing[:, i].mean():.1%}"
        if feature.column is None:
            constant = feature.constant is not None
            kind = "one value, which fills it" if constant else "left as it is"
            values = str(feature.constant) if constant else ""
        elif feature.column.is_discrete:
            labels = [str(label) for label in feature.column.categories]
            kind = READ_AS[feature.column.kind]
            values = f"{len(labels)}: {', '.join(labels[:6])}{', ...' if len(labels) > 6 else ''}"
        else:
            kind = READ_AS[feature.column.kind]
            values = f"{observed.min():.5g} to {observed.max():.5g}"
        rows.append((feature.name, share, kind, values))
    return rows


def format_columns(data: str, source: Source, rows: list[tuple[str, ...]]) -> str:
    """Formats `describe` for a terminal."""
    shown = [[_printable(cell) for cell in row] for row in rows[: MAX_LINES + 1]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [f"{data}: {len(source.frame)} rows, {source.missing.mean():.1%} of the cells missing"]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    if len(rows) > len(shown):
        lines.append(f"  and {len(rows) - len(shown)} more columns")
    return "\n".join(lines)


def intervals(source, features, holes, draws, filled) -> pd.DataFrame:
    """Lists the missing cells that were filled.

    Args:
      source: the table.
      features: how its columns were read.
      holes: [R] rows with missing cells.
      draws: [M, R, D] raw reals and codes of the modelled columns.
      filled: the completed frame.

    Returns:
      A frame with columns row (from 1), column, filled, 5%, 25%, 50%, 75%, 95% and probability,
      the share of the draws that agree with what was filled, of categories.
    """
    parts, place = [], 0
    for i, feature in enumerate(features):
        if feature.column is None and feature.constant is None:
            continue
        at = np.flatnonzero(source.missing[holes, i])
        values = filled.iloc[holes[at], i]
        part = pd.DataFrame({"row": holes[at] + 1, "column": feature.name})
        part["filled"] = impute_files.spell(source, features, i, values.tolist())
        part[[*(f"{q:.0%}" for q in QUANTILES), "probability"]] = np.nan
        if feature.column is not None:
            sample, place = draws[:, at, place], place + 1
            if not len(at):
                continue
            if feature.column.is_discrete:
                code = frames.encode((feature,), values.to_frame())[:, 0]
                part["probability"] = (sample == code).mean(axis=0)
            else:
                table = np.quantile(sample, QUANTILES, axis=0, method="weibull")
                part[[f"{q:.0%}" for q in QUANTILES]] = table.T
        parts.append(part)
    return pd.concat(parts, ignore_index=True).sort_values("row", kind="stable")


def publish(writers: dict) -> None:
    """Writes all files beside their places, then gives them their names."""
    folder = next(iter(writers)).parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".impute-", dir=folder))
    try:
        for path, write in writers.items():
            write_atomic(draft / path.name, write)
        for path in writers:
            (draft / path.name).replace(path)
    finally:
        shutil.rmtree(draft)


def _completed(source, features, holes, drawn):
    """Yields the table completed by every draw of its rows with holes."""
    for draw in drawn:
        whole = source.frame.copy()
        for i in np.flatnonzero(source.missing.any(axis=0)):
            column = whole.iloc[:, i].astype(object)
            column.iloc[holes] = draw.iloc[:, i].astype(object)
            whole.isetitem(i, column)
        yield impute_files.complete(source, features, whole)


def _summary(flags, source, imputer, seconds):
    num_rows, num_columns = source.missing.shape
    steps = ", ".join(f"{count} of {stage}" for stage, count in imputer.num_steps_.items())
    share = imputer.share_.of_draws
    borrowed = f", {share:.0%} of them from rows that resemble the row" if share else ""
    return (
        f"{num_rows} rows, {num_columns} columns, {int(source.missing.sum())} missing cells "
        f"({source.missing.mean():.1%}). HH-VAEM, seed {flags.seed}, training steps: {steps}; "
        f"{flags.samples} draws of the missing cells{borrowed}; {seconds:.0f} s."
    )


def _printable(text, limit=40):
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m launch.impute",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", required=True, help="CSV or Parquet file with a header")
    add("--output", required=True, help="the completed table; the others are named after it")
    add("--samples", type=int, default=20, help="joint draws of the missing cells (20)")
    add("--schema", help="JSON file with kinds of columns, where inference would be wrong")
    add("--target", help="the column that matters most, with which the report begins")
    add("--max_seconds", type=float, help="stop training after about so many seconds")
    add("--seed", type=int, default=0, help="equal seeds give equal files, without --max_seconds")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--debug", action="store_true", help="show the traceback of a refusal")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
