"""The set encoder: a plain loop, what a mask may change, irregular sets, stored numbers."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from functions import domains
from functions.domains import Domain, Table
from functions.pointconv import (
    Encoder,
    PaperEncoder,
    PaperPointConv,
    PointConv,
    average,
    nearest_observed,
)
from tests.functions.programs import dot_generals, jit, operands

GOLDEN = Path(__file__).parents[1] / "golden" / "pointconv.npz"
C, Z = 3, 5
DOMAIN = Domain("image", (6, 7))
STAGES = ((17, 5), (4, 6))
POINTS = domains.positions(DOMAIN)
N = len(POINTS)
MASKS = {
    "all": np.ones(N, bool),
    "some": np.arange(N) % 3 == 1,
    "half": np.arange(N) < N // 2,
    "one": np.arange(N) == 11,
    "none": np.zeros(N, bool),
}
ENCODERS = {
    "default": (Encoder((4, 7), Z, (6, 5)), (domains.tables(POINTS, STAGES),)),
    "paper": (
        PaperEncoder((4, None), Z, (6, 5)),
        (
            np.float32(POINTS / 3),
            tuple(t._replace(offset=None) for t in domains.tables(POINTS, STAGES)),
        ),
    ),
}
EACH = pytest.mark.parametrize("name", ENCODERS)
MASKED = pytest.mark.parametrize("mask", [m for m in MASKS if m != "all"])


def drawn(module, *inputs):
    """Returns parameters of the module, drawn without a regard to how they should start."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype), shapes)


def values_of(seed=0):
    return np.random.default_rng(seed).uniform(size=(N, C)).astype(np.float32)


@functools.partial(jit, static_argnums=0)
def apply(module, params, *inputs):
    return module.apply({"params": params}, *inputs)


@functools.partial(jit, static_argnums=0)
def value_and_grad(module, params, values, mask, *geometry):
    """Returns q, and the gradient of a function of it to parameters and values."""

    def loss(params, values):
        out = module.apply({"params": params}, values, mask, *geometry)
        return sum(jnp.sum(jnp.sin(x)) for x in out), out

    (_, out), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, values)
    return out, *grads


def layer(params, x):
    return x @ np.float64(params["kernel"]) + np.float64(params["bias"])


def gelu(x):
    return np.float64(jax.nn.gelu(np.float32(x)))


def one_level(params, features, mask, table):
    """Is PointConv centre by centre, from the neighbours that are observed and nothing else."""
    rows, seen = [], []
    for neighbours, offsets in zip(table.index, table.offset, strict=True):
        shown = mask[neighbours]
        seen.append(shown.any())
        weights = np.float64(offsets[shown])
        for i in range(2):
            weights = gelu(layer(params[f"weight_{i}"], weights))
        total = np.float64(features[neighbours[shown]]).T @ weights / max(shown.sum(), 1)
        row = layer(params["Dense_0"], np.append(total.ravel(), shown.mean()))
        row = (row - row.mean()) / np.sqrt(row.var() + 1e-6)
        norm = params["LayerNorm_0"]
        rows.append(gelu(row * np.float64(norm["scale"]) + np.float64(norm["bias"])) * seen[-1])
    return np.stack(rows), np.array(seen)


@pytest.mark.parametrize("mask", MASKS)
def test_level_is_the_loop_over_centres(mask):
    module, (table, _) = PointConv(4, (6, 5)), domains.tables(POINTS, STAGES)
    values, mask = values_of(), MASKS[mask]
    params = drawn(module, values, mask, table)
    got, seen = apply(module, params, values, mask, table)
    want, want_seen = one_level(params, values, mask, table)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(seen, want_seen)
    assert not got[~want_seen].any()


@pytest.mark.parametrize("mask", MASKS)
def test_encoder_is_its_levels_and_a_head(mask):
    module, (tables,) = ENCODERS["default"]
    h, mask = values_of(), MASKS[mask]
    params = drawn(module, h, mask, tables)
    mean, log_var = apply(module, params, h, mask, tables)
    for i, table in enumerate(tables):
        h, mask = one_level(params[f"PointConv_{i}"], h, mask, table)
    np.testing.assert_allclose(mean, layer(params["mean"], h.ravel()), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_var, layer(params["log_var"], h.ravel()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mask", MASKS)
def test_released_encoder_is_the_loop_over_centres(mask):
    """A level, then a pooling level, each from the neighbours that are observed."""
    module, (points, tables) = ENCODERS["paper"]
    values, mask = values_of(), MASKS[mask]
    params = drawn(module, values, mask, points, tables)
    rows, seen = [], []
    for j, neighbours in zip(tables[0].centre, tables[0].index, strict=True):
        shown = neighbours[mask[neighbours]]
        weights = np.float64(points[shown] - points[j])
        for i in range(2):
            weights = layer(params["PaperPointConv_0"][f"weight_{i}"], weights)
        total = np.float64(values[shown]).T @ weights * len(neighbours) / max(len(shown), 1)
        row = layer(params["PaperPointConv_0"]["linear"], total.ravel())
        rows.append(np.where(row > 0, row, 0.2 * row))
        seen.append(len(shown) > 0)
    rows, seen = np.stack(rows), np.array(seen)
    kept = [neighbours[seen[neighbours]] for neighbours in tables[1].index]
    h = np.stack([rows[k].mean(0) if len(k) else np.zeros(4) for k in kept])
    want = layer(params["head"], h.ravel())
    got = apply(module, params, values, mask, points, tables)
    np.testing.assert_allclose(np.concatenate(got), want, rtol=1e-3, atol=1e-3)


@EACH
@MASKED
def test_nothing_under_the_mask_matters_bit_for_bit(name, mask):
    module, geometry = ENCODERS[name]
    values, mask = values_of(), MASKS[mask]
    params = drawn(module, values, mask, *geometry)
    out = value_and_grad(module, params, values, mask, *geometry)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
    np.testing.assert_array_equal(out[2][~mask], 0.0)
    assert out[2][mask].any() == mask.any()
    for other in (values_of(seed=1), np.nan, np.inf, -1e30):
        changed = np.where(mask[:, None], values, np.float32(other))
        again = value_and_grad(module, params, changed, mask, *geometry)
        jax.tree.map(np.testing.assert_array_equal, again, out)


@EACH
def test_one_point_and_its_value_reach_the_posterior(name):
    module, geometry = ENCODERS[name]
    values = values_of()
    params = drawn(module, values, MASKS["none"], *geometry)
    empty = apply(module, params, values, MASKS["none"], *geometry)
    one = apply(module, params, values, MASKS["one"], *geometry)
    two = apply(module, params, values + 0.5, MASKS["one"], *geometry)
    for a, b in ((empty, one), (one, two)):
        assert jnp.abs(a[0] - b[0]).max() > 1e-3


@EACH
def test_vmap_is_the_loop_over_items(name):
    module, geometry = ENCODERS[name]
    values = np.stack([values_of(seed) for seed in range(len(MASKS))])
    masks = np.stack(list(MASKS.values()))
    params = drawn(module, values[0], masks[0], *geometry)
    together = jax.vmap(lambda v, m: apply(module, params, v, m, *geometry))(values, masks)
    for i in range(len(values)):
        one = apply(module, params, values[i], masks[i], *geometry)
        for a, b in zip(together, one, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


def test_weights_of_shared_neighbourhoods_are_computed_once():
    module, (tables,) = ENCODERS["default"]
    params = drawn(module, values_of(), MASKS["all"], tables)
    run = jax.vmap(lambda v, m: module.apply({"params": params}, v, m, tables))
    values, masks = np.zeros((11, N, C), np.float32), np.ones((11, N), bool)
    shapes = [operands(e) for e in dot_generals(jax.make_jaxpr(run)(values, masks).jaxpr)]
    for table, channels in zip(tables, (C, 4), strict=True):
        assert [table.offset.shape, (2, 6)] in shapes  # the first layer of weights, no axis of 11
        num, k = table.index.shape
        assert any((11, num, k, channels) in pair and (num, k, 5) in pair for pair in shapes)


@EACH
def test_the_order_of_a_domains_points_does_not_matter(name):
    """Numbers the points of the first level anew, in the tables too."""
    module, (*points, tables) = ENCODERS[name]
    values, mask = values_of(), MASKS["half"]
    params = drawn(module, values, mask, *points, tables)
    order = np.random.default_rng(1).permutation(N)  # new point i is old point order[i]
    place = np.argsort(order)
    first = tables[0]._replace(centre=place[tables[0].centre], index=place[tables[0].index])
    inputs = (values[order], mask[order], *(p[order] for p in points), (first, *tables[1:]))
    want = apply(module, params, values, mask, *points, tables)
    for a, b in zip(apply(module, params, *inputs), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


# --- sets whose points differ from item to item


CENTRES = np.float32(domains.positions(Domain("image", (4, 4))))
IRREGULAR = Encoder((4, 7), Z, (6, 5))
SECOND = domains.tables(CENTRES, ((4, 6),))


def encode(params, points, values, mask):
    table = nearest_observed(points, mask, CENTRES, 5, radius=1.5)
    return IRREGULAR.apply({"params": params}, values, mask, (table, *SECOND))


encode_set = jit(encode)


def irregular(num, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.0, 3.0, (num, 2)).astype(np.float32)
    values = rng.uniform(size=(num, C)).astype(np.float32)
    table = Table(np.zeros(16, int), np.zeros((16, 5), int), np.zeros((16, 5, 2), np.float32))
    return points, values, drawn(IRREGULAR, values, np.ones(num, bool), (table, *SECOND))


@pytest.mark.parametrize("num_seen", [0, 1, 3, 23])
def test_nearest_observed_is_a_sort(num_seen):
    points, _, _ = irregular(23)
    mask = np.random.default_rng(1).permutation(23) < num_seen
    table = jit(functools.partial(nearest_observed, num_neighbours=5, radius=1.5))(
        np.where(mask[:, None], points, np.nan), mask, CENTRES
    )
    seen = np.flatnonzero(mask)
    for m, centre in enumerate(CENTRES):
        distance = np.linalg.norm(points[seen] - centre, axis=-1)
        nearest = seen[np.argsort(distance)[:5]]
        np.testing.assert_array_equal(table.index[m, : len(nearest)], nearest)
        offset = (points[nearest] - centre) / 1.5
        np.testing.assert_allclose(table.offset[m, : len(nearest)], offset, rtol=1e-5, atol=1e-6)
        assert not mask[table.index[m, len(nearest) :]].any()
        if num_seen:
            assert table.centre[m] == nearest[0]
    assert np.isfinite(table.offset).all()


@pytest.mark.parametrize("num_seen", [0, 1, 3, 19, 23])
def test_the_order_of_a_set_does_not_matter(num_seen):
    points, values, params = irregular(23)
    mask = np.arange(23) < num_seen
    want = encode_set(params, points, values, mask)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(23)
        got = encode_set(params, points[order], values[order], mask[order])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num_seen", [0, 3, 19])
def test_padding_of_a_set_does_not_matter(num_seen):
    points, values, params = irregular(23)
    mask = np.arange(23) < num_seen

    def loss(params, points, values):
        out = encode(params, points, values, jnp.asarray(mask))
        return sum(jnp.sum(jnp.sin(x)) for x in out)

    run = jit(jax.value_and_grad(loss, (0, 1, 2)))
    out = run(params, points, values)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
    for other in (0.5, np.nan, np.inf):
        fill = lambda a, other=other: np.where(mask[:, None], a, np.float32(other))
        jax.tree.map(np.testing.assert_array_equal, run(params, fill(points), fill(values)), out)
    # more of it, or none
    want = encode_set(params, points, values, mask)
    for size in {max(num_seen, 5), 31}:
        longer = lambda a, size=size: np.resize(a, (size, a.shape[1]))
        got = encode_set(params, longer(points), longer(values), np.arange(size) < num_seen)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


# --- stored numbers


def load(group):
    stored, prefix = np.load(GOLDEN), f"{group}."
    return {k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)}


def stored_params(g, num_weights):
    """Returns a PaperPointConv's parameters; stored matrices are [out, in]."""
    names = {f"weight_{i}": f"weightnet_{{}}{i}" for i in range(num_weights)}
    names["linear"] = "linear_{}"
    return {
        name: {"kernel": jnp.asarray(g[key.format("w")].T), "bias": jnp.asarray(g[key.format("b")])}
        for name, key in names.items()
    }


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


ACTIVATIONS = {"affine_weightnet": None, "leaky_weightnet": lambda x: nn.leaky_relu(x, 0.2)}


@pytest.mark.golden
@pytest.mark.parametrize("weightnet", ACTIVATIONS)
@pytest.mark.parametrize("space", ["coords2d", "fourier"])
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_levels(case, space, weightnet):
    shared, g = load(f"{case}.{space}"), load(f"{case}.{space}.{weightnet}")
    coords, k = shared["coords"], int(shared["k"])
    (table,) = domains.tables(shared["points_2d"], ((int(shared["num_out"]), k),), features=coords)
    np.testing.assert_array_equal(table.centre, g["centre_index"])
    np.testing.assert_array_equal(np.sort(table.index), g["neighbour_index_sorted"])
    np.testing.assert_array_equal(coords[table.centre], g["out_coords"])
    (everywhere,) = domains.tables(shared["points_2d"], ((16, k),), features=coords)
    np.testing.assert_array_equal(everywhere.centre, np.arange(16))
    whole = {key.removeprefix("all_points."): v for key, v in g.items() if "all_points" in key}
    with jax.enable_x64(True):
        features, mask = jnp.asarray(shared["features"]), jnp.ones(16, bool)
        for stored, widths, where in ((g, (4, 3), table), (whole, (3,), everywhere)):
            module = PaperPointConv(len(stored["linear_b"]), widths, ACTIVATIONS[weightnet])
            params = stored_params(stored, len(widths))
            run = jax.vmap(functools.partial(apply, module, params), (0, None, None, None))
            close(run(features, mask, jnp.asarray(coords), where), stored["out_features"])
        pooled = jax.vmap(lambda x: average(x, mask, table.index))(features)
        close(pooled, shared["avgpool.out_features"])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_encoder(case):
    g = load(f"{case}.encoder")
    stages = tuple(zip(g["num_out"].tolist(), g["k"].tolist(), strict=True))
    tables = domains.tables(g["coords"], stages, features=g["coords"])
    with jax.enable_x64(True):
        params = {
            f"PaperPointConv_{i}": stored_params(load(f"{case}.encoder.layer{i}"), 2)
            for i in range(2)
        }
        params["head"] = {"kernel": jnp.asarray(g["head_w"].T), "bias": jnp.asarray(g["head_b"])}
        module = PaperEncoder((5, 4), 3, (4, 4))
        mask, coords = jnp.ones(16, bool), jnp.asarray(g["coords"])

        def run(x):
            inputs = (x, mask, coords, tables)
            return module.apply({"params": params}, *inputs, capture_intermediates=True)

        (mean, log_var), state = jit(jax.vmap(run))(jnp.asarray(g["features"]))
        close(jnp.concatenate([mean, log_var], axis=-1), g["out"])
        for i in range(2):
            level = state["intermediates"][f"PaperPointConv_{i}"]["__call__"][0]
            close(level, g[f"layer{i}_out"])
