"""Acceptance and log p(x_U | x_O) while HMC is tuned: standardised latents against their layers.

  python -m launch.train --config=configs/hhvaem.py:boston --workdir=runs/standard \
      --config.model.bound=elbo --config.train.num_importance=5 \
      --config.evaluate.probe_every=100 --config.train.vi_steps=18000 --config.train.hmc_steps=2000
  python -m launch.train --config=configs/hhvaem.py:boston,noreparam --workdir=runs/layers ...
  python -m benchmarks.reparameterisation --workdirs runs/standard runs/layers --output=figure.png

The first two fields are what `noreparam` implies: both runs are trained by the evidence bound. The
figure is what they logged in their HMC stage; the scores before and after it are printed.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from launch.metrics import read_rows
from launch.workdir import read_json


def main():
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdirs", nargs="+", required=True, help="runs with a probe")
    parser.add_argument("--output", required=True, help="PNG to write")
    options = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3), layout="constrained")
    for workdir in map(Path, options.workdirs):
        rows = [row for row in read_rows(workdir) if row["phase"] == "hmc"]
        if not rows or "probe_nll_x" not in rows[0]:
            parser.error(
                f"--workdirs {workdir}: logged no probe in an HMC stage; train it with "
                f"--config.evaluate.probe_every=100"
            )
        name = read_json(workdir / "meta.json")["model"]
        steps = [row["step"] for row in rows]
        axes[0].plot(steps, [row["acceptance"] for row in rows], label=name)
        axes[1].plot(steps, [-row["probe_nll_x"] for row in rows], label=name)
        phases = read_json(workdir / "result.json")["phases"]
        for phase in ("vi", "hmc"):
            scores = phases[phase]["metrics"]
            shown = ("nll_x", "paper_nll_x", "nll_y", "error_x", "acceptance")
            line = ", ".join(f"{key} {scores[key]['mean']:.3f}" for key in shown)
            print(f"{name}, end of {phase}: {line}")
    axes[0].set(xlabel="step of stage 3", ylabel="acceptance")
    axes[1].set(xlabel="step of stage 3", ylabel="log p(x_U | x_O), nats a column")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()
