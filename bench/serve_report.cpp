#include "bench/serve_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/table.h"
#include "bench/report.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

// Of sorted values.
double quantile(const std::vector<double>& values, double q) {
  const double rank = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(rank);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], rank - std::floor(rank));
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

ordered_json json_of(const std::optional<Percentiles>& p) {
  if (!p) return nullptr;
  return {{"mean", p->mean}, {"p50", p->p50}, {"p90", p->p90}, {"p95", p->p95}, {"p99", p->p99}, {"max", p->max}};
}

ordered_json json_of(const LengthRange& range) { return ordered_json::array({range.low, range.high}); }

template <class T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

}  // namespace

std::optional<Percentiles> percentiles_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::ranges::sort(values);
  return Percentiles{.mean = mean_of(values),
                     .p50 = quantile(values, 0.5),
                     .p90 = quantile(values, 0.9),
                     .p95 = quantile(values, 0.95),
                     .p99 = quantile(values, 0.99),
                     .max = values.back()};
}

std::optional<double> mean_gap_ms(const RequestResult& request) {
  return request.gaps_ms.empty() ? std::nullopt : std::optional(mean_of(request.gaps_ms));
}

bool met_objectives(const RequestResult& request, const LoadOptions& options) {
  return request.answered() && (!options.slo_ttft_ms || request.ttft_ms <= *options.slo_ttft_ms) &&
         (!options.slo_itl_ms || mean_gap_ms(request).value_or(0) <= *options.slo_itl_ms);
}

LoadSummary summary_of(const LoadResult& result, const LoadOptions& options) {
  LoadSummary summary{.sent = std::ssize(result.requests), .seconds = result.seconds()};
  std::vector<double> ttft, e2e, gaps, mean_gaps, late;
  for (const RequestResult& request : result.requests) {
    late.push_back(1e3 * (request.sent_s - request.planned_s));
    if (!request.answered()) {
      ++summary.errors[request.error];
      continue;
    }
    ++summary.answered;
    summary.prompt_tokens += request.prompt_tokens;
    summary.cached_tokens += request.cached_tokens;
    summary.output_tokens += request.output_tokens;
    ttft.push_back(request.ttft_ms);
    e2e.push_back(request.e2e_ms);
    gaps.insert(gaps.end(), request.gaps_ms.begin(), request.gaps_ms.end());
    if (const auto mean = mean_gap_ms(request)) mean_gaps.push_back(*mean);
  }
  summary.ttft_ms = percentiles_of(std::move(ttft));
  summary.e2e_ms = percentiles_of(std::move(e2e));
  summary.itl_ms = percentiles_of(std::move(gaps));
  summary.tpot_ms = percentiles_of(std::move(mean_gaps));
  summary.late_ms = percentiles_of(std::move(late));
  if (options.slo_ttft_ms || options.slo_itl_ms)
    summary.good = std::ranges::count_if(result.requests, [&](const auto& r) { return met_objectives(r, options); });
  return summary;
}

std::string to_table(const LoadResult& result, const LoadSummary& s, const LoadOptions& options) {
  std::string text =
      fmt::format("{} {}, {} prompt + {} output tokens, {} continuation{}, {:.3g} requests/s\n",
                  result.server.value("model", ""), to_string(options.protocol), to_string(options.prompt_tokens),
                  to_string(options.output_tokens), options.n, options.n == 1 ? "" : "s", options.rate);
  text += fmt::format("{} of {} requests answered in {:.1f} s: {} requests/s, {} output tokens/s, {} tokens/s\n",
                      s.answered, s.sent, s.seconds, short_number(s.requests_per_s()),
                      short_number(s.output_tokens_per_s()), short_number(s.tokens_per_s()));
  for (const auto& [error, n] : s.errors) {
    const auto first = std::ranges::find(result.requests, error, &RequestResult::error);
    text += fmt::format("{} x {}{}{}\n", n, error, first->message.empty() ? "" : ": ", first->message);
  }
  if (s.good)
    text += fmt::format("{} of {} met the objectives ({:.1f} %): {} requests/s\n", *s.good, s.sent,
                        100 * share(*s.good, s.sent), short_number(static_cast<double>(*s.good) / s.seconds));
  if (s.prompt_tokens > 0)
    text += fmt::format("{:.1f} % of the prompts' tokens came from the prefix cache\n",
                        100 * share(s.cached_tokens, s.prompt_tokens));
  if (!result.kv_bytes_peak.empty()) {
    text += "peak KV MiB:";
    for (const auto& [kind, bytes] : result.kv_bytes_peak)
      text += fmt::format(" {} {}", kind, short_number(static_cast<double>(bytes) / (1 << 20)));
    text += '\n';
  }
  TextTable table;
  TextTable::Column names{.header = "ms", .align = TextTable::Align::left};
  std::vector<Percentiles> rows;
  const auto add = [&](const char* name, const std::optional<Percentiles>& percentiles) {
    if (!percentiles) return;
    names.cells.emplace_back(name);
    rows.push_back(*percentiles);
  };
  add("first token", s.ttft_ms);
  add("between tokens", s.itl_ms);
  add("per output token", s.tpot_ms);
  add("whole answer", s.e2e_ms);
  add("sent late", s.late_ms);
  if (rows.empty()) return text;
  table.add(names);
  const auto column = [&](const char* header, double Percentiles::*value) {
    TextTable::Column cells{.header = header};
    for (const Percentiles& row : rows) cells.cells.push_back(short_number(row.*value));
    table.add(std::move(cells));
  };
  column("mean", &Percentiles::mean);
  column("p50", &Percentiles::p50);
  column("p90", &Percentiles::p90);
  column("p95", &Percentiles::p95);
  column("p99", &Percentiles::p99);
  column("max", &Percentiles::max);
  return text + '\n' + table.text();
}

ordered_json to_json(const LoadResult& result, const LoadSummary& s, const LoadOptions& options) {
  ordered_json row{
      {"benchmark", "serve"},
      {"url", options.url},
      {"model", result.server.value("model", "")},
      {"protocol", to_string(options.protocol)},
      {"rate", options.rate},
      {"requests", options.duration_s ? ordered_json(nullptr) : ordered_json(options.requests)},
      {"duration_s", or_null(options.duration_s)},
      {"warmup", options.warmup},
      {"prompt_tokens", json_of(options.prompt_tokens)},
      {"output_tokens", json_of(options.output_tokens)},
      {"share_prefix", options.share_prefix},
      {"n", options.n},
      {"slo_ttft_ms", or_null(options.slo_ttft_ms)},
      {"slo_itl_ms", or_null(options.slo_itl_ms)},
      {"timeout_s", options.timeout_s},
      {"seed", options.seed},
      {"seconds", s.seconds},
      {"sent", s.sent},
      {"answered", s.answered},
      {"errors", s.errors.empty() ? ordered_json::object() : ordered_json(s.errors)},
      {"requests_per_s", s.requests_per_s()},
      {"output_tokens_per_s", s.output_tokens_per_s()},
      {"tokens_per_s", s.tokens_per_s()},
      {"total_prompt_tokens", s.prompt_tokens},
      {"total_cached_tokens", s.cached_tokens},
      {"total_output_tokens", s.output_tokens},
      {"ttft_ms", json_of(s.ttft_ms)},
      {"itl_ms", json_of(s.itl_ms)},
      {"tpot_ms", json_of(s.tpot_ms)},
      {"e2e_ms", json_of(s.e2e_ms)},
      {"late_ms", json_of(s.late_ms)},
      {"good", or_null(s.good)},
      {"good_share", s.good ? ordered_json(share(*s.good, s.sent)) : ordered_json(nullptr)},
      {"good_per_s", s.good ? ordered_json(static_cast<double>(*s.good) / s.seconds) : nullptr},
      {"kv_bytes_peak", result.kv_bytes_peak.empty() ? ordered_json(nullptr) : ordered_json(result.kv_bytes_peak)},
      {"server", result.server}};
  row.update(machine_json());
  return row;
}

}  // namespace photon
