// Continuous batching: requests join and leave between steps, and every step carries all of them through the weights
// together.  A request's tokens and log-probabilities do not depend on what else is in the batch, nor on where its
// prompt was cut, nor on whether its beginning was found in the prefix cache: bit for bit.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/model.h"
#include "engine/request.h"

namespace photon {

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
  ~Scheduler();  ///< cancels what is left

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
