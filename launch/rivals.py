"""Rivals of HH-VAEM at imputing a mixed table, each fitted once and applied to unseen rows.

  mean    mean or mode of the training column; draws are its values
  knn     the K nearest training rows, over the columns that both rows have; draws are their values
  mice    chained equations (van Buuren, 2007): Bayesian linear regression of every real column and
          logistic regression of every discrete one on all others; draws by Gibbs sweeps
  pmm     the same with predictive mean matching of real columns (Little, 1988): draws are training
          values whose prediction is close
  forest  the same with a random forest a column, as in missForest (Stekhoven and Buehlmann, 2012);
          draws are training values that share a leaf with the row (Doove et al., 2014)

All see what the models see: standardised reals (of the logarithm in loggaussian columns) and codes.
Where a discrete column predicts others it is one-hot, and its indicators leave together when it is
predicted itself. `fit` learns from the training rows alone; `sample` changes nothing that was
fitted. Not here: the models of single columns (`launch.rival_columns`) and scores
(`launch.imputation_scores`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hmcvae import columns
from hmcvae.columns import Scaler, Schema
from launch import rival_columns

NUM_NEIGHBOURS = 10  # K of knn
FIT_CYCLES = 5  # passes over the columns where training rows have holes, as in R's mice
SWEEPS = 20  # Gibbs sweeps of `sample`; the later half is averaged into the point
BLOCK = 256  # rows whose distances are held at a time


class Fitted(NamedTuple):
    """A rival after training; `sample` reads it."""

    schema: Schema
    scaler: Scaler  # [D] of the observed training entries
    imputer: Any  # Marginals, Neighbours or Chained


class Marginals(NamedTuple):
    """Training columns by themselves."""

    seed: int
    schema: Schema
    values: tuple[np.ndarray, ...]  # D arrays [n_j], the observed entries, standardised
    centre: np.ndarray  # [D] mean or mode of the same

    def impute(self, z, mask, num_draws):
        """Draws every entry from its column: `sample` in standardised units."""
        rng = np.random.default_rng([self.seed, 1])
        draws = [rng.choice(values, size=(num_draws, len(z))) for values in self.values]
        return np.stack(draws, axis=-1), np.tile(self.centre, (len(z), 1))


class Neighbours(NamedTuple):
    """Training rows to be near to."""

    marginals: Marginals
    z: np.ndarray  # [N, D] standardised values and codes
    mask: np.ndarray  # [N, D]

    def impute(self, z, mask, num_draws):
        """Draws a rank a row, and takes each column from its donor of that rank.

        The squared distance is the mean over shared columns of (difference)^2 for reals and of 2
        where codes differ, which is what two independent standardised reals differ by on average. A
        row with nothing observed draws from the marginals.
        """
        schema = self.marginals.schema
        draws, point = self.marginals.impute(z, mask, num_draws)
        rng = np.random.default_rng([self.marginals.seed, 2])
        quantile = rng.random((num_draws, len(z)))  # of the rank among the donors
        for start in range(0, len(z), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(z)))
            distance = _distance(schema, z[block], mask[block], self.z, self.mask)
            for j, column in enumerate(schema.columns):
                wanted = ~mask[block, j] & mask[block].any(axis=1)
                candidates = np.flatnonzero(self.mask[:, j])
                k = min(NUM_NEIGHBOURS, len(candidates))
                near = np.argpartition(distance[wanted][:, candidates], k - 1, axis=1)[:, :k]
                donors, rows = self.z[candidates[near], j], block[wanted]  # donors [b, K]
                rank = (k * quantile[:, rows]).astype(int)
                draws[:, rows, j] = donors[np.arange(len(rows)), rank]
                point[rows, j] = _centre(column, donors)
        return draws, point


class Chained(NamedTuple):
    """One model a column, given all other columns."""

    marginals: Marginals
    models: tuple[Any, ...]  # D of `launch.rival_columns`

    def impute(self, z, mask, num_draws):
        """Runs M Gibbs chains a row from marginal draws; each redraws every missing entry in turn.

        The point averages the expectation that the models give, over chains and the later half of
        the sweeps, which has less noise than the mean of the M last draws.
        """
        schema = self.marginals.schema
        draws, point = self.marginals.impute(z, mask, num_draws)
        draws = np.where(mask, z, draws)
        features, slots = _features(schema, draws)
        rng = np.random.default_rng([self.marginals.seed, 3])
        missing = [np.flatnonzero(~mask[:, j]) for j in range(schema.num_columns)]
        total = [0.0] * schema.num_columns
        for sweep in range(SWEEPS):
            for j, (model, rows) in enumerate(zip(self.models, missing, strict=True)):
                if not len(rows):
                    continue
                inputs = np.delete(features[:, rows], slots[j], axis=-1)
                if sweep >= SWEEPS // 2:
                    total[j] += model.expect(inputs).sum(axis=0)  # [b, C]
                draws[:, rows, j] = model.draw(rng, inputs)
                features[:, rows, slots[j]] = _indicators(schema.columns[j], draws[:, rows, j])
        for j, (column, rows) in enumerate(zip(schema.columns, missing, strict=True)):
            if not len(rows):
                continue
            num = num_draws * (SWEEPS - SWEEPS // 2)
            is_code = column.is_discrete
            point[rows, j] = total[j].argmax(axis=-1) if is_code else total[j][:, 0] / num
        return draws, point


def fit_mean(seed: int, schema: Schema, z: np.ndarray, mask: np.ndarray) -> Marginals:
    """Keeps the observed entries of every column; z [N, D] is standardised."""
    values = tuple(z[mask[:, j], j] for j in range(schema.num_columns))
    centre = [_centre(c, v[None])[0] for c, v in zip(schema.columns, values, strict=True)]
    return Marginals(seed, schema, values, np.array(centre))


def fit_knn(seed: int, schema: Schema, z: np.ndarray, mask: np.ndarray) -> Neighbours:
    """Keeps the training rows; z [N, D] is standardised."""
    return Neighbours(fit_mean(seed, schema, z, mask), z, mask)


def fit_chained(
    seed: int,
    schema: Schema,
    z: np.ndarray,
    mask: np.ndarray,
    *,
    real: Callable[..., Any],
    discrete: Callable[..., Any],
) -> Chained:
    """Fits one model a column on the rows that have it.

    Holes of the training rows start as marginal draws and are redrawn by the models, cycle after
    cycle; the models of the last cycle are kept. One completed table stands for all that are
    possible, so what the holes leave uncertain does not reach the models.

    Args:
      seed: of everything random.
      schema: the D columns.
      z: [N, D] standardised values and codes.
      mask: [N, D] True = observed.
      real: (seed, inputs [n, F], values [n]) -> model of a real column.
      discrete: (seed, inputs [n, F], codes [n], C) -> model of a column of C codes.

    Returns:
      Chained.
    """
    marginals = fit_mean(seed, schema, z, mask)
    z = np.where(mask, z, marginals.impute(z, mask, 1)[0][0])
    features, slots = _features(schema, z)
    rng = np.random.default_rng([seed, 4])
    models = [None] * schema.num_columns
    for _ in range(1 if mask.all() else FIT_CYCLES):
        for j, column in enumerate(schema.columns):
            inputs, seen = np.delete(features, slots[j], axis=-1), mask[:, j]
            values, num_codes = z[seen, j], _num_codes(column)
            if (values == values[0]).all():
                models[j] = rival_columns.Constant(values[0], num_codes)
            elif column.is_discrete:
                models[j] = discrete(seed, inputs[seen], values.astype(int), num_codes)
            else:
                models[j] = real(seed, inputs[seen], values)
            if not seen.all():
                z[~seen, j] = models[j].draw(rng, inputs[None, ~seen])[0]
                features[~seen, slots[j]] = _indicators(column, z[~seen, j])
    return Chained(marginals, tuple(models))


# by name: (seed, schema, z [N, D] standardised, mask [N, D]) -> imputer
RIVALS = {
    "mean": fit_mean,
    "knn": fit_knn,
    "mice": functools.partial(
        fit_chained, real=rival_columns.fit_linear, discrete=rival_columns.fit_logistic
    ),
    "pmm": functools.partial(
        fit_chained, real=rival_columns.fit_matching, discrete=rival_columns.fit_logistic
    ),
    "forest": functools.partial(
        fit_chained, real=rival_columns.fit_forest, discrete=rival_columns.fit_forest
    ),
}


def fit(name: str, seed: int, schema: Schema, x: np.ndarray, mask: np.ndarray) -> Fitted:
    """Fits a rival to training rows.

    Args:
      name: one of `RIVALS`.
      seed: of everything random, in `sample` too.
      schema: the D columns.
      x: [N, D] raw reals and codes; anything under the mask.
      mask: [N, D] True = observed.

    Returns:
      Fitted; it can be pickled.

    Raises:
      ValueError: an unknown name, or a column without an observed entry.
    """
    if name not in RIVALS:
        raise ValueError(f"rival {name!r} is unknown; use one of {', '.join(RIVALS)}")
    for column, is_seen in zip(schema.columns, mask.any(axis=0), strict=True):
        if not is_seen:
            raise ValueError(
                f"column {column.name!r} has no observed entry in the training rows; drop it"
            )
    x = np.asarray(x, np.float64)
    scaler = columns.fit(schema, x, mask)
    z = columns.transform(schema, scaler, x, mask)
    return Fitted(schema, scaler, RIVALS[name](seed, schema, z, mask))


def sample(
    fitted: Fitted, x: np.ndarray, mask: np.ndarray, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Imputes unseen rows.

    Args:
      fitted: output of `fit`; it is left as it is.
      x: [B, D] raw reals and codes; anything under the mask.
      mask: [B, D] True = observed.
      num_draws: M; memory grows with M * B.

    Returns:
      draws [M, B, D] and point [B, D] in raw units and codes; the point is the standardised mean of
      a real column and the most probable class of a discrete one. Observed entries are returned
      unchanged, bit for bit. The same arguments give the same result.
    """
    schema, scaler, imputer = fitted
    x = np.asarray(x, np.float64)
    z = columns.transform(schema, scaler, x, mask)
    both = imputer.impute(z, mask, num_draws)
    draws, point = (np.where(mask, x, columns.inverse(schema, scaler, out)) for out in both)
    return draws, point


def _num_codes(column):
    return max(column.num_classes, 2) if column.is_discrete else 0


def _centre(column, values):
    """Mean or mode over the last axis: [B, n] -> [B]."""
    if not column.is_discrete:
        return values.mean(axis=-1)
    codes = np.arange(_num_codes(column))
    return (values[..., None] == codes).sum(axis=-2).argmax(axis=-1).astype(float)


def _indicators(column, values):
    """One column as it predicts others: [...] -> [..., 1] reals or [..., C] indicators."""
    if not column.is_discrete:
        return values[..., None]
    return (values[..., None] == np.arange(_num_codes(column))).astype(float)


def _features(schema, z):
    """Predictors [..., F] of complete rows z [..., D], and the slice of every column in F."""
    parts = [_indicators(column, z[..., j]) for j, column in enumerate(schema.columns)]
    ends = np.cumsum([part.shape[-1] for part in parts])
    slots = [slice(end - part.shape[-1], end) for end, part in zip(ends, parts, strict=True)]
    return np.concatenate(parts, axis=-1), slots


def _distance(schema, z, mask, other, other_mask):
    """Mean squared difference over shared columns, [B, N]; inf where none is shared."""
    (a, slots), (b, _) = _features(schema, z), _features(schema, other)
    width = [slot.stop - slot.start for slot in slots]
    a_mask, b_mask = (np.repeat(m, width, axis=1).astype(float) for m in (mask, other_mask))
    a, b = a * a_mask, b * b_mask
    # sum over f of a_mask b_mask (a - b)^2
    square = (a**2) @ b_mask.T - 2 * a @ b.T + a_mask @ (b**2).T
    shared = mask.astype(float) @ other_mask.T.astype(float)
    return np.where(shared > 0, square / np.maximum(shared, 1), np.inf)
