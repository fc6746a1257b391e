#!/usr/bin/env python3
"""Gathers what study/run.sh left in runs/study/ into study/results/: SIZE/NAME-SEED.json, a record of
each run, and speed/SIZE/CONFIG.json, what a config costs.  The figures of study/report.md, small enough to keep beside the
recipes.

What a run folder lacks, measurements that were not made yet or logs that are gone, stays as an earlier record has it.
"""
import glob
import json
import os

RUNS, RESULTS = "runs/study", "study/results"
MEASURED = ["windows", "long", "cut", "agree-classics", "agree-stories", "tasks", "vote"]
TIMED = ["info", "prefill", "decode"]


def read(path):
    with open(path) as f:
        return json.load(f)


def read_log(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def training(log):
    """What a run's log says: how it was made, the held-out losses on its way, and its speed."""
    header = log[0]
    rates = sorted(r["tok_s"] for r in log if "tok_s" in r)
    return {key: header[key] for key in ("commit", "machine", "data", "recipe", "parameters", "flops_per_token")} | {
        "valid": [{"tokens": r["tokens"], "texts": r["valid"]} for r in log if "valid" in r],
        # The fastest tenth of the steps: when nothing else ran on its core.
        "training_tok_s": rates[len(rates) * 9 // 10],
    }


def is_finished(record):
    batch = record["recipe"]["batch"]
    tokens = record["recipe"]["run"]["steps"] * batch["sequences"] * batch["tokens"] * batch["accumulate"]
    return any(v["tokens"] == tokens for v in record["valid"])


def tidy(x):
    """Seven digits, more than any figure shows; paths from the repository on."""
    if isinstance(x, dict):
        return {k: tidy(v) for k, v in x.items()}
    if isinstance(x, list):
        return [tidy(v) for v in x]
    if isinstance(x, str):
        return x.removeprefix(os.getcwd() + "/")
    return float(f"{x:.7g}") if isinstance(x, float) else x


def collect(log_path):
    folder = os.path.dirname(log_path)
    log = read_log(log_path)
    if not any("valid" in r for r in log):
        return False
    record = training(log)
    record = {"finished": is_finished(record)} | record
    target = f"{RESULTS}/{os.path.relpath(folder, RUNS)}.json"
    before = read(target) if os.path.exists(target) else {}
    for name in MEASURED:
        path = f"{folder}/{name}.json"
        if os.path.exists(path):
            record[name] = read(path)
        elif name in before:
            record[name] = before[name]
    write(target, record)
    return True


def collect_speed(folder):
    paths = {name: f"{folder}/{name}.json" for name in TIMED}
    if all(os.path.exists(path) for path in paths.values()):
        write(f"{RESULTS}/{os.path.relpath(folder, RUNS)}.json", {name: read(path) for name, path in paths.items()})


def write(target, record):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target + ".part", "w") as f:  # a line a member: changes can be read
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(tidy(v), sort_keys=True)}" for k, v in record.items()) + "\n}\n")
    os.replace(target + ".part", target)


if __name__ == "__main__":
    logs = sorted(glob.glob(f"{RUNS}/*/*/log.jsonl"))
    n = sum(collect(log) for log in logs)
    for folder in glob.glob(f"{RUNS}/speed/*/*"):
        collect_speed(folder)
    print(f"{RESULTS}: records of {n} of the {len(logs)} runs in {RUNS}")
