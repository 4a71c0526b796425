"""Tables: the ten of the paper, files of the user's, splits; every bad input is one sentence."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from launch.data import tables

DATA_DIR = os.environ.get(tables.DATA_DIR, "")
needs_data = pytest.mark.skipif(
    not Path(DATA_DIR or "absent").is_dir(),
    reason=f"the data folder is absent: set {tables.DATA_DIR}",
)

# Peis et al. (2022), reference configuration: (rows, D, P, target kind, C by discrete column with
# "b" for bernoulli, gaussian columns); all other columns are loggaussian.
INSURANCE = (
    "1:9 2:6 3:6 7:6 10:8 19:6 32:9 40:9 42:8 43:4 44:7 45:5 46:7 47:4 48:6 49:5 50:6 51:6 52:6 "
    "53:6 55:7 56:3 57:5 58:9 59:4 60:7 62:7 63:5 64:3 65:3 67:9 68:6 69:5 70:5 71:4 72:7 73:6 "
    "74:4 75:7 78:3 79:8 81:3 82:5 83:3 84:3 61:b 66:b 76:b 77:b 80:b"
)
PUBLISHED = {
    "wine": (178, 13, 1, "categorical", "", ()),
    "diabetes": (442, 10, 1, "loggaussian", "1:b", (0, 2, 3, 4, 5, 6, 7, 8, 9)),
    "boston": (506, 13, 1, "loggaussian", "3:b 8:9", ()),
    "energy": (768, 8, 2, "loggaussian", "2:7 3:4 4:b 5:4 6:4 7:6", ()),
    "concrete": (1030, 8, 1, "loggaussian", "", ()),
    "naval": (11934, 14, 2, "loggaussian", "0:9 1:9", ()),
    "yacht": (307, 6, 1, "loggaussian", "0:5 2:8", ()),
    "avocado": (18249, 12, 1, "loggaussian", "9:b 10:4", ()),
    "insurance": (9820, 85, 1, "bernoulli", INSURANCE, ()),
    "bank": (41188, 20, 1, "bernoulli", "2:4 3:8 4:3 5:3 6:3 7:b 9:5 13:8 14:3", (15, 17)),
}
SHIPPED = ("wine", "diabetes")
BY_NAME = [pytest.param(name, marks=() if name in SHIPPED else needs_data) for name in tables.NAMES]


@pytest.mark.parametrize("name", BY_NAME)
def test_kinds_and_shapes_are_the_published_ones(name):
    rows, width, num_targets, target_kind, discrete, gaussian = PUBLISHED[name]
    table = tables.load(name, DATA_DIR, paper=True)
    assert table.name == name
    assert table.x.shape == table.mask.shape == (rows, width)
    assert table.y.shape == table.y_mask.shape == (rows, num_targets)
    assert table.mask.all()
    assert table.y_mask.all()
    assert set(table.target.kinds) == {target_kind}
    found = {
        i: "b" if column.kind == "bernoulli" else str(column.num_classes)
        for i, column in enumerate(table.schema.columns)
        if column.is_discrete
    }
    expected = dict(entry.split(":") for entry in discrete.split())
    assert found == {int(i): classes for i, classes in expected.items()}
    assert table.schema.indices("gaussian") == gaussian


@needs_data
@pytest.mark.parametrize(("name", "rows"), [("yacht", 308), ("insurance", 9822)])
def test_all_rows_are_kept_unless_the_paper_is_asked_for(name, rows):
    table = tables.load(name, DATA_DIR)
    assert len(table.x) == rows
    paper = tables.load(name, DATA_DIR, paper=True)
    np.testing.assert_array_equal(table.x[1:5], paper.x[:4])


@needs_data
@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("boston", [22.5328]),
        ("energy", [22.3072, 24.5878]),
        ("concrete", [35.8180]),
        ("naval", [0.975, 0.9875]),
        ("yacht", [10.4954]),
        ("avocado", [1.40598]),
        ("insurance", [(348 + 238) / 9822]),
        ("bank", [4640 / 41188]),
    ],
)
def test_targets_have_the_known_means(name, mean):
    np.testing.assert_allclose(tables.load(name, DATA_DIR).y.mean(0), mean, atol=5e-5)


@needs_data
def test_text_columns_of_the_bank_keep_their_labels():
    table = tables.load("bank", DATA_DIR)
    marital = table.schema.columns[2]
    assert marital.categories == ("divorced", "married", "single", "unknown")
    assert (table.x[:, 2] == 3).sum() == 80
    np.testing.assert_allclose(table.x[:, 0].mean(), 40.024, atol=5e-4)
    assert table.schema.columns[1].kind == "loggaussian"  # job: 12 labels, codes as numbers
    assert table.target.columns[0].categories == ("no", "yes")


def test_wine_has_its_classes():
    table = tables.load("wine")
    assert table.target.columns[0].num_classes == 3
    np.testing.assert_array_equal(np.bincount(table.y[:, 0].astype(int)), [59, 71, 48])


def test_unknown_table_names_the_nearest():
    with pytest.raises(ValueError, match="table 'bostn' is unknown; did you mean 'boston'"):
        tables.load("bostn")


def test_absent_folder_and_absent_file_say_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.delenv(tables.DATA_DIR, raising=False)
    with pytest.raises(FileNotFoundError, match=r"yacht/data.txt\[.gz\]; set config.data.dir"):
        tables.load("yacht")
    with pytest.raises(FileNotFoundError, match=r"neither yacht/data.txt nor .* get it from yacht"):
        tables.load("yacht", tmp_path)


def test_the_folder_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(tables.DATA_DIR, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"neither concrete/data\.txt"):
        tables.load("concrete")


def write_yacht(folder, rows=308, compress=False):
    (folder / "yacht").mkdir()
    rng = np.random.default_rng(0)
    text = "\n".join(" ".join(f"{v:.3f}" for v in row) for row in rng.gamma(2.0, 1.0, (rows, 7)))
    if compress:
        (folder / "yacht" / "data.txt.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "yacht" / "data.txt").write_text(text)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_checksum(tmp_path, compress):
    write_yacht(tmp_path, compress=compress)
    message = "damaged or another edition: its uncompressed sha256 is .* where 00dfecc0fc01"
    with pytest.raises(ValueError, match=message):
        tables.load("yacht", tmp_path)
    assert tables.load("yacht", tmp_path, verify=False).x.shape == (308, 6)


def test_damaged_shape_and_damaged_archive(tmp_path):
    write_yacht(tmp_path, rows=12)
    with pytest.raises(ValueError, match=r"it has the shape \(12, 7\), not \(308, 7\)"):
        tables.load("yacht", tmp_path, verify=False)
    (tmp_path / "yacht" / "data.txt").unlink()
    archive = gzip.compress(bytes(1000))
    (tmp_path / "yacht" / "data.txt.gz").write_bytes(archive[:-9])
    with pytest.raises(ValueError, match=r"it does not unpack: .*; get it again from yacht"):
        tables.load("yacht", tmp_path)


# The user's own files


def write(folder, text, schema=None):
    path = folder / "my.csv"
    path.write_text(text)
    if schema is None:
        return path, None
    (folder / "schema.json").write_text(json.dumps(schema))
    return path, folder / "schema.json"


def make_frame(num_rows=30):
    i = np.arange(num_rows)
    return pd.DataFrame(
        {
            "height": np.where(i % 7 == 0, np.nan, 150.0 + i),
            "delta": i - 5.5,
            "rooms": pd.array(np.where(i % 5 == 1, None, i % 4), dtype="Int64"),
            "colour": np.array(["red", "green", "blue", None], dtype=object)[i % 4],
            "is_old": np.array([True, False, None], dtype=object)[i % 3],
            "price": 1.0 + i,
        }
    )


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_read_csv_infers_kinds_codes_and_missing_entries(tmp_path, form):
    frame, path = make_frame(), tmp_path / f"house.{form}"
    frame.to_parquet(path) if form == "parquet" else frame.to_csv(path, index=False)
    table = tables.read_csv(path, "price")
    assert table.name == "house"
    assert table.schema.names == ("height", "delta", "rooms", "colour", "is_old")
    kinds = ("loggaussian", "gaussian", "categorical", "categorical", "bernoulli")
    assert table.schema.kinds == kinds
    assert table.schema.columns[2].categories == (0, 1, 2, 3)
    assert table.schema.columns[3].categories == ("blue", "green", "red")
    assert [str(v) for v in table.schema.columns[4].categories] == ["False", "True"]
    assert table.target.kinds == ("loggaussian",)
    np.testing.assert_array_equal(table.mask, frame.drop(columns="price").notna())
    np.testing.assert_array_equal(np.isnan(table.x), ~table.mask)
    np.testing.assert_array_equal(table.x[:3, 3], [2, 1, 0])
    np.testing.assert_array_equal(table.x[:2, 4], [1, 0])
    np.testing.assert_array_equal(table.y[:, 0], frame["price"])


@pytest.mark.parametrize("sep", [";", "\t"])
def test_read_csv_finds_the_separator(tmp_path, sep):
    path = tmp_path / "my.csv"
    make_frame().to_csv(path, index=False, sep=sep)
    assert tables.read_csv(path).x.shape == (30, 6)


def test_no_target_is_legal(tmp_path):
    path, _ = write(tmp_path, "a,b\n1,x\n2,y\n,x\n")
    table = tables.read_csv(path)
    assert table.y.shape == table.y_mask.shape == (3, 0)
    assert table.target.num_columns == 0


def test_a_schema_overrides_inference(tmp_path):
    schema = {
        "code": "categorical",
        "rooms": "gaussian",
        "size": {"kind": "categorical", "categories": ["S", "M", "L", "XL"]},
        "id": "drop",
    }
    rows = "".join(f"{i % 3 + 1},{i % 4},{'SML'[i % 3]},x{i},{i}\n" for i in range(12))
    path, schema_path = write(tmp_path, "code,rooms,size,id,rest\n" + rows, schema)
    table = tables.read_csv(path, (), schema_path)
    assert table.schema.names == ("code", "rooms", "size", "rest")
    assert table.schema.kinds == ("categorical", "gaussian", "categorical", "loggaussian")
    assert table.schema.columns[0].categories == (1, 2, 3)
    assert table.schema.columns[2].num_classes == 4
    np.testing.assert_array_equal(table.x[:3, 2], [0, 1, 2])


def test_an_all_missing_row_is_kept(tmp_path):
    path, _ = write(tmp_path, "a,b,c\n1,x,2.5\n,,\n2,y,3.5\n4,x,\n")
    table = tables.read_csv(path)
    assert table.x.shape == (4, 3)
    assert not table.mask[1].any()


def test_three_rows_and_a_table_wider_than_long(tmp_path):
    names = [f"c{i}" for i in range(20)]
    rng = np.random.default_rng(0)
    path = tmp_path / "wide.csv"
    pd.DataFrame(rng.normal(size=(3, 20)), columns=names).to_csv(path, index=False)
    table = tables.read_csv(path, "c0")
    assert table.x.shape == (3, 19)
    assert len(tables.make_splits(table, num_folds=3)) == 3
    with pytest.raises(ValueError, match="num_folds=10 does not fit a table of 3 rows; use 2 to 3"):
        tables.make_splits(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,5\n2,5\n3,5\n", "column 'b' holds the single value 5 in all its observed rows"),
        ("a,b\n1,x\n2,x\n", "column 'b' holds the single value 'x'"),
        ("a,b\n1,\n2,\n3,\n", "column 'b' has no observed value; drop it"),
        (
            "a,b\n1,2\n2,inf\n3,4\n",
            r"column 'b', row 1: inf is not finite, or beyond 1e.100; correct",
        ),
        ("a,b\n1,2\n2,-inf\n3,4\n", "column 'b', row 1: -inf is not finite"),
        ("a,b,a\n1,2,3\n4,5,6\n", "has two columns named 'a'; rename or drop one"),
        ("a,,c\n1,2,3\n4,5,6\n", "has a column without a name"),
        ("", "is empty; it needs a header line and rows"),
        ("a,b\n", "has a header but no rows"),
        ("a,b\n1,2\n3,4,5\n6,7\n", "is no readable CSV file .*; give every row as many entries"),
        ("a,b\n1,2,3\n4,5,6\n", "is no readable CSV file .*; give every row as many entries"),
        ("a,b\n1,2\n2,3\n3,tall\n4,5\n", "column 'b', row 2: 'tall' is text, but 3 of the 4"),
        ("a,b\n1,2020-01-02\n2,2020-01-03\n", "column 'b' holds dates .* such as '2020-01-02'"),
        ("a,b\n1,1/2/2020 10:00\n2,1/3/2020 11:00\n", "replace it by numbers .* or declare"),
    ],
)
def test_read_csv_refuses(tmp_path, text, message):
    path, _ = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        tables.read_csv(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"b": "gaussian"}, "column 'b', row 0: 'x' is not a number, .* column is gaussian"),
        (
            {"b": {"kind": "bernoulli", "categories": ["x", "y"]}},
            "row 2: category 'z' is not among",
        ),
        ({"b": "bernoulli"}, "column 'b' is declared bernoulli but has 3 distinct values"),
        ({"b": "poisson"}, "column 'b': kind 'poisson' is unknown"),
        ({"b": 3}, "column 'b': the schema entry 3 is not understood"),
        ({"bb": "gaussian"}, "declares column 'bb', which the table lacks; did you mean 'b'"),
        ({"c": "loggaussian"}, "column 'c', row 1: -2 is negative"),
        ({"a": "drop", "b": "drop", "c": "drop"}, "no feature columns"),
        (["a"], "holds a list; write an object such as"),
    ],
)
def test_read_csv_refuses_a_schema(tmp_path, schema, message):
    path, schema_path = write(tmp_path, "a,b,c\n1,x,1.5\n2,y,-2\n3,z,4\n", schema)
    with pytest.raises(ValueError, match=message):
        tables.read_csv(path, (), schema_path)


def test_read_csv_refuses_a_missing_target_a_missing_file_and_a_bad_schema_file(tmp_path):
    path, _ = write(tmp_path, "price,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match="target column 'prise' is not in 'my'; did you mean 'pri"):
        tables.read_csv(path, "prise")
    with pytest.raises(FileNotFoundError, match="does not exist; check the path"):
        tables.read_csv(tmp_path / "none.csv")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken.json' is no readable JSON file"):
        tables.read_csv(path, "price", tmp_path / "broken.json")


def test_read_csv_refuses_identifiers(tmp_path):
    path, _ = write(tmp_path, "a,b\n" + "".join(f"{i},name{i}\n" for i in range(200)))
    with pytest.raises(ValueError, match="column 'b' holds 200 distinct categories"):
        tables.read_csv(path)


def test_read_parquet_refuses_dates_and_damage(tmp_path):
    path = tmp_path / "t.parquet"
    days = pd.date_range("2020-01-01", periods=4)
    pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "when": days}).to_parquet(path)
    with pytest.raises(ValueError, match="column 'when' holds dates or times"):
        tables.read_csv(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="is no readable Parquet file"):
        tables.read_csv(path)


# Splits


def test_splits_partition_the_rows():
    table = tables.load("wine")
    splits = tables.make_splits(table, num_folds=10, seed=3)
    assert len(splits) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([s.test for s in splits])), range(178))
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert len(split.train) + len(split.test) == 178
        assert split.test_mask.shape == (len(split.test), 13)
    shown = np.concatenate([s.test_mask for s in splits])
    assert abs(shown.mean() - 0.5) < 4 * 0.5 / np.sqrt(shown.size)


def test_splits_are_a_function_of_the_seed_and_the_table():
    table = tables.load("wine")
    first, again, other = (tables.make_splits(table, seed=s) for s in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert a.fingerprint == b.fingerprint
        np.testing.assert_array_equal(a.test_mask, b.test_mask)
    prints = {s.fingerprint for s in (*first, *other)}
    assert len(prints) == 20
    x = table.x.copy()
    x[0, 0] += 1e-9
    changed = tables.make_splits(table._replace(x=x))
    assert changed[0].fingerprint != first[0].fingerprint
    np.testing.assert_array_equal(changed[0].test, first[0].test)


def test_a_test_mask_never_shows_a_missing_entry(tmp_path):
    path = tmp_path / "house.csv"
    make_frame().to_csv(path, index=False)
    table = tables.read_csv(path, "price")
    for split in tables.make_splits(table, num_folds=4):
        assert not (split.test_mask & ~table.mask[split.test]).any()
