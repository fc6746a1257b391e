#!/usr/bin/env bash
# Trains every arm of configs/spans/ with recipes/spans.toml, each at the same budget, seed and data order, and prints
# the held-out losses.  Finished arms are skipped and interrupted ones resume, so it can be run again at any time.
#
#   recipes/spans.sh [PHOTON_TRAIN] [--set key=value …]
set -euo pipefail
cd "$(dirname "$0")/.."
train=${1:-build/release/train/photon-train}
[ $# -gt 0 ] && shift

for config in configs/spans/*.json; do
  arm=$(basename "$config" .json)
  "$train" recipes/spans.toml --set model.config="$config" --set run.out="runs/spans/$arm" "$@"
done
