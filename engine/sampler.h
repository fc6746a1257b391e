// From logits to a token: penalties, temperature, top-k, top-p, min-p, and a random number that depends on nothing but
// (seed, sequence, position).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace photon {

/// Applied in this order.  A value that does nothing is the default, except for the temperature.
struct SamplerOptions {
  double repetition_penalty =
      1.0;                   // > 0: logits of tokens among the last 64 are divided (if positive) or multiplied by it
  double temperature = 0.8;  // >= 0; 0 takes the largest logit, ties to the lowest id
  std::int64_t top_k = 0;    // keeps the k largest; 0 keeps all
  double top_p = 1.0;        // keeps the fewest that together have at least this probability; 0 < p <= 1
  double min_p = 0.0;        // keeps those with at least min_p times the largest probability; 0 <= p <= 1
  std::uint64_t seed = 0;
};

/// How many of the latest tokens the repetition penalty looks at.
inline constexpr std::int64_t repetition_window = 64;

/// @throws InputError naming the first option that is out of range, as a command-line flag.
void check(const SamplerOptions& options);

/// Keeps buffers between calls; for one thread.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);  ///< @throws InputError

  /// The token for a position of a sequence.  `recent`: the tokens before it that the penalty may look at, of which the
  /// last 64 count.  @throws Error if a logit is NaN or infinite.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> recent, std::uint64_t sequence_id,
                      std::int64_t position);

 private:
  struct Candidate {
    std::int32_t token = 0;
    double weight = 0;  // logit, later unnormalised probability
  };
  SamplerOptions options_;
  std::vector<float> penalised_;
  std::vector<std::int32_t> window_;
  std::vector<Candidate> candidates_;
};

/// @throws Error if a logit is NaN or infinite: nothing sensible can follow.
void require_finite(std::span<const float> logits, std::int64_t position);

/// The token of the largest logit; ties to the lowest id.
std::int32_t argmax(std::span<const float> logits);

}  // namespace photon
