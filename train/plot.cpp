// Loss curves: training loss as mean and spread over bins of steps, validation losses as points joined by lines.
#include "train/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/gnuplot.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Point {
  double tokens = 0, loss = 0;
};
struct Curves {
  std::vector<Point> train;
  std::map<std::string, std::vector<Point>> valid;
};

Curves read_curves(const fs::path& log) {
  Curves curves;
  std::ifstream file(log);
  double tokens = 0;
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object()) continue;
    tokens = record.value("tokens", tokens);
    if (record.contains("loss")) curves.train.push_back({tokens, record["loss"]});
    if (record.contains("valid"))
      for (const auto& [name, result] : record["valid"].items()) curves.valid[name].push_back({tokens, result["nats"]});
  }
  return curves;
}

// Of `bins` bins of equally many steps: tokens, mean, lowest and highest loss.
std::string binned(const std::vector<Point>& points, std::size_t bins, double unit) {
  std::string rows;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    const std::size_t first = bin * points.size() / bins, end = (bin + 1) * points.size() / bins;
    double tokens = 0, sum = 0, low = points[first].loss, high = low;
    for (std::size_t i = first; i < end; ++i) {
      tokens += points[i].tokens, sum += points[i].loss;
      low = std::min(low, points[i].loss), high = std::max(high, points[i].loss);
    }
    const auto count = static_cast<double>(end - first);
    rows += fmt::format("{} {} {} {}\n", tokens / count / unit, sum / count, low, high);
  }
  return rows;
}

}  // namespace

bool plot_losses(const fs::path& run) {
  const Curves curves = read_curves(run / "log.jsonl");
  if (curves.train.empty()) return false;
  const double last = curves.train.back().tokens;
  const auto [unit, unit_name] = last >= 2e9   ? std::pair(1e9, "billions")
                                 : last >= 2e6 ? std::pair(1e6, "millions")
                                               : std::pair(1e3, "thousands");
  // The first steps fall from ln V so fast that they would squeeze the rest: the axis begins where a twentieth of the
  // training losses is higher, or at the highest held-out loss after the first tenth of the tokens.
  std::vector<double> losses;
  for (const Point& p : curves.train) losses.push_back(p.loss);
  std::sort(losses.begin(), losses.end());
  double low = losses.front(), high = losses[losses.size() * 95 / 100];
  for (const auto& [name, points] : curves.valid)
    for (const Point& p : points) {
      low = std::min(low, p.loss);
      if (p.tokens >= 0.1 * last) high = std::max(high, p.loss);
    }
  const double margin = std::max(0.05, 0.05 * (high - low));
  low -= margin, high += margin;

  std::string script = gnuplot_head("Losses of one run", "loss") +
                       fmt::format(
                           "set xlabel 'tokens trained on ({})'\nset ylabel 'loss (nats per token)'\n"
                           "set xrange [0:{}]\nset yrange [{}:{}]\n",
                           unit_name, last / unit, low, high);
  // A short run shows every step.  Bins of one step have no range, and a single point makes no line.
  const std::size_t n = curves.train.size(), most = 160;
  const bool has_range = n >= 2 * most;
  script += "$train << END\n" + binned(curves.train, has_range ? most : n, unit) + "END\n";
  std::string plots = has_range ? "$train using 1:3:4 with filledcurves lc rgb '#cfdcec', " : "";
  plots += fmt::format("$train using 1:2 with {} lc rgb '#3b6ea5'", n > 1 ? "lines lw 2" : "points pt 7 ps 0.5");

  // Its last bin, or step, is where the line of the training losses ends.
  const std::size_t n_last = has_range ? n - (most - 1) * n / most : 1;
  double end = 0;
  for (std::size_t i = n - n_last; i < n; ++i) end += curves.train[i].loss / static_cast<double>(n_last);
  const auto height = [&](double loss) { return std::clamp((loss - low) / (high - low), 0.0, 1.0); };
  std::vector<EndLabel> labels{
      {.y = height(end), .text = has_range ? "training (shaded: range)" : "training", .colour = "'#3b6ea5'"}};
  std::size_t i = 0;
  for (const auto& [name, points] : curves.valid) {
    script += fmt::format("$valid{} << END\n", i);
    for (const Point& p : points) script += fmt::format("{} {}\n", p.tokens / unit, p.loss);
    script += "END\n";
    plots += fmt::format(", $valid{} using 1:2 with linespoints lw 2 pt 7 ps 0.5 lc rgb {}", i, gnuplot_colour(i + 1));
    labels.push_back({.x = points.back().tokens / last,
                      .y = height(points.back().loss),
                      .text = fmt::format("held out: {}, {:.3f}", name, points.back().loss),
                      .colour = gnuplot_colour(i + 1)});
    ++i;
  }
  script += gnuplot_end_labels(labels);
  script += "plot " + plots + "\n";
  return draw_with_gnuplot(run, "loss", script);
}

}  // namespace photon
