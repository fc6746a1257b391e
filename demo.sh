#!/usr/bin/env bash
# From a fresh clone to text: installs what is missing (Debian 12), builds photon, lets the bundled PHOTON model write a
# story, and then do what the architecture is for: read a long text and continue it many times, beside a Transformer of
# equal size.  Arguments go to the first `photon generate`.
set -euo pipefail
cd "$(dirname "$0")"

scripts/install-dependencies run
[ -f build/release/build.ninja ] || cmake --preset release -DPHOTON_TRAIN=OFF -DPHOTON_TESTS=OFF > /dev/null
cmake --build build/release --target photon
photon=build/release/cli/photon

printf '\n== A story by the bundled model\n\n'
"$photon" generate -m models/photon-stories -p "Once upon a time, there was a little girl named Lily. She" \
  -n 150 --temperature 0.8 --top-p 0.95 --seed 7 "$@"

printf '\n== Nine chapters of a novel, read by it and by a Transformer of equal size; then 16 continuations of each\n\n'
exec "$photon" generate -m models/photon-stories --compare models/vanilla-stories \
  -f demo/northanger-abbey.txt --n 16 -n 32 --seed 7 --quiet
