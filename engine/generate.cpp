#include "engine/generate.h"

#include <fmt/format.h>

#include <deque>
#include <exception>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "engine/scheduler.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t prompt_slice = 2048;  // tokens between two looks at what has ended
constexpr std::size_t most_together = 64;    // texts scored at once, as far as their caches stay below
constexpr std::int64_t kv_bytes_together = std::int64_t{1} << 30;

std::string gb(std::int64_t bytes) { return fmt::format("{:.3f} GB", static_cast<double>(bytes) * 1e-9); }

}  // namespace

Engine::Engine(const std::filesystem::path& folder, const Precision& precision)
    : runner_(load_model(folder, precision)) {}

void Engine::check_memory(const Request& request, std::int64_t kv_budget_bytes) const {
  const std::int64_t n_prompt = std::ssize(request.prompt), n = request.n_continuations;
  if (n_prompt > max_context || request.n_tokens > max_context - n_prompt)
    throw InputError(
        fmt::format("{} tokens of prompt and {} to be generated are more than the longest context, {} tokens", n_prompt,
                    request.n_tokens, max_context));
  const std::int64_t wanted = kv_bytes_at_most(spec(), request.protocol, n_prompt, request.n_tokens, n, model().kv);
  const std::int64_t budget = kv_budget_bytes > 0 ? kv_budget_bytes : available_memory();
  if (wanted > budget)
    throw InputError(
        fmt::format("{} continuation{} of {} tokens of prompt and {} to be generated can take {} of KV cache, {} {}; "
                    "use fewer tokens, fewer continuations or a smaller KV type",
                    n, n == 1 ? "" : "s", n_prompt, request.n_tokens, gb(wanted),
                    kv_budget_bytes > 0 ? "the budget is" : "the machine has left", gb(budget)));
}

Generation Engine::generate(const Request& request, const OnToken& on_token, std::int64_t kv_budget_bytes,
                            const OnPrompt& on_prompt) {
  check(request, spec());
  if (kv_budget_bytes < 0)
    throw FieldError("kv_budget_bytes", fmt::format("is {}, must be 0 or more", kv_budget_bytes));
  check_memory(request, kv_budget_bytes);

  runner_.pool().reset_peak();
  Scheduler scheduler(runner_, {.kv_budget_bytes = kv_budget_bytes,
                                .max_sequences = request.n_continuations,
                                .prefill_tokens_per_step = prompt_slice,
                                .prefix_cache = false});
  const RequestId id = scheduler.submit(request);
  Generation result{.continuations = std::vector<GeneratedTokens>(request.n_continuations)};
  std::vector<bool> stopped(request.n_continuations);
  const auto add = [&](const TokenChosen& chosen) {
    if (chosen.is_eos || stopped[chosen.continuation]) return;
    auto& tokens = result.continuations[chosen.continuation].tokens;
    tokens.push_back(chosen.token);
    if (!on_token || on_token(chosen.continuation, chosen.token)) return;
    stopped[chosen.continuation] = true;
    scheduler.stop(id, chosen.continuation, std::ssize(tokens));
  };
  while (!scheduler.idle()) {
    for (const Event& event : scheduler.step())
      if (const auto* chosen = std::get_if<TokenChosen>(&event.what))
        add(*chosen);
      else if (const auto* consumed = std::get_if<PromptConsumed>(&event.what); consumed != nullptr && on_prompt)
        on_prompt(consumed->n_tokens);
    for (const Event& event : scheduler.settle()) {
      if (const auto* finished = std::get_if<Finished>(&event.what)) {
        result.continuations[finished->continuation].stopped_at_eos = finished->reason == FinishReason::eos;
      } else if (const auto* done = std::get_if<Done>(&event.what)) {
        if (done->failure != nullptr) std::rethrow_exception(done->failure);
        result.stats = done->stats;
      }
    }
  }
  result.kv_bytes_peak = runner_.pool().peak_bytes();
  return result;
}

Score Engine::score(std::span<const std::int32_t> tokens, Protocol protocol) {
  return std::move(score(std::span(&tokens, 1), protocol).front());
}

std::vector<Score> Engine::score(std::span<const std::span<const std::int32_t>> texts, Protocol protocol) {
  for (const auto& tokens : texts) check_tokens(spec(), tokens);
  check_protocol(spec(), protocol);
  std::vector<Score> scores(texts.size());
  for (std::size_t first = 0, n = 0; first < texts.size(); first += n) {
    std::int64_t bytes = 0;
    for (n = 0; first + n < texts.size() && n < most_together; ++n) {
      bytes += kv_bytes_allocated(spec(), Protocol::hiergen, std::ssize(texts[first + n]), model().kv);
      if (n > 0 && bytes > kv_bytes_together) break;
    }
    score_together(texts.subspan(first, n), protocol, std::span(scores).subspan(first, n));
  }
  return scores;
}

void Engine::score_together(std::span<const std::span<const std::int32_t>> texts, Protocol protocol,
                            std::span<Score> scores) {
  std::deque<Sequence> sequences;
  std::vector<Extension> batch;
  for (std::size_t b = 0; b < texts.size(); ++b) {
    scores[b].logprobs.resize(texts[b].size());
    scores[b].argmax.resize(texts[b].size());
    batch.push_back({.sequence = &sequences.emplace_back(runner_.sequence()), .tokens = texts[b]});
  }
  runner_.score(protocol, batch, [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    require_finite(logits, position);
    scores[b].logprobs[position] = logits[texts[b][position]] - kernels().log_sum_exp(logits);
    scores[b].argmax[position] = argmax(logits);
  });
}

}  // namespace photon
