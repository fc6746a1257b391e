#!/usr/bin/env bash
# The study: trains every arm of study/arms.txt, measures each, and writes study/report.md.
#
#   study/run.sh [train|measure|speed|report …]        all four by default; SIZE=4m-long: only the arms of that size
#
#   train     one thread a training, as many at once as there are CPUs; JOBS=n says otherwise
#   measure   what the held-out texts say: agreement of recgen, loss by position and by context; of the size `paper` the tasks
#             of data/eval (photon eval --fetch data/eval), too, where it is there
#   speed     of decoding and prefill: one after another, on a machine that should do nothing else
#   report    study/results/, a record of each run, and from these study/report.md, study/figures/ and the table in docs/study.md
#
# Needs a built photon and photon-train, the data of recipes/prepare_data.sh, python3 and gnuplot.  Run it again after
# an interruption: what is finished is kept, and trainings go on from their last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
export PHOTON=${PHOTON:-build/release/cli/photon} PHOTON_TRAIN=${PHOTON_TRAIN:-build/release/train/photon-train}
export OMP_WAIT_POLICY=passive
runs=runs/study
if [ "${1:-}" = --help ]; then sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' study/run.sh; exit; fi
stages=("$@")
[ $# -gt 0 ] || stages=(train measure speed report)

arms() { awk -v size="${SIZE:-}" '!/^#/ && NF && (size == "" || $2 == size)' study/arms.txt; }

train() {  # NAME SIZE CONFIG SEED [KEY=VALUE…]
  local name=$1 size=$2 config=$3 seed=$4
  shift 4
  local run=$runs/$size/$name-$seed settings=()
  local record=study/results/$size/$name-$seed.json  # trained before, perhaps elsewhere
  if [ -f "$record" ] && grep -q '^"finished": true' "$record"; then return; fi
  for setting in "$@"; do settings+=(--set "$setting"); done
  mkdir -p "$run"
  "$PHOTON_TRAIN" "study/$size.toml" --set "model.config=study/configs/$size/$config.json" \
    --set "run.seed=$seed" --set "run.out=$run" "${settings[@]}" >> "$run.txt" 2>&1 ||
    { echo "study/run.sh: $size/$name-$seed stopped; see $run.txt" >&2; exit 1; }
  if tail -n 1 "$run/log.jsonl" | grep -q '"interrupted":true'; then echo "study/run.sh: $size/$name-$seed was interrupted" >&2; exit 1; fi
  echo "trained $size/$name-$seed"
}

# keep FILE COMMAND…: the command's output, once, and whole or not at all.
keep() {
  local file=$1
  shift
  [ -s "$file" ] && return
  "$@" > "$file.part" 2>> "$file.log" || { echo "study/run.sh: $* failed; see $file.log" >&2; exit 1; }
  mv "$file.part" "$file"
}

# The loss without what the levels say, beside the model's own.
score_cut() {  # RUN
  python3 study/cut.py "$1/model" "$1/cut"
  "$PHOTON" score -m "$1/cut" --compare "$1/model" --threads 1 --json --window 511 --limit 100 \
    --file data/classics-valid-part.txt
  rm -r "$1/cut"
}

measure() {  # NAME SIZE CONFIG SEED …: what recgen does, of every seed; the rest of the first
  local run=$runs/$2/$1-$4
  [ -f "$run/model/config.json" ] || return 0
  local old  # of a model that was trained further since
  for old in "$run"/{windows,long,cut,agree-classics,agree-stories,tasks,vote}.json; do
    [ "$old" -nt "$run/model/model.safetensors" ] || rm -f "$old"
  done
  if [[ $3 != vanilla* ]]; then  # has levels
    keep "$run/agree-classics.json" "$PHOTON" agree -m "$run/model" --threads 1 --json --window 511 --limit 40 \
      --greedy 64 --file data/classics-valid-part.txt
    keep "$run/agree-stories.json" "$PHOTON" agree -m "$run/model" --threads 1 --json --limit 80 \
      --greedy 64 --file data/stories-valid.txt
  fi
  if [ "$2" = paper ] && [ -d data/eval ]; then
    keep "$run/tasks.json" "$PHOTON" eval -m "$run/model" --threads 1 --json --data data/eval --max-length 511 \
      --tasks wikitext,lambada,hellaswag,piqa,arc_easy,sciq,winogrande --limit 2000
    [ -f data/eval/copy-test.jsonl ] || recipes/copy/generate.py -o data/eval/copy-test.jsonl
    keep "$run/vote.json" "$PHOTON" vote -m "$run/model" --threads 1 --json --data data/eval --max-length 511 \
      --tasks lambada,copy,sciq,arc_easy --samples 64 --limit 200
  fi
  if [ "$4" = 1 ]; then
    keep "$run/windows.json" "$PHOTON" score -m "$run/model" --threads 1 --json --slots 16 --window 511 --limit 100 \
      --file data/classics-valid-part.txt
    keep "$run/long.json" "$PHOTON" score -m "$run/model" --threads 1 --json --by-context --window 16383 --limit 2 \
      --file data/classics-valid-part.txt
    [[ $3 == vanilla* ]] || keep "$run/cut.json" score_cut "$run"
  fi
  echo "measured $2/$1-$4"
}
export -f train keep score_cut measure
export runs

# What each config costs; its speed does not depend on the weights, so they are random.
speed() {
  while read -r size config; do
    local model=study/configs/$size/$config.json out=$runs/speed/$size/$config protocols=hiergen,recgen
    [ ! -f "study/results/speed/$size/$config.json" ] || continue  # measured before
    [[ $config != vanilla* ]] || protocols=hiergen
    mkdir -p "$out"
    keep "$out/info.json" "$PHOTON" info "$model" --context 2048 --json
    keep "$out/prefill.json" "$PHOTON" bench prefill --config "$model" --json --tokens 2048 --repeat 3
    keep "$out/decode.json" "$PHOTON" bench decode --config "$model" --json --protocol "$protocols" --streams 1,64 \
      --context 2048 --tokens 64 --repeat 3
    echo "timed $size/$config"
  done < <(arms | awk '{print $2, $3}' | sort -u)
}

for stage in "${stages[@]}"; do
  case "$stage" in
    train | measure) arms | xargs -P "${JOBS:-$(nproc)}" -L 1 bash -euo pipefail -c "$stage \"\$@\"" "$stage" ;;
    speed) speed ;;
    report)
      python3 study/collect.py
      python3 study/report.py
      ;;
    *) echo "study/run.sh: unknown stage '$stage'; stages are train, measure, speed, report" >&2; exit 2 ;;
  esac
done
