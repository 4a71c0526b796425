"""Schemas, inference of kinds, codes and standardisation of mixed tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import columns
from hmcvae.columns import Column, Schema

MIXED = Schema(
    (
        Column("a", "gaussian"),
        Column("b", "loggaussian"),
        Column("c", "bernoulli", 1, ("no", "yes")),
        Column("d", "categorical", 3, ("red", "green", "blue")),
    )
)


def make_table(num_rows=23, seed=0):
    rng = np.random.default_rng(seed)
    x = np.stack(
        [
            rng.normal(5.0, 3.0, num_rows),
            rng.gamma(2.0, 40.0, num_rows),
            rng.permutation(np.arange(num_rows) % 2),
            rng.permutation(np.arange(num_rows) % 3),
        ],
        axis=-1,
    )
    mask = rng.random(x.shape) < 0.7
    mask[:2] = True
    return x, mask


def test_schema_describes_its_columns():
    assert MIXED.num_columns == 4
    assert MIXED.max_classes == 3
    assert MIXED.names == ("a", "b", "c", "d")
    assert MIXED.indices("gaussian", "categorical") == (0, 3)
    np.testing.assert_array_equal(MIXED.is_kind("bernoulli"), [False, False, True, False])


def test_schema_is_hashable_and_survives_json():
    restored = Schema.from_json(json.loads(json.dumps(MIXED.to_json())))
    assert restored == MIXED
    assert hash(restored) == hash(MIXED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "poisson"), "kind 'poisson' is unknown; use one of gaussian"),
        (("a", "categorical"), "give at least 2"),
        (("a", "gaussian", 3), "cannot have num_classes=3"),
        (("a", "bernoulli", 1, ("x",)), "1 categories are given where .* 2 codes"),
    ],
)
def test_column_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Column(*arguments)


def test_schema_refuses_duplicate_names():
    with pytest.raises(ValueError, match="column 'a' appears twice; rename or drop"):
        Schema((Column("a", "gaussian"), Column("a", "bernoulli")))


def test_infer_follows_the_rule_of_the_paper():
    n = 30
    x = np.stack(
        [np.arange(n) - 3.0, np.arange(n), np.arange(n) % 2 * 4, np.arange(n) % 9 - 1.5], axis=-1
    )
    mask = np.ones(x.shape, dtype=bool)
    x[0, 1], mask[0, 1] = -np.inf, False  # under the mask: no influence
    schema = columns.infer(x, mask, "abcd")
    assert schema.kinds == ("gaussian", "loggaussian", "bernoulli", "categorical")
    assert schema.columns[2].categories == (0, 4)
    assert schema.columns[3].num_classes == 9
    assert schema.columns[3].categories[:2] == (-1.5, -0.5)


def test_infer_needs_ten_distinct_values_for_a_real():
    x = np.stack([np.arange(20) % 10, np.arange(20) % 9], axis=-1)
    assert columns.infer(x, np.ones(x.shape), "ab").kinds == ("loggaussian", "categorical")


def test_encode_and_decode_round_trip():
    column = MIXED.columns[3]
    values = ["blue", "red", None, "green"]
    codes = columns.encode(column, values, np.array([True, True, False, True]))
    np.testing.assert_array_equal(codes, [2, 0, np.nan, 1])
    assert columns.decode(column, codes).tolist() == values


def test_encode_refuses_an_unseen_category():
    with pytest.raises(ValueError, match=r"column 'd', row 1: category 'pink' is not among the 3"):
        columns.encode(MIXED.columns[3], ["red", "pink"], np.ones(2, dtype=bool))


def test_encode_refuses_text_in_a_column_of_numbers():
    with pytest.raises(ValueError, match="column 'a', row 1: 'tall' is not a number"):
        columns.encode(MIXED.columns[0], ["1.5", "tall"], np.ones(2, dtype=bool))


def test_check_accepts_a_missing_row_and_anything_under_the_mask():
    x, mask = make_table()
    mask[4] = False
    columns.check(MIXED, np.where(mask, x, np.inf), mask)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, 0, np.inf, "column 'a', row 3: inf is not finite; correct the entry or mark"),
        (3, 0, np.nan, "column 'a', row 3: nan is not finite"),
        (5, 1, -2.0, "column 'b', row 5: -2 is negative.*declare the column gaussian"),
        (1, 2, 2.0, "column 'c', row 1: 2 is no code of a bernoulli column with codes 0 to 1"),
        (2, 3, 3.0, "column 'd', row 2: 3 is no code of a categorical column with codes 0 to 2"),
        (2, 3, 0.5, "column 'd', row 2: 0.5 is no code"),
        (2, 3, -1.0, "column 'd', row 2: -1 is no code"),
        (slice(None), 0, 7.0, "column 'a' holds the single value 7"),
        (slice(None), 3, 1.0, "column 'd' holds the single value 1"),
    ],
)
def test_check_refuses(row, column, value, message):
    x, mask = make_table()
    x[row, column], mask[row, column] = value, True
    with pytest.raises(ValueError, match=message):
        columns.check(MIXED, x, mask)


def test_check_refuses_an_empty_column_and_an_empty_table():
    x, mask = make_table()
    mask[:, 1] = False
    with pytest.raises(ValueError, match="column 'b' has no observed value; drop it"):
        columns.check(MIXED, x, mask)
    with pytest.raises(ValueError, match="the table has no rows"):
        columns.check(MIXED, x[:0], mask[:0])
    with pytest.raises(ValueError, match=r"shape \(23, 3\).*schema of 4 columns"):
        columns.check(MIXED, x[:, :3], mask[:, :3])


@pytest.mark.parametrize("ddof", [0, 1])
def test_fit_standardises_the_observed_entries(ddof):
    x, mask = make_table()
    x = np.where(mask, x, np.nan)
    scaler = columns.fit(MIXED, x, mask, ddof=ddof)
    out = columns.transform(MIXED, scaler, x, mask)
    for i in (0, 1):
        observed = out[mask[:, i], i]
        np.testing.assert_allclose(observed.mean(), 0.0, atol=1e-12)
        np.testing.assert_allclose(observed.std(ddof=ddof), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(out[:, 2:][mask[:, 2:]], x[:, 2:][mask[:, 2:]])
    assert (out[~mask] == 0).all()
    np.testing.assert_array_equal(scaler.shift[2:], 0)
    np.testing.assert_array_equal(scaler.scale[2:], 1)


def test_fit_guards_constant_and_empty_columns():
    schema = Schema((Column("a", "gaussian"), Column("b", "gaussian"), Column("c", "loggaussian")))
    x = np.array([[0.1, np.nan, 3.0]] * 3)
    scaler = columns.fit(schema, x, ~np.isnan(x), ddof=1)
    np.testing.assert_array_equal(scaler.scale, 1.0)
    np.testing.assert_allclose(scaler.shift, [0.1, 0.0, np.log(4.0)])


def test_fit_keeps_small_but_real_scales():
    schema = Schema((Column("a", "gaussian"),))
    x = 1e-9 * np.arange(5.0)[:, None]
    np.testing.assert_allclose(columns.fit(schema, x, x == x).scale, x.std())


def test_inverse_undoes_transform_in_numpy_and_under_jit():
    x, mask = make_table()
    scaler = columns.fit(MIXED, x, mask)
    z = columns.transform(MIXED, scaler, x, mask)
    assert isinstance(z, np.ndarray)
    np.testing.assert_allclose(columns.inverse(MIXED, scaler, z)[mask], x[mask], rtol=1e-12)

    transform = jax.jit(columns.transform, static_argnums=0)
    inverse = jax.jit(columns.inverse, static_argnums=0)
    stacked = jnp.asarray(np.stack([x, x]), jnp.float32)  # a leading axis
    z_jax = transform(MIXED, scaler, stacked, jnp.stack([mask, mask]))
    assert z_jax.dtype == jnp.float32
    np.testing.assert_allclose(z_jax[1], z, rtol=1e-5, atol=1e-5)
    back = inverse(MIXED, scaler, z_jax)
    np.testing.assert_allclose(back[0][mask], x[mask], rtol=1e-5, atol=1e-5)


def test_inverse_floors_loggaussian_columns_on_request():
    scaler = columns.Scaler(np.zeros(4), np.ones(4))
    z = np.full((1, 4), -2.0)
    assert columns.inverse(MIXED, scaler, z)[0, 1] == 0
    np.testing.assert_allclose(columns.inverse(MIXED, scaler, z, floor=False)[0, 1], np.expm1(-2))
    assert columns.inverse(MIXED, scaler, z)[0, 0] == -2


@pytest.mark.parametrize("filler", [0.0, np.nan, np.inf, -1e30])
def test_nothing_under_the_mask_reaches_fit_or_transform(filler):
    x, mask = make_table()
    hidden = np.where(mask, x, filler)
    for a, b in zip(columns.fit(MIXED, x, mask), columns.fit(MIXED, hidden, mask), strict=True):
        np.testing.assert_array_equal(a, b)
    scaler = columns.fit(MIXED, x, mask)
    for to in (np.asarray, jnp.asarray):
        np.testing.assert_array_equal(
            columns.transform(MIXED, scaler, to(x), to(mask)),
            columns.transform(MIXED, scaler, to(hidden), to(mask)),
        )
