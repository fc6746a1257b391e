#include "bench/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <system_error>

#include "base/error.h"
#include "base/gnuplot.h"

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
  std::map<Fields, std::size_t> line_of;  // lines keep the order of the results
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto [at, is_new] = line_of.emplace(keys[i], lines.size());
    if (is_new) {
      std::string name = keys[i][0];
      for (std::size_t f = 1; f < n_fields; ++f)
        if (std::ranges::any_of(keys, [&](const Fields& other) { return other[f] != keys[i][f]; }))
          name += ' ' + keys[i][f];
      lines.push_back({.name = name, .points = {}});
    }
    const Spread& y = results[i].tokens_per_s;
    lines[at->second].points.push_back({.x = x(results[i]), .y = y.median, .low = y.min, .high = y.max});
  }
  for (FigureLine& line : lines) std::ranges::stable_sort(line.points, {}, &FigurePoint::x);
  return lines;
}

void draw(const std::filesystem::path& folder, const std::string& name, const std::string& title,
          const std::string& axes, const std::vector<FigureLine>& lines) {
  std::string script = gnuplot_head(title, name) + axes, plots;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    script += fmt::format("$line{} << END\n", i);
    for (const FigurePoint& p : lines[i].points) script += fmt::format("{} {} {} {}\n", p.x, p.y, p.low, p.high);
    script += "END\n";
    const std::string_view colour = gnuplot_colour(i);
    plots += fmt::format(
        "{0}$line{1} using 1:2:3:4 with yerrorbars lw 1 pt 0 lc rgb {2} notitle, "
        "$line{1} using 1:2 with linespoints lw 2 pt {3} ps 0.7 lc rgb {2} title {4} noenhanced",
        i == 0 ? "plot " : ", ", i, colour, 5 + 2 * (i % 5), gnuplot_text(lines[i].name));
  }
  if (!draw_with_gnuplot(folder, name, script + plots + '\n'))
    throw InputError(fmt::format("gnuplot cannot draw {}", (folder / (name + ".gp")).string()));
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

void make_folder(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw InputError(fmt::format("{}: cannot be made a folder: {}", folder.string(), failed.message()));
}

void draw_figures(std::span<const BenchResult> results, const std::filesystem::path& folder) {
  draw(folder, "throughput-context", "Tokens per second over the context",
       "set xlabel 'context, tokens'\nset ylabel 'tokens/s, all streams'\nset logscale y\n",
       throughput_by_context(results));
  if (results.front().what.kind == BenchCase::Kind::decode)
    draw(folder, "throughput-memory", "Tokens per second over the memory of KV caches",
         "set xlabel 'KV caches, GiB'\nset ylabel 'tokens/s, all streams'\nset logscale xy\n"
         "set format x '10^{%L}'\n",
         throughput_by_memory(results));
}

}  // namespace photon
