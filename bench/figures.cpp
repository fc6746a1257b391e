#include "bench/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <system_error>

#include "base/error.h"
#include "base/gnuplot.h"
#include "base/threads.h"
#include "bench/paper.h"

namespace photon {
namespace {

enum class Field { model, protocol, dtype, kv, threads, workload, context, streams, tokens, phases, count };
constexpr auto n_fields = static_cast<std::size_t>(Field::count);
using Fields = std::array<std::string, n_fields>;

Fields fields_of(const BenchResult& r) {
  const Workload& w = r.what.workload;
  return {r.model,
          std::string(to_string(w.protocol)),
          std::string(to_string(r.dtype)),
          "kv " + std::string(to_string(r.kv)),
          fmt::format("{} {}", r.what.threads, r.what.threads == 1 ? "thread" : "threads"),
          r.what.label,
          fmt::format("context {}", r.what.context_label),
          fmt::format("{} {}", w.streams, w.streams == 1 ? "stream" : "streams"),
          fmt::format("{} tokens", w.tokens),
          std::string(to_string(w.phases))};
}

// The place of `value` among the `seen` ones, at their end if it is new.
template <class T>
std::size_t place_of(std::vector<T>& seen, const T& value) {
  const auto at = std::ranges::find(seen, value);
  if (at != seen.end()) return static_cast<std::size_t>(at - seen.begin());
  seen.push_back(value);
  return seen.size() - 1;
}

// Of every result; what tells lines of one figure apart beyond that, `dash`, is the figure's.
std::vector<FigureLook> looks_of(std::span<const BenchResult> results) {
  const auto vanilla = std::ranges::find_if(results, &BenchResult::is_vanilla);
  std::vector<std::string> others;
  std::vector<std::array<std::string, 4>> precisions;
  std::vector<FigureLook> looks;
  for (const BenchResult& r : results) {
    const Fields fields = fields_of(r);
    const auto field = [&](Field f) { return fields[static_cast<std::size_t>(f)]; };
    const bool is_vanilla = vanilla != results.end() && r.model == vanilla->model;
    looks.push_back({.colour = is_vanilla ? 0 : 1 + place_of(others, r.model),
                     .shape = place_of(precisions, {field(Field::dtype), field(Field::kv), field(Field::threads),
                                                    field(Field::phases)}),
                     .hollow = r.what.workload.protocol == Protocol::recgen});
  }
  return looks;
}

bool is_paper(std::span<const BenchResult> results) {
  return std::ranges::any_of(results, [](const BenchResult& r) { return !r.what.label.empty(); });
}

// Lines of the results that agree in all fields but `along`; a name has the fields that differ between lines.
template <class X>
std::vector<FigureLine> lines_of(std::span<const BenchResult> results, std::span<const Field> along, const X& x) {
  std::vector<Fields> keys;
  for (const BenchResult& r : results) {
    keys.push_back(fields_of(r));
    for (const Field field : along) keys.back()[static_cast<std::size_t>(field)].clear();
  }
  std::vector<FigureLine> lines;
  std::vector<FigureLook> looks = looks_of(results);
  std::vector<std::array<std::string, 4>> batches;
  std::map<Fields, std::size_t> line_of;  // lines keep the order of the results
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto [at, is_new] = line_of.emplace(keys[i], lines.size());
    if (is_new) {
      std::string name = keys[i][0];
      for (std::size_t f = 1; f < n_fields; ++f)
        if (std::ranges::any_of(keys, [&](const Fields& other) { return other[f] != keys[i][f]; }))
          name += ' ' + keys[i][f];
      const auto field = [&](Field f) { return keys[i][static_cast<std::size_t>(f)]; };
      looks[i].dash = place_of(
          batches, {field(Field::workload), field(Field::context), field(Field::streams), field(Field::tokens)});
      lines.push_back({.name = name, .look = looks[i]});
    }
    const Spread& y = results[i].tokens_per_s;
    lines[at->second].points.push_back(
        {.x = x(results[i]), .y = y.median, .low = y.min, .high = y.max, .label = results[i].what.label});
  }
  for (FigureLine& line : lines) std::ranges::stable_sort(line.points, {}, &FigurePoint::x);
  return lines;
}

void run_gnuplot(const std::filesystem::path& folder, const std::string& name, const std::string& script) {
  if (!draw_with_gnuplot(folder, name, script))
    throw InputError(fmt::format("gnuplot cannot draw {}", (folder / (name + ".gp")).string()));
}

void draw(const std::filesystem::path& folder, const std::string& name, const std::string& title,
          const std::string& axes, const std::vector<FigureLine>& lines) {
  constexpr std::array<int, 5> markers{7, 5, 9, 11, 13};  // full; the number before each is its hollow twin
  std::string script = gnuplot_head(title, name) + axes, plots;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    script += fmt::format("$line{} << END\n", i);
    for (const FigurePoint& p : lines[i].points) script += fmt::format("{} {} {} {}\n", p.x, p.y, p.low, p.high);
    script += "END\n";
    const FigureLook& look = lines[i].look;
    plots += fmt::format(
        "{0}$line{1} using 1:2:3:4 with yerrorbars lw 1 pt 0 lc rgb {2} notitle, "
        "$line{1} using 1:2 with linespoints lw 2 dt {3} pt {4} ps 0.7 lc rgb {2} title {5} noenhanced",
        i == 0 ? "plot " : ", ", i, gnuplot_colour(look.colour), 1 + look.dash % 5,
        markers[look.shape % markers.size()] - (look.hollow ? 1 : 0), gnuplot_text(lines[i].name));
  }
  run_gnuplot(folder, name, script + plots + '\n');
}

// Ranges of the axes, speed being logarithmic, and the lines' names at their ends.
std::string names_at_ends(const std::vector<FigureLine>& lines) {
  double left = INFINITY, right = -INFINITY, low = INFINITY, high = -INFINITY;
  for (const FigureLine& line : lines)
    for (const FigurePoint& p : line.points) {
      left = std::min(left, p.x), right = std::max(right, p.x);
      low = std::min(low, p.low), high = std::max(high, p.high);
    }
  if (left == right) left -= 1, right += 1;
  const double room = std::max(1.1, std::pow(high / low, 0.05));
  low /= room, high *= room;
  std::vector<EndLabel> labels;
  for (const FigureLine& line : lines)
    labels.push_back({.x = (line.points.back().x - left) / (right - left),
                      .y = std::log(line.points.back().y / low) / std::log(high / low),
                      .text = line.name,
                      .colour = gnuplot_colour(line.look.colour)});
  return fmt::format("set xrange [{}:{}]\nset yrange [{}:{}]\n", left, right, low, high) + gnuplot_end_labels(labels);
}

// The results that the paper has figures for, with these in place of ours.
std::vector<BenchResult> in_the_paper(std::span<const BenchResult> results) {
  std::vector<BenchResult> theirs;
  for (const BenchResult& r : results)
    if (const auto figures = paper_figures(r)) {
      const double tokens_per_s = 1e3 * figures->k_tokens_per_s;
      BenchResult& their = theirs.emplace_back(r);
      their.tokens_per_s = {.median = tokens_per_s, .min = tokens_per_s, .max = tokens_per_s};
      their.what.kv_bytes_alone = static_cast<std::int64_t>(figures->kv_gib * 0x1p30);
    }
  return theirs;
}

// One of two plots side by side, both axes logarithmic, with lines of equal throughput per memory.
std::string panel_of(const std::vector<FigureLine>& lines, std::size_t panel, const std::string& title) {
  double left = INFINITY, right = 0, low = INFINITY, high = 0;
  for (const FigureLine& line : lines)
    for (const FigurePoint& p : line.points) {
      left = std::min(left, p.x), right = std::max(right, p.x);
      low = std::min(low, p.low), high = std::max(high, p.high);
    }
  constexpr double room = 2;
  left /= room, right *= room, low /= room, high *= room;
  std::string script = fmt::format(
      "set lmargin at screen {}\nset rmargin at screen {}\nset tmargin at screen 0.8\nset bmargin at screen 0.13\n"
      "set title {} noenhanced\nset xrange [{}:{}]\nset yrange [{}:{}]\nunset label\n",
      panel == 0 ? 0.09 : 0.58, panel == 0 ? 0.48 : 0.97, gnuplot_text(title), left, right, low, high);
  std::string plots;
  for (int k = static_cast<int>(std::ceil(std::log10(low / right))); k <= std::floor(std::log10(high / left)); ++k) {
    const double tpm = std::pow(10, k), end = std::min(right, high / tpm);
    plots += fmt::format("{:g}*x with lines lw 1 dt 3 lc rgb '#999999' notitle, ", tpm);
    if (tpm * end < low * room) continue;  // in the corner
    script += fmt::format("set label 'TPM {:g}' at {},{} right offset -0.4,-0.6 font ',11' tc rgb '#777777'\n", tpm,
                          end, tpm * end);
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const FigureLine& line = lines[i];
    const std::string block = fmt::format("$panel{}line{}", panel, i);
    script += block + " << END\n";
    for (const FigurePoint& p : line.points)
      script += fmt::format("{} {} {} {} {}\n", p.x, p.y, p.low, p.high, paper_workload_name(p.label).substr(0, 2));
    script += "END\n";
    const std::string_view colour = gnuplot_colour(line.look.colour);
    plots += fmt::format(
        "{0} using 1:2:3:4 with yerrorbars lw 1 pt 0 lc rgb {1} notitle, "
        "{0} using 1:2 with linespoints lw 1 dt 2 pt {2} ps 1 lc rgb {1} title {3} noenhanced, "
        "{0} using 1:2:5 with labels left offset 0.8,0 font ',10' tc rgb {1} notitle{4}",
        block, colour, line.look.hollow ? 6 : 7, gnuplot_text(line.name), i + 1 < lines.size() ? ", " : "\n");
  }
  return script +
         (panel == 0 ? "set key at screen 0.5,0.99 center top vertical maxrows 2 samplen 2\n" : "unset key\n") +
         "plot " + plots;
}

}  // namespace

std::vector<FigureLine> throughput_by_context(std::span<const BenchResult> results) {
  std::vector<Field> along{Field::context, Field::workload};
  if (is_paper(results)) along.push_back(Field::streams);  // as many as memory admits
  return lines_of(results, along, [](const BenchResult& r) {
    const bool prefill = r.what.kind == BenchCase::Kind::prefill;
    return static_cast<double>(r.what.context_label + (prefill ? r.what.workload.tokens : 0));
  });
}

std::vector<FigureLine> throughput_by_memory(std::span<const BenchResult> results) {
  const bool sweeps_streams = std::ranges::any_of(
      results, [&](const BenchResult& r) { return r.what.workload.streams != results.front().what.workload.streams; });
  std::vector<Field> along;
  if (is_paper(results) || sweeps_streams) along.push_back(Field::streams);
  if (is_paper(results) || !sweeps_streams) along.insert(along.end(), {Field::context, Field::workload});
  return lines_of(results, along, [](const BenchResult& r) {
    return static_cast<double>(r.kv_bytes) / static_cast<double>(std::int64_t{1} << 30);
  });
}

std::vector<FigureLine> paper_throughput_by_memory(std::span<const BenchResult> results) {
  const std::array along{Field::context, Field::workload, Field::streams, Field::tokens};
  std::vector<FigureLine> lines = lines_of(
      results, along, [](const BenchResult& r) { return static_cast<double>(r.what.kv_bytes_alone) * 0x1p-30; });
  for (FigureLine& line : lines)
    for (FigurePoint& p : line.points) p.y *= 1e-3, p.low *= 1e-3, p.high *= 1e-3;
  return lines;
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw InputError(fmt::format("{}: cannot be made a folder: {}", folder.string(), failed.message()));
}

void draw_figures(std::span<const BenchResult> results, const std::filesystem::path& folder) {
  const std::vector<FigureLine> by_context = throughput_by_context(results);
  draw(folder, "throughput-context", "Tokens per second over the context",
       "set xlabel 'context, tokens'\nset ylabel 'tokens/s, all streams'\nset logscale y\n" + names_at_ends(by_context),
       by_context);
  if (results.front().what.kind == BenchCase::Kind::decode)
    draw(folder, "throughput-memory", "Tokens per second over the memory of KV caches",
         "set xlabel 'KV caches, GiB'\nset ylabel 'tokens/s, all streams'\nset logscale xy\n"
         "set format x '10^{%L}'\n",
         throughput_by_memory(results));
}

void draw_paper_figure(std::span<const BenchResult> results, const std::filesystem::path& folder) {
  const std::string name = "paper-figure3";
  std::string script = gnuplot_head("Throughput over the KV cache of one sample, ours and the paper's", name) +
                       "set multiplot\nset logscale xy\nset format '%g'\n"
                       "set xlabel 'KV cache of one sample, GiB'\nset ylabel 'K tokens/s'\n";
  script += panel_of(paper_throughput_by_memory(results), 0, "this machine: " + cpu_model());
  if (const auto theirs = in_the_paper(results); !theirs.empty())
    script += panel_of(paper_throughput_by_memory(theirs), 1, "the paper: one H200");
  run_gnuplot(folder, name, script + "unset multiplot\n");
}

}  // namespace photon
