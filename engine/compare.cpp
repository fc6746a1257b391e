#include "engine/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::size_t slice_tokens = 256;

// ln Σ exp(x): in double, since the divergences in question are small differences.
double log_sum_exp(std::span<const float> x) {
  const double largest = *std::ranges::max_element(x);
  double sum = 0;
  for (const float value : x) sum += std::exp(static_cast<double>(value) - largest);
  return largest + std::log(sum);
}

}  // namespace

double Comparer::Sum::mean(std::int64_t n) const { return n > 0 ? sum / static_cast<double>(n) : 0; }

double Comparer::Sum::standard_error(std::int64_t n) const {
  if (n < 2) return 0;
  const double spread = squares - sum * mean(n);
  return std::sqrt(std::max(0.0, spread) / static_cast<double>(n - 1) / static_cast<double>(n));
}

Comparer::Comparer(const Engine& reference, const Engine& model)
    : reference_(reference), model_(model), reference_hierarchy_(reference.model()), model_hierarchy_(model.model()) {
  if (reference.spec().vocab_size != model.spec().vocab_size)
    throw InputError(fmt::format("the vocabularies differ: the reference has {} tokens, the model {}",
                                 reference.spec().vocab_size, model.spec().vocab_size));
}

Comparer::Token Comparer::compare(std::span<const float> reference, std::span<const float> model, std::int32_t token) {
  const double reference_lse = log_sum_exp(reference), model_lse = log_sum_exp(model);
  Token t;
  for (std::size_t v = 0; v < reference.size(); ++v) {
    const double logp = static_cast<double>(reference[v]) - reference_lse;
    t.kl += std::exp(logp) * (logp - (static_cast<double>(model[v]) - model_lse));
  }
  t.reference_nats = reference_lse - static_cast<double>(reference[static_cast<std::size_t>(token)]);
  t.model_nats = model_lse - static_cast<double>(model[static_cast<std::size_t>(token)]);
  t.same_top = argmax(reference) == argmax(model);
  return t;
}

void Comparer::add(std::span<const std::int32_t> tokens, std::int64_t n_given) {
  reference_.check_tokens(tokens);
  Sequence reference(reference_.model(), pool_), model(model_.model(), pool_);
  for (std::int64_t first = 0; first < std::ssize(tokens);) {
    const auto slice = tokens.subspan(static_cast<std::size_t>(first))
                           .first(std::min(slice_tokens, tokens.size() - static_cast<std::size_t>(first)));
    const auto run = [&](Hierarchy& hierarchy, Sequence& sequence, Matrix<float>& kept) {
      kept.resize(std::ssize(slice), reference_.spec().vocab_size);
      hierarchy.score(sequence, slice, [&](std::int64_t position, std::span<const float> logits) {
        require_finite(logits, position);
        std::ranges::copy(logits, kept.row(position - first).begin());
      });
    };
    run(reference_hierarchy_, reference, reference_logits_);
    run(model_hierarchy_, model, model_logits_);

    tokens_.resize(slice.size());
#pragma omp parallel for num_threads(static_cast <int>(threads()))
    for (std::int64_t i = 0; i < std::ssize(slice); ++i) {
      const auto at = static_cast<std::size_t>(i);
      tokens_[at] = compare(std::as_const(reference_logits_).row(i), std::as_const(model_logits_).row(i), slice[at]);
    }
    for (std::int64_t i = std::max<std::int64_t>(0, n_given - first); i < std::ssize(slice); ++i) {
      const Token& t = tokens_[static_cast<std::size_t>(i)];
      n_tokens_ += 1, n_same_top_ += t.same_top;
      kl_.add(t.kl), reference_nats_.add(t.reference_nats), model_nats_.add(t.model_nats);
      difference_.add(t.model_nats - t.reference_nats);
      kl_max_ = std::max(kl_max_, t.kl);
    }
    first += std::ssize(slice);
  }
}

Comparison Comparer::result() const {
  return {.n_tokens = n_tokens_,
          .kl = kl_.mean(n_tokens_),
          .kl_standard_error = kl_.standard_error(n_tokens_),
          .kl_max = kl_max_,
          .top1_agreement = n_tokens_ > 0 ? static_cast<double>(n_same_top_) / static_cast<double>(n_tokens_) : 0,
          .reference_nats = reference_nats_.mean(n_tokens_),
          .model_nats = model_nats_.mean(n_tokens_),
          .difference_standard_error = difference_.standard_error(n_tokens_)};
}

}  // namespace photon
