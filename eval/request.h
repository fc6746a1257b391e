// From the texts of a request to the tokens that a model scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/task.h"
#include "text/tokenizer.h"

namespace photon {

/// Every model gets the same prefix, bos, and no padding: padding on the left would move every chunk's boundary.
struct EncodedRequest {
  std::vector<std::int32_t> context;       // begins with the prefix token unless it was cut off
  std::vector<std::int32_t> continuation;  // what is scored
  std::int64_t n_cut = 0;                  // tokens that were cut off the context's left
};

/// White space at the context's end belongs to the continuation; both are encoded as one text, of which the
/// continuation gets what is behind as many tokens as the context has on its own.
EncodedRequest encode_request(const Tokenizer& tokenizer, std::int32_t prefix, const ScoreRequest& request);

/// Keeps the last max_length + 1 tokens of context and continuation together: the last one is no model's input.
/// @throws InputError if nothing is to be scored, or the continuation is longer than max_length >= 1.
void truncate(EncodedRequest& request, std::int64_t max_length);

/// A text in disjoint windows, each of at most max_length tokens to be scored.  The first follows the prefix; the
/// others follow the token before them, the last one as many tokens as fill the length.
std::vector<EncodedRequest> rolling_windows(std::span<const std::int32_t> tokens, std::int32_t prefix,
                                            std::int64_t max_length);

}  // namespace photon
