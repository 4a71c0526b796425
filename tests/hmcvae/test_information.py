import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from hmcvae import information
from tests.hmcvae.test_hierarchy import load


def gaussian_pairs(rho, shape, seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, *shape))
    return jnp.asarray(x), jnp.asarray(rho * x + np.sqrt(1 - rho**2) * noise)


def of_equal_count(x, y, bins):
    levels = information.equal_count(x, bins), information.equal_count(y, bins)
    return information.plug_in(*levels, bins, bins)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_published_estimator_and_its_repair_match_the_reference(case):
    tolerance = dict(rtol=1e-9, atol=1e-10)
    with jax.enable_x64(True):
        g = load("hhvaem_mutual_information", case)
        levels = information.equal_width(jnp.asarray(g["quantise.data"]), int(g["quantise.bins"]))
        np.testing.assert_array_equal(levels, g["quantise.index_ref"])
        for group in ("target_1d", "target_categorical", "target_2d", "constant_feature"):
            x, bins = jnp.asarray(g[f"{group}.x"]), int(g[f"{group}.bins"])
            y = jnp.moveaxis(jnp.asarray(g[f"{group}.y"]), -1, -2)[:, None]
            found = information.published(x, y, bins)
            np.testing.assert_allclose(found, g[f"{group}.mi_ref"], **tolerance)
        group = "target_2d"
        x, y = jnp.asarray(g[f"{group}.x"]), jnp.moveaxis(jnp.asarray(g[f"{group}.y"]), -1, -2)
        for num, name in ((5, "full_grid"), (2, "sqrt_levels")):
            joint, num_y = information.join(information.equal_width(y, num), (num, num))
            found = information.plug_in(information.equal_width(x, 5), joint[:, None], 5, num_y)
            np.testing.assert_allclose(found, g[f"{group}.mi_correct_{name}"], **tolerance)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_gaussian_reward_matches_the_reference(case):
    with jax.enable_x64(True):
        g = load("hhvaem_mutual_information", f"{case}.kl_reward")
        names = ("xi_o", "o", "xi_o_y", "o_y")
        posteriors = [(jnp.asarray(g[f"mu_{n}"]), jnp.asarray(g[f"logvar_{n}"])) for n in names]
        found = information.gaussian_reward(*posteriors).mean(axis=(1, 2))
        np.testing.assert_allclose(found, g["reward_ref"], rtol=1e-9, atol=1e-10)


def test_printed_values_of_the_published_estimator():
    with jax.enable_x64(True):
        s = np.arange(200.0)
        x, y = jnp.asarray(np.sin(s)), jnp.asarray(np.sin(s) + 0.3 * np.cos(3 * s))
        both = jnp.stack([y, jnp.asarray(np.cos(s))])
        published = lambda x, y, bins: float(information.published(x, jnp.atleast_2d(y), bins))
        found = [published(x, y, 5), published(x, y, 7), published(x, both, 5)]
        found.append(published(jnp.asarray(np.floor(3 * s / 200)), y, 5))
        np.testing.assert_allclose(found, [0.912385, 1.105669, 0.201818, 0.003352], atol=1e-6)


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_histogram_of_gaussians_has_the_information_of_the_cells(rho):
    """Cells keep less than -1/2 log(1 - rho^2); what they keep, their probabilities tell."""
    bins, num = 6, 20_000
    edges = norm.ppf(np.linspace(0, 1, bins + 1)).clip(-9, 9)
    grid = np.stack(np.meshgrid(edges, edges, indexing="ij"), axis=-1)
    cdf = multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf(grid)
    cells = np.diff(np.diff(cdf, axis=0), axis=1).clip(1e-12)
    kept = np.sum(cells * np.log(cells * bins**2))
    assert kept < -0.5 * np.log(1 - rho**2)
    found = np.asarray(of_equal_count(*gaussian_pairs(rho, (30, num)), bins))
    bias = (bins - 1) ** 2 / (2 * num)
    error = 4 * found.std() / np.sqrt(len(found))
    assert abs(found.mean() - bias - kept) < error
    fine = of_equal_count(*gaussian_pairs(rho, (200_000,)), 40)
    np.testing.assert_allclose(fine, -0.5 * np.log(1 - rho**2), atol=0.02)


def test_information_of_a_table_of_two_classes():
    p = np.array([[0.3, 0.1, 0.05], [0.05, 0.1, 0.4]])
    exact = np.sum(p * np.log(p / np.outer(p.sum(1), p.sum(0))))
    cell = np.random.default_rng(0).choice(6, size=(40, 4000), p=p.ravel())
    x, y = jnp.asarray(cell // 3), jnp.asarray(cell % 3)
    for found in (
        information.mutual_information(x, y, 2, 3),
        information.plug_in(x, y, 2, 3) - 2 / 8000,
        information.kraskov(
            x[:5, :400] * 1.0, y[:5, None, :400] * 1.0,
            is_discrete_x=True, is_discrete_y=np.array([True]),
        ),
    ):  # fmt: skip
        found = np.asarray(found)
        error = 4 * found.std() / np.sqrt(len(found)) + 0.002
        assert abs(found.mean() - exact) < error


@pytest.mark.parametrize("num_targets", [1, 2, 3])
def test_independent_variables_have_none_after_correction(num_targets):
    num, bins = 100, 5
    rng = np.random.default_rng(num_targets)
    x = information.equal_count(jnp.asarray(rng.normal(size=(2000, num))), bins)
    y = information.equal_count(jnp.asarray(rng.normal(size=(2000, num_targets, num))), bins)
    y, num_y = information.join(y, (bins,) * num_targets)
    plain = np.asarray(information.plug_in(x, y, bins, num_y))
    corrected = np.asarray(information.mutual_information(x, y, bins, num_y))
    assert abs(corrected.mean()) < 4 * corrected.std() / np.sqrt(2000)
    assert plain.mean() > 0.06


def test_correction_leaves_no_more_than_the_bias_of_dependent_variables():
    x, y = gaussian_pairs(0.6, (400, 200))
    found = information.mutual_information(
        information.equal_count(x, 6), information.equal_count(y, 6), 6, 6
    )
    many = of_equal_count(*gaussian_pairs(0.6, (100_000,)), 6)
    assert abs(float(found.mean() - many)) < 0.02
    assert float(of_equal_count(x, y, 6).mean() - many) > 0.04


def test_several_targets_are_symmetric_and_never_tell_less_than_one():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 150))
    y = np.stack([x + rng.normal(size=x.shape), rng.normal(size=x.shape), x**2], axis=1)
    x, y = (information.equal_count(jnp.asarray(v), 5) for v in (x, y))

    def of(*targets):
        joint, num_y = information.join(y[:, list(targets)], (5,) * len(targets))
        return np.asarray(information.plug_in(x, joint, 5, num_y))

    np.testing.assert_allclose(of(0, 1), of(1, 0), rtol=1e-5)
    np.testing.assert_allclose(of(0, 1, 2), of(2, 0, 1), rtol=1e-5)
    assert np.all(of(0, 1) >= np.maximum(of(0), of(1)) - 1e-6)
    assert np.all(of(0, 1, 2) >= of(0, 1) - 1e-6)


def test_joined_levels_name_the_cells_of_the_grid():
    levels = jnp.asarray(np.random.default_rng(0).integers(0, 4, (3, 5, 30)))
    joint, num = information.join(levels, (4,) * 5)
    assert num == 30
    assert 0 <= int(joint.min()) <= int(joint.max()) < num
    for row, cells in zip(np.asarray(joint), np.asarray(levels), strict=True):
        same = (cells[:, :, None] == cells[:, None, :]).all(axis=0)
        np.testing.assert_array_equal(row[:, None] == row, same)


def test_levels_of_equal_count_do_not_depend_on_units():
    v = jnp.asarray(np.random.default_rng(0).normal(size=(4, 61)))
    levels = information.equal_count(v, 7)
    np.testing.assert_array_equal(levels, information.equal_count(jnp.exp(3 * v) - 5, 7))
    counts = np.array([np.bincount(row, minlength=7) for row in np.asarray(levels)])
    assert counts.min() == 8
    assert counts.max() == 9


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_nearest_neighbours_find_the_information_of_gaussians(rho):
    x, y = gaussian_pairs(rho, (100, 200))
    found = np.asarray(
        information.kraskov(
            x, 1000.0 * y[:, None], is_discrete_x=False, is_discrete_y=np.array([False])
        )
    )
    error = 4 * found.std() / 10
    assert abs(found.mean() + 0.5 * np.log(1 - rho**2)) < error + 0.01


def test_nearest_neighbours_of_a_class_and_a_real_and_of_two_targets():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (100, 200))
    y = rng.normal(size=label.shape) + 2.0 * label
    grid = np.linspace(-8, 10, 4001)
    parts = norm.pdf(grid[:, None], [0.0, 2.0])
    mixed = parts.mean(axis=1)
    exact = np.trapezoid((parts * np.log(parts / mixed[:, None])).mean(axis=1), grid)
    targets = np.stack([y, rng.normal(size=y.shape)], axis=1)  # the second tells nothing
    for chosen, slack in ((targets[:, :1], 0.02), (targets, 0.06)):
        found = information.kraskov(
            jnp.asarray(label * 7.0), jnp.asarray(chosen),
            is_discrete_x=True, is_discrete_y=np.zeros(chosen.shape[1], bool),
        )  # fmt: skip
        assert abs(float(found.mean()) - exact) < slack


def test_exact_gaussian_posteriors_give_the_information_on_the_target():
    """h ~ N(0, 1), x = w h + e, y = a h + e: the mean reward is I(x; y)."""
    w, a, v, num = 1.3, 0.9, 0.5, 100_000
    rng = np.random.default_rng(0)
    h = rng.normal(size=num)
    x, y = (k * h + np.sqrt(v) * rng.normal(size=num) for k in (w, a))

    def posterior(*seen):
        precision = 1 + sum(k**2 for k, _ in seen) / v
        mean = sum(k * value for k, value in seen) / v / precision + np.zeros(num)
        return jnp.asarray(mean)[:, None], jnp.full((num, 1), -np.log(precision))

    seen_x, seen_y = (w, x), (a, y)
    found = np.asarray(
        information.gaussian_reward(
            posterior(seen_x), posterior(), posterior(seen_x, seen_y), posterior(seen_y)
        )
    )
    rho = w * a / np.sqrt((w**2 + v) * (a**2 + v))
    assert abs(found.mean() + 0.5 * np.log(1 - rho**2)) < 4 * found.std() / np.sqrt(num)


def test_three_targets_are_refused_where_the_published_estimator_knows_none():
    with pytest.raises(ValueError, match="knows 1 or 2"):
        information.published(jnp.zeros(9), jnp.zeros((3, 9)), 5)
