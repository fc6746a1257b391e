#!/usr/bin/env python3
"""Measures photon and llama.cpp in turn (A B, then B A, …) and prints both with their ratios.

  bench/llama_cpp/build.sh WORK                      once: builds llama.cpp and the programs that drive it
  bench/llama_cpp/run.py measure WORK -o run.json    makes the models in WORK/models and measures
  bench/llama_cpp/run.py report run.json             prints the tables of a finished or unfinished run again

Every number of a table is the median of the rounds with their least and most; every ratio is the median of the
rounds' own ratios, both sides measured in the same round.  Ratios between runs are refused.  docs/llama-cpp.md.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
import uuid

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
THEIR_DTYPE = {"bf16": "bf16", "int8": "q8_0"}  # what our weights are held against
GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Family:
    """A vanilla model that both engines run, and the models of the same size that only photon runs."""

    name: str
    vanilla: str
    others: tuple


@dataclasses.dataclass(frozen=True)
class Block:
    """What an engine measures in one go: prompts of `tokens`, decoding at `contexts`, or the paper's workloads."""

    family: Family
    dtype: str
    kind: str  # prefill, decode, tpm
    streams: int = 1
    contexts: tuple = (0,)
    tokens: tuple = (64,)
    workloads: tuple = ()

    def name(self):
        return f"{self.family.name}/{self.dtype}/{self.kind}" + (f"-{self.streams}" if self.kind == "decode" else "")


LARGE = Family("600m", "vanilla-600m-h64", ("photon-600m",))
SMALL = Family("8m", "vanilla-8m", ("photon-8m",))
DTYPES = ("bf16", "int8")


def full_plan():
    for dtype in DTYPES:
        yield Block(LARGE, dtype, "prefill", tokens=(512, 2048))
        yield Block(LARGE, dtype, "decode", 1, (0, 2048, 8192))
        yield Block(LARGE, dtype, "decode", 8, (512, 2048), (32,))
        yield Block(LARGE, dtype, "decode", 16, (8192,), (16,))
        yield Block(LARGE, dtype, "decode", 32, (512, 2048), (16,))
        yield Block(LARGE, dtype, "decode", 64, (512, 2048), (16,))
        yield Block(LARGE, dtype, "tpm", workloads=("128+2048", "128+8064"))
        yield Block(SMALL, dtype, "decode", 1, (0, 2048), (128,))


def quick_plan():
    for dtype in DTYPES:
        yield Block(LARGE, dtype, "prefill", tokens=(512,))
        yield Block(LARGE, dtype, "decode", 1, (0, 2048), (32,))
        yield Block(LARGE, dtype, "decode", 32, (512,), (16,))
        yield Block(SMALL, dtype, "decode", 1, (0, 2048), (128,))


def smoke_plan():
    """Every path of this program on small models, in seconds: its numbers mean nothing."""
    for dtype in DTYPES:
        yield Block(SMALL, dtype, "prefill", tokens=(32,))
        yield Block(SMALL, dtype, "decode", 1, (0, 64), (16,))
        yield Block(SMALL, dtype, "decode", 3, (32,), (16,))
        yield Block(SMALL, dtype, "tpm", workloads=("32+64",))


PLANS = {"full": (full_plan, 5), "quick": (quick_plan, 2), "smoke": (smoke_plan, 2)}


class Failed(Exception):
    pass


def output_of(command):
    """Standard output of a command; Failed with its last words."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=REPOSITORY)
    if result.returncode != 0:
        words = (result.stderr or result.stdout).strip().splitlines()[-3:]
        raise Failed(f"{' '.join(str(word) for word in command)}: {' '.join(words)}")
    return result.stdout


# ---- models ----


class Models:
    """The model folders and GGUF files of a working directory, made where they are missing."""

    def __init__(self, work, photon, llama_speed, threads):
        self.folder, self.photon, self.llama_speed, self.threads = work / "models", photon, llama_speed, threads
        self.folder.mkdir(parents=True, exist_ok=True)

    def _made(self, path, *command):
        if not path.exists():
            print(f"making {path}", file=sys.stderr)
            output_of(command)
        return path

    def photon_folder(self, model, dtype):
        config = REPOSITORY / "configs" / f"{model}.json"
        stored = self.folder / model
        self._made(stored / "config.json", self.photon, "init", config, stored, "--dtype", "bf16", "--seed", 1)
        if dtype == "bf16":
            return stored
        quantized = self.folder / f"{model}-{dtype}"
        self._made(quantized / "config.json", self.photon, "quantize", stored, quantized, "--type", dtype)
        return quantized

    def gguf(self, model, dtype):
        stored = self.folder / f"{model}-bf16.gguf"
        self._made(stored, self.photon, "export", self.photon_folder(model, "bf16"), "--gguf", stored)
        if dtype == "bf16":
            return stored
        quantized = self.folder / f"{model}-{THEIR_DTYPE[dtype]}.gguf"
        return self._made(quantized, self.llama_speed, "quantize", stored, quantized, "--threads", self.threads)

    def state(self, model, dtype, context):
        return self.folder / f"{model}-{THEIR_DTYPE[dtype]}-{context}.state"


# ---- measuring ----


class Bench:
    def __init__(self, models, photon, llama_speed, threads):
        self.models, self.photon, self.llama_speed, self.threads = models, photon, llama_speed, threads

    def ours(self, block, models, protocols):
        """One sample of each of our models: the JSON objects of `photon bench`, with what identifies a row."""
        command = [self.photon, "bench", block.kind, "--json", "--repeat", 1, "--threads", self.threads]
        command += ["--protocol", ",".join(protocols), "-m"]
        folders = {self.models.photon_folder(model, block.dtype).name: model for model in models}
        command.append(",".join(str(self.models.folder / name) for name in folders))
        if block.kind == "tpm":
            command += ["--workload", ",".join(block.workloads)]
        else:
            command += ["--streams", block.streams, "--tokens", ",".join(map(str, block.tokens))]
            command += ["--context", ",".join(map(str, block.contexts))]
        rows = []
        for found in json.loads(output_of(command)):
            keep = ("protocol", "streams", "context", "tokens", "workload", "sampled_contexts", "tokens_per_s", "tpm")
            keep += ("ceiling_gb_s", "ceiling_share", "kv_bytes", "kv_bytes_read_per_token", "cpu", "isa", "commit")
            row = {key: found[key] for key in keep if key in found}
            rows.append({"engine": "photon", "model": folders[found["model"]], "dtype": block.dtype, **row})
        return rows

    def _llama(self, block, streams, context, tokens):
        gguf = self.models.gguf(block.family.vanilla, block.dtype)
        command = [self.llama_speed, "prefill" if block.kind == "prefill" else "decode", gguf]
        command += ["--threads", self.threads, "--tokens", tokens]
        if block.kind != "prefill":
            state = self.models.state(block.family.vanilla, block.dtype, context)
            command += ["--streams", streams, "--context", context, "--state", state]
        return json.loads(output_of(command))

    def _llama_row(self, block, found, **changes):
        row = {key: found[key] for key in ("streams", "context", "tokens", "tokens_per_s", "kv_bytes")}
        row["bytes_per_token"] = found["weight_bytes_per_pass"] / found["streams"] + found["kv_bytes_read_per_token"]
        row.update(changes)
        if block.kind != "prefill":
            row["tpm"] = row["tokens_per_s"] / 1e3 / (row["kv_bytes"] / GIB)
        return {"engine": "llama.cpp", "model": block.family.vanilla, "protocol": "llama.cpp",
                "dtype": THEIR_DTYPE[block.dtype], **row}

    def theirs(self, block, vanilla_rows):
        """The same of llama.cpp.  The paper's workloads are sampled where our vanilla model's were."""
        if block.kind != "tpm":
            return [self._llama_row(block, self._llama(block, block.streams, context, tokens))
                    for context in block.contexts for tokens in block.tokens]
        rows = []
        for vanilla in vanilla_rows:
            samples = [self._llama(block, vanilla["streams"], context, vanilla["tokens"])
                       for context in vanilla["sampled_contexts"]]
            mean = len(samples) / sum(1 / sample["tokens_per_s"] for sample in samples)
            positions = [sample["context"] + sample["tokens"] for sample in samples]
            kv_per_position = samples[-1]["kv_bytes"] / positions[-1]
            prompt, generated = map(int, vanilla["workload"].split("+"))
            rows.append(self._llama_row(block, samples[-1], tokens_per_s=mean, workload=vanilla["workload"],
                                        context=vanilla["context"], kv_bytes=kv_per_position * (prompt + generated)))
        return rows

    def round(self, block, reverse):
        """All engines once, one after another; in the next round in the other order."""
        found = {}

        def vanilla():
            found["vanilla"] = self.ours(block, (block.family.vanilla,), ("hiergen",))

        def others():
            protocols = ("hiergen",) if block.kind == "prefill" else ("hiergen", "recgen")
            found["others"] = self.ours(block, block.family.others, protocols)

        def llama():
            found["llama"] = self.theirs(block, found.get("vanilla"))

        order = [others, llama, vanilla]
        if block.kind == "tpm":
            order = [vanilla, llama, others]  # llama.cpp takes its batch size from our vanilla model
        elif reverse:
            order.reverse()
        for engine in order:
            engine()
        ceiling = statistics.median(row["ceiling_gb_s"] for row in found["vanilla"] + found["others"])
        for row in found["llama"]:
            row["ceiling_gb_s"] = ceiling
            if block.kind != "prefill":  # which is not bound by memory
                row["ceiling_share"] = row["tokens_per_s"] * row["bytes_per_token"] / 1e9 / ceiling
        return found["llama"] + found["vanilla"] + found["others"]


def measure(arguments):
    work = arguments.work.resolve()
    llama_speed, photon = work / "programs" / "llama-speed", arguments.photon.resolve()
    for program, way in ((llama_speed, "run bench/llama_cpp/build.sh"), (photon, "build it, or give --photon")):
        if not program.exists():
            sys.exit(f"run.py: {program} is missing; {way}")
    make_plan, repeats = PLANS[arguments.plan]
    repeats = arguments.repeat or repeats
    blocks = [block for block in make_plan() if re.search(arguments.only, block.name())]
    if not blocks:
        sys.exit(f"run.py: --only {arguments.only} leaves nothing of the plan")
    models = Models(work, photon, llama_speed, arguments.threads)
    bench = Bench(models, photon, llama_speed, arguments.threads)
    run = {"run": uuid.uuid4().hex, "plan": arguments.plan, "threads": arguments.threads, "rows": [], "failures": []}
    for block in blocks:  # not between the measurements
        for model in (block.family.vanilla, *block.family.others):
            models.photon_folder(model, block.dtype)
        models.gguf(block.family.vanilla, block.dtype)

    start, done = time.monotonic(), 0
    for round_number in range(repeats):
        for block in blocks:
            place = {"run": run["run"], "round": round_number, "block": block.name(), "family": block.family.name,
                     "kind": block.kind}
            try:
                rows = bench.round(block, reverse=round_number % 2 == 1)
                run["rows"] += [{**place, **row} for row in rows]
            except Failed as failure:
                print(f"{block.name()} failed: {failure}", file=sys.stderr)
                run["failures"].append(f"{block.name()}, round {round_number + 1}: {failure}")
            done += 1
            left = (time.monotonic() - start) / done * (repeats * len(blocks) - done)
            print(f"round {round_number + 1} of {repeats}, {block.name()}; about {left / 60:.0f} min left",
                  file=sys.stderr)
            temporary = arguments.output.with_suffix(".part")  # a run that is cut short keeps its rounds
            temporary.write_text(json.dumps(run, indent=1))
            os.replace(temporary, arguments.output)
    report(run)
    return 1 if run["failures"] else 0


# ---- reporting ----


def ratio(ours, theirs, key):
    """Median, least and most of the rounds' ratios.  Both sides must come from one run, and from the same rounds."""
    if {row["run"] for row in ours} != {row["run"] for row in theirs}:
        raise Failed("the two sides of a ratio were not measured in the same run")
    of_round = {row["round"]: row[key] for row in theirs}
    found = [row[key] / of_round[row["round"]] for row in ours if row["round"] in of_round]
    return (statistics.median(found), min(found), max(found)) if found else None


def spread_text(values):
    number = ",.1f" if statistics.median(values) < 100 else ",.0f"
    if len(values) == 1:
        return format(values[0], number)
    return f"{statistics.median(values):{number}} ({min(values):{number}}–{max(values):{number}})"


def ratio_text(found):
    if found is None:
        return "–"
    median, least, most = found
    number = ",.2f" if median < 10 else ",.1f" if median < 100 else ",.0f"
    return f"{median:{number}}×" + ("" if least == most else f" ({least:{number}}–{most:{number}})")


def tpm_text(tpm):
    return f"{tpm:,.0f}" if tpm >= 100 else f"{tpm:.3g}"


def print_table(table):
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for number, row in enumerate(table):
        print("| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def what_of(row):
    """What a row measures, whoever is measured: rows with the same are compared."""
    if row["kind"] == "tpm":
        return "decode " + row["workload"]
    if row["kind"] == "prefill":
        return f"prefill {row['tokens']}"
    return f"decode, {row['streams']} stream{'s' if row['streams'] > 1 else ''} at {row['context']}"


def report(run):
    print(f"run {run['run']}, {run['threads']} threads")
    for machine in sorted({(row.get("cpu"), row.get("isa"), row.get("commit")) for row in run["rows"] if "cpu" in row}):
        print("photon: " + ", ".join(str(part) for part in machine))
    cells = {}
    for row in run["rows"]:
        cell = cells.setdefault((row["family"], what_of(row)), {})
        cell.setdefault((row["model"], row["protocol"], row["dtype"]), []).append(row)
    for family in dict.fromkeys(family for family, _ in cells):
        print(f"\n{family}: tokens/s of all streams; median (least–most); × of llama.cpp in the same rounds\n")
        table = [["", "model", "dtype", "streams", "tokens/s", "GB/s", "share", "× same dtype", "× its best", "TPM",
                  "TPM ×"]]
        for (_, what), cell in ((key, cell) for key, cell in cells.items() if key[0] == family):
            theirs = {dtype: rows for (_, protocol, dtype), rows in cell.items() if protocol == "llama.cpp"}
            best = max(theirs, key=lambda dtype: statistics.median(row["tokens_per_s"] for row in theirs[dtype]),
                       default=None)
            for (model, protocol, dtype), rows in cell.items():
                is_llama = protocol == "llama.cpp"
                same = theirs.get(THEIR_DTYPE.get(dtype, dtype))
                is_same = is_llama or same is None
                has_tpm = all(row.get("tpm") for row in rows)
                shares = [row["ceiling_share"] for row in rows if "ceiling_share" in row]
                name = protocol if is_llama else model if model.startswith("vanilla") else f"{model} {protocol}"
                table.append([
                    what, name, dtype, str(rows[0]["streams"]), spread_text([row["tokens_per_s"] for row in rows]),
                    f"{statistics.median(row['ceiling_gb_s'] for row in rows):.0f}",
                    f"{100 * statistics.median(shares):.0f} %" if shares else "",
                    "" if is_same else ratio_text(ratio(rows, same, "tokens_per_s")),
                    "" if is_llama or best is None else ratio_text(ratio(rows, theirs[best], "tokens_per_s")),
                    tpm_text(statistics.median(row["tpm"] for row in rows)) if has_tpm else "",
                    ratio_text(ratio(rows, same, "tpm")) if has_tpm and not is_same else "",
                ])
                what = ""
        print_table(table)
    for failure in run["failures"]:
        print(f"\nnot measured: {failure}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("measure", help="measure and print the tables")
    command.add_argument("work", type=pathlib.Path, help="working directory of build.sh")
    command.add_argument("-o", "--output", type=pathlib.Path, required=True, help="JSON file, written after every step")
    command.add_argument("--photon", type=pathlib.Path, default=REPOSITORY / "build/release/cli/photon")
    command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    command.add_argument("--repeat", type=int, help="rounds (default: 5; quick and smoke: 2)")
    plan = command.add_mutually_exclusive_group()
    plan.add_argument("--quick", dest="plan", action="store_const", const="quick", help="the most telling cells only")
    plan.add_argument("--smoke", dest="plan", action="store_const", const="smoke", help="tiny sizes: does it work?")
    command.add_argument("--only", default="", help="blocks whose name matches, e.g. 600m/bf16/decode-1$")
    command.set_defaults(plan="full")
    command = commands.add_parser("report", help="print the tables of runs again, each by itself")
    command.add_argument("runs", type=pathlib.Path, nargs="+", help="JSON files of runs")
    arguments = parser.parse_args()
    try:
        if arguments.command == "measure":
            return measure(arguments)
        for path in arguments.runs:
            report(json.loads(path.read_text()))
    except (Failed, OSError, ValueError) as problem:
        sys.exit(f"run.py: {problem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
