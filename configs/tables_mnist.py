"""Tables 3 to 5: MNIST and Fashion-MNIST, with the five plain models.

  python -m launch.tables --config=configs/tables_mnist.py --workdir=runs/images \
      --config.data_dir=<folder with the images> [--config.splits=1]

The published schedule wants an accelerator. Variants: `short` for a schedule that two CPU cores
can do, the same for every model, which the page says; `smoke` for seconds a cell.
"""

import ml_collections


def get_config(variant=""):
    if variant not in ("", "short", "smoke"):
        raise ValueError(f"config variant {variant!r}: expected nothing, short or smoke")
    config = ml_collections.ConfigDict()
    config.base = "configs/hhvae.py"  # of which table, model and preset are variants
    config.tables = ("mnist", "fashion_mnist")  # joined by commas on a command line
    config.models = ("vae", "miwae", "h-vae", "hmc-vae", "hh-vae")
    config.presets = ("default",)
    config.splits = 1
    config.first_split = 0
    config.replicas = 1  # splits of a cell's settings trained as one program, at most
    config.words = (variant,) if variant else ()  # further variant words of the base config
    config.overrides = ""  # "field=value" for all cells, joined by spaces
    config.data_dir = ""  # data.dir of the base config
    config.keep_runs = False  # keep checkpoints and arrays of finished runs
    return config
