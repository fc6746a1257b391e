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

  std::vector<std::vector<TokenScore>> scores;
  for (const auto& continuation : continuations) scores.emplace_back(continuation.size());
  const auto score_token = [&](std::size_t c, std::int64_t position, std::span<const float> logits) {
    const std::int64_t i = position - std::ssize(context);
    if (i < std::ssize(scores[c])) scores[c][i] = score_of(continuations[c][i], position, logits);
  };

  // Nobody reads the context's own logits.  Those of what follows it are every continuation's, so what decoders must
  // know of the context is computed once; but recgen may not begin behind them.
  const bool for_all = protocol_ == Protocol::hiergen && continuations.size() > 1;
  Sequence before = runner_.sequence();
  const Extension prompt{.sequence = &before, .tokens = context, .logits = for_all ? Logits::next : Logits::none};
  runner_.forward({&prompt, 1}, [&](std::size_t, std::int64_t position, std::span<const float> logits) {
    for (std::size_t c = 0; c < continuations.size(); ++c) score_token(c, position, logits);
  });

  std::deque<Sequence> sequences;
  std::vector<Extension> batch;
  for (const auto& continuation : continuations)
    batch.push_back({.sequence = &sequences.emplace_back(before.fork()), .tokens = continuation});
  runner_.score(protocol_, batch, score_token);
  return scores;
}

}  // namespace photon
