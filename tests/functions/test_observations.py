"""Likelihoods of points: SciPy, quadrature, stored numbers, and what a mask must hide."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from functions import observations
from hmcvae.likelihoods import discretised_logistic_log_prob

GOLDEN = Path(__file__).parents[1] / "golden"
K, N, C = 3, 7, 2
LOG_SCALE = jnp.array([-1.3, -2.1])


@pytest.mark.parametrize(("logit", "level"), [(-8.0, 0.0), (8.0, 1.0)])
def test_black_and_white_can_be_certain_at_any_scale(logit, level):
    certain = observations.log_prob("logistic", level, logit, jnp.log(0.05))
    assert certain > -0.01
    np.testing.assert_allclose(
        observations.mean("logistic", logit, jnp.log(0.05)), level, atol=2e-3
    )
    released = observations.log_prob("logistic", level, logit, jnp.log(0.05), paper=True)
    assert released < -3.0


def make_batch(kind):
    rng = np.random.default_rng(0)
    y = {
        "logistic": rng.integers(0, 256, (N, C)) / 255,
        "gaussian": rng.normal(size=(N, C)),
        "continuous_bernoulli": rng.random((N, C)),
        "bernoulli": rng.integers(0, 2, (N, C)),
    }[kind]
    logits = rng.normal(size=(K, N, C))
    return jnp.asarray(y, jnp.float32), jnp.asarray(logits, jnp.float32)


@pytest.mark.parametrize("kind", observations.KINDS)
def test_log_prob_agrees_with_scipy(kind):
    y, logits = make_batch(kind)
    y = y.at[0].set(jnp.array([0.0, 1.0]))
    out = jax.jit(observations.log_prob, static_argnums=0)(kind, y, logits, LOG_SCALE)
    assert out.shape == (K, N, C)
    y, logits, scale = (np.float64(a) for a in (y, logits, np.exp(LOG_SCALE)))
    if kind == "gaussian":
        oracle = stats.norm.logpdf(y, logits, scale)
    elif kind == "bernoulli":
        oracle = stats.bernoulli.logpmf(y, special.expit(logits))
    elif kind == "continuous_bernoulli":
        odds = np.log(logits / np.tanh(logits / 2))  # the normaliser
        oracle = odds + y * special.log_expit(logits) + (1 - y) * special.log_expit(-logits)
    else:
        law = stats.logistic(1.5 * special.expit(logits) - 0.25, scale)
        upper = np.where(y > 0.999, 1.0, law.cdf(y + 0.5 / 255))
        oracle = np.log(upper - np.where(y < 0.001, 0.0, law.cdf(y - 0.5 / 255)))
    np.testing.assert_allclose(out, oracle, rtol=2e-5, atol=2e-5)


@jax.jit
def logistic_and_slopes(y, logits, log_scale):
    def run(y, logit, log_scale):
        return observations.log_prob("logistic", y, logit, log_scale)

    one = jax.value_and_grad(run, (1, 2))
    return jax.vmap(jax.vmap(one, (0, None, None)), (None, 0, None))(y, logits, log_scale)


@pytest.mark.parametrize("log_scale", [-14.0, -11.0, -8.0, -4.0, 1.0, 5.0])
def test_logistic_is_exact_at_every_scale(log_scale):
    # against the textbook form, log expit(a) + log expit(-b) + log(1 - e^(b-a)) inside
    y, loc = np.arange(256) / 255, np.array([[1e-4], [0.2501], [0.5], [0.9999]])
    scale, w = np.exp(log_scale), 0.5 / 255
    a, b = (y + w - loc) / scale, (y - w - loc) / scale
    has_a, has_b = y < 1, y > 0  # the bin has an upper edge; a lower one
    width = np.where(has_a & has_b, np.log(-np.expm1(-2 * w / scale)), 0.0)
    value = has_a * special.log_expit(a) + has_b * special.log_expit(-b) + width
    at_a, at_b = has_a * special.expit(-a), has_b * -special.expit(b)
    of_width = np.where(has_a & has_b, -2 * w / scale / np.expm1(np.minimum(2 * w / scale, 500)), 0)
    share = (loc + 0.25) / 1.5  # loc = 1.5 sigma(logit) - 0.25
    by_logit = 1.5 * share * (1 - share)
    slopes = -(at_a + at_b) / scale * by_logit, -(at_a * a + at_b * b) + of_width
    logits = special.logit(share[:, 0])
    with jax.enable_x64(True):
        got = logistic_and_slopes(jnp.asarray(y), jnp.asarray(logits), jnp.float64(log_scale))
    for x, oracle in zip(jax.tree.leaves(got), (value, *slopes), strict=True):
        np.testing.assert_allclose(x, oracle, rtol=1e-8, atol=1e-8 / scale)
    single = logistic_and_slopes(jnp.float32(y), jnp.float32(logits), jnp.float32(log_scale))
    assert all(np.isfinite(x).all() for x in single[:1] + single[1])


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_slope_of_an_edge_bin_is_right_where_loc_is_the_edge(y):
    # the edge bin still gains from moving outwards
    slope = jax.grad(discretised_logistic_log_prob, argnums=1)(y, y, jnp.log(0.01))
    expected = special.expit(-0.5 / 255 / 0.01) / 0.01
    np.testing.assert_allclose(slope, expected if y else -expected, rtol=1e-4)


@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("kind", observations.KINDS)
def test_nothing_under_the_mask_changes_a_bit(kind, paper, filler):
    y, logits = make_batch(kind)
    mask = jnp.array([1, 0, 1, 1, 0, 0, 1], bool)

    @jax.jit
    def run(y, logits, log_scale):
        def total(*args):
            return observations.log_prob(kind, *args, mask=mask, paper=paper).sum()

        return jax.value_and_grad(total, (0, 1, 2))(y, logits, log_scale)

    clean = run(y, logits, LOG_SCALE)
    hidden = run(jnp.where(mask[:, None], y, filler), logits, LOG_SCALE)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(hidden), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    assert not clean[1][1][:, ~mask].any()
    out = observations.log_prob(kind, y, logits, LOG_SCALE, mask=mask, paper=paper)
    plain = observations.log_prob(kind, y, logits, LOG_SCALE, paper=paper)
    np.testing.assert_array_equal(out, jnp.where(mask[:, None], plain, 0.0))


def test_a_scale_may_belong_to_a_channel_or_to_a_component():
    y, logits = make_batch("logistic")
    log_scale = jnp.linspace(-3.0, -1.0, K * C).reshape(K, 1, C)
    run = jax.jit(lambda *args: observations.log_prob("logistic", *args))
    each = [run(y, logits[k], log_scale[k, 0]) for k in range(K)]
    np.testing.assert_allclose(run(y, logits, log_scale), jnp.stack(each), rtol=1e-5)
    seen = jnp.arange(N) < 4
    for scale in (log_scale, log_scale[0, 0], log_scale[0, 0, 0]):
        masked = observations.log_prob("logistic", y, logits, scale, mask=seen)
        expected = jnp.where(seen[:, None], run(y, logits, scale), 0.0)
        np.testing.assert_allclose(masked, expected, rtol=1e-5)
    grad = jax.jit(jax.grad(lambda s: run(y, logits, s).sum()))
    each = grad(jnp.full((K, 1, C), -2.0))
    assert each.shape == (K, 1, C)
    np.testing.assert_allclose(grad(jnp.full(C, -2.0)), each.sum((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 0.4, 6.0])
@pytest.mark.parametrize("kind", observations.KINDS)
def test_probabilities_sum_to_one_and_have_the_mean(kind, logit):
    log_scale = -1.5
    if kind == "logistic":
        y = np.arange(256) / 255
        weights = np.ones(256)
    elif kind == "bernoulli":
        y, weights = np.arange(2.0), np.ones(2)
    else:
        y, weights = np.polynomial.legendre.leggauss(200)
        y, weights = (
            (0.5 * (y + 1), 0.5 * weights) if kind != "gaussian" else (logit + y * 2, 2 * weights)
        )
    with jax.enable_x64(True):
        p = np.exp(observations.log_prob(kind, y, jnp.float64(logit), log_scale))
        mean = observations.mean(kind, jnp.float64(logit), log_scale)
    np.testing.assert_allclose(weights @ p, 1.0, rtol=1e-7)
    np.testing.assert_allclose(weights @ (p * y), mean, atol=2e-5)


@pytest.mark.parametrize("kind", observations.KINDS)
def test_samples_are_legal_and_have_the_mean(kind):
    num, logits = 4000, jnp.array([-2.0, 0.3])
    log_scale = jnp.array([-2.0, -1.0])
    draws = observations.sample(
        jax.random.key(1), kind, jnp.broadcast_to(logits, (num, 1, 2)), log_scale
    )
    assert draws.shape == (num, 1, 2)
    observations.check(kind, draws)
    error = 4 * np.std(draws, axis=(0, 1)) / np.sqrt(num)
    expected = observations.mean(kind, logits, log_scale)
    assert (abs(draws.mean((0, 1)) - expected) < error + 2e-5).all()


def test_a_logistic_likelihood_may_have_fewer_levels():
    logit, log_scale, levels = jnp.full(4000, 0.3), jnp.log(0.2), np.arange(17) / 16
    log_prob = observations.log_prob("logistic", levels, 0.3, log_scale, num_levels=17)
    mass = np.exp(log_prob)
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-6)
    draws = observations.sample(jax.random.key(0), "logistic", logit, log_scale, num_levels=17)
    seen = np.bincount(np.round(16 * np.asarray(draws)).astype(int), minlength=17) / 4000
    np.testing.assert_allclose(16 * draws, np.round(16 * draws), atol=1e-5)
    assert (abs(seen - mass) < 4 * np.sqrt(mass * (1 - mass) / 4000)).all()


@pytest.mark.parametrize("kind", observations.KINDS)
def test_gradients_are_finite_at_extreme_logits(kind):
    logits = jnp.array([-1e4, -60.0, 0.0, 60.0, 1e4])[:, None]
    y = jnp.array([0.0, 0.5, 1.0])

    @jax.jit
    def run(logits, log_scale):
        def total(*args):
            likelihood = observations.log_prob(kind, y, *args).sum()
            return likelihood + observations.mean(kind, *args).sum()

        return jax.value_and_grad(total, (0, 1))(logits, log_scale)

    for log_scale in (-9.0, -4.0, 3.0):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(run(logits, log_scale)))


@pytest.mark.parametrize(
    ("kind", "value", "match"),
    [
        ("logistic", 1.5, r"values\[1, 4, 1\] is 1.5 .*'logistic' expects numbers in \[0, 1\]"),
        ("logistic", np.nan, "mask the missing points"),
        ("continuous_bernoulli", -0.1, "use 'gaussian'"),
        ("bernoulli", 0.5, "'bernoulli' expects 0 or 1; threshold"),
        ("gaussian", np.inf, "expects finite numbers"),
    ],
)
def test_check_names_the_first_wrong_value(kind, value, match):
    values = np.zeros((2, N, C))
    observations.check(kind, values)
    values[1, 4, 1] = value
    with pytest.raises(ValueError, match=match):
        observations.check(kind, values)
    mask = np.ones((2, N), bool)
    with pytest.raises(ValueError, match=match):
        observations.check(kind, values, mask)
    mask[1, 4] = False
    observations.check(kind, values, mask)


def test_unknown_kind_suggests_the_near_one():
    with pytest.raises(ValueError, match="'logistik' is unknown; did you mean 'logistic'"):
        observations.mean("logistik", jnp.zeros(2), 0.0)
    with pytest.raises(ValueError, match="use one of logistic, gaussian"):
        observations.log_prob("beta", jnp.zeros(2), jnp.zeros(2), 0.0)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_golden_likelihoods(case):
    stored = np.load(GOLDEN / "function_likelihoods.npz")

    def run(kind, group, function=observations.log_prob, **options):
        y, logits = (jnp.asarray(stored[f"{case}.{group}.{name}"]) for name in ("data", "logits"))
        log_scale = jnp.log(jnp.asarray(stored[f"{case}.logistic.scale"]))
        args = (y, logits) if function is observations.log_prob else (logits,)
        return function(kind, *args, log_scale, **options)

    def close(got, name, tolerance=1e-7):
        np.testing.assert_allclose(got, stored[f"{case}.{name}"], rtol=tolerance, atol=tolerance)

    with jax.enable_x64(True):
        close(run("logistic", "logistic", paper=True), "logistic.logp_ref")
        close(run("logistic", "logistic", observations.mean, paper=True), "logistic.mean")
        group = "continuous_bernoulli"
        close(run(group, group), f"{group}.logp_correct")
        close(run(group, group, observations.mean), f"{group}.mean_correct")
        close(run("bernoulli", "bernoulli"), "bernoulli.logp_ref")
        close(run("bernoulli", "bernoulli", observations.mean), "bernoulli.mean_ref")


def test_best_value_of_the_released_likelihood():
    # -4.629 nats a channel: the scale is 0.1 and not learned
    best = observations.log_prob("logistic", 0.5, 0.0, jnp.log(0.1), paper=True)
    np.testing.assert_allclose(best, -4.6289, atol=1e-4)
