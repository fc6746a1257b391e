#!/usr/bin/env bash
# The recall corpus as shards, and its test, from what recipes/prepare_data.sh has made.  Safe to run again.
#
#   recipes/recall/prepare.sh DATA [PHOTON]
#
# DATA gets recall-train.shard (8 M tokens: facts in the books of children-train.txt), recall-valid.shard (the same kind of
# facts in books that training never sees) and recall-test.jsonl (facts of other templates, names, things, places and codes
# in classics-valid.txt).
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: recipes/recall/prepare.sh DATA [PHOTON]" >&2
  exit 2
fi
data=$1 root=$(cd "$(dirname "$0")/../.." && pwd)
photon=${2:-$root/build/release/cli/photon}
generate="$root/recipes/recall/generate.py"
for file in children-train.txt children-valid.txt classics-valid.txt tokenizer.model; do
  if [ ! -f "$data/$file" ]; then
    echo "prepare.sh: $data has no $file; run recipes/prepare_data.sh first" >&2
    exit 1
  fi
done

"$generate" train "$data/children-train.txt" -o "$data/recall-train.txt" --documents 4000 --seed 1
"$generate" train "$data/children-valid.txt" -o "$data/recall-valid.txt" --documents 60 --seed 3
"$generate" test "$data/classics-valid.txt" -o "$data/recall-test.jsonl" --seed 2
"$generate" check "$data/recall-train.txt" "$data/recall-test.jsonl"
for name in recall-train recall-valid; do
  "$photon" shard "$data/$name.txt" -t "$data/tokenizer.model" -o "$data/$name.shard"
done
