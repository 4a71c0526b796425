"""scikit-learn estimators over the HVAE: fill the holes of a table, predict from incomplete rows.

The model is HH-VAEM trained end to end (Peis et al. 2022): one-column VAEs, a hierarchical
dependency VAE, and HMC that starts from its encoder. NumPy arrays and pandas frames go in and come
out as they were; cells that are observed keep every bit. Answers about a row depend on that row and
the fit alone: they are deterministic, and `transform` never trains.

    imputer = HHVAEImputer(random_state=0).fit(table)
    filled = imputer.transform(table)          # means of numbers, most probable categories
    several = imputer.sample(table, 20)        # multiple imputation

Not here: parameters, training and files (`hmcvae.estimator_base`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.base import (
    ClassifierMixin,
    OneToOneFeatureMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from hmcvae import columns, fitting, frames, likelihoods, tails
from hmcvae.columns import Column, Schema
from hmcvae.estimator_base import BLOCK, HHVAEBase
from hmcvae.grouping import REAL
from hmcvae.predictive import Predictive

MARGIN = 1.0  # standard deviations that imputed numbers may lie beyond the fitted range


class HHVAEImputer(OneToOneFeatureMixin, TransformerMixin, HHVAEBase):
    """Fills the missing cells of a mixed-type table, with uncertainty.

    Numbers, text, booleans and pandas categories may be mixed; NaN, None and pd.NA are missing.
    Kinds are inferred (`hmcvae.frames`) or declared. A category that was not there in `fit` is
    treated as missing, with a warning, and stays in its cell; a column of one value is filled with
    it; a column without values is left as it is; dates are refused.

    Attributes after `fit`: `features_`, how every column was read; `num_steps_`, steps taken a
    stage; `noise_`, tail and width of the noise of drawn numbers (`hmcvae.tails`), chosen by
    held-out rows; `params_` and `scaler_`, the model.

    Args:
      schema: {column: kind, "drop" or {"kind": kind, "categories": [labels]}} for columns that
        inference would read wrongly, or one kind for all; kinds are gaussian, loggaussian,
        bernoulli, categorical, and a "drop" column is left as it is. Columns of arrays are called
        x0, x1, ...
      layer_sizes: sizes of the latent layers, the one next to the data first; None is (d, d / 2)
        with d the number of columns, at least 4 and at most 10.
      hidden: width of the networks.
      max_steps: most training steps of the dependency VAE; the one-column VAEs take a tenth of
        them before, and HMC a fortieth after, all in hundreds.
      batch_size: rows of a step.
      learning_rate: of Adam at the beginning of each stage; it falls to a hundredth by a cosine.
        None is 3e-3 for the imputer and 1e-3 for predictors.
      num_transitions: HMC transitions from a draw of the encoder, resampled by importance, to a
        posterior sample; 0 keeps the draw.
      num_samples: posterior samples that a filled cell averages over.
      early_stopping: stop when the log score of held-out rows has not risen for 2500 steps, and
        keep the best parameters. "auto" is True for predictors, which soon fit their rows too well,
        and False for the imputer, whose draws get better long after its densities.
      validation_fraction: share of the rows that are held out, 20 rows at least, to choose the
        noise of `sample` and to stop early (predictors: for the latter only); 0, and tables of
        fewer than 100 rows, hold out none.
      time_budget: seconds after which `fit` stops training, give or take a hundred steps and the
        compilation; None is no limit. What is then reached depends on the machine.
      random_state: seed or generator; equal seeds give equal fits.
      verbose: 1 prints progress to stderr.
    """

    def fit(self, X, y=None):
        """Trains the model on a table [N, D] with holes; `y` is not used."""
        frame = self._read(X, reset=True)
        x, mask = self._fit_features(frame)
        self.noise_ = tails.Noise()
        if x.shape[1]:
            none = np.zeros((len(x), 0))
            held_out = self._fit_model(x, mask, none, none > 0)
            if held_out is not None:
                self.noise_ = self._fit_noise(held_out)
        return self

    def transform(self, X):
        """Fills the missing cells by posterior means of numbers and most probable categories.

        Imputed numbers lie at most a standard deviation beyond the fitted range.

        Args:
          X: [N, D] table with the columns of `fit`.

        Returns:
          A table like X: type, dtypes, index and columns; observed cells are equal bit for bit.
        """
        check_is_fitted(self)
        frame = self._read(X, reset=False)
        x, mask, rows = self._incomplete(frame)
        values = np.full((len(frame), mask.shape[1]), np.nan)
        for block, answer in self._answers(x, mask, self.num_samples):
            values[rows[block]] = self._expect(answer.theta)
        return self._fill(X, frame, values)

    def sample(self, X, n=20, *, random_state=None):
        """Draws the missing cells jointly: multiple imputation.

        Args:
          X: [N, D] table with the columns of `fit`.
          n: number of completed tables.
          random_state: seed; None is that of the fit, so that equal calls give equal draws.

        Returns:
          List of n tables like X, equal where X is observed.
        """
        check_is_fitted(self)
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1 completed table")
        frame = self._read(X, reset=False)
        x, mask, rows = self._incomplete(frame)
        values = np.full((n, len(frame), mask.shape[1]), np.nan)
        is_real, deviation = self._schema().is_kind(*REAL), self._deviation()
        seed = self.seed_ if random_state is None else random_state
        keys = jax.random.split(jax.random.key(seed), len(frame))[rows]
        for block, answer in self._answers(x, mask, n, keys):
            residual = (answer.draws - answer.theta[..., 0]) / deviation
            residual = np.where(is_real, residual, 0.0)  # of codes and logits it means nothing
            stretched = answer.theta[..., 0] + deviation * tails.stretch(self.noise_, residual)
            draws = np.where(is_real, stretched, answer.draws)
            values[:, rows[block]] = self._to_raw(draws.astype(np.float64))
        return [self._fill(X, frame, draw) for draw in values]

    def log_prob(self, X):
        """Estimates log p of the observed cells of every row, of modelled columns only.

        By importance sampling with 20 times `num_samples` samples of the encoder: a lower bound on
        average.

        Args:
          X: [N, D] table with the columns of `fit`.

        Returns:
          [N] nats; densities in the units of the table, probabilities of categories.
        """
        check_is_fitted(self)
        raw = frames.encode(self.features_, self._read(X, reset=False))
        mask, schema, out = ~np.isnan(raw), self._schema(), np.zeros(len(raw))
        if not schema.num_columns:
            return out
        x, model = self._standardise(raw, mask), self._model()
        key, num_samples = jax.random.key(self.seed_), 20 * self.num_samples
        for start in range(0, len(x), BLOCK):
            size = min(BLOCK, len(x) - start)
            place = np.minimum(np.arange(BLOCK), size - 1) + start
            out[start : start + size] = fitting.log_evidence(
                key, self.params_, x[place], mask[place], model=model, num_samples=num_samples
            )[:size]
        jacobian = likelihoods.log_jacobian(schema, self.scaler_, jnp.asarray(raw), mask)
        return out + np.asarray(jacobian, np.float64).sum(axis=1)

    def _incomplete(self, frame):
        """Returns standardised rows and masks where cells are missing, and the rows' places."""
        raw = frames.encode(self.features_, frame)
        mask = ~np.isnan(raw)
        rows = np.flatnonzero(~mask.all(axis=1))
        return self._standardise(raw[rows], mask[rows]), mask[rows], rows

    def _fit_noise(self, held_out):
        """Chooses tail and width of the noise by hidden halves of held-out rows."""
        hidden = np.random.default_rng(self.seed_).random(held_out.mask.shape) < 0.5
        hidden &= held_out.mask & self._schema().is_kind(*REAL)
        answers = self._answers(held_out.x, held_out.mask & ~hidden, self.num_samples)
        theta = np.concatenate([answer.theta[..., 0] for _, answer in answers], axis=1)
        residual = (held_out.x - theta.astype(np.float64)) / self._deviation()
        return tails.fit(residual[:, hidden])

    def _deviation(self):
        """Standard deviation of p(x_d | theta_d) of real columns, standardised units, [D]."""
        log_var = self._model().apply({"params": self.params_}, method=lambda m: m.log_var_x)
        return np.exp(0.5 * np.asarray(log_var, np.float64))

    def _expect(self, theta):
        """Means of reals and most probable codes over samples: [S, B, D, C] -> [B, D] raw units."""
        schema = self._schema()
        # E[exp(m + s N)] = exp(m + s^2 / 2), in standardised units
        skew = 0.5 * self.scaler_.scale * self._deviation() ** 2
        z = theta[..., 0] + np.where(schema.is_kind("loggaussian"), skew, 0.0)
        probs = np.asarray(likelihoods.probs(schema, jnp.asarray(theta))).mean(axis=0)
        codes = np.where(schema.is_kind("bernoulli"), probs[..., 0] > 0.5, probs.argmax(axis=-1))
        is_discrete = schema.is_kind("bernoulli", "categorical")
        return np.where(is_discrete, codes, self._to_raw(z).mean(axis=0))

    def _to_raw(self, z):
        """Standardised values [..., D] to raw units, within a margin of the fitted range."""
        low, high = self.range_[0] - MARGIN, self.range_[1] + MARGIN
        return columns.inverse(self._schema(), self.scaler_, np.clip(z, low, high))

    def _fill(self, X, frame, values):
        """Writes values [N, D] of the modelled columns into the missing cells of X."""
        place = iter(values.T)
        series = [
            frames.fill(f, frame.iloc[:, i], next(place) if f.column is not None else None)
            for i, f in enumerate(self.features_)
        ]
        if isinstance(X, pd.DataFrame):
            filled = pd.concat(series, axis=1)
            filled.columns = X.columns
            return filled
        out = np.array(frame.to_numpy())
        for i, one in enumerate(series):
            rows = np.flatnonzero(frame.iloc[:, i].isna())
            out[rows, i] = one.to_numpy()[rows]
        return out


class _Supervised(HHVAEBase):
    """What the estimators with a target share."""

    def _read_target(self, X, y):
        frame = self._read(X, reset=True, y=y)
        check_consistent_length(frame, y)
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y", estimator=self)
        return frame, column_or_1d(y, warn=True)

    def _fit_target(self, frame, y):
        """Trains on frame and standardised target [N]."""
        x, mask = self._fit_features(frame)
        if not x.shape[1]:
            raise ValueError(
                f"no feature has two distinct values in {len(frame)} sample(s), as n_samples = "
                f"{len(frame)}; there is nothing to predict from"
            )
        self._fit_model(x, mask, y[:, None], np.ones((len(y), 1), bool))

    def _predict_theta(self, X):
        """Likelihood parameters of the target, [N, S, C_y]."""
        check_is_fitted(self)
        raw = frames.encode(self.features_, self._read(X, reset=False))
        mask = ~np.isnan(raw)
        answers = self._answers(self._standardise(raw, mask), mask, self.num_samples)
        return np.concatenate([np.moveaxis(a.theta_y[:, :, 0], 0, 1) for _, a in answers])


class HHVAEClassifier(ClassifierMixin, _Supervised):
    """Predicts a class from rows with missing cells; parameters are those of `HHVAEImputer`.

    Attributes after `fit`: `classes_`, and those of `HHVAEImputer`.
    """

    def fit(self, X, y):
        """Trains on a table [N, D] with holes and its complete classes [N]."""
        frame, y = self._read_target(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            self._fit_features(frame)
        else:
            self._fit_target(frame, codes)
        return self

    def predict_proba(self, X):
        """Returns the probabilities of the classes given the observed cells, [N, classes]."""
        check_is_fitted(self)
        if len(self.classes_) == 1:
            return np.ones((len(self._read(X, reset=False)), 1))
        theta = jnp.asarray(self._predict_theta(X))[:, :, None]  # [N, S, P = 1, C]
        probs = np.asarray(likelihoods.probs(self._target(), theta), np.float64)
        probs = probs[:, :, 0].mean(axis=1)
        if len(self.classes_) == 2:
            return np.stack([1 - probs[:, 0], probs[:, 0]], axis=1)
        return probs / probs.sum(axis=1, keepdims=True)

    def predict(self, X):
        """Returns the most probable classes, [N]."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _target(self):
        count = len(self.classes_)
        if count == 2:
            return Schema((Column("y", "bernoulli"),))
        return Schema((Column("y", "categorical", count),))


class HHVAERegressor(RegressorMixin, _Supervised):
    """Predicts a number from rows with missing cells; parameters are those of `HHVAEImputer`."""

    def fit(self, X, y):
        """Trains on a table [N, D] with holes and its complete target [N]."""
        frame, y = self._read_target(X, y)
        y = y.astype(np.float64)[:, None]
        known = np.ones_like(y, bool)
        self.target_scaler_ = columns.fit(self._target(), y, known)
        self._fit_target(
            frame, columns.transform(self._target(), self.target_scaler_, y, known)[:, 0]
        )
        return self

    def predict_distribution(self, X):
        """Returns the predictive distribution of the target of every row, a `Predictive`."""
        theta = self._predict_theta(X)[..., 0].astype(np.float64)
        log_var = self._model().apply({"params": self.params_}, method=lambda m: m.log_var_y)
        scale = self.target_scaler_.scale[0]
        means = theta * scale + self.target_scaler_.shift[0]
        return Predictive(means, float(scale * np.exp(0.5 * np.asarray(log_var)[0])))

    def predict(self, X):
        """Returns the means of the predictive distributions, [N]."""
        return self.predict_distribution(X).mean()

    def _target(self):
        return Schema((Column("y", "gaussian"),))
