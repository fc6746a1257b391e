// What a model predicts beside another one over the same tokens: a quantised model against its original.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/generate.h"

namespace photon {

/// Means over the compared tokens, each of which both models predict from the true tokens before it.  Standard errors
/// take tokens as independent.
struct Comparison {
  std::int64_t n_tokens = 0;
  double kl = 0, kl_standard_error = 0, kl_max = 0;  // KL(reference ‖ model) in nats
  double top1_agreement = 0;                         // share of tokens where both hold the same one likeliest
  double reference_nats = 0, model_nats = 0;         // -ln p(token)
  double difference_standard_error = 0;              // of model_nats - reference_nats
};

/// Runs two models in step, in bounded memory: both logits of a slice of tokens at a time.  One call at a time.
class Comparer {
 public:
  /// Borrows both engines.  @throws InputError if their vocabularies differ.
  Comparer(const Engine& reference, const Engine& model);

  /// Scores a document with both; its first `n_given` tokens are not counted.
  /// @throws InputError for ids outside the vocabulary, Error if a logit is not finite.
  void add(std::span<const std::int32_t> tokens, std::int64_t n_given = 0);
  Comparison result() const;

 private:
  struct Token {
    double kl = 0, reference_nats = 0, model_nats = 0;
    bool same_top = false;
  };
  struct Sum {
    double sum = 0, squares = 0;
    void add(double x) { sum += x, squares += x * x; }
    double mean(std::int64_t n) const;
    double standard_error(std::int64_t n) const;
  };
  static Token compare(std::span<const float> reference, std::span<const float> model, std::int32_t token);

  const Engine& reference_;
  const Engine& model_;
  Hierarchy reference_hierarchy_, model_hierarchy_;
  KvPool pool_;
  Matrix<float> reference_logits_, model_logits_;  // [slice, V]
  std::vector<Token> tokens_;                      // of the slice
  std::int64_t n_tokens_ = 0, n_same_top_ = 0;
  Sum kl_, reference_nats_, model_nats_, difference_;
  double kl_max_ = 0;
};

}  // namespace photon
