#include "eval/scorer.h"

#include "kernels/kernels.h"

namespace photon {
namespace {

TokenScore score_of(std::int32_t token, std::int64_t position, std::span<const float> logits) {
  require_finite(logits, position);
  return {.logprob = logits[static_cast<std::size_t>(token)] - kernels().log_sum_exp(logits),
          .greedy = token == argmax(logits)};
}

}  // namespace

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
      of_tokens.push_back(score_of(continuation[of_tokens.size()], position, logits));
    });
  }
  return scores;
}

RecgenScorer::RecgenScorer(const Engine& engine) : engine_(engine), hierarchy_(engine.model()) {
  engine.check_protocol(Protocol::recgen);
}

std::vector<std::vector<TokenScore>> RecgenScorer::score(std::span<const std::int32_t> context,
                                                         std::span<const std::vector<std::int32_t>> continuations) {
  engine_.check_tokens(context);
  for (const auto& continuation : continuations) engine_.check_tokens(continuation);

  Sequence before(engine_.model(), pool_);
  hierarchy_.prefill(before, context);
  std::vector<Sequence> sequences;
  for (std::size_t c = 0; c < continuations.size(); ++c) sequences.push_back(before.fork());
  std::vector<std::vector<TokenScore>> scores;
  std::vector<Hierarchy::Extension> batch;
  for (std::size_t c = 0; c < continuations.size(); ++c) {
    batch.push_back({&sequences[c], continuations[c]});
    scores.emplace_back(continuations[c].size());
  }
  hierarchy_.score_recgen(batch, [&](std::size_t c, std::int64_t position, std::span<const float> logits) {
    const std::size_t i = static_cast<std::size_t>(position) - context.size();
    scores[c][i] = score_of(continuations[c][i], position, logits);
  });
  return scores;
}

}  // namespace photon
