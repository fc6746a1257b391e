#!/usr/bin/env bash
# From a fresh clone to text: installs what is missing (Debian 12), builds photon, lets the bundled PHOTON model write,
# and prints its speed and memory beside a vanilla Transformer of equal size. Arguments go to `photon generate`.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install-dependencies run
[ -f build/release/build.ninja ] || cmake --preset release -DPHOTON_TRAIN=OFF -DPHOTON_TESTS=OFF > /dev/null
cmake --build build/release --target photon

exec build/release/cli/photon generate -m models/photon-stories --compare models/vanilla-stories \
  -p "Once upon a time, there was a little girl named Lily. She" -n 200 --temperature 0.8 --top-p 0.95 --seed 7 --stats "$@"
