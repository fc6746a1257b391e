#!/usr/bin/env bash
# Installs what is missing (Debian 12), builds everything, runs all tests. Arguments go to ctest, e.g. ./test.sh -R engine
set -euo pipefail
cd "$(dirname "$0")"

scripts/install-dependencies run train test
cmake --preset release -DPHOTON_TRAIN=ON -DPHOTON_TESTS=ON > /dev/null
cmake --build build/release
exec ctest --preset release "$@"
