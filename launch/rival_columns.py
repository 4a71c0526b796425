"""Models of one column given the others, for the chained equations of `launch.rivals`.

Each is fitted once and then read only. `expect(inputs [M, n, F])` gives [M, n, 1], the mean of a
real column, or [M, n, C], the probabilities of its codes; `draw(rng, inputs)` gives [M, n] values.
M is the number of chains, n of rows, F of predictors.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import BayesianRidge, LogisticRegression

NUM_DONORS = 5  # training values that matching draws from, as in R's mice
NUM_TREES = 100  # as in missForest
MAX_ROWS = 10_000  # that a tree is grown on; trees of larger tables would fill the memory


class Constant(NamedTuple):
    """A column with a single value in the training rows."""

    value: float
    num_codes: int  # C, 0 for a real column

    def expect(self, inputs):
        """Gives the value."""
        out = [self.value] if not self.num_codes else np.arange(self.num_codes) == self.value
        return np.broadcast_to(np.asarray(out, float), (*inputs.shape[:-1], len(out)))

    def draw(self, rng, inputs):
        """Gives the value."""
        return np.full(inputs.shape[:-1], self.value)


class Linear(NamedTuple):
    """Bayesian linear regression, y = level + (x - offset) beta + noise, beta ~ N(coef, R R^T)."""

    offset: np.ndarray  # [F] mean of the training inputs
    level: float  # mean of the training values
    level_sd: float
    coef: np.ndarray  # [F]
    root: np.ndarray  # [F, F] R
    noise_sd: float

    def expect(self, inputs):
        """Gives the mean at the posterior mean of beta."""
        return (self.level + (inputs - self.offset) @ self.coef)[..., None]

    def line(self, rng, inputs):
        """Gives the mean at one draw of beta and of the level a chain: [M, n]."""
        beta = self.coef + rng.normal(size=(len(inputs), len(self.coef))) @ self.root.T
        level = self.level + self.level_sd * rng.normal(size=(len(inputs), 1))
        return level + np.einsum("mnf,mf->mn", inputs - self.offset, beta)

    def draw(self, rng, inputs):
        """Draws from the posterior predictive, one beta a chain."""
        line = self.line(rng, inputs)
        return line + self.noise_sd * rng.normal(size=line.shape)


class Matching(NamedTuple):
    """Predictive mean matching: values of training rows whose fitted mean is near the row's."""

    linear: Linear
    fitted: np.ndarray  # [n] means of the training rows, ascending
    values: np.ndarray  # [n] their values

    def expect(self, inputs):
        """Gives the mean of the donors of the regression's mean."""
        first, k = self._donors(self.linear.expect(inputs)[..., 0])
        return self.values[first[..., None] + np.arange(k)].mean(axis=-1, keepdims=True)

    def draw(self, rng, inputs):
        """Draws one of the nearest donors, the row's mean being a draw and theirs a fit."""
        first, k = self._donors(self.linear.line(rng, inputs))
        return self.values[first + rng.integers(k, size=first.shape)]

    def _donors(self, line):
        """Finds the K nearest of the ascending means: the first one's place, [M, n], and K."""
        k = min(NUM_DONORS, len(self.values))
        # moving the window up one place trades its first donor for a nearer one as long as the row
        # lies above the middle of the two
        return np.searchsorted((self.fitted[:-k] + self.fitted[k:]) / 2, line), k


class Logistic(NamedTuple):
    """Multinomial logistic regression, penalised; codes that were not seen have probability 0."""

    estimator: LogisticRegression
    num_codes: int  # C

    def expect(self, inputs):
        """Gives the probabilities of the codes."""
        return _probabilities(self.estimator, inputs, self.num_codes)

    def draw(self, rng, inputs):
        """Draws a code."""
        cumulative = np.cumsum(self.expect(inputs), axis=-1)
        u = rng.random((*cumulative.shape[:-1], 1)) * cumulative[..., -1:]
        return (u >= cumulative).sum(axis=-1).astype(float)


class Forest(NamedTuple):
    """Random forest; the distribution is that of the training values in the row's leaves."""

    estimator: Any  # RandomForestRegressor or RandomForestClassifier
    num_codes: int  # C, 0 for a real column
    values: np.ndarray  # [n] of the training rows
    leaves: np.ndarray  # [T * n] leaf of every training row in every tree, ascending
    rows: np.ndarray  # [T * n] the training rows in that order
    starts: np.ndarray  # [T] what the nodes of a tree are numbered from, so that no two are alike

    def expect(self, inputs):
        """Gives the mean over trees of the mean, or of the class frequencies, in the leaf."""
        if self.num_codes:
            return _probabilities(self.estimator, inputs, self.num_codes)
        mean = self.estimator.predict(inputs.reshape(-1, inputs.shape[-1]))
        return mean.reshape(*inputs.shape[:-1], 1)

    def draw(self, rng, inputs):
        """Draws a tree, then a training row of the leaf that the row falls into."""
        flat = inputs.reshape(-1, inputs.shape[-1]).astype(np.float32)
        tree = rng.integers(len(self.starts), size=len(flat))
        leaf = np.empty(len(flat), np.int32)
        for t, estimator in enumerate(self.estimator.estimators_):
            at = tree == t
            if at.any():
                leaf[at] = self.starts[t] + estimator.tree_.apply(flat[at])
        low, high = (np.searchsorted(self.leaves, leaf, side) for side in ("left", "right"))
        donor = low + (rng.random(len(flat)) * (high - low)).astype(int)
        return self.values[self.rows[donor]].reshape(inputs.shape[:-1])


def fit_linear(seed, inputs, values) -> Linear:
    """Fits the prior precision and the noise by evidence (scikit-learn's BayesianRidge).

    Args:
      seed: not used, nothing is random.
      inputs: [n, F].
      values: [n].

    Returns:
      Linear.
    """
    offset, level = inputs.mean(axis=0), values.mean()
    ridge = BayesianRidge(fit_intercept=False).fit(inputs - offset, values - level)
    eigenvalues, vectors = np.linalg.eigh(ridge.sigma_)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    noise_sd = ridge.alpha_**-0.5
    return Linear(offset, level, noise_sd / len(values) ** 0.5, ridge.coef_, root, noise_sd)


def fit_matching(seed, inputs, values) -> Matching:
    """Fits the regression and sorts the training rows by it; for the arguments see `fit_linear`."""
    linear = fit_linear(seed, inputs, values)
    fitted = linear.expect(inputs)[:, 0]
    order = np.argsort(fitted, kind="stable")
    return Matching(linear, fitted[order], values[order])


def fit_logistic(seed, inputs, codes, num_codes) -> Logistic:
    """Fits class probabilities by L-BFGS; `codes` [n] are integers below `num_codes`."""
    return Logistic(LogisticRegression(max_iter=1000).fit(inputs, codes), num_codes)


def fit_forest(seed, inputs, values, num_codes=0) -> Forest:
    """Grows the trees and notes which training rows share their leaves.

    Args:
      seed: of the bootstrap and of the columns that a split may use.
      inputs: [n, F].
      values: [n] reals or integer codes.
      num_codes: C, 0 for a real column.

    Returns:
      Forest.
    """
    kind = RandomForestClassifier if num_codes else RandomForestRegressor
    max_rows = min(len(values), MAX_ROWS)
    forest = kind(NUM_TREES, max_features="sqrt", max_samples=max_rows, random_state=seed)
    forest.fit(inputs, values)
    counts = [tree.tree_.node_count for tree in forest.estimators_]
    starts = np.cumsum([0, *counts[:-1]], dtype=np.int32)
    leaves = (forest.apply(inputs).astype(np.int32) + starts).T.reshape(-1)
    order = np.argsort(leaves, kind="stable")
    rows = (order % len(values)).astype(np.int32)
    return Forest(forest, num_codes, values.astype(float), leaves[order], rows, starts)


def _probabilities(estimator, inputs, num_codes):
    probs = np.zeros((*inputs.shape[:-1], num_codes))
    flat = inputs.reshape(-1, inputs.shape[-1])
    known = estimator.predict_proba(flat).reshape(*inputs.shape[:-1], -1)
    probs[..., estimator.classes_] = known
    return probs
