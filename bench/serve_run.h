// Sending a planned load to a server, without waiting for its answers: what happened to every request.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "bench/serve_plan.h"

namespace photon {

/// Times count from when the request was planned to be sent: a server that makes a client wait cannot hide it.
struct RequestResult {
  double planned_s = 0, sent_s = 0, ended_s = 0;  // from the start of the load
  std::string error{}, message{};  // empty: answered in full; else "429", "timeout", …, and what the server said
  double ttft_ms = 0, e2e_ms = 0;
  std::vector<double> gaps_ms{};  // between successive tokens of a continuation; 0 for tokens that came together
  std::int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;  // as the server counts them

  bool answered() const { return error.empty(); }
};

struct LoadResult {
  std::vector<RequestResult> requests;                  // as planned
  std::map<std::string, std::int64_t> kv_bytes_peak{};  // by kind, as /metrics told it every 100 ms
  nlohmann::ordered_json server{};                      // /props
  /// From the first arrival to the last answer.
  double seconds() const;
};

/// @throws InputError if the server does not answer at first, or is none of ours
LoadResult run_load(const LoadOptions& options, const std::function<void(const std::string&)>& say);

/// Bytes by the label `kind` of photon:kv_bytes in the text of /metrics; without the budget.
std::map<std::string, std::int64_t> kv_bytes_by_kind(std::string_view metrics);

}  // namespace photon
