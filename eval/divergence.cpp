#include "eval/divergence.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "engine/sampler.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// ln Σ exp(x): in double, since the divergences in question are small differences.
double log_sum_exp(std::span<const float> x) {
  const double largest = *std::ranges::max_element(x);
  double sum = 0;
  for (const float value : x) sum += std::exp(static_cast<double>(value) - largest);
  return largest + std::log(sum);
}

}  // namespace

double Mean::standard_error() const {
  if (n_ < 2) return 0;
  const double spread = squares_ - sum_ * value();
  return std::sqrt(std::max(0.0, spread) / static_cast<double>(n_ - 1) / static_cast<double>(n_));
}

Divergence::Token Divergence::compare(std::span<const float> reference, std::span<const float> model,
                                      std::int32_t token) {
  const double reference_lse = log_sum_exp(reference), model_lse = log_sum_exp(model);
  Token t;
  for (std::size_t v = 0; v < reference.size(); ++v) {
    const auto a = static_cast<double>(reference[v]), b = static_cast<double>(model[v]);
    const double logp = a - reference_lse;
    t.kl += std::exp(logp) * (logp - (b - model_lse));
    t.logit_difference = std::max(t.logit_difference, std::abs(a - b));
  }
  t.reference_nats = reference_lse - static_cast<double>(reference[static_cast<std::size_t>(token)]);
  t.model_nats = model_lse - static_cast<double>(model[static_cast<std::size_t>(token)]);
  t.same_top = argmax(reference) == argmax(model);
  return t;
}

void Divergence::add(MatView<const float> reference, MatView<const float> model, std::span<const std::int32_t> tokens) {
  const std::int64_t n = std::ssize(tokens);
  assert(reference.rows == n && model.rows == n && reference.cols == model.cols);
  tokens_.resize(tokens.size());
#pragma omp parallel for num_threads(static_cast <int>(threads()))
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    tokens_[at] = compare(reference.row(i), model.row(i), tokens[at]);
  }
  for (const Token& t : tokens_) {
    kl_.add(t.kl), same_top_.add(t.same_top), reference_nats_.add(t.reference_nats), model_nats_.add(t.model_nats);
    difference_.add(t.model_nats - t.reference_nats);
    kl_max_ = std::max(kl_max_, t.kl);
    logit_difference_max_ = std::max(logit_difference_max_, t.logit_difference);
  }
}

Comparison Divergence::result() const {
  return {.n_tokens = kl_.n(),
          .kl = kl_.value(),
          .kl_standard_error = kl_.standard_error(),
          .kl_max = kl_max_,
          .top1_agreement = same_top_.value(),
          .reference_nats = reference_nats_.value(),
          .model_nats = model_nats_.value(),
          .difference_standard_error = difference_.standard_error(),
          .logit_difference_max = logit_difference_max_};
}

}  // namespace photon
