#!/usr/bin/env python3
"""Writes study/report.md, its figures and the table of docs/study.md from the records in study/results/, which collect.py
makes of the logs.

The sentences that a person has to write, what the figures mean, stand in study/findings.md and are taken over.
"""
import json
import math
import os
import subprocess
import sys
from collections import defaultdict

RESULTS, DOC, FIGURES = "study/results", "study/report.md", "study/figures"
TABLE_BEGINS, TABLE_ENDS = "<!-- table: written by study/report.py -->\n", "<!-- end of the table -->\n"  # in the pages
TRAIN_WINDOW = 512
TITLES = {"5m": "5 M parameters", "4m-long": "Longer: 9 M tokens at 4 M parameters",
          "paper": "The paper's arms, equal tokens and equal FLOPs", "15m": "15 M parameters"}
WHAT, LOOK = {}, {}  # config -> one line; config -> (colour, marker) in figures: from study/configs.txt


def read_record(name):
    path = f"{RESULTS}/{name}.json"
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return json.load(f)


class Run:
    """One arm with one seed: its record, as far as it was trained."""

    def __init__(self, name, size, config, seed, settings):
        self.name, self.size, self.config, self.seed, self.settings = name, size, config, int(seed), settings
        self.record = read_record(f"{size}/{name}-{seed}")
        self.speed_record = read_record(f"speed/{size}/{config}")
        self.finished = self.record.get("finished", False)

    def get(self, name):
        """A measurement; None if it was not made."""
        return self.record.get(name, self.speed_record.get(name))

    def valid(self):
        """[(tokens, {text: {nats, bits_per_byte}})], of the whole run."""
        return [(v["tokens"], v["texts"]) for v in self.record["valid"]]

    def losses(self):
        """[(tokens, mean over the held-out texts, nats per token)], of the whole run."""
        return [(tokens, mean(v["nats"] for v in texts.values())) for tokens, texts in self.valid()]

    def loss(self):
        return self.losses()[-1][1]

    def tokens(self):
        return self.valid()[-1][0]

    def flops(self):
        """Of the whole training."""
        return self.tokens() * self.record["flops_per_token"]

    def label(self):
        return f"`{self.name}`" + (f", seed {self.seed}" if self.seed > 1 else "")

    def speed(self, protocol, streams):
        for case in self.get("decode") or []:
            if case["protocol"] == protocol and case["streams"] == streams:
                return case
        return None


def read_arms():
    with open("study/arms.txt") as f:
        words = [line.split() for line in f if line.strip() and not line.startswith("#")]
    return [Run(*w[:4], w[4:]) for w in words]


def read_descriptions():
    with open("study/configs.txt") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                name, colour, marker, text = line.split(None, 3)
                WHAT[name], LOOK[name] = text.strip(), (colour, int(marker))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def table(header, rows, text_columns=1):
    align = ["---" if i < text_columns else "--:" for i in range(len(header))]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(align) + "|"]
    lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(x, digits=0):
    return "–" if x is None else f"{x:,.{digits}f}"


def spread(case):
    return f"{case['tokens_per_s']:,.0f} ({case['tokens_per_s_min']:,.0f}–{case['tokens_per_s_max']:,.0f})"


class Size:
    """All finished runs of one size, by arm; of the others, what is known."""

    def __init__(self, name, runs):
        self.name = name
        self.arms = defaultdict(list)
        self.stopped = [run for run in runs if run.record and not run.finished]
        for run in runs:
            if run.finished:
                self.arms[run.name].append(run)
        # The largest difference that nothing but the seed made: what is smaller is not resolved.
        spreads = [max(r.loss() for r in a) - min(r.loss() for r in a) for a in self.arms.values() if len(a) > 1]
        self.n_repeated, self.spread = len(spreads), max(spreads) if spreads else None

    def loss(self, arm):
        return mean(r.loss() for r in self.arms[arm])

    def by_loss(self):
        return sorted(self.arms, key=self.loss)

    def equal_tokens(self):
        return len({arm[0].tokens() for arm in self.arms.values()}) == 1

    def first_runs(self):
        """One of each arm, the best arm first, then those that were stopped."""
        return [self.arms[arm][0] for arm in self.by_loss()] + self.stopped

    def all_runs(self):
        """With every seed."""
        return [run for arm in self.by_loss() for run in self.arms[arm]] + self.stopped

    def against(self, arm, other="vanilla"):
        if arm == other or other not in self.arms:
            return ""
        difference = self.loss(arm) - self.loss(other)
        text = f"{difference:+.3f}"
        return text + " (unresolved)" if self.spread is not None and abs(difference) <= self.spread else text


def quality(size):
    rows = []
    for arm in size.by_loss():
        runs = size.arms[arm]
        first = runs[0]
        info = first.get("info")
        parts = info["parameters_by_part"] if info else {}
        inner = first.record["parameters"] - parts.get("embedding", 0) - parts.get("head", 0) if parts else None
        ends = [r.valid()[-1][1] for r in runs]
        cells = [f"`{arm}`", number(inner and inner / 1e6, 2), number(first.record["flops_per_token"] / 1e6, 1)]
        if not size.equal_tokens():
            cells += [number(first.tokens() / 1e6, 1), number(first.flops() / 1e12, 0)]
        for text in ends[0]:
            cells.append(f"{mean(e[text]['nats'] for e in ends):.3f}")
            cells.append(f"{mean(e[text]['bits_per_byte'] for e in ends):.3f}")
        cells += [f"{size.loss(arm):.3f}", size.against(arm), " ".join(f"{r.loss():.3f}" for r in runs) if len(runs) > 1 else ""]
        rows.append(cells)
    texts = list(next(iter(size.arms.values()))[0].valid()[-1][1])
    header = ["arm", "M parameters", "training MFLOP/token"] + ([] if size.equal_tokens() else ["M tokens", "training TFLOP"])
    for text in texts:
        header += [f"{text}, nats", "bits/byte"]
    return table(header + ["mean nats", "against vanilla", "seeds"], rows)


# The arms of the page's table: those of the longer training, and what a reader has to know of each.
PAGE_SIZE = "4m-long"
PAGE_ARMS = {
    "vanilla": "Transformer, 8 blocks", "vanilla-w64": "8 blocks, window of 64", "vanilla-w64-b5": "5 blocks, window of 64",
    "two-c32x2-slim": "C = (32, 2), 8 blocks", "one-c32-slim": "C = 32, 8 blocks", "one-c16-deep": "C = 16, 7 blocks",
    "two-c8-deep": "C = (8, 2), 6 blocks", "ours": "C = (4, 4), 4 blocks",
}


def page_table(size):
    """What docs/study.md shows: an arm a line."""
    vanilla = next(run.speed("hiergen", 64) for run in size.arms["vanilla"])
    rows = []
    for arm in (arm for arm in size.by_loss() if arm in PAGE_ARMS):
        first = size.arms[arm][0]
        many, kv = first.speed("hiergen", 64), first.get("info")["protocols"]["hiergen"]
        rows.append([f"`{arm}`", PAGE_ARMS[arm], number(first.record["flops_per_token"] / 1e6, 1), f"{size.loss(arm):.3f}", len(size.arms[arm]),
                     number(first.get("prefill")[0]["tokens_per_s"]), number(many["tokens_per_s"]),
                     number(many["tpm"] / vanilla["tpm"], 1) + "×", number(kv["kv_bytes_per_token"])])
    return table(["arm", "what it is", "train", "loss", "seeds", "prefill", "decode", "TPM", "KV"], rows, text_columns=2)


def write_page_table(page, text):
    with open(page) as f:
        before, rest = f.read().split(TABLE_BEGINS)
    with open(page, "w") as f:
        f.write(before + TABLE_BEGINS + "\n" + text + "\n" + TABLE_ENDS + rest.split(TABLE_ENDS)[1])


PAPER_ARMS = {
    "vanilla": "Transformer", "block4": "Block Transformer", "photon22": "PHOTON, C = (2, 2)", "photon44": "PHOTON, C = (4, 4)",
    "block4-flops": "Block, equal FLOPs", "photon22-flops": "C = (2, 2), equal FLOPs", "photon44-flops": "C = (4, 4), equal FLOPs",
    "photon44-a0.1": "C = (4, 4), α = 0.1", "photon44-a0.2": "α = 0.2", "photon44-a0.3": "α = 0.3", "photon44-a0.4": "α = 0.4",
}


def paper_table(size):
    """What docs/paper.md shows: the paper's arms in its order, those without a record with dashes."""
    rows = []
    for arm, what in PAPER_ARMS.items():
        runs = size.arms.get(arm)
        if not runs:
            rows.append([f"`{arm}`", what] + ["–"] * 8)
            continue
        agreements = [[a["protocols"]["recgen"] | {"greedy": a["greedy"]["equal"]} for text in ("classics", "stories") if (a := run.get(f"agree-{text}"))]
                      for run in runs]
        recgen = [a for of_run in agreements for a in of_run if a.get("units")]  # with one level recgen is hiergen
        rows.append([f"`{arm}`", what, number(runs[0].tokens() / 1e6, 1), number(runs[0].flops() / 1e12, 0),
                     " · ".join(f"{r.loss():.3f}" for r in runs), f"{size.loss(arm):.3f}",
                     f"{size.loss(arm) - size.loss('vanilla'):+.3f}" if arm != "vanilla" and "vanilla" in size.arms else "–",
                     f"{mean(a['nats_per_token_difference'] for a in recgen):+.3f}" if recgen else "–",
                     f"{100 * mean(a['greedy'] for a in recgen):.0f} %" if recgen else "–",
                     f"{mean(a['units'][0]['cosine'] for a in recgen):.2f}" if recgen else "–"])
    return table(["arm", "what it is", "M tokens", "TFLOP", "loss by seed", "mean", "against vanilla", "recgen's likelihood", "greedy equal", "cos(X̂⁽¹⁾, X⁽¹⁾)"],
                 rows, text_columns=2)


def on_the_way(size):
    """Losses at the same number of tokens and the same learning rate: how runs that were stopped compare."""
    runs = size.all_runs()
    at = sorted({tokens for run in runs for tokens, _ in run.valid()})
    rows = []
    for run in runs:
        losses = dict(run.losses())
        rows.append([run.label() + ("" if run.finished else " (stopped)"), number(run.record["flops_per_token"] / 1e6, 1),
                     *(number(losses.get(tokens), 3) for tokens in at)])
    return table(["arm, mean nats after", "training MFLOP/token", *(f"{tokens / 1e6:.1f} M" for tokens in at)], rows)


def training_rate(size, run, cpu):
    """Of one thread of that CPU, by one of the arm's seeds."""
    for record in (r.record for r in size.arms.get(run.name, [run])):
        if record["machine"]["cpu"] == cpu:
            return f"{record['training_tok_s']:,.0f} ({record['recipe']['compute']['precision']})"
    return "–"


def speeds(size):
    rows = []
    vanilla = next((run.speed("hiergen", 64) for run in size.arms.get("vanilla", [])), None)
    seen = set()  # arms of one config are equally fast
    for run in size.first_runs():
        arm = run.name
        info, prefill = run.get("info"), run.get("prefill")
        if not info or not prefill or run.config in seen:
            continue
        seen.add(run.config)
        for protocol in ("hiergen", "recgen"):
            one, many = run.speed(protocol, 1), run.speed(protocol, 64)
            if not many:
                continue
            kv = info["protocols"][protocol]
            first = protocol == "hiergen"
            rows.append([
                f"`{arm}`" if first else "", protocol, number(run.loss(), 3) if first and run.finished else "", spread(one), spread(many), number(prefill[0]["tokens_per_s"]) if first else "",
                training_rate(size, run, one["cpu"]) if first else "",
                number(kv["kv_bytes_per_token"]), number(kv["kv_bytes_constant"] / 1e3, 1), number(many["tpm"]),
                number(many["tpm"] / vanilla["tpm"], 1) + "×" if vanilla else "",
            ])
    return table(["arm", "protocol", "mean nats", "decode, 1 stream", "64 streams", "prefill", "training, one thread", "growing KV B/token",
                  "constant KV kB", "TPM, 64 streams", "against vanilla"], rows) if rows else ""


def recgen(size):
    rows = []
    for run in (run for arm in size.by_loss() for run in size.arms[arm]):
        for text in ("classics", "stories"):
            agree = run.get(f"agree-{text}")
            if not agree or "recgen" not in agree["protocols"]:
                continue
            r = agree["protocols"]["recgen"]
            cosines = ", ".join(f"{u['cosine']:.2f}" for u in r["units"]) or "–"
            rows.append([run.label(), text, number(agree["forward_nats_per_token"], 3), number(r["nats_per_token"], 3),
                         f"{r['nats_per_token_difference']:+.3f} ± {r['nats_per_token_difference_standard_error']:.3f}",
                         number(r["kl"], 3), f"{100 * r['top1_agreement']:.0f} %", f"{100 * agree['greedy']['equal']:.0f} %",
                         cosines])
    return table(["arm", "text", "exact, nats", "recgen, nats", "difference", "KL", "same top 1", "greedy, 64 tokens equal",
                  "cos(X̂, X) by level"], rows) if rows else ""


def without_levels(size):
    """What is lost where the prefix vectors are zero."""
    rows = []
    for run in (size.arms[arm][0] for arm in size.by_loss()):
        if cut := run.get("cut"):
            rows.append([f"`{run.name}`", number(cut["reference_nats_per_token"], 3), number(cut["nats_per_token"], 3),
                         f"{cut['nats_per_token_difference']:+.3f} ± {cut['nats_per_token_difference_standard_error']:.3f}"])
    return table(["arm, classics", "nats", "without what its levels say", "difference"], rows) if rows else ""


def tasks(size):
    """Zero-shot accuracies, in percent, and what an article of WikiText costs a byte."""
    runs = [run for arm in size.by_loss() for run in size.arms[arm] if run.get("tasks")]
    if not runs:
        return ""
    columns = [("lambada", "acc"), ("hellaswag", "acc_norm"), ("piqa", "acc_norm"), ("arc_easy", "acc_norm"), ("sciq", "acc_norm"), ("winogrande", "acc")]
    rows = []
    for run in runs:
        of_task = {t["task"]: t["metrics"] for t in run.get("tasks")["tasks"]}
        cells = [run.label(), f"{of_task['wikitext']['bits_per_byte']['value']:.3f}"]
        for task, metric in columns:
            m = of_task[task][metric]
            cells.append(f"{100 * m['value']:.1f} ± {100 * m['standard_error']:.1f}")
        rows.append(cells)
    return table(["arm", "wikitext, bits/byte", *(f"{task}, {metric}" for task, metric in columns)], rows)


VOTE_BUDGET = 4  # samples of the Transformer's


def votes(size):
    """Many sampled answers at the KV cache of a few of the Transformer's."""
    voted = {arm: {t["task"]: t for t in runs[0].get("vote")["tasks"]} for arm in size.by_loss()
             if (runs := [run for run in size.arms[arm] if run.get("vote")])}
    if "vanilla" not in voted:
        return ""
    text = ""
    for task in voted["vanilla"]:
        budget = VOTE_BUDGET * voted["vanilla"][task]["kv_bytes_a_sample_alone"]
        rows = []
        for arm, tasks_of in voted.items():
            t = tasks_of[task]
            held = int(budget / t["kv_bytes_a_sample_alone"])
            one, many = t["points"][0], [p for p in t["points"] if p["n"] <= held][-1]
            percent = [f"{100 * p[way]['value']:.1f} ± {100 * p[way]['standard_error']:.1f}"
                       for p, way in ((one, "majority"), (many, "majority"), (many, "best"), (many, "any"))]
            rows.append([arm, f"{t['kv_bytes_a_sample_alone'] / 1e3:.0f}", str(held), str(many["n"]), *percent,
                         f"{100 * t['samples_with_an_answer'] / t['samples']:.0f}"])
        text += f"\n`{task}`, {voted['vanilla'][task]['documents']} questions, {budget / 1e6:.2f} MB:\n\n" + table(
            ["arm", "KV of a sample, kB", "samples held", "n", "one sample, %", "vote of n", "likeliest of n", "any of n", "samples that answer, %"], rows)
    return text


# Figures: one colour and marker an arm, in all of them; lines and points are named where they are.

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 460, 84, 44, 58  # of a figure and its margins, in pixels


class Axis:
    """From a value to a share of the axis."""

    def __init__(self, low, high, log=False):
        self.low, self.high, self.log = low, high, log

    def share(self, value):
        a, b, x = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (x - a) / (b - a)


def around(values, log=False, margin=0.05):
    """An axis with some room beside the values."""
    low, high = min(values), max(values)
    if log:
        return Axis(low * (low / high) ** margin, high * (high / low) ** margin, log)
    return Axis(low - margin * (high - low), high + margin * (high - low))


def draw(name, title, x_label, y_label, x, y, script, right=24):
    """The look that all figures share; `right` is the right margin in pixels."""
    os.makedirs(FIGURES, exist_ok=True)
    head = (f"set terminal svg size {WIDTH},{HEIGHT} font 'sans-serif,13' background '#ffffff'\n"
            f"set output '{FIGURES}/{name}.svg'\n"
            f"set lmargin at screen {LEFT / WIDTH:.4f}\nset rmargin at screen {1 - right / WIDTH:.4f}\n"
            f"set tmargin at screen {1 - TOP / HEIGHT:.4f}\nset bmargin at screen {BOTTOM / HEIGHT:.4f}\n"
            "set border 3 lc rgb '#666666'\nset tics nomirror textcolor rgb '#333333'\nset grid lc rgb '#e2e2e2' lt 1\nunset key\n"
            f"set label 1 '{title}' at graph 0, graph 1 offset 0, char 1.2 noenhanced font ',14'\n"
            f"set xlabel '{x_label}' noenhanced\nset ylabel '{y_label}' noenhanced\n"
            + ("set logscale x\n" if x.log else "") +
            f"set xrange [{x.low}:{x.high}]\nset yrange [{y.low}:{y.high}]\n")
    subprocess.run(["gnuplot"], input=head + script, text=True, check=True)
    return f"![{title}](figures/{name}.svg)\n"


def apart(places, gap, high):
    """Places from 0 to `high`, moved as little as keeps neighbours `gap` apart, in their order (base/gnuplot.cpp has it, too)."""
    groups = []  # (where it begins, members)
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        groups.append((min(max(places[i], 0), high), [i]))
        while len(groups) > 1:
            (a, below), (b, above) = groups[-2:]
            n, m = len(below), len(above)
            if a + gap * n <= b:
                break
            begin = (n * a + m * (b - gap * n)) / (n + m)
            groups[-2:] = [(min(max(begin, 0), high - gap * (n + m - 1)), below + above)]
    return [begin + gap * members.index(i) for i in range(len(places)) for begin, members in groups if i in members]


def plotted(number, points, style):
    data = f"$d{number} << END\n" + "\n".join(f"{a:.7g} {b:.7g}" for a, b in points) + "\nEND\n"
    return data, f"$d{number} using 1:2 with {style}"


def lines(name, title, x_label, y_label, series, log_base=None, extra="", inside=()):
    """series: [(arm, [(x, y)])], each named at its end; inside: the same, dashed, named by a key in the upper right corner."""
    series, inside = list(series), list(inside)
    values = [point for _, points in [*series, *inside] for point in points]
    x, y = Axis(min(v[0] for v in values), max(v[0] for v in values), bool(log_base)), around([v[1] for v in values])
    height, width, right = HEIGHT - TOP - BOTTOM, 0, 150
    width = WIDTH - LEFT - right
    places = apart([height * y.share(points[-1][1]) for _, points in series], 16, height)
    data, plots, labels = "", [], extra
    for i, ((arm, points), place) in enumerate(zip(series, places)):
        colour, marker = LOOK[arm]
        more, plot = plotted(i, points, f"linespoints lw 2 pt {marker} ps 0.5 lc rgb '{colour}' notitle")
        data, plots = data + more, [*plots, plot]
        end = width * x.share(points[-1][0])
        labels += (f"set arrow from graph {end / width:.4f}, graph {y.share(points[-1][1]):.4f} to graph {1 + 16 / width:.4f}, graph {place / height:.4f} "
                   f"nohead lw 0.7 lc rgb '{colour}'\n"
                   f"set label '{arm}' at graph {1 + 20 / width:.4f}, graph {place / height:.4f} tc rgb '{colour}' noenhanced\n")
    for i, (arm, points) in enumerate(inside, start=len(series)):
        colour, marker = LOOK[arm]
        more, plot = plotted(i, points, f"linespoints lw 1.5 dt 2 pt {marker} ps 0.5 lc rgb '{colour}' title '{arm}, stopped' noenhanced")
        data, plots = data + more, [*plots, plot]
    if inside:
        labels += "set key inside top right Left reverse samplen 2.5 spacing 1.1\n"
    if log_base:
        labels += f"set logscale x {log_base}\n"
    return draw(name, title, x_label, y_label, x, y, labels + data + "plot " + ", ".join(plots) + "\n", right)


def beside(points, names, width, height):
    """Where to write each name so that it covers neither point nor name: (x, y, 'left' or 'right'), in pixels."""
    taken = [(px - 7, py - 7, px + 7, py + 7) for px, py in points]
    places = []
    for (px, py), name in zip(points, names):
        length = 7.3 * len(name)
        best = None
        for dx, dy in [(10, 0), (-10, 0), *((side * 8, up) for up in (13, -13, 22, -22, 32, -32) for side in (1, -1))]:
            left = px + dx if dx > 0 else px + dx - length
            box = (left, py + dy - 8, left + length, py + dy + 8)
            cover = sum(max(0, min(box[2], t[2]) - max(box[0], t[0])) * max(0, min(box[3], t[3]) - max(box[1], t[1])) for t in taken)
            cover += 1e6 * (box[0] < 0 or box[2] > width or box[1] < 0 or box[3] > height)
            if best is None or cover < best[0]:
                best = (cover, box, (px + dx, py + dy, "left" if dx > 0 else "right"))
        taken.append(best[1])
        places.append(best[2])
    return places


def pareto(size):
    points = []  # (TPM, loss, arm, protocol)
    for arm in size.by_loss():
        run = size.arms[arm][0]
        for protocol in ("hiergen", "recgen"):
            case = run.speed(protocol, 64)
            if not case:
                continue
            loss = size.loss(arm)
            if protocol == "recgen":  # what recgen itself assigns to the held-out texts
                agreements = [run.get(f"agree-{text}") for text in ("classics", "stories")]
                if None in agreements:
                    continue
                loss += mean(a["protocols"]["recgen"]["nats_per_token_difference"] for a in agreements)
            points.append((case["tpm"], loss, arm, protocol))
    if not points:
        return ""
    exact = {arm: (tpm, loss) for tpm, loss, arm, protocol in points if protocol == "hiergen"}
    # What hiergen does decides the scale; an arm whose recgen is far off has an arrow to say so.
    x, y = around([p[0] for p in points], log=True, margin=0.1), around([loss for _, loss in exact.values()], margin=0.12)
    far, points = [p for p in points if p[1] > y.high], [p for p in points if p[1] <= y.high]
    width, height = WIDTH - LEFT - 24, HEIGHT - TOP - BOTTOM
    best = []  # better than all of more throughput per memory
    for tpm, loss, *_ in sorted(points, reverse=True):
        if not best or loss < best[-1][1]:
            best.append((tpm, loss))
    steps = [(best[0][0], y.high)] + [corner for (tpm, loss), left in zip(best, [*(t for t, _ in best[1:]), x.low])
                                      for corner in ((tpm, loss), (left, loss))]
    data, plot = plotted("best", steps, "lines lw 5 lc rgb '#e6e6e6'")
    plots, labels = [plot], ""
    for i, (tpm, loss, arm, protocol) in enumerate(points):
        colour, marker = LOOK[arm]
        more, plot = plotted(i, [(tpm, loss)], f"points pt {marker - (protocol == 'recgen')} ps 1 lw 1.6 lc rgb '{colour}'")
        data, plots = data + more, [*plots, plot]
        if protocol == "recgen":
            labels += "set arrow from {}, {} to {}, {} nohead dt 3 lc rgb '{}'\n".format(*exact[arm], tpm, loss, colour)
    for _, loss, arm, _ in far:
        tpm, from_loss = exact[arm]
        labels += (f"set arrow from {tpm}, {from_loss} to {tpm}, graph 1 size graph 0.012, 20 filled dt 3 lc rgb '{LOOK[arm][0]}'\n"
                   f"set label 'recgen: {loss:.2f}' at {tpm}, graph 0.96 left offset char 1, 0 front tc rgb '{LOOK[arm][0]}'\n")
    at = [(width * x.share(p[0]), height * y.share(p[1])) for p in points]
    order = [i for i, p in enumerate(points) if p[3] == "hiergen"]
    spots = beside([at[i] for i in order] + [at[i] for i in range(len(points)) if i not in order], [points[i][2] for i in order], width, height)
    for i, (px, py, side) in zip(order, spots):
        labels += (f"set label '{points[i][2]}' at graph {px / width:.4f}, graph {py / height:.4f} {side} front tc rgb '{LOOK[points[i][2]][0]}' noenhanced\n")
    return draw(f"pareto-{size.name}", "Held-out loss against throughput per memory (filled: hiergen, hollow: recgen; grey: the best of both)",
                "TPM: decode K tokens/s per GiB of KV cache, 64 streams at 2,048 tokens", "loss of its own protocol, nats per token",
                x, y, labels + data + "plot " + ", ".join(plots) + "\n")


def figures(size):
    first = {arm: size.arms[arm][0] for arm in size.by_loss()}
    out = pareto(size)
    curve = {run.name: [(tokens / 1e6, loss) for tokens, loss in run.losses()] for run in size.first_runs()}
    out += lines(f"curves-{size.name}", "Held-out loss over training", "million tokens", "nats per token, mean of the held-out texts",
                 [(arm, curve[arm]) for arm in first], inside=[(run.name, curve[run.name]) for run in size.stopped])
    context = [(arm, [((b["from"] * b["to"]) ** 0.5, b["nats"]) for b in run.get("long")["by_context"] if b["from"] >= 16])
               for arm, run in first.items() if run.get("long")]
    if context:
        out += lines(f"context-{size.name}", f"Loss by position, classics held out (trained on windows of {TRAIN_WINDOW} tokens: dashed)",
                     "position in the text", "nats per token", context, log_base=2,
                     extra=f"set arrow from {TRAIN_WINDOW}, graph 0 to {TRAIN_WINDOW}, graph 1 nohead dt 2 lc rgb '#888888'\n")
    for task in ("lambada", "copy"):
        by_memory = [(arm, [(p["kv_bytes_alone"] / 1e6, 100 * p["majority"]["value"]) for t in run.get("vote")["tasks"] if t["task"] == task for p in t["points"]])
                     for arm, run in first.items() if run.get("vote")]
        if by_memory:
            out += lines(f"vote-{task}-{size.name}", f"{task}: what most of n samples say, n = 1, 2, 4 ... 64", "MB of KV cache, n samples, each with its own",
                         "right, %", by_memory, log_base=2)
    saw = [(arm, [(s["slot"], s["nats"]) for s in run.get("windows")["by_slot"]]) for arm, run in first.items() if run.get("windows")]
    if saw:
        out += lines(f"slots-{size.name}", "Loss by position within sixteen tokens, classics held out", "position modulo 16", "nats per token", saw)
    return out


def record(runs):
    files, how = {}, defaultdict(set)
    for r in runs:
        data, machine = r.record["data"], r.record["machine"]
        for shard in [*data["train"], *data["valid"].values()]:
            files[os.path.basename(shard["path"])] = shard["sha256"]
        how[machine["cpu"], machine["threads"], r.record["recipe"]["compute"]["precision"], machine["torch"]].add(r.record["commit"])
    text = "Trained on " + "; ".join(f"{cpu}, threads: {threads}, {precision}, LibTorch {torch}, commits {', '.join(sorted(commits))}"
                                     for (cpu, threads, precision, torch), commits in how.items()) + "."
    speed = next((c for r in runs if (c := r.speed("hiergen", 1))), None)
    if speed:
        text += (f" Speeds: {speed['cpu']}, {speed['threads']} threads, {speed['isa']}, weights and KV caches in bf16, medians of "
                 f"{speed['repeats']} rounds, commit {speed['commit']}.")
    return text + "\n\n" + table(["data", "SHA-256 of the tokens"], [[f"`{n}`", f"`{h}`"] for n, h in files.items()], text_columns=2)


def main():
    read_descriptions()
    runs = read_arms()
    done = [r for r in runs if r.finished]
    if not done:
        sys.exit(f"study/report.py: no record below {RESULTS}; run study/run.sh train")
    with open("study/findings.md") as f:
        findings = f.read()
    text = "<!-- Written by study/report.py from study/results/; the prose is study/findings.md. -->\n\n" + findings
    text += "\n## The arms\n\n" + table(["config", "what it is"], [[f"`{config}`", what] for config, what in WHAT.items()], text_columns=2)
    for name in (name for name in TITLES if any(r.size == name for r in done)):
        size = Size(name, [r for r in runs if r.size == name])
        first = next(iter(size.arms.values()))[0]
        tokens = [arm[0].tokens() / 1e6 for arm in size.arms.values()]
        each = f"{tokens[0]:.2f} M tokens each" if size.equal_tokens() else f"{min(tokens):.2f} to {max(tokens):.2f} M tokens"
        text += (f"\n## {TITLES[name]}\n\n{each}, {first.record['recipe']['batch']['sequences']} windows of "
                 f"{first.record['recipe']['batch']['tokens']} a step, peak learning rate {first.record['recipe']['optimizer']['lr']:g}. Held-out loss at the end:\n\n")
        text += quality(size)
        text += (f"\nThe largest spread between two seeds of one arm is {size.spread:.3f} nats ({size.n_repeated} {'arm was' if size.n_repeated == 1 else 'arms were'} trained twice): smaller "
                 "differences are unresolved.\n" if size.spread is not None else
                 "\nOne seed only: no difference at this size is resolved.\n")
        if size.stopped:
            text += "\nOn the way:\n\n" + on_the_way(size)
        text += "\n### Speed and memory\n\nTokens per second; decoding at a context of 2,048, medians (least to most).\n\n" + speeds(size)
        if agreement := recgen(size):
            text += "\n### recgen\n\n" + agreement
        if scores := tasks(size):
            text += ("\n### Tasks\n\nWithout examples, the first 2,000 documents of each, accuracies in percent ± standard error. Guessing: hellaswag and arc_easy 25, sciq 25, "
                     "piqa and winogrande 50.\n\n" + scores)
        if integrated := votes(size):
            text += (f"\n### Many answers to one question\n\n`photon vote`: answers sampled at temperature 1, as many as fit into the KV cache of {VOTE_BUDGET} of the "
                     "Transformer's, each with its own; n is the power of two below, 64 at most. Percent right ± standard error over questions.\n" + integrated)
        if cut := without_levels(size):
            text += ("\n### What the levels say\n\nThe loss when the level 1 converter is zero, so that a token sees the earlier tokens "
                     "of its decoder's window only (not trained so: an upper bound of what the levels add).\n\n" + cut)
        text += "\n### Figures\n\n" + figures(size)
    missing = [r for r in runs if not r.finished]
    if missing:
        text += "\n## Not finished\n\n" + ", ".join(f"{r.size}/{r.name}-{r.seed}" for r in missing) + "\n"
    text += "\n## Record\n\n" + record(done)
    with open(DOC, "w") as f:
        f.write(text)
    write_page_table("docs/study.md", page_table(Size(PAGE_SIZE, [r for r in runs if r.size == PAGE_SIZE])))
    write_page_table("docs/paper.md", paper_table(Size("paper", [r for r in runs if r.size == "paper"])))
    print(f"{DOC}: {len(done)} of {len(runs)} runs")


if __name__ == "__main__":
    main()
