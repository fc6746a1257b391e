#!/usr/bin/env bash
# Builds llama.cpp for this CPU and the two programs that compare it with photon:  bench/llama_cpp/build.sh WORKDIR
#
# llama.cpp's source comes from an npm package that carries it whole; nothing else is fetched.  WORKDIR then holds
#   package/          the package                  source/    llama.cpp as the package has it
#   build/            libllama and ggml            programs/  llama-speed and llama-compare
# What is there already is kept: delete a folder to make it anew.
set -euo pipefail

package=node-llama-cpp@3.22.1  # llama.cpp v0.5.0
if [ $# -ne 1 ]; then
  echo "usage: $0 WORKDIR" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
jobs=${JOBS:-$(nproc)}

missing=()
for tool in npm tar git cmake ninja c++; do
  command -v "$tool" > /dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "$0: missing: ${missing[*]} (Debian: apt-get install npm git cmake ninja-build g++)" >&2
  exit 1
fi

cd "$work"
if [ ! -d package ]; then
  echo "fetching $package with npm"
  npm pack --silent "$package" > /dev/null || { echo "$0: npm cannot fetch $package; see npm's settings" >&2; exit 1; }
  tar xzf node-llama-cpp-*.tgz
  rm node-llama-cpp-*.tgz
fi
if [ ! -d source ]; then
  git clone --quiet package/llama/gitRelease.bundle source 2> /dev/null  # warns of a detached head
fi
cmake -S source -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DGGML_BLAS=OFF \
  -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF \
  -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF > configure.log || { cat configure.log >&2; exit 1; }
cmake --build build -j "$jobs" --target llama
cmake -S "$here" -B programs -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_CPP="$work" > programs.log ||
  { cat programs.log >&2; exit 1; }
cmake --build programs -j "$jobs"
echo "built: $work/programs/llama-speed, $work/programs/llama-compare"
