#!/usr/bin/env bash
# The study: trains every arm of recipes/study/arms.txt, measures each, and writes docs/study.md from the logs.
#
#   recipes/study/run.sh [JOBS]        JOBS trainings at once, one thread each; as many as there are CPUs by default
#
# Needs a built photon and photon-train, and the data of recipes/prepare_data.sh.  Run it again after an interruption:
# finished arms and measurements are kept, unfinished trainings go on from their last checkpoint.  Figures of speed are
# measured after all trainings, one at a time.
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${1:-$(nproc)}
export PHOTON=${PHOTON:-build/release/cli/photon} PHOTON_TRAIN=${PHOTON_TRAIN:-build/release/train/photon-train}
export OMP_WAIT_POLICY=passive

train() {  # NAME SIZE CONFIG SEED [KEY=VALUE…]
  local name=$1 size=$2 config=$3 seed=$4
  shift 4
  local run=runs/study/$size/$name-$seed settings=()
  for setting in "$@"; do settings+=(--set "$setting"); done
  mkdir -p "$run"
  "$PHOTON_TRAIN" "recipes/study/$size.toml" --set "model.config=configs/study/$size/$config.json" \
    --set "run.seed=$seed" --set "run.out=$run" "${settings[@]}" >> "$run.txt" 2>&1 ||
    { echo "recipes/study/run.sh: $size/$name-$seed stopped; see $run.txt" >&2; exit 1; }
  echo "trained $size/$name-$seed"
}
export -f train
grep -v '^#' recipes/study/arms.txt | xargs -P "$jobs" -L 1 bash -c 'train "$@"' train
