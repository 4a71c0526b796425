#!/usr/bin/env bash
# Trains on all workers of a TPU slice, one process a worker. From any machine that has gcloud:
#
#   launch/scripts/tpu_pod.sh <slice> <zone> <checkout> --config=configs/vamoh_digits.py \
#       --workdir=/mnt/shared/runs/digits --config.mesh.data=16
#
# <checkout> is the folder of this repository on every worker, with an environment in .venv that has
# the extra `tpu`; --workdir is a folder that every worker has mounted. After a preemption, or
# whenever the connection was lost, the same command goes on from the newest checkpoint.
set -euo pipefail

if (($# < 5)); then
  echo "usage: $0 <slice> <zone> <checkout> --config=<file> --workdir=<shared folder> [...]" >&2
  exit 2
fi
slice=$1 zone=$2 checkout=$3
shift 3

# Quoted for the shell of the workers.
printf -v command 'cd %q && exec .venv/bin/python -m launch.train --distributed' "$checkout"
printf -v options ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$slice" --zone="$zone" --worker=all \
  --command="$command$options"
