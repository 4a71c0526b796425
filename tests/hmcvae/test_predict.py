import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import columns, likelihoods, objectives, predict
from hmcvae.columns import Column, Schema
from hmcvae.posterior import init_hmc
from tests.hmcvae.test_hierarchy import load
from tests.hmcvae.test_model import exact_posterior, linear_gaussian, mixed_model, mixed_rows


def reduce(logs, missing):
    """Paper score, joint and marginal log probabilities per missing column, means over rows."""
    count = missing.sum(axis=1)
    has = count > 0
    joint = predict.log_mean_exp(logs["joint_x"]) / np.maximum(count, 1)
    marginal = np.where(missing, predict.log_mean_exp(logs["marginal_x"]), 0).sum(axis=1)
    return (
        np.mean(predict.log_mean_exp(logs["paper_x"])[has]),
        np.mean(joint[has]),
        np.mean((marginal / np.maximum(count, 1))[has]),
    )


KINDS = {
    "plain.x_gaussian.y_gaussian": ("gaussian", "gaussian"),
    "plain.x_bernoulli.y_categorical": ("bernoulli", "categorical"),
    "plain.x_gaussian.y_bernoulli": ("gaussian", "bernoulli"),
}


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
@pytest.mark.parametrize("group", KINDS)
def test_scores_of_one_likelihood_for_all_match_the_reference(case, group):
    with jax.enable_x64(True):
        g = load("hhvaem_metrics", f"{case}.{group}")
        kind_x, kind_y = KINDS[group]
        classes = g["theta_y"].shape[-1] if kind_y == "categorical" else 1
        schema = Schema(tuple(Column(f"x{i}", kind_x) for i in range(g["x"].shape[1])))
        num_y = g["y"].shape[1]
        target = Schema(tuple(Column(f"y{i}", kind_y, classes) for i in range(num_y)))
        theta_x = np.moveaxis(g["theta_x"], 1, 0)[..., None]  # [S, B, D, 1]
        theta_y = np.moveaxis(g["theta_y"], 1, 0)
        theta_y = theta_y[:, :, None, :] if kind_y == "categorical" else theta_y[..., None]
        shown, log_var = g["mask"].astype(bool), np.log(float(g["variance"]))
        everything = np.ones_like(shown)
        lp_x = likelihoods.log_prob(schema, theta_x, g["x"], everything, log_var=log_var)
        y, known_y = g["y"], np.ones(g["y"].shape, bool)
        if kind_y == "gaussian":  # stored in raw units
            scaler = columns.Scaler(g["mean_y"][0], g["std_y"][0])
            y = columns.transform(target, scaler, y, known_y)
        lp = lambda w: likelihoods.log_prob(
            target, theta_y, y, known_y, log_var=log_var, pos_weight=w
        )
        weight = np.full(num_y, g["pos_weight_y"])
        logs = predict.row_log_scores(lp_x, lp_x, ~shown, shown)
        paper, joint, marginal = reduce(logs, ~shown)
        np.testing.assert_allclose(paper, g["ll_xu_ref"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(joint, g["ll_xu_joint_correct"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(marginal, g["ll_xu_marginal_correct"], rtol=1e-6, atol=1e-6)
        y_paper, y_proper = (predict.log_mean_exp(lp(w).sum(axis=-1)) for w in (weight, None))
        np.testing.assert_allclose(y_paper.mean(), g["ll_y_ref"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(y_proper.mean(), g["ll_y_correct"], rtol=1e-6, atol=1e-6)
        if kind_y == "gaussian":
            jacobian = likelihoods.log_jacobian(target, scaler, g["y"]).sum(axis=-1)
            raw = (y_proper + jacobian).mean()
            np.testing.assert_allclose(raw, g["ll_y_original_units_correct"], rtol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_scores_of_mixed_columns_match_the_reference(case):
    with jax.enable_x64(True):
        g = load("hhvaem_metrics", f"{case}.mixed")
        schema = Schema(
            (
                Column("a", "gaussian"),
                Column("b", "loggaussian"),
                Column("c", "categorical", 3),
                Column("d", "bernoulli"),
                Column("e", "gaussian"),
            )
        )
        z = np.moveaxis(g["z"], 1, 0)  # [S, B, D]
        theta = np.zeros((*z.shape, 3))
        for i in range(5):
            out = z[..., i, None] @ g[f"weight{i}"].T + g[f"bias{i}"]
            theta[..., i, : out.shape[-1]] = out
        shown, log_var = g["mask"].astype(bool), np.log(float(g["variance"]))
        everything = np.ones_like(shown)
        lp = lambda w: likelihoods.log_prob(
            schema, theta, g["x"], everything, log_var=log_var, pos_weight=w
        )
        weighted, proper = lp(np.full(5, g["pos_weight"])), lp(None)
        logs = predict.row_log_scores(weighted, proper, ~shown, shown)
        paper, joint, marginal = reduce(logs, ~shown)
        np.testing.assert_allclose(paper, g["ll_xu_ref"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(joint, g["ll_xu_joint_correct"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(marginal, g["ll_xu_marginal_correct"], rtol=1e-6, atol=1e-6)


def test_printed_values_of_the_three_definitions():
    density = np.log(np.array([[[0.1, 0.2, 0.4]], [[0.3, 0.3, 0.2]]]))
    missing = np.ones((1, 3), bool)
    logs = predict.row_log_scores(density, density, missing, ~missing)
    expected = (-1.465177, -1.447602, -1.399902)
    np.testing.assert_allclose(reduce(logs, missing), expected, rtol=1e-6)


@pytest.mark.parametrize("num_missing", [1, 4])
def test_paper_score_is_never_above_the_joint(num_missing):
    rng = np.random.default_rng(num_missing)
    density = rng.normal(size=(6, 9, 4)) * 2
    missing = np.arange(4) < num_missing
    missing = np.broadcast_to(missing, (9, 4))
    logs = predict.row_log_scores(density, density, missing, ~missing)
    paper = predict.log_mean_exp(logs["paper_x"])
    joint = predict.log_mean_exp(logs["joint_x"]) / num_missing
    assert np.all(paper <= joint + 1e-6)
    if num_missing == 1:
        np.testing.assert_allclose(paper, joint, rtol=1e-5)


SCHEDULE = objectives.Schedule(num_leapfrog=5)
IW = SCHEDULE._replace(bound="iw", num_proposals=300)


def test_imputation_keeps_observed_entries_bit_for_bit_and_hidden_values_out():
    model, params = mixed_model()
    params = {**params, "hmc": init_hmc(jax.random.key(5), model, 2)}
    rows = mixed_rows()
    scaler = columns.Scaler(jnp.array([0.3, 0, 0, 1.0]), jnp.array([2.0, 1, 1, 0.5]))
    x = rows.x.at[:, 3].set(jnp.abs(rows.x[:, 3]))

    @jax.jit
    def impute(x):
        return predict.impute(
            jax.random.key(1), model, params, scaler, x, rows.mask,
            num_samples=3, schedule=SCHEDULE,
        )  # fmt: skip

    out = impute(x)
    assert out.shape == (3, 7, 4)
    seen = np.broadcast_to(rows.mask, out.shape)
    np.testing.assert_array_equal(out[seen], np.broadcast_to(x, out.shape)[seen])
    np.testing.assert_array_equal(out, impute(jnp.where(rows.mask, x, jnp.nan)))
    assert set(np.unique(out[..., 1])) <= {0, 1, 2, 3}
    assert set(np.unique(out[..., 2])) <= {0, 1}
    assert np.all(out[..., 3][~seen[..., 3]] >= 0)


def test_scores_do_not_see_what_they_score():
    """Averages and acceptance are the same whatever the hidden truth is; log scores are not."""
    model, params = mixed_model()
    params = {**params, "hmc": init_hmc(jax.random.key(5), model, 2)}
    rows = mixed_rows()
    known = jnp.ones_like(rows.mask)
    scaler = columns.Scaler(jnp.zeros(4), jnp.ones(4))
    scaler_y = columns.Scaler(jnp.zeros(1), jnp.ones(1))

    @jax.jit
    def run(x, y):
        test = predict.TestRows(x, rows.mask, known, y, jnp.ones_like(rows.y_mask))
        return predict.score(
            jax.random.key(0), model, params, scaler, scaler_y, test,
            num_samples=6, chunk=3, schedule=SCHEDULE,
        )  # fmt: skip

    a = run(rows.x, rows.y)
    b = run(jnp.where(rows.mask, rows.x, 1.0), (rows.y + 1) % 3)
    for name in ("x_mean", "theta", "probs", "y_mean", "y_probs", "acceptance"):
        np.testing.assert_array_equal(a[name], b[name])
    assert np.any(a["joint_x"] != b["joint_x"])
    assert np.any(a["joint_y"] != b["joint_y"])


def run_score(key, model, params, rows, *, schedule, **options):
    plain = lambda schema: columns.Scaler(
        jnp.zeros(schema.num_columns), jnp.ones(schema.num_columns)
    )
    return predict.score(
        key, model, params, plain(model.schema), plain(model.target), rows,
        schedule=schedule, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_scores_of_exact_posteriors_are_exact():
    """Importance resampling and HMC both give log p(x_U | x_O) of the linear-Gaussian model."""
    model, params, weight, bias = linear_gaussian()
    model = model.clone(marginals=False)
    mask = np.array([True, False, False])
    mean, *_ = exact_posterior(np.full(3, 0.4), mask, weight, bias, 0.1)
    x = np.where(mask, 0.4, weight @ mean + bias + 0.3).astype(np.float32)
    everything, seen = (exact_posterior(x, m, weight, bias, 0.1)[2] for m in (mask | True, mask))
    none = jnp.zeros((1, 1))
    batch = jnp.asarray(x)[None], jnp.asarray(mask)[None]
    rows = predict.TestRows(*batch, jnp.ones((1, 3), bool), none, none > 0)
    steps = {"log_step_size": jnp.log(jnp.full((20, 2), 0.18)), "log_inflation": jnp.zeros(1)}
    for schedule, group in ((IW, {}), (SCHEDULE, {"hmc": steps})):
        run = lambda key, params: run_score(
            key,
            model,
            params,
            rows,
            num_samples=3000,
            chunk=1000,
            schedule=schedule,  # noqa: B023
        )
        ours = jax.jit(run)(jax.random.key(0), {**params, **group})["joint_x"][0]
        np.testing.assert_allclose(ours, everything - seen, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "schedule"),
    [({}, SCHEDULE), ({"marginals": False}, IW._replace(num_proposals=3))],
    ids=["mixed by HMC", "plain by importance"],
)
def test_chunks_decide_about_memory_only(options, schedule):
    model, params = mixed_model(**options)
    if not options:
        params = {**params, "hmc": init_hmc(jax.random.key(5), model, 2)}
    rows = mixed_rows()
    known, y_known = jnp.ones_like(rows.mask), jnp.ones_like(rows.y_mask)
    test = predict.TestRows(rows.x, rows.mask, known, rows.y, y_known)

    def run(chunk):
        run = lambda key: run_score(
            key, model, params, test, num_samples=6, chunk=chunk, schedule=schedule, num_draws=6
        )
        return jax.jit(run)(jax.random.key(0))

    whole = run(6)
    assert whole["x_draws"].shape == (7, 6, 4)
    assert whole["y_draws"].shape == (7, 6, 1)
    np.testing.assert_allclose(whole["x_draws"].mean(axis=1), whole["x_mean"], rtol=1e-5, atol=1e-6)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    jax.tree.map(compare, run(2), whole)


def test_plain_models_have_nothing_to_plug_in():
    model, params = mixed_model(marginals=False)
    rows = mixed_rows()
    eps = jax.random.normal(jax.random.key(1), (2, 7, 5))
    out = predict.decode_posterior(jax.random.key(0), model, params, rows.x, rows.mask, eps)
    np.testing.assert_array_equal(out.theta, out.theta_plugin)


def test_scaled_odds_do_best_on_the_weighted_score_of_what_the_model_believes():
    model, _ = mixed_model()
    belief, weight = 0.2, 7.0
    theta = jnp.full((1, 4, 4), np.log(belief / (1 - belief)))
    pos_weight = jnp.array([1.0, 1.0, weight, 1.0])
    report = predict.scale_odds(model.schema, theta, pos_weight)
    only = np.array(model.schema.kinds) == "bernoulli"
    np.testing.assert_array_equal(report[:, ~only], theta[:, ~only])

    def expected_score(logit):  # of the weighted Bernoulli log score, under the belief
        one, zero = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
        return belief * weight * one + (1 - belief) * zero

    np.testing.assert_allclose(jax.grad(expected_score)(report[0, 2, 0]), 0.0, atol=1e-6)
