// What tasks ask of a model: log-probabilities of tokens given a context.  Under either protocol.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/runner.h"

namespace photon {

struct TokenScore {
  float logprob = 0;    // ln p(token | everything before it)
  bool greedy = false;  // it is the likeliest token; ties to the lowest id
  bool operator==(const TokenScore&) const = default;
};

/// Scores under a model and a protocol.  One call at a time; work is shared over threads().
class Scorer {
 public:
  /// Borrows the runner.  @throws FieldError for recgen and a model without a level.
  Scorer(Runner& runner, Protocol protocol);

  /// Every token of each continuation, given the context and the continuation's tokens before it.  The continuations
  /// are alternatives: each follows the context, whose work they share, and they go through the weights together.
  /// Tokens are taken literally: whatever prefix token a request has is part of its context, and nothing is cut off.
  /// Both may be empty.
  ///
  /// hiergen: the teacher-forced forward pass, as Engine::score() has it over context and continuation, bit for bit.
  /// recgen: the tokens are forced through recgen's own states.  As in generation, what is left of the context's last
  /// top-level group is scored by hiergen; recgen goes on from there, so the continuation's later groups are predicted
  /// from units that have not seen it.  How likely the context itself is plays no part.
  /// @throws InputError for ids outside the vocabulary, Error if a logit is not finite.
  std::vector<std::vector<TokenScore>> score(std::span<const std::int32_t> context,
                                             std::span<const std::vector<std::int32_t>> continuations);
  Protocol protocol() const { return protocol_; }

 private:
  Runner& runner_;
  Protocol protocol_;
};

}  // namespace photon
