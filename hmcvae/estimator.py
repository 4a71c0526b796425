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

from typing import NamedTuple

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

from hmcvae import columns, exemplars, fitting, frames, likelihoods, sample_scores, tails
from hmcvae.columns import Column, Schema
from hmcvae.estimator_base import HHVAEBase
from hmcvae.exemplars import Bank, Share
from hmcvae.grouping import REAL
from hmcvae.marginal import widened
from hmcvae.predictive import Predictive

MARGIN = 1.0  # standard deviations that imputed numbers may lie beyond the fitted range
WIDTHS = (1.0, 2**0.5, 2.0, 2**1.5, 4.0)  # of the likelihood, in units of what training says
CHECKS = 2 * fitting.BLOCK  # held-out rows, some under several masks if they are fewer
CHECK_SAMPLES = 30  # posterior samples of each


class _Drawn(NamedTuple):
    """Posterior samples of a block of rows."""

    theta: np.ndarray  # [S, B, D, C] likelihood parameters
    z: np.ndarray  # [S, B, D] standardised values and codes
    exact: np.ndarray  # [S, B, D] raw values that take their place, NaN where none does


class HHVAEImputer(OneToOneFeatureMixin, TransformerMixin, HHVAEBase):
    """Fills the missing cells of a mixed-type table, with uncertainty.

    Numbers, text, booleans and pandas categories may be mixed; NaN, None and pd.NA are missing.
    Kinds are inferred (`hmcvae.frames`) or declared. A category that was not there in `fit` is
    treated as missing, with a warning, and stays in its cell; a column of one value is filled with
    it; a column without values is left as it is; dates are refused.

    Held-out rows say how far the likelihood is to be trusted, what tails the noise of drawn numbers
    has (`hmcvae.tails`), and whether half of the draws are borrowed from training rows that
    resemble the row (`hmcvae.exemplars`).

    Attributes after `fit`: `features_`, how every column was read; `num_steps_`, steps taken a
    stage; `noise_`, `share_` and `bank_`, noise, how much is borrowed and of what; `params_` and
    `scaler_`, the model.

    Args:
      schema: {column: kind, "drop" or {"kind": kind, "categories": [labels]}} for columns that
        inference would read wrongly, or one kind for all; kinds are gaussian, loggaussian,
        bernoulli, categorical, and a "drop" column is left as it is. Columns of arrays are called
        x0, x1, ...
      layer_sizes: sizes of the latent layers, the one next to the data first; None is (d, d / 2)
        with d the number of columns, at least 4 and at most 10.
      hidden: width of the networks.
      max_steps: most training steps of the dependency VAE; the one-column VAEs take a tenth of
        them before, and HMC a hundredth after, all in hundreds.
      batch_size: rows of a step.
      learning_rate: of Adam at the beginning of each stage; it falls to a hundredth by a cosine.
        None is 3e-3 for the imputer and 1e-3 for predictors.
      num_transitions: HMC transitions from a draw of the encoder, resampled by importance, to a
        posterior sample; 0 keeps the draw.
      num_samples: posterior samples that a filled cell averages over.
      early_stopping: stop when the log score of held-out rows has not risen for 2500 steps, and
        keep the best parameters. "auto" is True for predictors, which soon fit their rows too well,
        and False for the imputer, whose draws get better long after its densities.
      validation_fraction: share of the rows that are held out, 20 rows at least, to calibrate the
        imputer and to stop early (predictors: for the latter only); 0, and tables of fewer than 100
        rows, hold out none.
      time_budget: seconds after which `fit` stops training, give or take a hundred steps, the
        compilation and the calibration; None is no limit. What is then reached depends on the
        machine.
      random_state: seed or generator; equal seeds give equal fits.
      verbose: 1 prints progress to stderr.
    """

    def fit(self, X, y=None):
        """Trains the model on a table [N, D] with holes; `y` is not used."""
        frame = self._read(X, reset=True)
        x, mask = self._fit_features(frame)
        self.noise_, self.share_, self.bank_ = tails.Noise(), Share(), Bank()
        if x.shape[1]:
            none = np.zeros((len(x), 0))
            trained, held_out = self._fit_model(x, mask, none, none > 0)
            if len(held_out):
                self._remember(frame.iloc[trained], x[trained], mask[trained])
                self._calibrate(x[held_out], mask[held_out])
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
        for block, drawn in self._imputations(x, mask, self.num_samples):
            values[rows[block]] = self._expect(drawn.theta)
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
        seed = self.seed_ if random_state is None else random_state
        keys = jax.random.split(jax.random.key(seed), len(frame))[rows]
        for block, drawn in self._imputations(x, mask, n, keys):
            decoded = self._to_raw(drawn.z.astype(np.float64))
            values[:, rows[block]] = np.where(np.isnan(drawn.exact), decoded, drawn.exact)
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
        for start in range(0, len(x), fitting.BLOCK):
            size = min(fitting.BLOCK, len(x) - start)
            place = np.minimum(np.arange(fitting.BLOCK), size - 1) + start
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

    def _imputations(self, x, mask, num_samples, keys=None):
        """Yields (slice of rows, `_Drawn` of S samples for them), see `_in_blocks`."""
        answers = self._answers(x, mask, num_samples, keys)
        if not self.share_.of_draws:
            yield from ((rows, self._blend(answer, None)) for rows, answer in answers)
            return
        borrowed = self._borrow(x, mask, num_samples, keys)
        for (rows, answer), (_, other) in zip(answers, borrowed, strict=True):
            yield rows, self._blend(answer, other)

    def _borrow(self, x, mask, num_samples, keys=None):
        """Yields (slice of rows, `exemplars.Borrowed` of S samples), see `_in_blocks`."""

        def ask(keys, params, x, mask, number):
            share = self.share_.of_draws
            return exemplars.borrow(
                keys, params, self.bank_.theta, x, mask, number, share, model=self._model()
            )

        return self._in_blocks(ask, x, mask, num_samples, keys)

    def _blend(self, answer, borrowed):
        """Puts what is borrowed in the place of draws of the chain, and gives reals their noise."""
        theta, z = answer.theta, answer.draws
        exact = np.full(z.shape, np.nan)
        if borrowed is not None:
            is_used = borrowed.is_used[..., None]
            theta = np.where(is_used[..., None], self.bank_.theta[borrowed.index], theta)
            z = np.where(is_used, borrowed.draws, z)
            if self.share_.is_exact:
                exact = np.where(is_used, self.bank_.values[borrowed.index], np.nan)
        is_real, deviation = self._schema().is_kind(*REAL), self._deviation()
        residual = (z - theta[..., 0]) / deviation
        residual = np.where(is_real, residual, 0.0)  # of codes and logits it means nothing
        stretched = theta[..., 0] + deviation * tails.stretch(self.noise_, residual)
        return _Drawn(theta, np.where(is_real, stretched, z), exact)

    def _remember(self, frame, x, mask):
        """Makes exemplars of the rows that were trained on."""
        most = exemplars.most(self._schema())
        num_rows = min(len(x), most)
        rows = np.random.default_rng(self.seed_).permutation(len(x))[:num_rows]
        num_samples = min(most // num_rows, fitting.ROUND)
        answers = self._answers(x[rows], mask[rows], num_samples)
        theta = np.concatenate([answer.theta for _, answer in answers], axis=1)  # [S, N, D, C]
        values = frames.encode(self.features_, frame.iloc[rows])
        self.bank_ = Bank(theta.reshape(-1, *theta.shape[2:]), np.tile(values, (num_samples, 1)))

    def _calibrate(self, x, mask):
        """Chooses likelihood, noise and share by hidden halves of held-out rows."""
        rows = np.resize(np.arange(len(x)), CHECKS)
        x, mask = x[rows], mask[rows]
        hidden = (np.random.default_rng(self.seed_).random(mask.shape) < 0.5) & mask
        shown = mask & ~hidden
        is_asked = hidden & self._schema().is_kind(*REAL)
        trained, found = self.params_, []
        for width in WIDTHS if is_asked.any() else WIDTHS[:1]:
            raw = widened(trained["marginal"]["raw_log_var"], width)
            self.params_ = {**trained, "marginal": {**trained["marginal"], "raw_log_var": raw}}
            answers = list(self._answers(x, shown, CHECK_SAMPLES))
            theta = np.concatenate([answer.theta[..., 0] for _, answer in answers], axis=1)
            deviation = np.broadcast_to(self._deviation(), x.shape)[is_asked]
            residual = (x[is_asked] - theta[:, is_asked].astype(np.float64)) / deviation
            noise, score = tails.fit(residual), 0.0
            if residual.size:
                score = tails.score(noise, residual) - np.mean(np.log(deviation))
            found.append((score, self.params_, noise, answers))
        _, self.params_, self.noise_, answers = max(found, key=lambda one: one[0])
        losses = {}
        for share in exemplars.CHOICES:
            self.share_ = share
            blocks = zip(answers, self._borrow(x, shown, CHECK_SAMPLES), strict=True)
            drawn = [self._blend(answer, borrowed) for (_, answer), (_, borrowed) in blocks]
            z, exact = (
                np.concatenate(parts, axis=1) for parts in zip(*(d[1:] for d in drawn), strict=True)
            )
            is_exact = ~np.isnan(exact)
            z = np.where(is_exact, self._standardise(exact, is_exact), z)
            losses[share] = sample_scores.average(self._schema(), z, x, hidden)
        self.share_ = min(losses, key=losses.get)
        if not self.share_.of_draws:
            self.bank_ = Bank()

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
