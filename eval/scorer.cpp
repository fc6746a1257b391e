#include "eval/scorer.h"

#include "kernels/kernels.h"

namespace photon {

HiergenScorer::HiergenScorer(const Engine& engine) : engine_(engine), hierarchy_(engine.model()) {}

std::vector<std::vector<TokenScore>> HiergenScorer::score(std::span<const std::int32_t> context,
                                                          std::span<const std::vector<std::int32_t>> continuations) {
  engine_.check_tokens(context);
  for (const auto& continuation : continuations) engine_.check_tokens(continuation);

  Sequence before(engine_.model(), pool_);
  hierarchy_.prefill(before, context);  // encoders only: nobody reads the context's own logits
  std::vector<std::vector<TokenScore>> scores;
  for (const auto& continuation : continuations) {
    Sequence sequence = before.fork();
    auto& of_tokens = scores.emplace_back();
    hierarchy_.score(sequence, continuation, [&](std::int64_t position, std::span<const float> logits) {
      require_finite(logits, position);
      const std::int32_t token = continuation[of_tokens.size()];
      of_tokens.push_back({.logprob = logits[static_cast<std::size_t>(token)] - kernels().log_sum_exp(logits),
                           .greedy = token == argmax(logits)});
    });
  }
  return scores;
}

}  // namespace photon
