"""Base config and experiment of toy tables, for the tables program: scores without a model.

The config's variants are `<table>,<model>[,paper]`; a table is named like a real one, and split
`nan_split` meets a loss that is not finite.
"""

import ml_collections
import numpy as np

from hmcvae.columns import Column, Schema
from launch.data import tables
from launch.data.frames import Table
from tests.launch import toy, toy_config

TABLES, MODELS = ("boston", "wine"), ("vaem", "hh-vaem")


def get_config(variant):
    table, model, *rest = variant.split(",")
    if table not in TABLES or model not in MODELS or set(rest) - {"paper"}:
        raise ValueError(f"config variant {variant!r}: expected one of {', '.join(TABLES)}")
    config = toy_config.get_config()
    config.experiment = "tests.launch.toy_tables"
    config.paper = "paper" in rest
    config.nan_split = -1
    config.data = dict(name=table, dir="", num_folds=4, first_split=0, split_seed=0)
    config.model = ml_collections.ConfigDict({"name": model.upper()})
    return config


def check(config):
    if config.data.first_split + config.splits > config.data.num_folds:
        raise ValueError(f"config.splits={config.splits}: expected splits within the 4 folds")


def load_table(data, paper):
    if data.dir == "absent":
        raise FileNotFoundError(f"table {data.name!r} is not in {data.dir!r}")
    x = np.arange(8.0 + paper)[:, None]
    schema, known = Schema((Column("a", "gaussian"),)), np.ones_like(x, bool)
    return Table(data.name, schema, x, known, schema, x, known)


def make(config):
    first, count = config.data.first_split, config.splits
    config = ml_collections.ConfigDict(config.to_dict())
    config.first_seed = first
    experiment = toy.make(config)
    data = dict(experiment.data)
    if first <= config.nan_split < first + count:
        data["y"] = data["y"].copy()
        data["y"][config.nan_split - first] = np.nan

    def evaluate(key, params, data, phase_name, is_last):
        metrics, arrays = experiment.evaluate(key, params, data, phase_name, is_last)
        if metrics:
            metrics = {"paper_nll_x": metrics["mse"], "paper_nll_y": metrics["mse"] + 1}
        return metrics, arrays

    folds = tables.make_splits(load_table(config.data, config.paper), num_folds=4)
    meta = {"splits": [fold.fingerprint for fold in folds[first : first + count]]}
    return experiment._replace(data=data, evaluate=evaluate, meta=meta)
