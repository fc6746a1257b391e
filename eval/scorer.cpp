#include "eval/scorer.h"

#include <deque>

#include "kernels/kernels.h"

namespace photon {
namespace {

TokenScore score_of(std::int32_t token, std::int64_t position, std::span<const float> logits) {
  require_finite(logits, position);
  return {.logprob = logits[token] - kernels().log_sum_exp(logits), .greedy = token == argmax(logits)};
}

}  // namespace

Scorer::Scorer(Runner& runner, Protocol protocol) : runner_(runner), protocol_(protocol) {
  check_protocol(runner.spec(), protocol);
}

std::vector<std::vector<TokenScore>> Scorer::score(std::span<const std::int32_t> context,
                                                   std::span<const std::vector<std::int32_t>> continuations) {
  check_tokens(runner_.spec(), context);
  for (const auto& continuation : continuations) check_tokens(runner_.spec(), continuation);

  Sequence before = runner_.sequence();
  const Extension prompt{.sequence = &before, .tokens = context};  // encoders only: nobody reads its own logits
  runner_.forward({&prompt, 1});
  std::deque<Sequence> sequences;
  std::vector<Extension> batch;
  std::vector<std::vector<TokenScore>> scores;
  for (const auto& continuation : continuations) {
    batch.push_back({.sequence = &sequences.emplace_back(before.fork()), .tokens = continuation});
    scores.emplace_back(continuation.size());
  }
  runner_.score(protocol_, batch, [&](std::size_t c, std::int64_t position, std::span<const float> logits) {
    const std::int64_t i = position - std::ssize(context);
    scores[c][i] = score_of(continuations[c][i], position, logits);
  });
  return scores;
}

}  // namespace photon
