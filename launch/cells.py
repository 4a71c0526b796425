"""Cells of the result tables: one table, model, preset and split, and the settings that decide it.

A cell's digest is a hash of every field of its config that moves its numbers and of the
fingerprints of all folds of its table, so a changed setting or another edition of the data makes
another cell beside the old one. How many splits train together is no such setting: the batches and
the keys of a split depend on its own number. (What does depend on its place among the replicas is
the noise of the Monte-Carlo samples of the test scores.)
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import ml_collections

from launch.data import tables
from launch.workdir import Refused, normalise, read_json, write_json

PRESETS = ("default", "paper")
# Fields that move no number beyond rounding, or name the data, which the fingerprints stand for.
FREE = (
    "mesh.", "loop.", "splits", "data.first_split", "data.dir", "data.path", "data.schema",
)  # fmt: skip


class Cell(NamedTuple):
    """One entry of a table, before it is trained."""

    table: str  # as config.tables names it
    model: str  # published name, such as HH-VAEM
    preset: str  # one of PRESETS
    changes: str  # variant words and overrides common to all cells, "" for none
    split: int
    config: ml_collections.ConfigDict  # of this split alone
    fingerprint: str  # of the split
    digest: str  # of the settings; the same for all splits

    @property
    def name(self) -> str:
        """Name of the cell's file, without its ending."""
        return f"{self.table}-{self.model.lower()}-{self.preset}-s{self.split}-{self.digest}"


def plan(config) -> list[Cell]:
    """Resolves a tables config into its cells; every table is loaded once, to see that it can be.

    Args:
      config: configs/tables_uci.py lists the fields. Its base config names an experiment whose
        module has, beside `make`, `check(config)` and `load_table(config.data, config.paper)`.

    Returns:
      The cells, splits of a table, model and preset together and ascending.

    Raises:
      Refused, ValueError, FileNotFoundError: the first request that cannot be served.
    """
    for name, least in (("splits", 1), ("replicas", 1), ("first_split", 0)):
        if config[name] < least:
            raise Refused(f"config.{name}={config[name]}: expected {least} or more")
    changes, folds, cells = label(config), {}, []
    for table in words(config.tables):
        for model in words(config.models):
            for preset in words(config.presets):
                base = resolve(config, table, model, preset)
                module = _experiment(base)
                base.splits, base.data.first_split = config.splits, config.first_split
                module.check(base)
                base.splits = 1
                data = json.dumps([base.experiment, base.data.to_dict(), base.paper])
                if data not in folds:
                    loaded = module.load_table(base.data, base.paper)
                    made = tables.make_splits(
                        loaded, num_folds=base.data.num_folds, seed=base.data.split_seed
                    )
                    folds[data] = [fold.fingerprint for fold in made]
                hashed = digest(base.to_dict(), folds[data])
                for split in range(config.first_split, config.first_split + config.splits):
                    alone = ml_collections.ConfigDict(base.to_dict())
                    alone.data.first_split = split
                    facts = (table, model.upper(), preset, changes, split)
                    cells.append(Cell(*facts, alone, folds[data][split], hashed))
    return cells


def resolve(config, table: str, model: str, preset: str) -> ml_collections.ConfigDict:
    """Returns the base config of a table, model and preset, with the common overrides applied."""
    if preset not in PRESETS:
        raise Refused(f"config.presets: {preset!r} is unknown; expected {' or '.join(PRESETS)}")
    variant = [table, model, *words(config.words)] + [preset] * (preset != "default")
    base = _read_config(config.base, ",".join(variant))
    if base.data.name != table or base.model.name.lower().split()[0] != model:
        raise Refused(
            f"config.tables, config.models: {table!r} and {model!r} are to {config.base} the table "
            f"{base.data.name!r} and the model {base.model.name!r}; expected one name of each kind"
        )
    if config.data_dir:
        base.data.dir = config.data_dir
    for change in config.overrides.split():
        _apply(base, change)
    return base


def digest(config: dict, fingerprints: list[str]) -> str:
    """Returns 10 hexadecimal digits that tell settings and data apart, whichever the split."""
    settings = {k: v for k, v in flatten(normalise(config)).items() if not k.startswith(FREE)}
    text = json.dumps([settings, list(fingerprints)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def words(names: Iterable[str]) -> list[str]:
    """Splits a field such as ("wine", "boston") or ("wine,boston",) into different lower names."""
    found = [word.strip().lower() for item in names for word in item.split(",")]
    return list(dict.fromkeys(word for word in found if word))


def label(config) -> str:
    """Says what all cells of a tables config change of its base config, "" for nothing."""
    return " ".join([*words(config.words), *config.overrides.split()])


def together(cells: Iterable[Cell], replicas: int) -> list[tuple[Cell, ...]]:
    """Groups cells into runs: same settings, consecutive splits, at most `replicas` of them."""
    runs: list[tuple[Cell, ...]] = []
    for cell in cells:
        last = runs[-1] if runs else ()
        follows = last and (last[0].digest, last[-1].split + 1) == (cell.digest, cell.split)
        if follows and len(last) < replicas:
            runs[-1] = (*last, cell)
        else:
            runs.append((cell,))
    return runs


def run_name(run: tuple[Cell, ...]) -> str:
    """Returns the directory name of a run of cells."""
    first, last = run[0], run[-1].split
    splits = f"s{first.split}" if len(run) == 1 else f"s{first.split}-{last}"
    return f"{first.table}-{first.model.lower()}-{first.preset}-{splits}-{first.digest}"


def run_config(run: tuple[Cell, ...]) -> ml_collections.ConfigDict:
    """Returns the config that trains the cells of a run as replicas."""
    config = ml_collections.ConfigDict(run[0].config.to_dict())
    config.splits = len(run)
    return config


def path(directory: Path, cell: Cell) -> Path:
    """Returns the file of a cell."""
    return directory / "cells" / f"{cell.name}.json"


def write(directory: Path, cell: Cell, content: dict) -> None:
    """Writes a cell's file, whole or not at all; `content` has "status" and what was measured."""
    facts = {name: getattr(cell, name) for name in Cell._fields if name != "config"}
    write_json(path(directory, cell), facts | content | {"config": cell.config.to_dict()})


def read_all(directory: Path) -> Iterator[dict]:
    """Reads all cells of a directory in the order of their names."""
    for file in sorted((directory / "cells").glob("[!.]*.json")):
        yield read_json(file)


def flatten(config: dict, prefix: str = "") -> dict:
    """Returns the fields of a nested dictionary by dotted name."""
    out = {}
    for name, value in config.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def _experiment(base):
    name = base.experiment
    return importlib.import_module(name if "." in name else f"launch.experiments.{name}")


def _read_config(file, variant):
    """Loads a config by path, as the config flags do."""
    if not Path(file).is_file():
        raise Refused(f"config.base={file!r}: there is no such file; run where configs/ is")
    spec = importlib.util.spec_from_file_location("base_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def _apply(base, change):
    name, _, text = change.partition("=")
    known = list(flatten(base.to_dict()))
    if name not in known or not text:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; expected <field>=<value>"
        raise Refused(f"config.overrides: {change!r} sets no field of {base.experiment!r}{hint}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    try:
        base.update_from_flattened_dict({name: value})
    except TypeError:
        kind = type(flatten(base.to_dict())[name]).__name__
        raise Refused(f"config.overrides: {change!r}: expected a value of type {kind}") from None
