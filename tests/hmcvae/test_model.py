import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvae import likelihoods
from hmcvae.columns import Column, Schema
from hmcvae.model import HVAE, Rows
from tests.hmcvae import affine
from tests.hmcvae.test_hierarchy import load

MIXED = Schema(
    (
        Column("g", "gaussian"),
        Column("c", "categorical", 4),
        Column("b", "bernoulli"),
        Column("l", "loggaussian"),
    )
)
TARGET = Schema((Column("y", "categorical", 3),))


def reals(num, prefix="x"):
    return Schema(tuple(Column(f"{prefix}{i}", "gaussian") for i in range(num)))


def mixed_rows(n=7, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[:, 1], x[:, 2] = rng.integers(0, 4, n), rng.integers(0, 2, n)
    mask = rng.random((n, 4)) > 0.4
    z = np.where(mask, rng.normal(size=(n, 4)), 0.0).astype(np.float32)
    y = rng.integers(0, 3, (n, 1)).astype(np.float32)
    y_mask = rng.random((n, 1)) > 0.4
    mask[0], y_mask[0] = False, False
    return jax.tree.map(jnp.asarray, Rows(x, mask, z, y, y_mask))


def mixed_model(paper=False, layer_sizes=(3, 2), **options):
    options = {"end_to_end": not paper, "learn_variance": not paper} | options
    model = HVAE(MIXED, TARGET, layer_sizes, 8, 6, paper=paper, **options)
    return model, model.init(jax.random.key(0), mixed_rows())["params"]


def golden_model(g, paper):
    """The reference's affine decoder and predictor, emulated exactly by the ReLU networks."""
    d, p, hidden = g["x"].shape[1], g["y"].shape[1], 16
    sizes = tuple(int(n) for n in g["dims"])
    model = HVAE(
        reals(d), reals(p, "y"), sizes, hidden, 2,
        variance=float(g["variance"]), learn_variance=False, paper=paper,
        end_to_end=not paper,
    )  # fmt: skip
    hierarchy = {}
    for i in range(len(sizes) - 1):
        weights = [g[f"prior{i}_{k}"] for k in ("w0", "b0", "w1", "b1")]
        hierarchy[f"prior{i}"] = affine.relu_mlp(*weights, hidden)
    params = {
        "marginal": affine.identity_marginals(d, 2),
        "hierarchy": hierarchy,
        "decoder": affine.mlp(g["decoder_w"], g["decoder_b"], hidden),
        "predictor": affine.mlp(g["predictor_w"], g["predictor_b"], hidden),
    }
    mask, y_mask = g["mask_x"].astype(bool), g["mask_y"].astype(bool)
    rows = Rows(*(jnp.asarray(a) for a in (g["x"], mask, g["x"], g["y"], y_mask)))
    return model, params, rows


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
@pytest.mark.parametrize(("paper", "name"), [(True, "ref"), (False, "correct")])
def test_log_joint_and_score_match_the_reference(case, paper, name):
    with jax.enable_x64(True):
        g = load("hhvaem_hierarchy", f"{case}.target")
        model, params, rows = golden_model(g, paper)

        def log_joint(eps, rows):
            return model.apply({"params": params}, eps, rows, method="log_joint").total()

        chains = jax.vmap(jax.value_and_grad(log_joint), in_axes=(0, None))
        value, score = jax.jit(jax.vmap(chains))(jnp.asarray(g["eps"]), rows)
        np.testing.assert_allclose(value, g[f"logp_{name}"], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(score, g[f"score_{name}"], rtol=1e-6, atol=1e-8)


def linear_gaussian(num_columns=3, num_latents=2, seed=3, variance=0.1):
    """One latent layer, z = x, affine decoder: posterior and evidence in closed form."""
    rng = np.random.default_rng(seed)
    weight = 0.7 * rng.normal(size=(num_columns, num_latents))
    bias = rng.normal(size=num_columns)
    hidden = 2 * num_columns
    model = HVAE(
        reals(num_columns), reals(1, "y"), (num_latents,), hidden, 2,
        variance=variance, learn_variance=False,
    )  # fmt: skip
    blank = jnp.zeros((1, num_columns))
    rows = Rows(blank, blank > 0, blank, jnp.zeros((1, 1)), jnp.zeros((1, 1), bool))
    params = model.init(jax.random.key(seed), rows)["params"]
    params["marginal"] = affine.identity_marginals(num_columns, 2)
    params["decoder"] = affine.mlp(weight, bias, hidden)
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    return model, params, weight, bias


def exact_posterior(x, mask, weight, bias, variance):
    """Mean and covariance of eps and log p(x_O) of the linear-Gaussian model."""
    w = weight[mask]
    precision = np.eye(weight.shape[1]) + w.T @ w / variance
    cov = np.linalg.inv(precision)
    mean = cov @ w.T @ (x[mask] - bias[mask]) / variance
    sigma = w @ w.T + variance * np.eye(mask.sum())
    r = x[mask] - bias[mask]
    quadratic = r @ np.linalg.solve(sigma, r)
    log_evidence = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * sigma)[1])
    return mean, cov, log_evidence


def test_linear_gaussian_log_joint_has_the_exact_posterior_and_evidence():
    model, params, weight, bias = linear_gaussian()
    x, mask = np.array([0.4, -1.0, 0.7]), np.array([True, False, True])
    mean, cov, log_evidence = exact_posterior(x, mask, weight, bias, 0.1)
    row = Rows(jnp.asarray(x), jnp.asarray(mask), jnp.asarray(x), None, None)

    @jax.jit
    def log_joint(eps):
        return model.apply({"params": params}, eps, row, method="log_joint").total()

    np.testing.assert_allclose(jax.grad(log_joint)(jnp.asarray(mean)), 0.0, atol=1e-4)
    hessian = jax.hessian(log_joint)(jnp.asarray(mean))
    np.testing.assert_allclose(hessian, -np.linalg.inv(cov), rtol=1e-4, atol=1e-4)
    # log p(x) = log p(x, eps) - log p(eps | x) at any eps
    at_mean = log_joint(jnp.asarray(mean)) + 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
    np.testing.assert_allclose(at_mean, log_evidence, rtol=1e-5)


@pytest.mark.parametrize("paper", [True, False])
@pytest.mark.parametrize("marginals", [True, False])
def test_nothing_under_the_masks_can_matter(paper, marginals):
    model, params = mixed_model(paper, marginals=marginals)
    rows = mixed_rows()
    eps = jax.random.normal(jax.random.key(2), (7, 5))

    def value(params, eps, rows):
        mean, log_var = model.apply({"params": params}, rows, method="encode")
        joint = model.apply({"params": params}, eps, rows, method="log_joint")
        return jnp.sum(joint.total()) + jnp.sum(mean) + jnp.sum(log_var)

    value_and_grad = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
    clean = value_and_grad(params, eps, rows)
    for junk in (np.nan, np.inf, 3.0):
        spoiled = rows._replace(
            x=jnp.where(rows.mask, rows.x, junk),
            z=jnp.where(rows.mask, rows.z, junk),
            y=jnp.where(rows.y_mask, rows.y, junk),
        )
        jax.tree.map(np.testing.assert_array_equal, clean, value_and_grad(params, eps, spoiled))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(clean))


@pytest.mark.parametrize("marginals", [True, False])
def test_batch_equals_one_row_at_a_time(marginals):
    model, params = mixed_model(marginals=marginals)
    rows = mixed_rows()
    eps = jax.random.normal(jax.random.key(2), (7, 5))
    apply = lambda eps, rows: model.apply({"params": params}, eps, rows, method="log_joint").total()
    together = apply(eps, rows)
    alone = jnp.stack([apply(eps[i], jax.tree.map(lambda a: a[i], rows)) for i in range(7)])  # noqa: B023
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_hidden_target_and_absent_target_are_the_same_model():
    model, params = mixed_model()
    rows = mixed_rows()
    hidden = rows._replace(y_mask=jnp.zeros_like(rows.y_mask))
    absent = rows._replace(y=None, y_mask=None)
    eps = jax.random.normal(jax.random.key(2), (7, 5))
    for method, args in (("encode", ()), ("log_joint", (eps,))):
        a = model.apply({"params": params}, *args, hidden, method=method)
        b = model.apply({"params": params}, *args, absent, method=method)
        jax.tree.map(np.testing.assert_array_equal, tuple(a), tuple(b))


def test_prior_is_kept_for_empty_rows_and_dropped_only_on_request():
    rows = mixed_rows()
    eps = jnp.ones((7, 5))
    for paper in (False, True):
        model, params = mixed_model(paper)
        joint = model.apply({"params": params}, eps, rows, method="log_joint")
        total = joint.total()[0]
        assert (total == 0) == paper
        if not paper:
            np.testing.assert_allclose(total, -0.5 * 5 * (1 + np.log(2 * np.pi)), rtol=1e-6)


def test_prediction_sees_observed_values_and_the_models_expectation_elsewhere():
    model, params = mixed_model()
    rows = mixed_rows()
    h, theta = jnp.zeros((7, 3)), jax.random.normal(jax.random.key(1), (7, 4, 4))
    base = model.apply({"params": params}, rows, h, theta, method="predict")
    assert base.shape == (7, 1, 3)
    for i in range(4):
        other = theta.at[:, i, 0].add(1.0)
        moved = model.apply({"params": params}, rows, h, other, method="predict")
        changed = np.any(moved != base, axis=(1, 2))
        np.testing.assert_array_equal(changed, ~np.asarray(rows.mask[:, i]))


def test_end_to_end_density_is_that_of_x_at_the_decoders_z():
    model, params = mixed_model()
    rows = mixed_rows()
    eps = jax.random.normal(jax.random.key(2), (7, 5))
    apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
    _, z = apply("decode", eps)
    theta = apply(lambda m, z: m.marginal.decode(z), z)
    log_var = jnp.logaddexp(params["marginal"]["raw_log_var"], np.log(1e-3))
    expected = likelihoods.log_prob(MIXED, theta, rows.x, rows.mask, log_var=log_var)
    joint = apply("log_joint", eps, rows)
    np.testing.assert_allclose(joint.x, expected.sum(axis=-1), rtol=1e-6)
    # z reaches the encoder only, and has no noise
    other = apply("log_joint", eps, rows._replace(z=rows.z + 1.0))
    np.testing.assert_array_equal(joint.x, other.x)
    np.testing.assert_array_equal(apply("decode_columns", z, jnp.ones((7, 4))), theta)

    published, params = mixed_model(end_to_end=False)
    assert "raw_log_var_z" in params
    joint = published.apply({"params": params}, eps, rows, method="log_joint")
    other = published.apply(
        {"params": params}, eps, rows._replace(x=rows.x + 1.0), method="log_joint"
    )
    np.testing.assert_array_equal(joint.x, other.x)


def test_plain_model_has_the_likelihood_of_every_column_and_no_marginals():
    model, params = mixed_model(marginals=False)
    assert set(params) == {
        "encoder", "hierarchy", "decoder", "predictor", "raw_log_var_x", "raw_log_var_y"
    }  # fmt: skip
    rows = mixed_rows()._replace(z=None)
    eps = jax.random.normal(jax.random.key(2), (7, 5))
    apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
    assert apply("extract", jax.random.key(0), rows.x, rows.mask) is None
    h, theta = apply("decode", eps)
    assert (h.shape, theta.shape) == ((7, 3), (7, 4, 4))
    np.testing.assert_array_equal(apply("decode_columns", theta, jnp.ones((7, 4))), theta)
    log_var = jnp.logaddexp(params["raw_log_var_x"], np.log(1e-3))
    expected = likelihoods.log_prob(MIXED, theta, rows.x, rows.mask, log_var=log_var)
    joint = apply("log_joint", eps, rows)
    np.testing.assert_allclose(joint.x, expected.sum(axis=-1), rtol=1e-6)


def test_plain_model_of_reals_is_the_mixed_one_with_marginals_that_change_nothing():
    model, params, *_ = linear_gaussian()
    plain = model.clone(marginals=False)
    others = {name: value for name, value in params.items() if name != "marginal"}
    x, mask = jnp.array([0.4, -1.0, 0.7]), jnp.array([True, False, True])
    z = model.apply({"params": params}, jax.random.key(0), x, mask, method="extract")
    mixed_row, row = (Rows(x, mask, v, jnp.zeros(1), jnp.ones(1, bool)) for v in (z, None))
    eps = jnp.array([0.3, -0.8])
    for method, args in (("encode", ()), ("log_joint", (eps,))):
        expected = model.apply({"params": params}, *args, mixed_row, method=method)
        ours = plain.apply({"params": others}, *args, row, method=method)
        compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        jax.tree.map(compare, tuple(ours), tuple(expected))


def test_ablation_has_the_density_of_the_same_model_in_other_coordinates():
    """log p(x, y, h(eps)) = log p(x, y, eps) - log |dh / deps|, three layers."""
    model, params = mixed_model(layer_sizes=(3, 2, 2))
    ablation = model.clone(reparameterised=False)
    row = jax.tree.map(lambda a: a[3], mixed_rows())
    apply = lambda m, method, *args: m.apply({"params": params}, *args, method=method)
    to_layers = lambda eps: jnp.concatenate(apply(model, lambda m, eps: m.hierarchy(eps), eps))
    eps = jax.random.normal(jax.random.key(2), (7,))
    _, log_det = jnp.linalg.slogdet(jax.jacfwd(to_layers)(eps))
    expected = apply(model, "log_joint", eps, row)
    ours = apply(ablation, "log_joint", to_layers(eps), row)
    np.testing.assert_allclose(ours.total(), expected.total() - log_det, rtol=1e-4)
    np.testing.assert_allclose((ours.x, ours.y), (expected.x, expected.y), rtol=1e-4)


def test_images_go_through_convolutions_row_by_row():
    pixels = Schema(tuple(Column(f"x{i}", "bernoulli") for i in range(784)))
    model = HVAE(pixels, TARGET, (4, 2), 16, marginals=False, networks="mnist")
    rng = np.random.default_rng(0)
    x, mask = (rng.random((3, 784)) > 0.5).astype(np.float32), rng.random((3, 784)) > 0.5
    y = np.array([[0.0], [2.0], [1.0]], np.float32)
    rows = jax.tree.map(jnp.asarray, Rows(x, mask, None, y, np.ones((3, 1), bool)))
    params = model.init(jax.random.key(0), model.blank_row())["params"]
    assert {"features", "encoder", "decoder"} <= set(params)

    @jax.jit
    def run(rows):
        mean, log_var = model.apply({"params": params}, rows, method="encode")
        joint = model.apply({"params": params}, mean, rows, method="log_joint")
        return mean, log_var, joint.x, joint.y

    order = jnp.array([2, 0, 1])
    expected = jax.tree.map(lambda a: a[order], run(rows))
    spoiled = rows._replace(x=jnp.where(rows.mask, rows.x, jnp.nan))
    moved = run(jax.tree.map(lambda a: a[order], spoiled))
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, moved, expected)
