// From logits to a token: penalties, bias, temperature, top-k, top-p, min-p, and a random number that depends on
// nothing but (seed, sequence, position).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace photon {

/// Applied in this order.  The default of each does nothing: tokens are drawn from what the model says.
struct SamplerOptions {
  double repetition_penalty =
      1.0;  // > 0: logits of tokens among the last 64 are divided (if positive) or multiplied by it
  double frequency_penalty = 0;  // subtracted from a token's logit for each time that it was generated
  double presence_penalty = 0;   // subtracted once if it was generated at all
  std::vector<std::pair<std::int32_t, double>> logit_bias{};  // added to a token's logit; of equal ids all
  double temperature = 1.0;                                   // >= 0; 0 takes the largest logit, ties to the lowest id
  std::int64_t top_k = 0;                                     // keeps the k largest; 0 keeps all
  double top_p = 1.0;  // keeps the fewest that together have at least this probability; 0 < p <= 1
  double min_p = 0.0;  // keeps those with at least min_p times the largest probability; 0 <= p <= 1
  std::uint64_t seed = 0;
};

/// For text that people read: the likelier tokens only, a little sharpened, as llama.cpp does it.
inline SamplerOptions readable_text() { return {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05}; }

/// How many of the latest tokens the repetition penalty looks at.
inline constexpr std::int64_t repetition_window = 64;

/// @throws FieldError naming the first option that is out of range.
void check(const SamplerOptions& options);

/// The tokens before the one to choose, as far as penalties see them: the repetition penalty all, frequency and
/// presence penalty what was generated.
struct TextSoFar {
  std::span<const std::int32_t> prompt{}, generated{};
  std::span<const std::int32_t> chunk{};  // recgen: generated after these, in the own chunk
};

/// Keeps buffers between calls; for one thread.
class Sampler {
 public:
  /// The token for a position of a sequence.  `options` were checked, and the ids of their bias are in the vocabulary.
  /// @throws Error if a logit is NaN or infinite.
  std::int32_t sample(const SamplerOptions& options, std::span<const float> logits, const TextSoFar& text,
                      std::uint64_t sequence_id, std::int64_t position);

 private:
  struct Candidate {
    std::int32_t token = 0;
    double weight = 0;  // logit, later unnormalised probability
  };
  std::span<const float> adjust(const SamplerOptions& options, std::span<const float> logits, const TextSoFar& text);

  std::vector<float> adjusted_;       // [V]
  std::vector<std::int32_t> window_;  // what the repetition penalty sees
  std::vector<std::int32_t> counts_;  // [V] times generated; 0 between calls
  std::vector<Candidate> candidates_;
};

/// @throws Error if a logit is NaN or infinite: nothing sensible can follow.
void require_finite(std::span<const float> logits, std::int64_t position);

/// The token of the largest logit; ties to the lowest id.
std::int32_t argmax(std::span<const float> logits);

}  // namespace photon
