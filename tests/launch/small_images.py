"""Small models of scikit-learn's digits, trained or not, for several test files."""

import importlib.util
from pathlib import Path

import jax
import numpy as np

from launch import loop
from launch.data import image_tables
from launch.experiments import images, tabular
from launch.trained import Trained, fit_split

CONFIGS = Path(__file__).parents[2] / "configs"


def config(variant, file="hhvae"):
    spec = importlib.util.spec_from_file_location("config", CONFIGS / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def train(path, model, vi_steps=40):
    """Trains a smoke-size model of the digits."""
    settings = config(f"digits,{model},smoke")
    settings.train.vi_steps = vi_steps
    return loop.run(images.make(settings), settings, path)


def untrained(variant, table, file="hhvae"):
    """A model as `launch.trained.load` gives it, with its first parameters."""
    settings = config(variant, file)
    model = tabular.make_model(settings, table)
    params = jax.jit(lambda key: model.init(key, model.blank_row())["params"])(jax.random.key(0))
    schedule = tabular.make_schedule(settings)
    number = settings.data.first_split
    return Trained(
        settings.model.name, settings, model, params, schedule, table, number,
        *fit_split(settings, table, number), seconds=0.0,
    )  # fmt: skip


def digits(**changes):
    return image_tables.load("digits")._replace(**changes)


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)
