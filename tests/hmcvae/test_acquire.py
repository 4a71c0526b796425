"""Acquisition on a linear-Gaussian model whose information is known, and on mixed columns."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import acquire, columns, information, predict, rewards
from hmcvae.columns import Column, Schema
from hmcvae.model import HVAE
from hmcvae.objectives import Schedule
from hmcvae.rewards import Settings
from tests.hmcvae import affine
from tests.hmcvae.test_model import MIXED, mixed_model, reals

VARIANCE = 0.3
# x = WEIGHT h + e, y = TARGET h + e with h in R^3: column 3 repeats much of column 0
WEIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.9, 0, 0.1], [0, 0, 0.05]])
TARGET = np.array([[1.6, 0.9, 0.0]])
SCHEDULE = Schedule(num_leapfrog=5)
PLAIN = columns.Scaler(jnp.zeros(1), jnp.ones(1))


def linear_model(target=TARGET, from_row=None):
    """The predictor computes target @ h + from_row @ x_hat; HMC makes up for a blind encoder."""
    num_columns, num_latents = WEIGHT.shape
    num_targets = len(target)
    model = HVAE(
        reals(num_columns), reals(num_targets, "y"), (num_latents,), 16, 2,
        variance=VARIANCE, learn_variance=False, marginals=False,
    )  # fmt: skip
    params = model.init(jax.random.key(0), model.blank_row())["params"]
    from_row = np.zeros((num_targets, num_columns)) if from_row is None else from_row
    predictor = np.concatenate([target, from_row, 0 * from_row], axis=1)
    params["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])
    params["decoder"] = affine.mlp(WEIGHT, np.zeros(num_columns), 16)
    params["predictor"] = affine.mlp(predictor, np.zeros(num_targets), 16)
    params["hmc"] = {
        "log_step_size": jnp.log(jnp.tile(jnp.linspace(0.1, 0.3, 12)[:, None], num_latents)),
        "log_inflation": jnp.zeros(1),
    }
    return model, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)


def exact_gains(known, target=TARGET):
    """I(x_i; y | x_O) of every column i, in nats."""
    joint = np.concatenate([WEIGHT, target])
    cov = joint @ joint.T + VARIANCE * np.eye(len(joint))
    y = list(range(len(WEIGHT), len(joint)))

    def log_det(*at):
        return np.linalg.slogdet(cov[np.ix_(at, at)])[1] if at else 0.0

    def of(i):
        given = log_det(*known, i) + log_det(*known, *y)
        return 0.5 * (given - log_det(*known, i, *y) - log_det(*known))

    return np.array([-np.inf if i in known else of(i) for i in range(len(WEIGHT))])


def of_cells(x, y, bins):
    """Information that cells of equal count keep, from very many draws of x [S] and y [P, S]."""
    levels, num_y = information.join(information.equal_count(y, bins), (bins,) * len(y))
    return information.plug_in(information.equal_count(x, bins), levels, bins, num_y)


def some_rows(num, seed=0, shown=()):
    """Draws rows of the model with a few cells known from the start."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(num, 3))
    noise = lambda width: np.sqrt(VARIANCE) * rng.normal(size=(num, width))
    x, y = h @ WEIGHT.T + noise(len(WEIGHT)), h @ TARGET.T + noise(1)
    mask = np.zeros(x.shape, bool)
    mask[:, list(shown)] = True
    known = np.ones_like(mask)
    return predict.TestRows(
        *map(jnp.asarray, (np.float32(x), mask, known, np.float32(y), y < np.inf))
    )


TRACES = collections.Counter()  # by settings: how often an episode was compiled


@functools.partial(jax.jit, static_argnames=("model", "settings", "num_steps"))
def compiled_episode(key, model, params, rows, limits, *, settings, num_steps, order):
    TRACES[settings] += 1
    return acquire.episode(
        key, model, params, PLAIN, rows,
        settings=settings, schedule=SCHEDULE, num_steps=num_steps, order=order, **limits,
    )  # fmt: skip


def run(model, params, rows, settings, *, num_steps=5, seed=0, order=None, **limits):
    costs = jnp.ones(rows.x.shape[1])
    limits = dict(costs=costs, budget=np.inf, min_gain=-np.inf, max_spread=-np.inf) | limits
    key = jax.random.key(seed)
    return compiled_episode(
        key, model, params, rows, limits, settings=settings, num_steps=num_steps, order=order
    )


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def gains(model, params, x, mask, settings, costs):
    return acquire.expected_gains(
        jax.random.key(1), model, params, x, mask,
        settings=settings, schedule=SCHEDULE, costs=costs,
    )  # fmt: skip


GREEDY = Settings(num_samples=500)
AHEAD = GREEDY._replace(lookahead=5, num_simulated=4)


@pytest.fixture(scope="module")
def linear():
    return linear_model()


@pytest.mark.parametrize(
    ("options", "num_samples", "slack"),
    [
        (dict(bins=16), 4000, 0.04),
        (dict(reward="published", bins=16), 4000, 0.08),
        (dict(reward="kraskov"), 400, 0.1),
    ],
)
def test_expected_gains_are_the_information_on_the_target(linear, options, num_samples, slack):
    rows, costs = some_rows(2, shown=[2]), jnp.array([10.0, 1.0, 1.0, 10.0, 1.0])
    mask = rows.shown.at[1, 3].set(True)
    settings = Settings(num_samples=num_samples, **options)
    gain, rate = gains(*linear, rows.x, mask, settings, costs)
    for found, known in zip(np.asarray(gain), ([2], [2, 3]), strict=True):
        np.testing.assert_allclose(found, exact_gains(known), atol=slack)
    # what costs more tells less for it; below zero, where chance can put a gain, it is worse still
    np.testing.assert_allclose(rate, jnp.where(gain > 0, gain / costs, gain * costs), rtol=1e-6)
    assert int(jnp.argmax(gain[0])) in (0, 3)
    assert int(jnp.argmax(rate[0])) == 1


def test_two_targets_count_jointly():
    target = np.array([[1.6, 0, 0], [0, 1.0, 1.0]])
    model, params = linear_model(target)
    x, joint = jnp.zeros((1, 5)), np.concatenate([WEIGHT, target])
    settings = Settings(num_samples=6000, bins=6)
    found = gains(model, params, x, x > 0, settings, jnp.ones(5)).gain[0]
    cov = joint @ joint.T + VARIANCE * np.eye(7)
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(7), cov, size=200_000)
    draws = jnp.asarray(draws.T)
    kept = np.array([of_cells(draws[i], draws[5:], 6) for i in range(5)])
    np.testing.assert_allclose(found, kept, atol=0.04)
    assert np.all(kept < exact_gains([], target) + 0.002)
    assert np.all(kept > 0.7 * exact_gains([], target))


def test_best_feature_comes_first_and_then_the_best_beside_it(linear):
    rows = some_rows(10)
    out = run(*linear, rows, GREEDY)
    first = int(np.argmax(exact_gains([])))
    second = int(np.argmax(exact_gains([first])))
    assert (first, second) == (0, 1)
    chosen = np.asarray(out.chosen)
    assert np.mean(np.isin(chosen[0], [0, 3])) == 1  # 3 tells nearly as much
    assert np.mean(chosen[0] == first) > 0.6
    assert np.mean(chosen[1][chosen[0] == first] == second) > 0.8
    assert np.all(np.sort(chosen, axis=0) == np.arange(5)[:, None])
    np.testing.assert_allclose(np.mean(out.gain[0]), exact_gains([])[first], atol=0.06)
    error = np.square(np.asarray(out.y_mean) - rows.y).mean(axis=(1, 2))
    assert error[2] < error[1] < error[0]
    assert np.all(np.diff(out.spread[:4].mean(axis=1)) < 0)


def test_feeding_counts_what_the_predictor_reads_from_the_measured_value():
    """y = 2 x_4, whose noise h does not carry: without feeding, they share nothing but h."""
    from_row = np.zeros((1, 5))
    from_row[0, 4] = 2.0
    model, params = linear_model(np.zeros((1, 3)), from_row)
    x = jnp.zeros((1, 5))
    fed, unfed = (
        gains(model, params, x, x > 0, Settings(num_samples=4000, feed=feed), jnp.ones(5)).gain[0]
        for feed in (True, False)
    )
    h, e, noise = np.random.default_rng(0).normal(size=(3, 200_000))
    measured = WEIGHT[4, 2] * h + np.sqrt(VARIANCE) * e
    y = 2 * measured + np.sqrt(VARIANCE) * noise
    kept = of_cells(jnp.asarray(measured), jnp.asarray(y)[None], 7)
    np.testing.assert_allclose(fed[4], kept, atol=0.05)
    assert np.all(np.abs(fed[:4]) < 0.05)
    assert np.all(np.abs(unfed) < 0.05)


def test_costs_budgets_and_missing_features_are_respected(linear):
    rows = some_rows(10)
    rows = rows._replace(known=rows.known.at[:3, 0].set(False))
    out = run(*linear, rows, GREEDY, costs=jnp.array([0.1, 0.1, 5.0, 0.1, 0.1]), budget=0.3)
    chosen = np.asarray(out.chosen)
    assert np.all(chosen[:3] >= 0)  # three times 0.1 is the budget
    assert np.all(chosen[3:] == -1)
    assert np.all(np.isnan(out.gain[3:]))
    assert not np.any(chosen == 2)
    assert not np.any(chosen[:, :3] == 0)
    for row in chosen[:3].T:
        assert len(set(row)) == 3
    np.testing.assert_allclose(out.spent[-1], 0.3, rtol=1e-6)


def test_what_is_known_from_the_start_is_used_and_costs_nothing(linear):
    rows = some_rows(10, shown=[0])
    out = run(*linear, rows, GREEDY, budget=2.0)
    assert not np.any(np.asarray(out.chosen) == 0)
    assert np.mean(out.chosen[0] == 1) > 0.8
    np.testing.assert_array_equal(out.spent[-1], 2.0)


@pytest.mark.parametrize("rule", [dict(min_gain=0.1), dict(max_spread=1.0)])
def test_rows_stop_where_little_is_left_to_learn(linear, rule):
    out = run(*linear, some_rows(10), GREEDY, **rule)
    has_stopped = np.asarray(out.chosen) == -1
    assert np.all(has_stopped[-1])
    assert not np.any(has_stopped[0])
    assert np.all(np.diff(has_stopped.astype(int), axis=0) >= 0)  # for good
    if "min_gain" in rule:
        assert np.all(np.asarray(out.gain)[~has_stopped] >= 0.1)
    else:
        assert np.all(np.asarray(out.spread)[:-1][~has_stopped] > 1.0)


@pytest.mark.slow
def test_looking_ahead_finds_a_pair_that_neither_of_its_features_announces():
    """y = 4 |h_0 + h_1| - 4 |h_0 - h_1| + 5/2 h_2: x_1 and x_0 (or x_3) tell of y together only."""
    model, params = linear_model()
    first, second = np.zeros((16, 13)), np.zeros((1, 16))
    first[:4, :2] = [[1, 1], [-1, -1], [1, -1], [-1, 1]]
    first[4:6, 2] = [1, -1]
    second[0, :6] = [4, 4, -4, -4, 2.5, -2.5]
    layers = {"layer0": affine.linear(first, np.zeros(16))}
    layers["layer1"] = affine.linear(second, np.zeros(1))
    params["predictor"] = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), layers)
    greedy, ahead = (
        np.asarray(run(model, params, some_rows(10), settings, num_steps=steps, budget=2.0).chosen)
        for settings, steps in ((GREEDY, 5), (AHEAD, 3))
    )
    assert np.mean(greedy[0] == 2) > 0.6
    assert np.mean(np.isin(ahead[0], [0, 1, 3])) > 0.8
    is_pair = np.any(ahead[:2] == 1, axis=0) & np.any(np.isin(ahead[:2], [0, 3]), axis=0)
    assert np.mean(is_pair) > 0.4  # where the first turns out near 0, the second tells nothing


def test_lookahead_keeps_to_the_budget_and_adds_the_gain_of_the_next_step(linear):
    out = run(*linear, some_rows(10), AHEAD, num_steps=3, budget=2.0)
    np.testing.assert_array_equal((np.asarray(out.chosen) >= 0).sum(axis=0), 2)
    pair = exact_gains([])[0] + exact_gains([0])[1]
    np.testing.assert_allclose(np.mean(out.gain[0]), pair, atol=0.1)


def test_a_fixed_order_is_followed_and_chance_is_uniform(linear):
    model, params = linear
    params = {name: value for name, value in params.items() if name != "hmc"}
    order, settings = jnp.array([3, 0, 4, 1, 2]), Settings("fixed_order", num_samples=20)
    out = run(model, params, some_rows(4), settings, order=order)
    np.testing.assert_array_equal(out.chosen, np.tile(np.argsort(order)[:, None], (1, 4)))
    out = run(model, params, some_rows(400), Settings("random", num_samples=20))
    np.testing.assert_array_equal(np.sort(out.chosen, axis=0)[:, 0], np.arange(5))
    counts = np.bincount(np.asarray(out.chosen[0]), minlength=5)
    assert np.all(np.abs(counts - 80) < 4 * np.sqrt(400 * 0.2 * 0.8))


def test_the_oracle_knows_better(linear):
    rows = some_rows(60)
    out = run(*linear, rows, Settings("oracle", num_samples=100), num_steps=1)
    error = np.square(np.asarray(out.y_mean) - rows.y)[..., 0]
    np.testing.assert_allclose(np.mean(out.gain[0]), np.mean(error[0] - error[1]), rtol=0.2)
    joint = np.concatenate([WEIGHT[:1], TARGET])
    cov = joint @ joint.T + VARIANCE * np.eye(2)
    of_best = cov[1, 1] - cov[0, 1] ** 2 / cov[0, 0]  # error after the one best feature
    assert np.mean(error[1]) < 0.8 * of_best


MODELS = {
    "gaussian": dict(layer_sizes=(3,)),
    "plain": dict(layer_sizes=(3,), marginals=False),
    "paper": dict(layer_sizes=(3,), paper=True),
}


def mixed_rows(num=7):
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(num, 4))).astype(np.float32)
    x[:, 1], x[:, 2] = rng.integers(0, 4, num), rng.integers(0, 2, num)
    shown = rng.random((num, 4)) > 0.7
    y = rng.integers(0, 3, (num, 1)).astype(np.float32)
    return predict.TestRows(*map(jnp.asarray, (x, shown, np.ones_like(shown), y, y >= 0)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reward"),
    [
        ("gaussian", "mutual_information"),
        ("paper", "published"),
        ("plain", "kraskov"),
        ("gaussian", "gaussian_kl"),
    ],
)
def test_what_is_not_measured_cannot_matter(name, reward):
    """Values of unmeasured features, NaN included, and the true target move no choice."""
    model, params = mixed_model(**MODELS[name])
    rows, settings = mixed_rows(), Settings(reward, num_samples=24, bins=4, rows_per_block=3)
    spoiled = rows._replace(x=jnp.where(rows.shown, rows.x, jnp.nan), y=(rows.y + 1) % 3)
    a, b = (run(model, params, r, settings, num_steps=1) for r in (rows, spoiled))
    for field in ("chosen", "gain", "spread"):
        np.testing.assert_array_equal(getattr(a, field)[0], getattr(b, field)[0])
    np.testing.assert_array_equal(a.y_probs[0], b.y_probs[0])
    np.testing.assert_array_equal(a.chosen[0] >= 0, ~rows.shown.all(axis=1))
    assert np.all(np.isfinite(np.asarray(a.gain)[a.chosen >= 0]))
    assert np.any(a.joint_y != b.joint_y)


def test_rows_sure_of_their_class_are_measured_to_the_end_unless_told_otherwise():
    model, params = mixed_model(layer_sizes=(3,))
    last = params["predictor"]["layer1"]["affine"]
    last["bias"] = last["bias"].at[0].add(1e4)
    rows, settings = mixed_rows(), Settings("random", num_samples=20)
    full = run(model, params, rows, settings, num_steps=4)
    stopped = run(model, params, rows, settings, num_steps=4, max_spread=0.0)
    np.testing.assert_array_equal(full.spread, 0)
    np.testing.assert_array_equal(np.sum(full.chosen >= 0, axis=0), np.sum(~rows.shown, axis=1))
    np.testing.assert_array_equal(stopped.chosen, -1)


def test_a_column_that_the_encoder_cannot_see_has_no_gaussian_reward():
    model, params = mixed_model(layer_sizes=(3,))
    first = params["encoder"]["base"]["layer0"]["affine"]
    first["kernel"] = first["kernel"].at[jnp.array([2, 6])].set(0.0)  # z_2 and its mask
    x = jnp.zeros((1, 4))
    found = gains(model, params, x, x > 0, Settings("gaussian_kl", num_samples=50), jnp.ones(4))
    np.testing.assert_array_equal(np.asarray(found.gain[0]) == 0, [False, False, True, False])


def test_an_episode_is_compiled_once_whatever_its_data_and_limits(linear):
    model, params = linear
    params = jax.tree.map(lambda a: 0.9 * a, params)
    run(*linear, some_rows(10), GREEDY)
    traced = TRACES[GREEDY]
    run(model, params, some_rows(10, seed=1), GREEDY, seed=1, budget=3.0, max_spread=0.7)
    assert traced == TRACES[GREEDY] == 1


def test_advice_ranks_the_unknown_features_of_a_row_in_raw_units():
    model, params = mixed_model(layer_sizes=(3,))
    scaler = columns.Scaler(np.array([2.0, 0, 0, 1.0]), np.array([3.0, 1, 1, 0.5]))
    row, mask = [1.0, 2.0, 1.0, np.nan], [False, True, False, False]
    costs, key = np.array([1.0, 1.0, 2.0, 0.5]), jax.random.key(1)
    settings = Settings(num_samples=40)
    found = acquire.advise(
        key, model, params, scaler, row, mask, schedule=SCHEDULE, settings=settings, costs=costs
    )
    assert {advice.name for advice in found} == {"g", "b", "l"}
    rates = [advice.rate for advice in found]
    assert rates == sorted(rates, reverse=True)
    x = columns.transform(MIXED, scaler, np.array([row]), np.array([mask])).astype(np.float32)
    direct = gains(model, params, x, np.array([mask]), settings, costs)
    for advice in found:
        at = MIXED.names.index(advice.name)
        np.testing.assert_allclose(advice.gain, direct.gain[0, at], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        (dict(reward="entropy"), {}, "unknown; use one of"),
        (dict(reward="gaussian_kl"), {}, "model without HMC"),
        (dict(reward="fixed_order"), {}, "needs the rank"),
        (dict(), dict(order=np.arange(5)), "no other reward takes one"),
        (dict(reward="oracle", lookahead=2), {}, "look ahead; set it to 0"),
        (dict(num_samples=6), {}, "expected more than bins=7"),
    ],
)
def test_refusals_say_what_would_be_right(linear, changes, options, match):
    with pytest.raises(ValueError, match=match):
        run(*linear, some_rows(2), Settings(**changes), **options)


def test_models_without_a_fitting_target_are_refused():
    with pytest.raises(ValueError, match="has no target"):
        rewards.check(HVAE(reals(2), Schema(())), {}, Settings())
    with pytest.raises(ValueError, match="it knows 1 or 2"):
        rewards.check(HVAE(reals(2), reals(3, "y")), {}, Settings("published"))
    model, x = HVAE(reals(2), Schema((Column("y", "gaussian"),))), jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="expects nothing"):
        gains(model, {}, x, x > 0, Settings("oracle"), jnp.ones(2))
