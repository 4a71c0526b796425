"""Tables 1 and 2: the ten tables of mixed columns, with the five models of two levels.

  python -m launch.tables --config=configs/tables_uci.py --workdir=runs/tables \
      --config.data_dir=<folder with the tables> [--config.splits=3]
  python -m launch.tables --config=configs/tables_uci.py:paper --workdir=runs/tables ...
  python -m launch.tables --config=configs/tables_uci.py:large --workdir=runs/tables ... \
      --config.words=short

Variants: `small` (the default) for the six small tables; `paper` for HH-VAEM and VAEM on them with
the published protocol; `large` for HH-VAEM and VAEM on the four large ones, one split; `smoke` for
seconds. All may share a working directory and give one page.
"""

import ml_collections

SMALL = ("boston", "concrete", "diabetes", "energy", "wine", "yacht")
LARGE = ("bank", "insurance", "avocado", "naval")
MODELS = ("vaem", "miwaem", "h-vaem", "hmc-vaem", "hh-vaem")
PAIR = ("vaem", "hh-vaem")
VARIANTS = ("small", "large", "paper", "smoke")


def get_config(variant="small"):
    if variant not in VARIANTS:
        raise ValueError(f"config variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    config = ml_collections.ConfigDict()
    config.base = "configs/hhvaem.py"  # of which table, model and preset are variants
    config.tables = LARGE if variant == "large" else SMALL  # joined by commas on a command line
    config.models = MODELS if variant == "small" else PAIR
    config.presets = ("paper",) if variant == "paper" else ("default",)
    config.splits = 1 if variant == "large" else 10
    config.first_split = 0
    config.replicas = 10  # splits of a cell's settings trained as one program, at most
    config.words = ()  # further variant words of the base config
    config.overrides = ""  # "field=value" for all cells, joined by spaces
    config.data_dir = ""  # data.dir of the base config
    config.keep_runs = False  # keep checkpoints and arrays of finished runs
    if variant == "smoke":
        config.tables, config.words, config.splits = ("wine",), ("smoke",), 2
    return config
