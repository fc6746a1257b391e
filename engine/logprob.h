// Log-probabilities from logits: of a token, and of the likeliest ones.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace photon {

/// ln p of a token from the model's logits as they are (before penalties, bias and temperature), and of the likeliest
/// tokens: most likely first, ties to the lowest id.  A token has the same float in both places.
struct TokenLogprob {
  float logprob = 0;
  std::vector<std::pair<std::int32_t, float>> top{};
  bool operator==(const TokenLogprob&) const = default;
};

/// @param n_top  from 0 to the size of the vocabulary
TokenLogprob token_logprob(std::span<const float> logits, std::int32_t token, std::int64_t n_top);

}  // namespace photon
