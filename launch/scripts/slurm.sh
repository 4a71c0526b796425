#!/usr/bin/env bash
#SBATCH --job-name=hmcvae
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains on all GPUs of a Slurm job, one process a GPU. From the checkout, which all nodes share and
# whose .venv has the extra `gpu` (or give PYTHON=<interpreter>); options before the script win over
# those above, and --ntasks-per-node must be the number of GPUs of a node:
#
#   sbatch --nodes=4 launch/scripts/slurm.sh --config=configs/vamoh_digits.py \
#       --workdir=runs/digits --config.mesh.data=32
#
# Three minutes before its time is over, or when it is preempted, the job gets SIGTERM: training
# saves, exits with 143, and the job queues up again to go on. Do not add --gpus-per-task: it hides
# from a process the GPU whose number it looks for.
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch [options] $0 --config=<file> --workdir=<shared folder> [...]" >&2
  exit 2
fi

# A process that has saved and left must not make Slurm kill the others, who may still be at it.
status=0
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m launch.train --distributed "$@" ||
  status=$?

if ((status == 143)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
