"""What the estimators of `hmcvae.estimator` share: parameters, training, questions, one file.

Not here: how columns of a frame become numbers (`hmcvae.frames`), training (`hmcvae.fitting`).
"""

import functools
import os
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from hmcvae import columns, fitting, frames, saved
from hmcvae.columns import Column, Scaler, Schema
from hmcvae.exemplars import Bank, Share
from hmcvae.frames import Feature
from hmcvae.model import HVAE
from hmcvae.tails import Noise

MAX_DEVIATIONS = 50.0  # numbers further than this from the mean look alike to the model
MIN_HELD_OUT = 20  # rows that a held-out score needs
MAX_SHARE = 0.2  # of the rows that they may be; smaller tables train for all steps
DEADLINES = {"marginal": 0.15, "vi": 0.8, "hmc": 1.0}  # ends of the stages, of the time budget
FORMAT = 3  # of the files that `save` writes
TUPLES = {"scaler_": Scaler, "target_scaler_": Scaler}  # attributes
TUPLES |= {"noise_": Noise, "share_": Share, "bank_": Bank}


class HHVAEBase(BaseEstimator):
    """What the three estimators share: parameters, training, and questions about rows."""

    def __init__(
        self,
        *,
        schema=None,
        layer_sizes=None,
        hidden=128,
        max_steps=10_000,
        batch_size=100,
        learning_rate=None,
        num_transitions=10,
        num_samples=50,
        early_stopping="auto",
        validation_fraction=0.1,
        time_budget=None,
        random_state=None,
        verbose=0,
    ):
        """Stores the parameters, which `HHVAEImputer` describes; `fit` checks them."""
        self.schema = schema
        self.layer_sizes = layer_sizes
        self.hidden = hidden
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_transitions = num_transitions
        self.num_samples = num_samples
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.time_budget = time_budget
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        """Says that missing cells and text are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    def save(self, path: str | os.PathLike) -> None:
        """Writes the fitted estimator to one file, whole or not at all.

        The file is that of `hmcvae.saved`; reading it executes no code. Its text holds "format",
        "class", "parameters" (of the constructor; a generator as `random_state` becomes None) and
        "features", "values" and "labels"; its arrays are the other attributes that `fit` made.

        Args:
          path: name of the file.
        """
        check_is_fitted(self)
        parameters = self.get_params()
        if not isinstance(self.random_state, int | None):
            parameters["random_state"] = None
        about = {
            "format": FORMAT,
            "class": type(self).__name__,
            "parameters": parameters,
            "features": [
                (f.name, f.column and Schema((f.column,)).to_json(), f.constant)
                for f in self.features_
            ],
            "values": {},
            "labels": {},
        }
        arrays = {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name == "features_":
                continue
            if isinstance(value, int | float) or name == "num_steps_":
                about["values"][name] = value
            elif isinstance(value, np.ndarray) and value.dtype.hasobject:
                about["labels"][name] = value.tolist()
            else:
                arrays[name] = value._asdict() if name in TUPLES else value
        saved.write(path, about, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Reads what `save` wrote; the estimator answers exactly as the saved one."""
        about, arrays = saved.read(path)
        if (about.get("format"), about.get("class")) != (FORMAT, cls.__name__):
            raise ValueError(
                f"{str(path)!r} holds a {about.get('class')} in format {about.get('format')}; "
                f"expected a {cls.__name__} in format {FORMAT}"
            )
        estimator = cls(**about["parameters"])
        estimator.layer_sizes = estimator.layer_sizes and tuple(estimator.layer_sizes)
        estimator.params_ = {}  # of a fit without anything to model, which leaves no array
        for name, value in arrays.items():
            setattr(estimator, name, TUPLES[name](**value) if name in TUPLES else value)
        for name, value in about["values"].items():
            setattr(estimator, name, value)
        for name, value in about["labels"].items():
            setattr(estimator, name, np.array(value, dtype=object))
        estimator.features_ = tuple(
            Feature(name, column and Schema.from_json(column).columns[0], constant)
            for name, column, constant in about["features"]
        )
        return estimator

    def _read(self, X, *, reset, **options):
        """Checks names and shape, and returns X as a frame."""
        if isinstance(X, pd.DataFrame):
            if not X.columns.is_unique:
                name = X.columns[X.columns.duplicated()][0]
                raise ValueError(f"two columns are named {name!r}; rename or drop one of them")
            validate_data(self, X, reset=reset, skip_check_array=True, **options)
            for count, what in ((X.shape[0], "sample"), (X.shape[1], "feature")):
                if not count:
                    raise ValueError(
                        f"Found array with 0 {what}(s), while a minimum of 1 is required."
                    )
            return X
        X = check_array(X, dtype=None, ensure_all_finite="allow-nan", estimator=self)
        validate_data(self, X, reset=reset, skip_check_array=True, **options)
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])

    def _check_parameters(self):
        counts = {"hidden": 1, "max_steps": 1, "batch_size": 1, "num_transitions": 0}
        counts |= {"num_samples": 1}
        for name, least in counts.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name}={value!r}: expected an integer of at least {least}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r}: expected a fraction of the "
                f"rows, at least 0, which holds out none, and less than 1"
            )
        if self.early_stopping not in (True, False, "auto"):
            raise ValueError(
                f"early_stopping={self.early_stopping!r}: expected True, False or 'auto'"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r}: expected a positive number")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(
                f"time_budget={self.time_budget!r}: expected a positive number of seconds, or None"
            )
        if self.layer_sizes is not None and (
            not len(self.layer_sizes) or min(self.layer_sizes) < 1
        ):
            raise ValueError(
                f"layer_sizes={self.layer_sizes!r}: expected positive sizes, layer 1 next to the "
                f"data first, such as (10, 5), or None"
            )

    def _fit_features(self, frame):
        """Describes and standardises the columns; returns standardised values and their mask."""
        self._check_parameters()
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.features_ = frames.describe(frame, self.schema)
        for i, name in enumerate(frame.columns):
            if frame.iloc[:, i].isna().all():
                warnings.warn(
                    f"column {name!r} has no observed value and is left as it is",
                    UserWarning,
                    stacklevel=3,
                )
        x = frames.encode(self.features_, frame)
        mask = ~np.isnan(x)
        if x.shape[1]:
            columns.check(frames.schema(self.features_), x, mask)
        schema = self._schema()
        self.params_, self.scaler_ = {}, Scaler(np.zeros(0), np.zeros(0))
        if not schema.num_columns:
            return x, mask
        self.scaler_ = columns.fit(schema, x, mask)
        z = columns.transform(schema, self.scaler_, x, mask)
        self.range_ = np.stack([z.min(axis=0), z.max(axis=0)])
        return self._standardise(x, mask), mask

    def _fit_model(self, x, mask, y, y_mask):
        """Trains on standardised rows; returns the places of these, and of those held out."""
        rows = fitting.Table(x, mask, y.astype(np.float32), y_mask)
        is_predictor = self._is_predictor()
        stops = is_predictor if self.early_stopping == "auto" else self.early_stopping
        num_held_out, order = 0, np.arange(len(x))
        # the imputer has another use for held-out rows
        wants_some = self.validation_fraction > 0 and (stops or not is_predictor)
        if wants_some and MIN_HELD_OUT <= MAX_SHARE * len(x):
            num_held_out = max(int(self.validation_fraction * len(x)), MIN_HELD_OUT)
            order = np.random.default_rng(self.seed_).permutation(len(x))
        held_out, trained = order[:num_held_out], order[num_held_out:]
        pick = lambda index: jax.tree.map(lambda leaf: leaf[index], rows)
        start, recipe = time.monotonic(), self._recipe()

        def report(progress):
            if not np.isfinite(progress.loss):
                raise FloatingPointError(
                    f"training diverged in stage {progress.stage!r}, step {progress.step}: the "
                    f"loss is {progress.loss}; lower learning_rate={recipe.learning_rate}"
                )
            self.num_steps_[progress.stage] = progress.step
            elapsed = time.monotonic() - start
            if self.verbose:
                _print(progress, elapsed)
            return self.time_budget is None or (
                elapsed < DEADLINES[progress.stage] * self.time_budget
            )

        self.num_steps_ = {}
        params = fitting.fit(
            jax.random.key(self.seed_), self._model(), recipe, pick(trained),
            pick(held_out) if stops and num_held_out else None, report,
        )  # fmt: skip
        self.params_ = jax.tree.map(np.asarray, params)
        return trained, held_out

    def _recipe(self):
        rate = self.learning_rate or (1e-3 if self._is_predictor() else 3e-3)
        return fitting.default_recipe(self.max_steps, self.batch_size, rate, self.num_transitions)

    def _is_predictor(self):
        return self._target().num_columns > 0

    def _schema(self):
        # without names and labels: what is compiled for one table serves all of its shape
        described = [feature.column for feature in self.features_ if feature.column is not None]
        return Schema(tuple(Column(str(i), c.kind, c.num_classes) for i, c in enumerate(described)))

    def _target(self):
        return Schema(())

    def _model(self):
        schema = self._schema()
        widest = min(max(schema.num_columns, 4), 10)
        return HVAE(
            schema=schema,
            target=self._target(),
            layer_sizes=tuple(self.layer_sizes or (widest, widest // 2)),
            hidden=self.hidden,
        )

    def _standardise(self, x, mask):
        schema = self._schema()
        is_log = schema.is_kind("loggaussian") & mask
        x = np.where(is_log, np.maximum(np.where(is_log, x, 0.0), 0.0), x)
        z = columns.transform(schema, self.scaler_, x, mask)
        return np.clip(z, -MAX_DEVIATIONS, MAX_DEVIATIONS).astype(np.float32)

    def _answers(self, x, mask, num_samples, keys=None):
        """Yields (slice of rows, `fitting.Answer` of S samples for them), see `_in_blocks`."""
        ask = functools.partial(
            fitting.answer, model=self._model(), schedule=self._recipe().schedule
        )
        return self._in_blocks(ask, x, mask, num_samples, keys)

    def _in_blocks(self, ask, x, mask, num_samples, keys=None):
        """Yields (slice of rows, leaves [S, rows, ...] for them), a block at a time.

        Args:
          ask: (keys, params, x, mask, number of the round) of a block -> leaves [ROUND, B, ...].
          x: [N, D] standardised.
          mask: [N, D] True = observed.
          num_samples: S.
          keys: [N] PRNG keys; None is one key for all rows, which makes the answer about a row
            independent of its place.
        """
        if keys is None:
            keys = jnp.broadcast_to(jax.random.key(self.seed_), len(x))
        for start in range(0, len(x), fitting.BLOCK):
            rows = slice(start, min(start + fitting.BLOCK, len(x)))
            size = rows.stop - rows.start
            place = np.minimum(np.arange(fitting.BLOCK), size - 1) + start
            rounds = [
                ask(keys[place], self.params_, x[place], mask[place], number)
                for number in range(-(-num_samples // fitting.ROUND))
            ]
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_samples], *rounds)
            yield rows, jax.tree.map(lambda leaf, n=size: leaf[:, :n], joined)


def _print(progress, elapsed):
    score = "" if np.isnan(progress.score) else f", held-out score {progress.score:.3f}"
    print(
        f"[{elapsed:6.1f} s] {progress.stage} {progress.step}/{progress.num_steps}: loss "
        f"{progress.loss:.3f}{score}",
        file=sys.stderr,
    )
