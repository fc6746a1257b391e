#include "bench/serve_plan.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace photon {
namespace {

constexpr std::int64_t most_tokens = std::int64_t{1} << 30;

// Streams of random numbers of one seed; requests' prompts take the streams below.
constexpr std::uint64_t arrivals = ~std::uint64_t{0}, lengths = arrivals - 1, warmup_lengths = arrivals - 2,
                        common_prefix = arrivals - 3;

std::int64_t draw(Random& random, const LengthRange& range) {
  return range.low + random.below(range.high - range.low + 1);
}

}  // namespace

LengthRange parse_length_range(std::string_view text) {
  const auto number = [&](std::string_view word) {
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n);
    if (error != std::errc() || end != word.data() + word.size() || n < 1 || n > most_tokens)
      throw InputError(
          fmt::format("'{}' is no number of tokens; give one as 512, or the ends of a range as 128,1024", text));
    return n;
  };
  const auto comma = text.find(',');
  const LengthRange range{.low = number(text.substr(0, comma)),
                          .high = number(comma == std::string_view::npos ? text : text.substr(comma + 1))};
  if (range.low > range.high) throw InputError(fmt::format("'{}': the range ends before it begins", text));
  return range;
}

std::string to_string(const LengthRange& range) {
  return range.low == range.high ? fmt::format("{}", range.low) : fmt::format("{}-{}", range.low, range.high);
}

std::vector<PlannedRequest> plan_load(const LoadOptions& options) {
  Random time(options.seed, arrivals), size(options.seed, lengths);
  std::vector<PlannedRequest> plan;
  const auto more = [&](double at_s) {
    return options.duration_s ? at_s < *options.duration_s : std::ssize(plan) < options.requests;
  };
  for (double at_s = 0; more(at_s); at_s -= std::log1p(-time.uniform()) / options.rate) {
    const std::int64_t prompt = draw(size, options.prompt_tokens);
    plan.push_back({.at_s = at_s, .prompt_tokens = prompt, .output_tokens = draw(size, options.output_tokens)});
  }
  return plan;
}

std::vector<PlannedRequest> plan_warmup(const LoadOptions& options) {
  Random size(options.seed, warmup_lengths);
  std::vector<PlannedRequest> plan(static_cast<std::size_t>(options.warmup));
  for (PlannedRequest& request : plan) {
    request.prompt_tokens = draw(size, options.prompt_tokens);
    request.output_tokens = draw(size, options.output_tokens);
  }
  return plan;
}

std::vector<std::int32_t> prompt_of(const LoadOptions& options, std::int64_t n_tokens, std::uint64_t stream,
                                    std::int64_t vocab_size) {
  Random common(options.seed, common_prefix), own(options.seed, stream);
  const auto n_common = static_cast<std::int64_t>(std::llround(options.share_prefix * static_cast<double>(n_tokens)));
  std::vector<std::int32_t> tokens;
  tokens.reserve(static_cast<std::size_t>(n_tokens));
  for (std::int64_t i = 0; i < n_tokens; ++i)
    tokens.push_back(static_cast<std::int32_t>((i < n_common ? common : own).below(vocab_size)));
  return tokens;
}

}  // namespace photon
