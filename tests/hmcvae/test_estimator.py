"""The estimators: scikit-learn's own checks, tables in and out, and what they answer."""

import collections
import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from hmcvae import exemplars, fitting, sample_scores, tails
from hmcvae.estimator import HHVAEClassifier, HHVAEImputer, HHVAERegressor
from hmcvae.predictive import Predictive

TINY = dict(hidden=8, layer_sizes=(2,), max_steps=3, num_transitions=0, num_samples=4)
TINY |= dict(validation_fraction=0.0)
QUICK = dict(hidden=32, layer_sizes=(2, 1), num_transitions=2, num_samples=30, random_state=0)
CHECKED = dict(TINY, schema="gaussian")  # one kind, so that tables of one width share a program
UNTRAINED = "three steps reach no score; test_predictor_learns_what_the_checks_ask_for takes more"
FAILURES = {
    HHVAEClassifier: {"check_classifiers_train": UNTRAINED},
    HHVAERegressor: {"check_regressors_train": UNTRAINED},
}


@pytest.fixture(autouse=True, scope="module")
def _fast_compilation():
    """Compiles for the time of compilation, which is nearly all of the time of these tests."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@parametrize_with_checks([HHVAEImputer(**CHECKED)])
def test_imputer_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [HHVAEClassifier(**CHECKED), HHVAERegressor(**CHECKED)],
    expected_failed_checks=lambda estimator: FAILURES[type(estimator)],
)
def test_predictor_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (HHVAEClassifier, estimator_checks.check_classifiers_train),
        (HHVAERegressor, estimator_checks.check_regressors_train),
    ],
)
def test_predictor_learns_what_the_checks_ask_for(kind, check):
    options = {**CHECKED, "hidden": 32, "max_steps": 800, "num_samples": 20, "random_state": 0}
    check(kind.__name__, kind(**options))


def make_table(num_rows=300, seed=0):
    """A complete table of every dtype whose columns follow from one another."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num_rows)
    noise = lambda: 0.1 * rng.normal(size=num_rows)
    return pd.DataFrame(
        {
            "a": a,
            "b": (a + noise()).astype(np.float32),
            "size": pd.array(np.rint(20 + 5 * a + noise()).astype(int), dtype="Int64"),
            "sign": np.where(a > 0, "plus", "minus"),
            "third": pd.Categorical(np.array(["x", "y", "z"])[np.digitize(a, [-0.5, 0.5])]),
            "large": pd.array(a > 0.8, dtype="boolean"),
            "one": 1.5,
        },
        index=pd.RangeIndex(100, 100 + num_rows, name="row"),
    )


def punch(table, rate=0.25, seed=1):
    """Hides cells completely at random."""
    return table.mask(np.random.default_rng(seed).random(table.shape) < rate)


@pytest.fixture(scope="module")
def holes():
    return punch(make_table())


@pytest.fixture(scope="module")
def imputer(holes):
    return HHVAEImputer(max_steps=1500, **QUICK).fit(holes)


def assert_same_observed(filled, holes):
    for name in holes:
        observed = holes[name].notna()
        left, right = filled.loc[observed, name], holes.loc[observed, name]
        pd.testing.assert_series_equal(left, right, check_exact=True)


def test_frame_comes_back_as_it_was_but_full(imputer, holes):
    filled = imputer.transform(holes)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_series_equal(filled.dtypes, holes.dtypes)
    pd.testing.assert_index_equal(filled.index, holes.index)
    assert_same_observed(filled, holes)
    assert list(imputer.get_feature_names_out()) == list(holes.columns)
    assert (filled["one"] == 1.5).all()


def test_missing_cells_follow_from_the_others(imputer, holes):
    truth, filled = make_table(), imputer.transform(holes)
    only = holes["b"].isna() & holes["a"].notna()
    error = np.sqrt(np.mean((filled["b"] - truth["b"])[only] ** 2))
    assert error < 0.5 * truth["b"].std()
    for name, least in (("sign", 0.8), ("large", 0.8), ("third", 0.6)):
        hidden = holes[name].isna()
        right = (filled[name].astype(object) == truth[name].astype(object))[hidden]
        assert right.mean() > least, name


def test_draws_differ_where_cells_are_missing_only(imputer, holes):
    draws = imputer.sample(holes, 5)
    again = imputer.sample(holes, 5)
    for one, same in zip(draws, again, strict=True):
        pd.testing.assert_frame_equal(one, same)
        assert_same_observed(one, holes)
        assert not one.isna().any(axis=None)
    hidden = holes["a"].isna()
    spread = np.std([draw["a"][hidden] for draw in draws], axis=0)
    assert (spread > 0).all()
    other = imputer.sample(holes, 1, random_state=5)[0]
    assert not other.equals(draws[0])


def test_draws_have_the_spread_of_the_truth(imputer):
    empty = make_table(200).iloc[:, :6].mask(np.ones((200, 6), bool)).assign(one=1.5)
    draw = imputer.sample(empty, 1)[0]
    assert abs(draw["a"].mean()) < 0.4
    assert 0.6 < draw["a"].std() < 1.4


def test_answer_does_not_depend_on_other_rows(imputer, holes):
    whole = imputer.transform(holes)
    one = imputer.transform(holes.iloc[[7]])
    pd.testing.assert_frame_equal(one, whole.iloc[[7]], rtol=1e-5)


def test_log_prob_prefers_the_true_relation(imputer):
    table = make_table(50, seed=3)
    wrong = table.assign(b=-table["b"])
    far = table["a"].abs() > 0.5
    better = imputer.log_prob(table)[far] > imputer.log_prob(wrong)[far]
    assert better.mean() > 0.9
    nothing = table.mask(np.ones(table.shape, bool))
    np.testing.assert_array_equal(imputer.log_prob(nothing), 0.0)


def test_unseen_category_is_missing_with_a_warning_and_stays(imputer, holes):
    odd = holes.iloc[:4].assign(sign=["plus", "neither", None, "minus"])
    with pytest.warns(UserWarning, match="'sign': 1 cells .* 'neither'; they are treated as miss"):
        filled = imputer.transform(odd)
    assert filled["sign"].iloc[1] == "neither"
    gone = odd.assign(sign=["plus", None, None, "minus"])
    rest = [name for name in odd if name != "sign"]
    pd.testing.assert_frame_equal(filled[rest], imputer.transform(gone)[rest])


@pytest.mark.parametrize("value", [1e99, -1e99])
def test_outlier_leaves_answers_finite(imputer, holes, value):
    filled = imputer.transform(holes.iloc[:3].assign(a=value))
    assert np.isfinite(filled["b"].astype(float)).all()


def test_saved_and_pickled_estimators_answer_the_same(imputer, holes, tmp_path):
    path = tmp_path / "imputer.npz"
    imputer.save(path)
    expected = imputer.transform(holes)
    for copy in (HHVAEImputer.load(path), pickle.loads(pickle.dumps(imputer))):
        pd.testing.assert_frame_equal(copy.transform(holes), expected)
        assert copy.get_params() == imputer.get_params()
        assert copy.num_steps_ == imputer.num_steps_
    assert [file.name for file in tmp_path.iterdir()] == ["imputer.npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert "params_/encoder/head0/affine/kernel" in archive.files
    with pytest.raises(ValueError, match="holds a HHVAEImputer in format 3; expected a HHVAEReg"):
        HHVAERegressor.load(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="is no file of a fitted estimator"):
        HHVAEImputer.load(path)


def test_two_fits_with_one_seed_agree_and_transform_never_trains(holes):
    holes = holes[["a", "b"]]
    first, second = (HHVAEImputer(**TINY, random_state=3).fit(holes) for _ in range(2))
    before = jax.tree.map(np.copy, first.params_)
    pd.testing.assert_frame_equal(first.transform(holes), second.transform(holes))
    for name in ("params_", "scaler_"):
        jax.tree.map(np.testing.assert_array_equal, getattr(first, name), getattr(second, name))
    jax.tree.map(np.testing.assert_array_equal, first.params_, before)
    other = HHVAEImputer(**TINY, random_state=4).fit(holes)
    assert not other.transform(holes).equals(first.transform(holes))


def test_array_comes_back_in_its_dtype(holes):
    x = holes[["a", "b"]].to_numpy(np.float32)
    filled = HHVAEImputer(**TINY, random_state=0).fit_transform(x)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    assert not np.isnan(filled).any()
    mixed = holes[["a", "sign"]].astype(object).to_numpy()
    filled = HHVAEImputer(**TINY, random_state=0).fit_transform(mixed)
    assert set(filled[:, 1]) == {"plus", "minus"}


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA])
def test_every_spelling_of_nothing_is_missing(empty):
    x = pd.DataFrame({"a": np.arange(-9.0, 11), "b": [*["u", "v"] * 9, empty, empty]})
    assert HHVAEImputer(**TINY).fit_transform(x)["b"].isin(["u", "v"]).all()


def test_degenerate_tables():
    estimator = HHVAEImputer(**TINY, random_state=0)
    table = pd.DataFrame({"a": [1.0, np.nan, 1.0], "b": [np.nan] * 3})
    with pytest.warns(UserWarning, match="column 'b' has no observed value and is left as it is"):
        filled = estimator.fit_transform(table)
    assert filled["a"].tolist() == [1.0, 1.0, 1.0]
    assert filled["b"].isna().all()
    np.testing.assert_array_equal(estimator.log_prob(table), 0.0)
    twins = pd.DataFrame({"t": np.arange(-6.0, 6), "u": np.arange(-6.0, 6)})
    twins.iloc[3, 0] = np.nan
    assert not estimator.fit_transform(twins).isna().any(axis=None)
    wide = np.random.default_rng(0).normal(size=(6, 10))
    wide[2, 5] = np.nan
    assert np.isfinite(estimator.fit_transform(wide)).all()


def test_declared_kinds_override_inference():
    x = pd.DataFrame(
        {"a": np.arange(60) % 5, "b": np.arange(60.0), "id": [f"n{i}" for i in range(60)]}
    )
    x = x.astype({"a": "Int64"})
    x.loc[3, ["a", "id"]] = [pd.NA, None]
    schema = {"a": "gaussian", "b": "gaussian", "id": "drop"}
    estimator = HHVAEImputer(schema=schema, **TINY).fit(x)
    kinds = [f.column and f.column.kind for f in estimator.features_]
    assert kinds == ["gaussian", "gaussian", None]
    filled = estimator.transform(x)
    assert 0 <= filled["a"][3] <= 6
    assert pd.isna(filled["id"][3])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"when": pd.date_range("2020-01-01", periods=4)}, "'when' holds dates or times such as"),
        ({"when": ["2020-01-01", "2020-02-01", None, "2021-01-01"]}, "'when' holds dates or times"),
        ({"a": [1.0, np.inf, 2.0, 3.0]}, "'a', row 1: inf is not finite, or beyond 1e.100"),
        ({"a": ["1", "2", "x", "3"]}, "'a', row 2: 'x' is text, but 3 of the 4 observed entries"),
        ({"a": [f"t{i}" for i in range(200)]}, "'a' holds 200 distinct categories, more than"),
        ({"a": [10**400, 1, 2, 3]}, "'a', row 0: '10+' is not a number, or too large for one"),
    ],
)
def test_table_is_refused_in_one_sentence(table, message):
    with pytest.raises(ValueError, match=message) as error:
        HHVAEImputer(**TINY).fit(pd.DataFrame(table))
    assert "\n" not in str(error.value)


def test_columns_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two columns are named 't'; rename or drop one of them"):
        HHVAEImputer(**TINY).fit(pd.DataFrame(np.eye(3), columns=["t", "u", "t"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps=0: expected an integer of at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: expected a fraction"),
        ({"layer_sizes": ()}, r"layer_sizes=\(\): expected positive sizes"),
        ({"time_budget": -1}, "time_budget=-1: expected a positive number of seconds"),
        ({"early_stopping": "never"}, "early_stopping='never': expected True, False or 'auto'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected a positive number"),
        ({"schema": {"z": "gaussian"}}, "declares column 'z', which the table lacks"),
        ({"schema": {"a": "normal"}}, "kind 'normal' is unknown; use one of gaussian"),
        ({"schema": {"a": 3}}, "schema entry 3 is not understood"),
    ],
)
def test_bad_parameter_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HHVAEImputer(**{**TINY, **options}).fit(pd.DataFrame({"a": np.arange(12.0)}))


def test_time_budget_and_held_out_score_end_training(holes, capsys):
    noise = pd.DataFrame(np.random.default_rng(0).normal(size=(250, 2)))
    still = dict(TINY, learning_rate=1e-20, batch_size=4, early_stopping=True, random_state=0)
    still |= dict(validation_fraction=0.1)
    slow = HHVAEImputer(**{**still, "max_steps": 100_000}, time_budget=1e-3, verbose=1).fit(noise)
    assert slow.num_steps_ == {"marginal": 100, "vi": 100}
    assert "marginal 100/10000: loss" in capsys.readouterr().err
    model = HHVAEImputer(**{**still, "max_steps": 20_000}).fit(noise)
    assert model.num_steps_["vi"] < 8000
    still |= dict(early_stopping="auto", max_steps=4000)  # predictors stop, imputers do not
    assert HHVAEImputer(**still).fit(noise).num_steps_["vi"] == 4000
    assert HHVAERegressor(**still).fit(noise, noise[0]).num_steps_["vi"] < 4000


@pytest.mark.slow
def test_classifier_and_regressor_predict_from_incomplete_rows(holes):
    truth = make_table()
    features = holes[["b", "size", "third"]]
    options = {
        **QUICK,
        "layer_sizes": (2,),
        "max_steps": 600,
        "num_transitions": 0,
    }
    model = HHVAEClassifier(**options).fit(features, truth["third"].astype(str))
    proba = model.predict_proba(features)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    assert model.score(features, truth["third"].astype(str)) > 0.75
    model = HHVAERegressor(**options).fit(features, 100 + 10 * truth["a"])
    assert model.score(features, 100 + 10 * truth["a"]) > 0.6
    predictive = model.predict_distribution(features)
    inside = predictive.cdf(100 + 10 * truth["a"])
    assert 0.8 < np.mean((inside > 0.05) & (inside < 0.95)) <= 1.0


def test_works_inside_scikit_learn(holes):
    y = make_table(seed=2)["a"].to_numpy()
    numbers = ["a", "b"]
    pipeline = make_pipeline(
        ColumnTransformer([("fill", HHVAEImputer(**TINY, random_state=0), numbers)]),
        LinearRegression(),
    )
    scores = cross_val_score(clone(pipeline), holes[numbers].astype(float), y, cv=2)
    assert np.isfinite(scores).all()
    frame = HHVAEImputer(**TINY).set_output(transform="pandas").fit_transform(np.c_[y, -y])
    assert list(frame.columns) == ["x0", "x1"]


def test_predictive_agrees_with_one_gaussian_and_with_its_draws():
    one = Predictive(np.array([[2.0], [-1.0]]), 3.0)
    y, oracle = np.array([0.5, 4.0]), stats.norm(np.array([2.0, -1.0]), 3.0)
    np.testing.assert_allclose(one.log_prob(y), oracle.logpdf(y), rtol=1e-6)
    np.testing.assert_allclose(one.cdf(y), oracle.cdf(y), rtol=1e-5)
    np.testing.assert_allclose(one.quantile(0.9), oracle.ppf(0.9), atol=1e-4)
    two = Predictive(np.array([[-2.0, 2.0]]), 0.5)
    draws = two.sample(20_000, random_state=0)
    assert abs(draws.std() - two.std()[0]) < 0.03
    assert abs(np.mean(draws < two.quantile(0.25)[0]) - 0.25) < 0.02
    with pytest.raises(ValueError, match=r"q=1\.5: expected a probability"):
        two.quantile(1.5)


def test_programs_are_traced_once(monkeypatch):
    traced, loss = collections.Counter(), fitting._loss

    def counted(key, model, recipe, stage, *args):
        traced[stage] += 1
        return loss(key, model, recipe, stage, *args)

    monkeypatch.setattr(fitting, "_loss", counted)
    x = np.random.default_rng(0).normal(size=(120, 2))
    options = {**TINY, "num_transitions": 1, "hidden": 9}  # a width of its own: nothing is cached
    for seed in range(2):
        HHVAEImputer(**options, random_state=seed).fit(x)
        assert traced == {"marginal": 1, "vi": 1, "hmc": 1}


def test_designs_that_repeat_are_borrowed_value_by_value():
    rng = np.random.default_rng(0)
    designs = rng.normal(size=(25, 5))[rng.integers(0, 25, 400)]
    full = pd.DataFrame(designs, columns=list("abcde"))
    train, test = punch(full[:300]), punch(full[300:], seed=2)
    imputer = HHVAEImputer(max_steps=1500, **QUICK).fit(train)
    assert imputer.share_ == (0.5, True)
    hidden, schema = test.isna().to_numpy(), imputer._schema()

    def score():
        draws = np.stack([drawn.to_numpy() for drawn in imputer.sample(test, 40)])
        return sample_scores.average(schema, draws, full[300:].to_numpy(), hidden), draws

    borrowed, draws = score()
    is_value = np.stack([np.isin(draws[..., j], designs[:, j]) for j in range(5)], axis=-1)
    assert 0.35 < is_value[:, hidden].mean() < 0.55  # half, where the exemplar has a value
    imputer.share_ = exemplars.Share()
    alone, draws = score()
    assert not np.isin(draws[:, hidden[:, 0], 0], designs[:, 0]).any()
    assert borrowed < 0.95 * alone


def test_rate_falls_to_a_hundredth_and_stays_there():
    adam, slope = fitting.adam(3e-3, 50), np.ones(1, np.float32)
    state, rates = adam.init(slope), []
    for _ in range(60):
        update, state = adam.update(slope, state)
        rates.append(-float(update[0]))  # of a gradient that does not change
    np.testing.assert_allclose(rates[0], 3e-3, rtol=1e-4)
    np.testing.assert_allclose(rates[25], 3e-3 * 0.505, rtol=1e-3)
    np.testing.assert_allclose(rates[50:], 3e-5, rtol=1e-3)
    assert np.all(np.diff(rates[:50]) < 0)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("tail", [0.0, 0.4, 1.0])
def test_noise_has_its_width_and_density_agrees_with_draws(tail, width):
    noise, n = tails.Noise(tail, width), np.linspace(-9, 9, 20_001)
    r = tails.stretch(noise, n)
    density = np.exp(tails.log_density(noise, r))
    np.testing.assert_allclose(np.trapezoid(density, r), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.trapezoid(r**2 * density, r), width**2, rtol=1e-4)
    np.testing.assert_allclose(density * np.gradient(r, n), stats.norm.pdf(n), atol=1e-6)


def test_noise_is_found_where_it_is_and_only_there():
    normal = np.random.default_rng(0).normal(size=(1, 2000))
    found = tails.fit(tails.stretch(tails.Noise(0.7, 2.0), normal))
    assert found == (pytest.approx(0.7, abs=0.11), pytest.approx(2.0))
    plain = tails.fit(normal)
    assert plain.tail <= 0.2
    assert plain.width == 1.0
    assert tails.fit(np.zeros((5, 0))) == (0.0, 1.0)
