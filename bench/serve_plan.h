// What the load generator of `photon bench serve` asks for, and when: all of it is decided before anything is sent.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spec/accounting.h"

namespace photon {

/// Tokens: every number from low to high is as likely.
struct LengthRange {
  std::int64_t low = 1, high = 1;
  bool operator==(const LengthRange&) const = default;
};
LengthRange parse_length_range(std::string_view text);  ///< "512" or "128,1024".  @throws InputError naming the word
std::string to_string(const LengthRange& range);

struct LoadOptions {
  std::string url = "http://127.0.0.1:8080", api_key{};
  double rate = 1;                     // requests per second on average, whatever becomes of them
  std::int64_t requests = 100;         // unless there is a duration
  std::optional<double> duration_s{};  // for which requests arrive
  std::int64_t warmup = 0;             // requests before, all at once, that do not count
  LengthRange prompt_tokens{512, 512}, output_tokens{128, 128};
  double share_prefix = 0;  // of each prompt: as much of its beginning is common to all
  Protocol protocol = Protocol::hiergen;
  std::int64_t n = 1;  // continuations of each prompt
  std::uint64_t seed = 1;
  std::optional<double> slo_ttft_ms{}, slo_itl_ms{};  // service level objectives
  double timeout_s = 600;                             // of each request
};

/// A request as it will be sent.
struct PlannedRequest {
  double at_s = 0;  // from the start
  std::int64_t prompt_tokens = 0, output_tokens = 0;
};

/// Poisson arrivals, the first at once: gaps are independent and exponential.
std::vector<PlannedRequest> plan_load(const LoadOptions& options);
/// The warm-up's requests, all at once and of the same lengths.
std::vector<PlannedRequest> plan_warmup(const LoadOptions& options);

/// Random token ids.  @param stream  of the random numbers: another one for every request
std::vector<std::int32_t> prompt_of(const LoadOptions& options, std::int64_t n_tokens, std::uint64_t stream,
                                    std::int64_t vocab_size);

}  // namespace photon
