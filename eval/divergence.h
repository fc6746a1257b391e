// How far predictions are from reference predictions of the same tokens: another model's, or another protocol's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"

namespace photon {

/// A mean of numbers that come one by one, and its standard error, which takes them as independent.
class Mean {
 public:
  void add(double x) { n_ += 1, sum_ += x, squares_ += x * x; }
  std::int64_t n() const { return n_; }
  double value() const { return n_ > 0 ? sum_ / static_cast<double>(n_) : 0; }
  double standard_error() const;

 private:
  std::int64_t n_ = 0;
  double sum_ = 0, squares_ = 0;
};

/// Means over the compared tokens, each of which both sides predict from the true tokens before it.  Standard errors
/// take tokens as independent.
struct Comparison {
  std::int64_t n_tokens = 0;
  double kl = 0, kl_standard_error = 0, kl_max = 0;  // KL(reference ‖ model) in nats
  double top1_agreement = 0;                         // share of tokens where both hold the same one likeliest
  double reference_nats = 0, model_nats = 0;         // -ln p(token)
  double difference_standard_error = 0;              // of model_nats - reference_nats
  double logit_difference_max = 0;
};

class Divergence {
 public:
  /// Counts tokens whose logits both sides have computed.  [n, V] each; shares its work over threads().
  void add(MatView<const float> reference, MatView<const float> model, std::span<const std::int32_t> tokens);
  Comparison result() const;

 private:
  struct Token {
    double kl = 0, reference_nats = 0, model_nats = 0, logit_difference = 0;
    bool same_top = false;
  };
  static Token compare(std::span<const float> reference, std::span<const float> model, std::int32_t token);

  std::vector<Token> tokens_;  // of one add()
  Mean kl_, same_top_, reference_nats_, model_nats_, difference_;
  double kl_max_ = 0, logit_difference_max_ = 0;
};

}  // namespace photon
