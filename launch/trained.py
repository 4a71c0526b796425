"""A trained run of a table, or of images as one: what programs that sample from it start from."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hmcvae import columns
from hmcvae.columns import Scaler
from hmcvae.model import HVAE
from hmcvae.objectives import Schedule
from launch import loop, workdir
from launch.data import tables
from launch.data.frames import Table
from launch.data.tables import Split
from launch.experiments import tabular
from launch.workdir import Refused


class Trained(NamedTuple):
    """The first split of a run, with its newest parameters."""

    name: str  # published name of the model, such as HH-VAE
    model: HVAE
    params: Any
    schedule: Schedule
    table: Table
    fold: Split
    scaler: Scaler
    scaler_y: Scaler

    def standardise(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Standardises raw rows [B, D] as those that the model was trained on, float32."""
        return columns.transform(self.model.schema, self.scaler, x, mask).astype(np.float32)


def load(path: str | Path, data_dir: str | None = None) -> Trained:
    """Restores the first split of a run of launch.train.

    Args:
      path: working directory of the run.
      data_dir: folder of the data on this machine; None is the one of the run.

    Returns:
      Trained.

    Raises:
      Refused, ValueError, FileNotFoundError: it is no run of a table or of images, or not yet
        trained, or its data is not here.
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
    state, note = loop.load(module.build(config, table), config, directory)
    if note["phase"] == "marginal":
        raise Refused(f"{path} has only trained its marginal VAEs; train it further first")
    params = jax.tree.map(lambda a: a[0], state.params)
    model, schedule = tabular.make_model(config, table), tabular.make_schedule(config)
    return Trained(config.model.name, model, params, schedule, table, *first_split(config, table))


def first_split(config, table: Table) -> tuple[Split, Scaler, Scaler]:
    """Returns the first split of a config, and the standardisation of its training rows."""
    folds = tables.make_splits(table, num_folds=config.data.num_folds, seed=config.data.split_seed)
    fold = folds[config.data.first_split]
    return fold, *tabular.fit_scalers(table, fold.train, ddof=int(config.paper))
