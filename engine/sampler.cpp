#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace photon {
namespace {

// Comparisons are written so that NaN is refused too.
void require(bool holds, const char* field, double value, const char* wanted) {
  if (!holds) throw FieldError(field, fmt::format("is {}, must be {}", value, wanted));
}

}  // namespace

void check(const SamplerOptions& o) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  require(o.temperature >= 0 && o.temperature < inf, "temperature", o.temperature, "a number from 0 up");
  require(o.top_k >= 0, "top_k", static_cast<double>(o.top_k), "0 (all) or more");
  require(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "above 0 and at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "from 0 to 1");
  require(o.repetition_penalty > 0 && o.repetition_penalty < inf, "repetition_penalty", o.repetition_penalty,
          "a number above 0");
  require(std::isfinite(o.frequency_penalty), "frequency_penalty", o.frequency_penalty, "a finite number");
  require(std::isfinite(o.presence_penalty), "presence_penalty", o.presence_penalty, "a finite number");
  for (const auto& [token, bias] : o.logit_bias) {
    if (token < 0) throw FieldError("logit_bias", fmt::format("names token {}, must be 0 or more", token));
    if (!std::isfinite(bias))
      throw FieldError("logit_bias", fmt::format("of token {} is {}, must be a finite number", token, bias));
  }
}

void require_finite(std::span<const float> logits, std::int64_t position) {
  if (!std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }))
    throw Error(fmt::format(
        "the logits at position {} are not finite: are the weights damaged? Try f32 weights and caches", position));
}

std::int32_t argmax(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
}

// The logits after penalties and bias: a copy only where they change something.
std::span<const float> Sampler::adjust(const SamplerOptions& options, std::span<const float> logits,
                                       const TextSoFar& text) {
  const bool repetition = options.repetition_penalty != 1.0,
             counted = options.frequency_penalty != 0 || options.presence_penalty != 0;
  if (!repetition && !counted && options.logit_bias.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  const auto logit = [this](std::int32_t token) -> float& { return adjusted_[static_cast<std::size_t>(token)]; };
  if (repetition) {
    window_.clear();
    for (const auto part : {text.chunk, text.generated, text.prompt}) {  // backwards: the latest count
      const auto left = static_cast<std::size_t>(repetition_window) - window_.size();
      const auto latest = part.last(std::min(part.size(), left));
      window_.insert(window_.end(), latest.begin(), latest.end());
    }
    std::ranges::sort(window_);
    window_.erase(std::unique(window_.begin(), window_.end()), window_.end());  // once, however often it occurred
    const auto penalty = static_cast<float>(options.repetition_penalty);
    for (const std::int32_t token : window_)
      logit(token) = logit(token) > 0 ? logit(token) / penalty : logit(token) * penalty;
  }
  if (counted) {
    counts_.resize(logits.size());
    for (const auto part : {text.generated, text.chunk})
      for (const std::int32_t token : part) ++counts_[static_cast<std::size_t>(token)];
    for (const auto part : {text.generated, text.chunk})
      for (const std::int32_t token : part) {
        const std::int32_t n = std::exchange(counts_[static_cast<std::size_t>(token)], 0);
        if (n > 0) logit(token) -= static_cast<float>(n * options.frequency_penalty + options.presence_penalty);
      }
  }
  for (const auto& [token, bias] : options.logit_bias) logit(token) += static_cast<float>(bias);
  return adjusted_;
}

std::int32_t Sampler::sample(const SamplerOptions& options, std::span<const float> logits, const TextSoFar& text,
                             std::uint64_t sequence_id, std::int64_t position) {
  require_finite(logits, position);
  logits = adjust(options, logits, text);
  if (options.temperature == 0) return argmax(logits);

  const double largest = *std::ranges::max_element(logits);
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_.push_back({static_cast<std::int32_t>(i), static_cast<double>(logits[i])});
  // A total order, so that the kept set and the drawn token do not depend on the sorting algorithm.
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  };
  if (0 < options.top_k && options.top_k < std::ssize(candidates_)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options.top_k, candidates_.end(), before);
    candidates_.resize(static_cast<std::size_t>(options.top_k));
  }
  for (Candidate& c : candidates_) c.weight = std::exp((c.weight - largest) / options.temperature);
  if (options.top_p < 1) {
    double total = 0, kept = 0;
    for (const Candidate& c : candidates_) total += c.weight;
    const auto worse = [&](const Candidate& a, const Candidate& b) { return before(b, a); };
    std::ranges::make_heap(candidates_, worse);  // the best first, one by one: no need to sort the rest
    auto rest = candidates_.end();
    while (rest != candidates_.begin() && kept < options.top_p * total) {
      std::pop_heap(candidates_.begin(), rest--, worse);
      kept += rest->weight;
    }
    candidates_.erase(candidates_.begin(), rest);
  }
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options.min_p; });  // the best has weight 1
  std::ranges::sort(candidates_, {}, &Candidate::token);

  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  // The position selects the stream of a generator that the seed and the sequence select.
  double left =
      Random(Random(options.seed, sequence_id).next(), static_cast<std::uint64_t>(position)).uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.token;
  }
  return std::ranges::max_element(candidates_, {}, &Candidate::weight)->token;  // rounding left a crumb
}

}  // namespace photon
