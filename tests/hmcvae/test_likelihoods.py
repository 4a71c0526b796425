"""Densities against SciPy, golden numbers and quadrature; masks, permutations, units."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from hmcvae import columns, likelihoods
from hmcvae.columns import Column, Schema

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMA = Schema(
    (
        Column("a", "categorical", 3),
        Column("b", "gaussian"),
        Column("c", "bernoulli"),
        Column("d", "loggaussian"),
        Column("e", "categorical", 4),
        Column("f", "gaussian"),
        Column("g", "bernoulli"),
    )
)
LOG_VAR = jnp.array([9.0, -1.0, 9.0, 0.5, 9.0, 0.2, 9.0])
WEIGHT = jnp.array([9.0, 9.0, 2.0, 9.0, 9.0, 9.0, 0.5])


def make_batch(seed=0, batch=5, samples=2):
    rng = np.random.default_rng(seed)
    d, c = SCHEMA.num_columns, SCHEMA.max_classes
    theta = rng.normal(size=(samples, batch, d, c)).astype(np.float32)
    x = rng.normal(size=(batch, d)).astype(np.float32)
    for i, column in enumerate(SCHEMA.columns):
        if column.is_discrete:
            x[:, i] = rng.integers(0, max(column.num_classes, 2), batch)
    mask = rng.random((batch, d)) < 0.6
    mask[3] = False
    return jnp.asarray(theta), jnp.asarray(x), jnp.asarray(mask)


def log_prob(theta, x, mask, schema=SCHEMA, log_var=LOG_VAR, pos_weight=None):
    return likelihoods.log_prob(schema, theta, x, mask, log_var=log_var, pos_weight=pos_weight)


def total(theta, x, mask, log_var=LOG_VAR):
    return log_prob(theta, x, mask, log_var=log_var, pos_weight=WEIGHT).sum()


def test_columns_agree_with_scipy():
    theta, x, mask = make_batch()
    out = jax.jit(log_prob)(theta, x, mask)
    assert out.shape == (2, 5, 7)
    theta, x, mask = (np.asarray(a, dtype=np.float64) for a in (theta, x, mask))
    for i, column in enumerate(SCHEMA.columns):
        first = theta[..., i, 0]
        if column.kind in ("gaussian", "loggaussian"):
            scale = np.exp(0.5 * float(LOG_VAR[i]))
            oracle = stats.norm.logpdf(x[:, i], first, scale)
        elif column.kind == "bernoulli":
            oracle = stats.bernoulli.logpmf(x[:, i], special.expit(first))
        else:
            logits = special.log_softmax(theta[..., i, : column.num_classes], axis=-1)
            index = np.broadcast_to(x[:, i].astype(int)[:, None], (2, 5, 1))
            oracle = np.take_along_axis(logits, index, axis=-1)[..., 0]
        np.testing.assert_allclose(out[..., i], oracle * mask[:, i], rtol=2e-5, atol=2e-6)


def test_log_var_may_be_a_scalar_and_a_target_may_have_one_column():
    schema = Schema((Column("y", "gaussian"),))
    out = log_prob(jnp.ones((3, 1, 1)), jnp.zeros((3, 1)), jnp.ones((3, 1)), schema, np.log(0.1))
    np.testing.assert_allclose(out, stats.norm.logpdf(0, 1, np.sqrt(0.1)), rtol=1e-6)


def test_pos_weight_scales_the_ones_only():
    theta, x, _ = make_batch()
    mask = jnp.ones(x.shape, dtype=bool)
    plain, weighted = log_prob(theta, x, mask), log_prob(theta, x, mask, pos_weight=WEIGHT)
    factor = np.where((np.asarray(x) == 1) & SCHEMA.is_kind("bernoulli"), WEIGHT, 1.0)
    np.testing.assert_allclose(weighted, np.asarray(plain) * factor, rtol=1e-5)


@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, 1e30, 77.0])
def test_nothing_under_the_mask_changes_a_bit(filler):
    theta, x, mask = make_batch()
    hidden = jnp.where(mask, x, filler)
    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 3)))
    value, grads = run(theta, x, mask, LOG_VAR)
    value_hidden, grads_hidden = run(theta, hidden, mask, LOG_VAR)
    assert np.isfinite(value)
    np.testing.assert_array_equal(value, value_hidden)
    for a, b in zip(grads, grads_hidden, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    out = log_prob(theta, hidden, mask)
    np.testing.assert_array_equal(np.asarray(out)[:, 3], 0.0)  # the all-masked row
    assert (np.asarray(out)[:, ~np.asarray(mask)] == 0).all()


def test_theta_beyond_the_own_classes_is_ignored():
    theta, x, mask = make_batch()
    noisy = theta.at[..., 0, 3].set(50.0).at[..., 1, 1:].set(jnp.nan)
    np.testing.assert_array_equal(log_prob(theta, x, mask), log_prob(noisy, x, mask))
    np.testing.assert_array_equal(likelihoods.mode(SCHEMA, theta), likelihoods.mode(SCHEMA, noisy))


def test_permuting_columns_permutes_everything():
    theta, x, mask = make_batch()
    order = np.array([4, 2, 6, 1, 0, 5, 3])
    schema = Schema(tuple(SCHEMA.columns[i] for i in order))
    moved = theta[..., order, :]
    np.testing.assert_array_equal(
        log_prob(moved, x[:, order], mask[:, order], schema, LOG_VAR[order]),
        log_prob(theta, x, mask)[..., order],
    )
    for function in (likelihoods.mean, likelihoods.mode):
        np.testing.assert_array_equal(function(schema, moved), function(SCHEMA, theta)[..., order])
    np.testing.assert_array_equal(
        likelihoods.probs(schema, moved), likelihoods.probs(SCHEMA, theta)[..., order, :]
    )


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_discrete_columns_sum_to_one(scale):
    theta = scale * make_batch()[0]
    mask = jnp.ones((1, 7), dtype=bool)
    by_code = [log_prob(theta, jnp.full((1, 7), float(code)), mask) for code in range(4)]
    out = np.stack(by_code)
    for num_codes, i in ((2, 2), (2, 6), (3, 0), (4, 4)):
        np.testing.assert_allclose(np.exp(out[:num_codes, ..., i]).sum(0), 1.0, rtol=1e-5)


def test_mean_mode_and_probs():
    theta, _, _ = make_batch()
    mean, mode = likelihoods.mean(SCHEMA, theta), likelihoods.mode(SCHEMA, theta)
    p = likelihoods.probs(SCHEMA, theta)
    assert p.shape == theta.shape
    np.testing.assert_array_equal(mean[..., 1], theta[..., 1, 0])
    np.testing.assert_allclose(mean[..., 2], special.expit(theta[..., 2, 0]), rtol=1e-6)
    np.testing.assert_array_equal(p[..., 2, 0], mean[..., 2])
    np.testing.assert_array_equal(mode[..., 6], theta[..., 6, 0] > 0)
    np.testing.assert_array_equal(mode[..., 4], np.argmax(theta[..., 4, :], axis=-1))
    np.testing.assert_array_equal(mode[..., 0], np.argmax(theta[..., 0, :3], axis=-1))
    np.testing.assert_allclose(p[..., [0, 4], :].sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(p[..., 0, 3], 0.0)
    np.testing.assert_array_equal(p[..., 1, :], 0.0)
    np.testing.assert_array_equal(p[..., 2, 1:], 0.0)


def test_samples_have_the_right_moments():
    num = 4000
    theta = jnp.broadcast_to(make_batch()[0][0, 0], (num, 7, 4))
    draws = np.asarray(likelihoods.sample(jax.random.key(0), SCHEMA, theta, LOG_VAR))
    p = np.asarray(likelihoods.probs(SCHEMA, theta))[0]
    for i, column in enumerate(SCHEMA.columns):
        if column.is_discrete:
            chances = p[i] if column.kind == "categorical" else np.array([1 - p[i, 0], p[i, 0]])
            seen = np.bincount(draws[:, i].astype(int), minlength=len(chances)) / num
            error = 4 * np.sqrt(chances * (1 - chances) / num)
            assert (np.abs(seen - chances) <= error + 1e-6).all()
        else:
            var = np.exp(LOG_VAR[i])
            assert abs(draws[:, i].mean() - theta[0, i, 0]) < 4 * np.sqrt(var / num)
            assert abs(draws[:, i].var() / var - 1) < 4 * np.sqrt(2 / num)


def test_one_hot_lays_out_columns_in_order():
    _, x, mask = make_batch()
    flat = likelihoods.one_hot(SCHEMA, x)
    assert flat.shape == (5, likelihoods.flat_width(SCHEMA)) == (5, 3 + 1 + 1 + 1 + 4 + 1 + 1)
    np.testing.assert_array_equal(flat[:, :3].argmax(-1), x[:, 0])
    np.testing.assert_array_equal(flat[:, 3:6], x[:, 1:4])
    np.testing.assert_array_equal(flat[:, 6:10].argmax(-1), x[:, 4])
    hidden = jnp.where(mask, x, jnp.nan)
    masked = likelihoods.one_hot(SCHEMA, hidden, mask)
    repeated = likelihoods.repeat_columns(SCHEMA, mask)
    np.testing.assert_array_equal(masked, jnp.where(repeated, flat, 0.0))
    np.testing.assert_array_equal(repeated[:, 6:10], jnp.repeat(mask[:, 4:5], 4, axis=1))


def test_density_in_raw_units_integrates_to_one_and_follows_the_unit():
    schema = Schema((Column("a", "gaussian"), Column("b", "loggaussian")))
    scaler = columns.Scaler(np.array([2.0, 1.3]), np.array([3.0, 0.7]))
    theta = jnp.array([[0.3], [0.4]])
    mask = jnp.ones(2, dtype=bool)

    def raw_log_prob(x):
        z = columns.transform(schema, scaler, jnp.asarray(x), mask)
        lp = log_prob(theta, z, mask, schema, jnp.log(0.4))
        return np.asarray(lp + likelihoods.log_jacobian(schema, scaler, jnp.asarray(x)))

    with jax.enable_x64(True):
        theta = theta.astype(jnp.float64)
        grid = np.linspace(-30.0, 30.0, 2001)
        density = [np.exp(raw_log_prob(np.array([x, 0.0]))[0]) for x in grid[::10]]
        np.testing.assert_allclose(integrate.simpson(density, x=grid[::10]), 1.0, rtol=1e-4)
        # x > -1 is the support; the mass below 0 belongs to no legal value and is part of the 1
        grid = np.expm1(np.linspace(-6.0, 8.0, 301))
        density = np.array([np.exp(raw_log_prob(np.array([0.0, x]))[1]) for x in grid])
        mass = integrate.simpson(density * (1 + grid), x=np.log1p(grid))
        np.testing.assert_allclose(mass, 1.0, rtol=1e-6)


def test_raw_nll_of_a_gaussian_column_shifts_by_the_log_of_the_unit_only():
    rng = np.random.default_rng(0)
    schema = Schema((Column("a", "gaussian"),))
    x = rng.normal(3.0, 2.0, (20, 1))
    mask = np.ones(x.shape, dtype=bool)
    nll = []
    for factor, offset in ((1.0, 0.0), (2.54, 0.0), (1000.0, -40.0)):
        raw = factor * x + offset
        scaler = columns.fit(schema, raw, mask)
        z = jnp.asarray(columns.transform(schema, scaler, raw, mask), jnp.float32)
        lp = log_prob(jnp.full((20, 1, 1), 0.1), z, jnp.asarray(mask), schema, 0.0)
        jacobian = likelihoods.log_jacobian(schema, scaler, jnp.asarray(raw, jnp.float32))
        nll.append(float(-(lp + jacobian).mean()) - np.log(factor))
    np.testing.assert_allclose(nll, nll[0], rtol=1e-5)


def test_log_jacobian_is_the_derivative_and_respects_the_mask():
    scaler = columns.Scaler(np.linspace(-1, 1, 7), np.linspace(0.5, 2, 7))
    x = jnp.array([2.0, -0.3, 1.0, 3.0, 1.0, 0.7, 0.0])
    mask = jnp.array([1, 1, 1, 1, 1, 0, 1], dtype=bool)
    slope = jnp.diag(jax.jacobian(lambda v: columns.transform(SCHEMA, scaler, v, mask))(x))
    out = likelihoods.log_jacobian(SCHEMA, scaler, x.at[5].set(jnp.nan), mask)
    np.testing.assert_allclose(out[jnp.array([1, 3])], jnp.log(slope[jnp.array([1, 3])]), rtol=1e-5)
    np.testing.assert_array_equal(out[jnp.array([0, 2, 4, 5, 6])], 0.0)


@pytest.mark.parametrize("logit", [-500.0, -8.0, -0.9, -1e-3, 0.0, 1e-6, 0.4, 1.1, 8.0, 500.0])
def test_continuous_bernoulli_integrates_to_one(logit):
    with jax.enable_x64(True):
        nodes, weights = np.polynomial.legendre.leggauss(400)
        grid, weights = jnp.asarray(0.5 * (nodes + 1)), 0.5 * weights
        density = np.exp(likelihoods.continuous_bernoulli_log_prob(grid, jnp.float64(logit)))
        np.testing.assert_allclose(weights @ density, 1.0, rtol=1e-8)
        mean = likelihoods.continuous_bernoulli_mean(jnp.float64(logit))
        np.testing.assert_allclose(weights @ (density * grid), mean, rtol=1e-7)


def test_continuous_bernoulli_is_smooth_at_one_half():
    # d log p / d logit = x - mean, everywhere; also in single precision
    logits = jnp.array([-30.0, -1.01, -0.99, -1e-4, 0.0, 1e-4, 0.99, 1.01, 30.0])
    score = jax.vmap(jax.grad(likelihoods.continuous_bernoulli_log_prob, argnums=1), (None, 0))
    expected = 0.3 - likelihoods.continuous_bernoulli_mean(logits)
    np.testing.assert_allclose(score(0.3, logits), expected, atol=2e-6)
    curvature = jax.vmap(jax.grad(likelihoods.continuous_bernoulli_mean))(logits)
    assert (np.asarray(curvature) > 0).all()
    np.testing.assert_allclose(curvature[4], 1 / 12, rtol=1e-6)


@pytest.mark.parametrize("logit", [-6.0, -1e-4, 2.0])
def test_continuous_bernoulli_samples_have_the_right_mean(logit):
    draws = likelihoods.continuous_bernoulli_sample(jax.random.key(1), jnp.full(4000, logit))
    assert draws.min() >= 0
    assert draws.max() <= 1
    error = 4 * np.std(draws) / np.sqrt(4000)
    assert abs(draws.mean() - likelihoods.continuous_bernoulli_mean(logit)) < error


@pytest.mark.parametrize("loc", [-0.2, 0.0, 0.37, 1.0])
@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.0])
def test_discretised_logistic_sums_to_one(loc, log_scale):
    levels = jnp.arange(256) / 255
    mass = jnp.exp(likelihoods.discretised_logistic_log_prob(levels, loc, log_scale))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-4)
    if log_scale > -5:
        mean = likelihoods.discretised_logistic_mean(jnp.float32(loc), log_scale)
        np.testing.assert_allclose((mass * levels).sum(), mean, atol=1e-4)


def test_discretised_logistic_has_finite_gradients_far_out():
    run = jax.vmap(
        jax.value_and_grad(likelihoods.discretised_logistic_log_prob, argnums=(1, 2)),
        (None, None, 0),
    )
    value, grads = run(0.9, 0.1, jnp.array([-8.0, 0.0, 6.0]))
    assert np.isfinite(value).all()
    assert all(np.isfinite(g).all() for g in grads)


def test_discretised_logistic_samples_follow_the_masses():
    num, levels = 4000, 5
    loc, log_scale = jnp.full(num, 0.2), jnp.log(0.2)
    draws = likelihoods.discretised_logistic_sample(
        jax.random.key(2), loc, log_scale, num_levels=levels
    )
    seen = np.bincount(np.round(np.asarray(draws) * 4).astype(int), minlength=5) / num
    mass = np.exp(
        likelihoods.discretised_logistic_log_prob(
            jnp.arange(5) / 4, 0.2, log_scale, num_levels=levels
        )
    )
    assert (np.abs(seen - mass) < 4 * np.sqrt(mass * (1 - mass) / num)).all()


def load(name, case):
    with np.load(GOLDEN / f"{name}.npz") as archive:
        prefix = f"{case}."
        return {k[len(prefix) :]: archive[k] for k in archive.files if k.startswith(prefix)}


def close(actual, expected, tolerance=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_table_likelihoods(case):
    g = load("hhvaem_likelihood", case)

    def run(kind, group, log_var=0.0, pos_weight=None):
        data = g[f"{group}.data"]
        schema = Schema(tuple(Column(str(i), kind) for i in range(data.shape[-1])))
        theta = g.get(f"{group}.theta", g.get(f"{group}.logits"))[..., None]
        weight = None if pos_weight is None else jnp.full(data.shape[-1], pos_weight)
        mask = jnp.asarray(g[f"{group}.mask"])[:, None]
        x = jnp.asarray(data)[:, None]
        return log_prob(jnp.asarray(theta), x, mask, schema, log_var, weight)

    with jax.enable_x64(True):
        for group in ("gaussian", "loggaussian"):
            for suffix in ("", "_b"):
                log_var = np.log(g[f"{group}.variance{suffix}"])
                name = f"{group}.logp_ref" + ("_variance_b" if suffix else "")
                close(run(group, group, log_var), g[name])
        close(run("bernoulli", "bernoulli"), g["bernoulli.logp_correct"])
        weight = g["bernoulli_weighted.pos_weight"]
        weighted = run("bernoulli", "bernoulli_weighted", 0.0, weight)
        close(weighted, g["bernoulli_weighted.logp_ref"], 1e-6)  # upstream labels are float32
        close(run("bernoulli", "bernoulli_weighted"), g["bernoulli_weighted.logp_correct"])

        logits = g["categorical.logits"]
        schema = Schema((Column("a", "categorical", logits.shape[-1]),))
        label = jnp.asarray(g["categorical.label"], jnp.float64)[:, None]
        mask = jnp.asarray(g["categorical.mask"])[:, None]
        out = log_prob(jnp.asarray(logits)[..., None, :], label, mask, schema)
        close(out, g["categorical.logp_ref"])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_loggaussian_units(case):
    g = {k.removeprefix("loggaussian."): v for k, v in load("hhvaem_likelihood", case).items()}
    train, raw = g["train"], g["raw"]
    schema = Schema(tuple(Column(str(i), "loggaussian") for i in range(raw.shape[-1])))
    scaler = columns.fit(schema, train, np.ones(train.shape), ddof=1)
    close(scaler.shift, g["log1p_mean"])
    close(scaler.scale, g["log1p_std_ddof1"])
    seen = np.ones(raw.shape, dtype=bool)
    close(columns.transform(schema, scaler, raw, seen), g["normalised_ref"])
    close(columns.inverse(schema, scaler, g["theta"]), g["denormalised_theta_ref"])
    target = columns.inverse(schema, scaler, g["theta"], floor=False)
    close(target, g["denormalised_theta_as_target_ref"])
    with jax.enable_x64(True):
        mask = jnp.asarray(g["mask"])[:, None]
        z = jnp.asarray(g["normalised_ref"])[:, None]
        theta, log_var = jnp.asarray(g["theta"])[..., None], np.log(g["variance"])
        lp = log_prob(theta, z, mask, schema, log_var)
        close(lp, g["logp_raw_ref"])
        jacobian = likelihoods.log_jacobian(schema, scaler, jnp.asarray(raw)[:, None], mask)
        close(lp + jacobian, g["logp_density_correct"])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_point_likelihoods(case):
    g = load("function_likelihoods", case)
    with jax.enable_x64(True):
        x, logit = (jnp.asarray(g[f"continuous_bernoulli.{k}"]) for k in ("data", "logits"))
        cb = likelihoods.continuous_bernoulli_log_prob(x, logit)
        close(cb, g["continuous_bernoulli.logp_correct"])
        mean = likelihoods.continuous_bernoulli_mean(logit)
        close(mean, g["continuous_bernoulli.mean_correct"])
        bernoulli = (jnp.asarray(g[f"bernoulli.{k}"]) for k in ("data", "logits"))
        close(likelihoods.bernoulli_log_prob(*bernoulli), g["bernoulli.logp_ref"], 1e-7)

        y, loc = jnp.asarray(g["logistic.data"]), jnp.asarray(g["logistic.mean"])
        raw = g["logistic.raw_scale"]
        log_scale = jnp.log(jnp.minimum(jax.nn.sigmoid(jnp.asarray(raw)), 0.1))
        for suffix, scale in (("", log_scale), ("_b", _log_scale_b(g))):
            scale = scale[None]
            run = likelihoods.discretised_logistic_log_prob
            upstream = run(y, loc, scale, half_width=1 / 512, edge_bins=False, floor=1e-7)
            close(upstream, g[f"logistic.logp_ref{suffix}"], 1e-7)
            plain = run(y, loc, scale, half_width=1 / 512, edge_bins=False)
            close(plain, g[f"logistic.logp_no_floor{suffix}"], 1e-7)
            edges = run(y, loc, scale, half_width=1 / 512)
            close(edges, g[f"logistic.logp_edge_bins{suffix}"], 1e-7)


def _log_scale_b(g):
    return jnp.log(jnp.minimum(jax.nn.sigmoid(jnp.asarray(g["logistic.raw_scale_b"])), 0.1))
