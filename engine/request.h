// What is asked of the engine, and what the asker hears.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/logprob.h"
#include "engine/sampler.h"
#include "spec/accounting.h"

namespace photon {

struct Request {
  std::vector<std::int32_t> prompt;  // taken literally; may be empty
  std::int64_t n_tokens = 16;        // at most, of each continuation; 0: the prompt is only consumed (and scored)
  std::int64_t n_continuations = 1;  // they share the prompt's state
  Protocol protocol = Protocol::hiergen;
  SamplerOptions sampler{};
  bool ignore_eos = false;
  bool one_by_one = false;    // recgen: a group's level-1 chunks one after another
  bool score_prompt = false;  // log-probabilities of the prompt's tokens, too: the exact forward pass
  std::optional<std::int64_t> n_top_logprobs{};  // log-probabilities of tokens, with so many alternatives (0 …)
};

enum class FinishReason { eos, stopped, length, cancelled };

/// What a request took.
struct RequestStats {
  std::int64_t prompt_tokens = 0, cached_tokens = 0;  // cached: whose work was found in the prefix cache
  std::int64_t generated_tokens = 0;                  // all continuations, eos not counted
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0;
  std::int64_t kv_bytes_growing = 0, kv_bytes_constant = 0;  // of its sequences at the end, shared pages once
};

/// Hears of one request, on the thread that calls Scheduler::step(); in this order.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  /// It left the queue; so many of the prompt's tokens were found in the prefix cache.
  virtual void on_start(std::int64_t /*cached_tokens*/) {}
  /// The next prompt tokens' log-probabilities, in order, in pieces (score_prompt with n_top_logprobs).
  virtual void on_prompt_logprobs(std::span<const TokenLogprob> /*logprobs*/) {}
  /// A token of a continuation; false ends the continuation after it.  `logprob` is null unless asked for.  The eos
  /// that ends a continuation is not one of its tokens.
  virtual bool on_token(std::size_t continuation, std::int32_t token, const TokenLogprob* logprob) = 0;
  /// The eos that ends a continuation, before its on_finish().
  virtual void on_eos(std::size_t /*continuation*/, std::int32_t /*token*/, const TokenLogprob* /*logprob*/) {}
  /// No more tokens of this continuation.
  virtual void on_finish(std::size_t /*continuation*/, FinishReason /*reason*/) {}
  /// The last call, for every request that was submitted: also after cancel() and where the engine failed (`error`).
  virtual void on_done(const RequestStats& stats, const std::string* error) = 0;
};

}  // namespace photon
