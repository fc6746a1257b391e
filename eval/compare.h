// What a model predicts beside another one over the same tokens: a quantised model against its original.
#pragma once

#include <cstdint>
#include <span>

#include "engine/runner.h"
#include "eval/divergence.h"

namespace photon {

/// Runs two models in step, in bounded memory: both logits of a slice of tokens at a time.  One call at a time.
class Comparer {
 public:
  /// Borrows both.  @throws InputError if their vocabularies differ.
  Comparer(Runner& reference, Runner& model);

  /// Scores a document with both; its first `n_given` tokens are not counted.
  /// @throws InputError for ids outside the vocabulary, Error if a logit is not finite.
  void add(std::span<const std::int32_t> tokens, std::int64_t n_given = 0);
  Comparison result() const { return divergence_.result(); }

 private:
  Runner& reference_;
  Runner& model_;
  Matrix<float> reference_logits_, model_logits_;  // [slice, V]
  Divergence divergence_;
};

}  // namespace photon
