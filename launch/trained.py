"""Trained runs of a table, or of images as one: what programs that sample from them start from."""

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from hmcvae import acquire, columns
from hmcvae.acquire import Advice
from hmcvae.columns import Scaler
from hmcvae.model import HVAE
from hmcvae.objectives import Schedule
from hmcvae.rewards import Settings
from launch import loop, workdir
from launch.data import tables
from launch.data.frames import Table
from launch.data.tables import Split
from launch.experiments import tabular
from launch.workdir import Refused


class Trained(NamedTuple):
    """One split of a run, with its newest parameters."""

    name: str  # published name of the model, such as HH-VAE
    config: ConfigDict  # of the run
    model: HVAE
    params: Any
    schedule: Schedule
    table: Table
    number: int  # of the split
    fold: Split
    scaler: Scaler
    scaler_y: Scaler
    seconds: float  # spent on training it, compilation included

    def standardise(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Standardises raw rows [B, D] as those that the model was trained on, float32."""
        return columns.transform(self.model.schema, self.scaler, x, mask).astype(np.float32)

    @property
    def pos_weight_y(self) -> np.ndarray:
        """Weights of the ones of Bernoulli targets [P] in training and in the `paper` score."""
        rows = self.fold.train
        return tabular.pos_weight(self.table.target, self.table.y[rows], self.table.y_mask[rows])

    def advise(
        self,
        row: Mapping[str, Any],
        *,
        costs: Mapping[str, float] | None = None,
        num_samples: int = 5000,
        seed: int = 0,
    ) -> tuple[Advice, ...]:
        """Ranks the features that are not known of a row by what they would tell of its target.

        Args:
          row: what is known, by feature, as it stands in the table; None is not known.
          costs: by feature; those that it leaves out cost 1.
          num_samples: posterior samples of the row; gains have an error of about 0.01 nats at 5000.
          seed: of the samples.

        Returns:
          Best first: name, expected information on the target in nats, and that for a unit of cost.

        Raises:
          ValueError: a name or a value is none of the table's, or the run has no target.
        """
        values, mask = _read_row(self.table.schema, row)
        settings = Settings(
            num_samples=num_samples, weighted_target=self.config.train.weight_target
        )
        return acquire.advise(
            jax.random.key(seed), self.model, self.params, self.scaler, values, mask,
            schedule=self.schedule, settings=settings,
            costs=read_costs(self.table.schema.names, costs or {}),
            pos_weight_y=self.pos_weight_y,
        )  # fmt: skip


def load(path: str | Path, data_dir: str | None = None) -> Trained:
    """Restores the first split of a run; arguments and errors as of `load_splits`."""
    return load_splits(path, data_dir)[0]


def load_splits(path: str | Path, data_dir: str | None = None) -> list[Trained]:
    """Restores all splits of a run of launch.train.

    Args:
      path: working directory of the run.
      data_dir: folder of the data on this machine; None is the one of the run.

    Returns:
      The splits, in order.

    Raises:
      Refused, ValueError, FileNotFoundError: it is no run of a table or of images, or has not come
        to its last stage, or its data is not here.
    """
    directory, config = workdir.open_run(path)
    if config.experiment not in ("tabular", "images"):
        raise Refused(
            f"{path} is a run of experiment {config.experiment!r}; expected 'tabular' or 'images'"
        )
    if data_dir:
        config.data.dir = data_dir
    module = importlib.import_module(f"launch.experiments.{config.experiment}")
    table = module.load_table(config.data, config.paper)
    experiment = module.build(config, table)
    state, note = loop.load(experiment, config, directory)
    last = experiment.phases[-1].name
    if note["phase"] != last:  # it would be taken for a model without HMC
        raise Refused(f"{path} stands in stage {note['phase']!r}, not {last!r}; train it further")
    model, schedule = tabular.make_model(config, table), tabular.make_schedule(config)
    seconds = sum(sum(clock.values()) for clock in note["seconds"].values()) / config.splits
    runs = []
    for r, number in enumerate(experiment.replica_seeds):
        params = jax.tree.map(lambda a, r=r: a[r], state.params)
        split = fit_split(config, table, number)
        runs.append(
            Trained(
                config.model.name, config, model, params, schedule, table, number, *split, seconds
            )
        )
    return runs


def fit_split(config, table: Table, number: int) -> tuple[Split, Scaler, Scaler]:
    """Returns a split of a config, and the standardisation of its training rows."""
    folds = tables.make_splits(table, num_folds=config.data.num_folds, seed=config.data.split_seed)
    fold = folds[number]
    return fold, *tabular.fit_scalers(table, fold.train, ddof=int(config.paper))


def labels(names: list[str], paths: list[str]) -> list[str]:
    """Returns names of models, with the directory of the run where two share one."""
    return [
        f"{name} ({Path(path).name})" if names.count(name) > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]


def read_costs(names: tuple[str, ...], given: Mapping[str, float]) -> np.ndarray:
    """Returns the costs of the features [D] from those given by name; 1 for the others."""
    costs = np.ones(len(names), np.float32)
    for name, cost in given.items():
        _check_name(name, names)
        is_number = isinstance(cost, int | float) and not isinstance(cost, bool)
        if not is_number or not 0 < cost < np.inf:
            raise ValueError(f"feature {name!r} costs {cost!r}; expected a positive number")
        costs[names.index(name)] = cost
    return costs


def _read_row(schema, row):
    """Encodes what is known of one row: values [D] and mask [D]."""
    for name in row:
        _check_name(name, schema.names)
    given = [row.get(name) for name in schema.names]
    mask = np.array([value is not None and value == value for value in given])  # NaN is not known
    values = np.full(len(given), np.nan)
    for i in np.flatnonzero(mask):
        column = schema.columns[i]
        values[i] = columns.encode(column, [given[i]], np.array([True]))[0]
        is_log = column.kind == "loggaussian"
        if np.isinf(values[i]) or (is_log and values[i] < 0):
            raise ValueError(
                f"feature {column.name!r} is {given[i]!r}; expected a finite number"
                + (" of at least 0" if is_log else "")
            )
    return values, mask


def _check_name(name, names):
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"features are {', '.join(names)}"
        raise ValueError(f"{name!r} is no feature of the table; {hint}")
