// What a load found: percentiles, throughput, goodput; as a table for people and as JSON for machines.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/serve_run.h"

namespace photon {

struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
/// Between two ranks, linearly between their values.  Nothing of no values.
std::optional<Percentiles> percentiles_of(std::vector<double> values);

/// Of the requests that were answered, except where it says all.
struct LoadSummary {
  std::int64_t sent = 0, answered = 0;           // sent: all
  std::map<std::string, std::int64_t> errors{};  // all, by status or kind
  double seconds = 0;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  std::optional<Percentiles> ttft_ms{}, e2e_ms{};
  std::optional<Percentiles> itl_ms{};   // every gap between two tokens of a continuation
  std::optional<Percentiles> tpot_ms{};  // time per output token: each request's mean gap
  std::optional<Percentiles> late_ms{};  // all: what the generator itself sent later than planned
  std::optional<std::int64_t> good{};    // that met all objectives; nothing if there were none

  double requests_per_s() const { return static_cast<double>(answered) / seconds; }
  double output_tokens_per_s() const { return static_cast<double>(output_tokens) / seconds; }
  double tokens_per_s() const { return static_cast<double>(prompt_tokens + output_tokens) / seconds; }
};

/// The mean of a request's gaps; nothing where it has none.
std::optional<double> mean_gap_ms(const RequestResult& request);
/// Whether a request was answered in time: its first token, and its mean gap.
bool met_objectives(const RequestResult& request, const LoadOptions& options);
LoadSummary summary_of(const LoadResult& result, const LoadOptions& options);

std::string to_table(const LoadResult& result, const LoadSummary& summary, const LoadOptions& options);
nlohmann::ordered_json to_json(const LoadResult& result, const LoadSummary& summary, const LoadOptions& options);

}  // namespace photon
