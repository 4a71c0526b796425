"""Filling a file: what is read and refused, what is written, and the report."""

import base64
import csv
import functools
import html
import io
import json
import re
import time
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hmcvae.estimator import HHVAEImputer
from launch import impute, impute_files
from launch.data.table_files import MISSING
from launch.workdir import Refused

TINY = dict(hidden=8, layer_sizes=(2, 1), max_steps=3, num_transitions=0, num_samples=4)
NAMES = ["id", "size", "<i>$\\frac{", "kind", "count", "place", "empty"]
ENDINGS = ["filled.csv", "filled.html", "filled.imputations.csv", "filled.intervals.csv"]


@pytest.fixture(autouse=True, scope="module")
def _fast_compilation():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(impute, "HHVAEImputer", functools.partial(HHVAEImputer, **TINY))


def call(*words):
    return impute.main(["impute", *map(str, words)])


def flags(path, **others):
    return SimpleNamespace(**{"data": str(path), "schema": None, "target": None, **others})


def cells(num=60, seed=0):
    """Text of a table of seven columns with holes in all but the first."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num)
    columns = [
        [f"person {i}" for i in range(num)],
        [f"{np.exp(v):.3f}" if i % 2 else f"{np.exp(v):.2e}" for i, v in enumerate(a)],
        [f"{v:+.4f}" for v in a + 0.1 * rng.normal(size=num)],
        ["=cmd|' /C calc'!A0" if v > 0 else 'a "quoted", <b>word</b>' for v in a],
        [f"{int(20 * abs(v)):03d}" for v in a],
        ["here"] * num,
        [""] * num,
    ]
    table = np.array(columns, dtype=object).T
    holes = rng.random(table.shape) < 0.25
    holes[:, 0] = False
    table[holes] = rng.choice(["", "NA", "null"], holes.sum())
    return table


def write_csv(path, table, newline="\r\n"):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator=newline).writerows([NAMES, *table])


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as stream:
        head, *rows = csv.reader(stream)
    return head, np.array(rows, dtype=object)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on `cells`."""
    folder = tmp_path_factory.mktemp("run")
    write_csv(folder / "holes.csv", cells())
    (folder / "kinds.json").write_text(json.dumps({"id": "drop"}))
    words = ["--data", folder / "holes.csv", "--output", folder / "out" / "filled.csv"]
    words += ["--schema", folder / "kinds.json", "--target", NAMES[2], "--samples", 3]
    patch = pytest.MonkeyPatch()
    patch.setattr(impute, "HHVAEImputer", functools.partial(HHVAEImputer, **TINY))
    assert call(*words) == 0
    patch.undo()
    return folder, words


def test_observed_cells_keep_their_text_and_holes_are_filled_in_its_manner(run):
    folder, _ = run
    assert sorted(path.name for path in (folder / "out").iterdir()) == ENDINGS
    before = cells()
    head, after = read_csv(folder / "out" / "filled.csv")
    assert head == NAMES
    holes = np.isin(before, MISSING)
    np.testing.assert_array_equal(after[~holes], before[~holes])
    assert b"\r\n" in (folder / "out" / "filled.csv").read_bytes()
    for j in (1, 2):
        assert np.isfinite(after[:, j].astype(float)).all()
    assert set(after[:, 3]) == set(before[~holes[:, 3], 3])
    assert all(word.isdigit() for word in after[:, 4])
    assert set(after[:, 5]) == {"here"}
    np.testing.assert_array_equal(after[:, 6], before[:, 6])  # nothing is known of it


def test_imputations_are_in_the_long_format_and_differ(run):
    folder, _ = run
    before = cells()
    head, rows = read_csv(folder / "out" / "filled.imputations.csv")
    assert head == [".imp", ".id", *NAMES]
    tables = rows.reshape(4, len(before), -1)
    np.testing.assert_array_equal(tables[0, :, 2:], before)
    np.testing.assert_array_equal(tables[:, :, 0].astype(int), np.arange(4)[:, None].repeat(60, 1))
    np.testing.assert_array_equal(tables[:, :, 1].astype(int), np.tile(np.arange(1, 61), (4, 1)))
    holes = np.isin(before, MISSING)
    for table in tables[1:, :, 2:]:
        np.testing.assert_array_equal(table[~holes], before[~holes])
    for j in (1, 2, 4):
        assert np.any(tables[1, holes[:, j], 2 + j] != tables[2, holes[:, j], 2 + j])


def test_intervals_are_quantiles_of_the_draws_a_line_a_cell(run):
    folder, _ = run
    before, (_, filled) = cells(), read_csv(folder / "out" / "filled.csv")
    _, long = read_csv(folder / "out" / "filled.imputations.csv")
    draws = long.reshape(4, len(before), -1)[1:, :, 2:]
    head, rows = read_csv(folder / "out" / "filled.intervals.csv")
    assert head == ["row", "column", "filled", "5%", "25%", "50%", "75%", "95%", "probability"]
    holes = np.isin(before, MISSING)[:, 1:6]
    assert len(rows) == holes.sum()
    for number, name, value, *quantiles, probability in rows:
        i, j = int(number) - 1, NAMES.index(name)
        assert before[i, j] in MISSING
        assert value == filled[i, j]
        if name == "kind":
            assert float(probability) == pytest.approx(np.mean(draws[:, i, j] == value), abs=1e-6)
            assert set(quantiles) == {""}
        elif name == "place":
            assert {*quantiles, probability} == {""}
        else:
            low, *_, high = map(float, quantiles)
            sample = draws[:, i, j].astype(float)
            assert sample.min() <= low + 0.5 and high - 0.5 <= sample.max()  # noqa: PT018
            assert float(quantiles[2]) == pytest.approx(np.median(sample), abs=0.51)


def test_the_report_needs_no_other_file_and_executes_nothing(run):
    folder, _ = run
    page = (folder / "out" / "filled.html").read_text()
    assert "<script" not in page.lower()
    assert "href=" not in page
    assert set(re.findall("src=(.{6})", page)) == {'"data:'}
    for text in (NAMES[2], 'a "quoted", <b>word</b>'):
        assert html.escape(text) in page
        assert text not in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4
    for picture in pictures:
        size = Image.open(io.BytesIO(base64.b64decode(picture))).size
        assert min(size) > 200
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles[0] == f"The target: {html.escape(NAMES[2])}"


def test_outputs_are_refused_where_they_exist_and_repeated_bit_for_bit(run, capsys):
    folder, words = run
    before = {name: (folder / "out" / name).read_bytes() for name in ENDINGS[::2]}
    assert call(*words) == 2
    assert "exists already; give --overwrite" in capsys.readouterr().err
    assert call(*words, "--overwrite") == 0
    assert "two categories" in capsys.readouterr().out
    for name, content in before.items():
        assert (folder / "out" / name).read_bytes() == content
    assert len(list((folder / "out").iterdir())) == len(ENDINGS)


def test_a_parquet_file_keeps_its_types_and_values(tmp_path, run):
    big = 2**60 + np.arange(60)
    columns = {name: cells()[:, j].tolist() for j, name in enumerate(NAMES)}
    none = lambda words, kind: [None if w in MISSING else kind(w) for w in words]
    table = pa.table(
        {
            "id": pa.array(np.where(np.arange(60) % 9, big, None).tolist(), pa.int64()),
            "size": pa.array(none(columns["size"], float), pa.float32()),
            NAMES[2]: pa.array(none(columns[NAMES[2]], float)),
            "kind": pa.array(none(columns["kind"], str), pa.dictionary(pa.int8(), pa.string())),
            "count": pa.array(none(columns["count"], int), pa.int16()),
            "flag": pa.array([None if i % 5 == 0 else i % 2 == 0 for i in range(60)]),
        }
    )
    table = table.drop(["flag"]).append_column("place", pa.array(none(columns["place"], str)))
    pyarrow.parquet.write_table(table, tmp_path / "holes.parquet")
    words = ["--data", tmp_path / "holes.parquet", "--output", tmp_path / "filled.parquet"]
    assert call(*words, "--schema", run[0] / "kinds.json", "--samples", 3) == 0
    filled = pyarrow.parquet.read_table(tmp_path / "filled.parquet")
    assert filled.schema == table.schema
    for name in table.column_names:
        old, new = table[name].to_pylist(), filled[name].to_pylist()
        assert [v for v, w in zip(new, old, strict=True) if w is not None] == [
            v for v in old if v is not None
        ]
        assert (None in new) == (name == "id")
    long = pyarrow.parquet.read_table(tmp_path / "filled.imputations.parquet")
    assert long.column_names == [".imp", ".id", *table.column_names]
    assert long.slice(0, 60).drop([".imp", ".id"]).equals(table)
    assert len(pd.read_parquet(tmp_path / "filled.intervals.parquet")) > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; it needs a header line and rows"),
        (b"\n\n", "has an empty first line"),
        (b"a,b\r\n", "has a header but no rows"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 entries, the header 2"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 entries, the header 2"),
        (b"a,b,a\n1,2,3\n", "has two columns named 'a'"),
        (b"a,,b\n1,2,3\n", "has a column without a name"),
        ("a,b\nä,\n".encode("latin-1"), "is no readable CSV file .*in UTF-8"),
        ("a,b\n1,\n".encode("utf-16"), "in UTF-8"),
        (b"a,b\n1,\x00\n", "holds a NUL character in line 2"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "in UTF-8"),
        (b"PK\x03\x04" + bytes(range(256)), "in UTF-8"),
        (b'a,b\n"1,2\n3,4\n' + b"5,6\n" * 50_000, "field larger than field limit"),
        (b"a" * (1 << 23), "more than 4194304 characters in line 1"),
        (b",".join(b"c%d" % i for i in range(10**6)) + b"\n", "characters in line 1|columns"),
        (b"," * (10**6 - 1) + b"\n", "1000000 columns; give a table of at most 10000"),
        (b"a,b\n1,2\nx,\n3,4\n", "column 'a', row 1: 'x' is text, but 2 of the 3"),
        (b"a,b\n1" + b"0" * 400 + b",1\n2,\n3,\n", "column 'a', row 0: .*too large"),
        (b"a,b\n1e300,1\n2,\n3,\n", "column 'a', row 0: .*beyond 1e"),
        (b"a,b\n2020-01-01,1\n2021-01-01,\n", "holds dates or times"),
        (b"a,b\n1,2\n3,4\n", "has no cell to fill"),
        (b"a,b\n1,\n1,\n", "has no c"),
        (b".imp,b\n1,\n1,2\n", "has a column '.imp', which the output needs"),
    ],
)
def test_a_wrong_file_is_refused_at_once_in_one_sentence(tmp_path, capsys, content, message):
    path = tmp_path / "holes.csv"
    path.write_bytes(content)
    began = time.monotonic()
    assert call("--data", path, "--output", tmp_path / "filled.csv") == 2
    assert time.monotonic() - began < 5
    out, err = capsys.readouterr()
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert len(err) < 600
    assert not out
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "1"], "--samples=1: expected 2 or more"),
        (["--max_seconds", "0"], "--max_seconds=0.0: expected a positive number"),
        (["--seed", "-1"], "--seed=-1: expected 0 or more"),
        (["--target", "c"], "--target=c is no column of holes.csv; its columns are a, b"),
        (["--schema", "none.json"], "is no readable JSON file"),
        (["--output", "filled.parquet"], "expected a name ending in .csv"),
        (["--output", "{data}", "--overwrite"], "is the data itself"),
        (["--data", "none.csv"], "does not exist; check the path"),
    ],
)
def test_wrong_flags_are_refused(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holes.csv").write_text("a,b\n1,2\n2,\n3,5\n")
    words = [word.format(data="holes.csv") for word in words]
    assert call("--data", "holes.csv", "--output", "filled.csv", *words) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["holes.csv"]


HOSTILE = st.one_of(
    st.sampled_from([*MISSING, "=1+1", "@SUM(A1)", "1e999", "-0", "0x1F", "1_000", "١٢", "inf",
                     "True", "9" * 40, "2020-01-01", "\ufeff", "-", "\u202e", "'", '"']),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(st.characters(codec="utf-8"), max_size=8),
)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), st.lists(
    st.lists(HOSTILE, min_size=1, max_size=4).map(",".join), max_size=8
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))))  # fmt: skip
@example(b'a,b\n"\n')
@example(b"a\n\n\n1\n")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "holes.csv"
    path.write_bytes(content)
    sentence = ""
    try:
        source, features = impute.read(flags(path))
    except (Refused, ValueError) as refusal:
        sentence = str(refusal)
    assert "\n" not in sentence
    assert len(sentence) < 1000
    if sentence:
        return
    assert source.text.shape == source.frame.shape == source.missing.shape
    lines = impute.format_columns("x", source, impute.describe(source, features))
    assert lines.isprintable() or lines.count("\n") == len(features) + 1
    schema = impute.declare(features)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.slow
@given(
    st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
)
@example([("", "", ""), ("9" * 40, "", ""), ("=1+1", "", "")], ",", "\n")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_of_observed_cells_comes_back(tmp_path, rows, sep, newline):
    rows = [tuple(cell.replace("\0", "").lstrip() for cell in row) for row in rows]
    path = tmp_path / "holes.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=sep, lineterminator=newline, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b", "c"), *rows])
    source = impute_files.read(path)
    given_text = np.array(rows, dtype=object)
    np.testing.assert_array_equal(source.text.to_numpy(object), given_text)
    np.testing.assert_array_equal(source.missing, np.isin(given_text, MISSING))
    filled = source.frame.astype(object).where(~source.missing, "filled")
    features = [impute.Feature(name, None, "filled") for name in "abc"]
    out = io.BytesIO()
    impute_files.write(source, impute_files.complete(source, features, filled), out)
    path.write_bytes(out.getvalue())
    again = impute_files.read(path)
    assert again.dialect == source.dialect
    expected = np.where(source.missing, "filled", given_text)
    np.testing.assert_array_equal(again.text.to_numpy(object), expected)


def test_files_appear_all_or_none(tmp_path):
    old = tmp_path / "a.csv"
    old.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        impute.publish({old: lambda file: file.write(b"new"), tmp_path / "b.csv": fail})
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
