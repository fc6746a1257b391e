// Continuous batching: requests join and leave between steps, and every step carries all of them through the weights
// together.  A request's tokens and log-probabilities do not depend on what else is in the batch, nor on where its
// prompt was cut, nor on whether its beginning was found in the prefix cache: bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/hierarchy.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
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

/// ln p of a token from the model's logits as they are (before penalties, bias and temperature), and of the likeliest
/// tokens: most likely first, ties to the lowest id.
struct TokenLogprob {
  float logprob = 0;
  std::vector<std::pair<std::int32_t, float>> top{};
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
  /// A token of a continuation, eos included unless it ends the text unseen; false ends the continuation after it.
  /// `logprob` is null unless asked for.
  virtual bool on_token(std::size_t continuation, std::int32_t token, const TokenLogprob* logprob) = 0;
  /// No more tokens of this continuation.
  virtual void on_finish(std::size_t /*continuation*/, FinishReason /*reason*/) {}
  /// The last call, for every request that was submitted: also after cancel() and where the engine failed (`error`).
  virtual void on_done(const RequestStats& stats, const std::string* error) = 0;
};

struct SchedulerOptions {
  std::int64_t kv_budget_bytes = 0;  // of everything: sequences and prefix cache; 0: what the machine has left
  std::int64_t max_sequences = 256;  // that run at once
  std::int64_t max_queue = 1024;     // requests that wait
  std::int64_t max_context = 0;      // tokens of prompt and answer; 0: the engine's own limit
  std::int64_t prefill_tokens_per_step = 256;  // prompt tokens that a step takes along, over all prompts
  bool prefix_cache = true;                    // keep the states of prompts at chunk boundaries while memory allows
};

/// A request that cannot be taken now, but later: the queue is full.
class QueueFull : public Error {
  using Error::Error;
};

/// For one thread.
class Scheduler {
 public:
  using RequestId = std::uint64_t;

  Scheduler(const Model& model, const SchedulerOptions& options);
  ~Scheduler();

  /// Queues a request.  The listener must live until its on_done().
  /// @throws InputError for what can never run: ids outside the vocabulary, sampler options out of range, a context or
  /// KV bytes beyond the limits, with both numbers.  @throws QueueFull.  Nothing was queued then.
  RequestId submit(Request request, RequestListener& listener);
  /// Ends a request where it is, in the queue, in prefill or between two tokens; its memory is free on return.
  /// Unknown and ended requests are ignored.
  void cancel(RequestId id);
  /// One pass: admits what fits, takes slices of prompts and the next token (recgen: group) of every continuation.
  /// false: nothing was left to do.
  bool step();

  struct Status {
    std::int64_t queued = 0, prefilling = 0, decoding = 0;  // requests
    std::int64_t sequences = 0;                             // that decode
    std::int64_t kv_bytes_growing = 0, kv_bytes_constant = 0, kv_bytes_prefix_cache = 0, kv_bytes_reserved = 0,
                 kv_budget_bytes = 0;
    std::int64_t prefix_queries = 0, prefix_hits = 0, prefix_tokens_reused = 0, steps = 0;  // since the start
  };
  Status status() const;
  const Model& model() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace photon
