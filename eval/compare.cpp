#include "eval/compare.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "engine/request.h"

namespace photon {
namespace {

constexpr std::size_t tokens_at_once = 256;

}  // namespace

Comparer::Comparer(Runner& reference, Runner& model) : reference_(reference), model_(model) {
  if (reference.spec().vocab_size != model.spec().vocab_size)
    throw InputError(fmt::format("the vocabularies differ: the reference has {} tokens, the model {}",
                                 reference.spec().vocab_size, model.spec().vocab_size));
}

void Comparer::add(std::span<const std::int32_t> tokens, std::int64_t n_given) {
  check_tokens(reference_.spec(), tokens);
  Sequence reference = reference_.sequence(), model = model_.sequence();
  for (std::int64_t first = 0; first < std::ssize(tokens);) {
    const auto slice = tokens.subspan(static_cast<std::size_t>(first))
                           .first(std::min(tokens_at_once, tokens.size() - static_cast<std::size_t>(first)));
    const auto run = [&](Runner& runner, Sequence& sequence, Matrix<float>& kept) {
      kept.resize(std::ssize(slice), reference_.spec().vocab_size);
      const Extension given{.sequence = &sequence, .tokens = slice, .logits = Logits::given};
      runner.forward({&given, 1}, [&](std::size_t, std::int64_t position, std::span<const float> logits) {
        require_finite(logits, position);
        std::ranges::copy(logits, kept.row(position - first).begin());
      });
    };
    run(reference_, reference, reference_logits_);
    run(model_, model, model_logits_);

    const std::int64_t given = std::clamp<std::int64_t>(n_given - first, 0, std::ssize(slice));
    const auto counted = [&](const Matrix<float>& logits) {
      return logits.view().slice(given, std::ssize(slice) - given);
    };
    divergence_.add(counted(reference_logits_), counted(model_logits_), slice.subspan(static_cast<std::size_t>(given)));
    first += std::ssize(slice);
  }
}

}  // namespace photon
