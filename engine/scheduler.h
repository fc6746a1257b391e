// Continuous batching: requests join and leave between steps, and every step carries all of them through the weights
// together.  A request's tokens and log-probabilities do not depend on what else is in the batch, nor on where its
// prompt was cut, nor on whether its beginning was found in the prefix cache: bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/request.h"
#include "engine/runner.h"

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
  /// Borrows the runner, which nobody else may use meanwhile.
  Scheduler(Runner& runner, const SchedulerOptions& options);
  ~Scheduler();  ///< frees what is left

  /// Queues a request.
  /// @throws InputError for what can never run: ids outside the vocabulary, options out of range, a context or KV bytes
  /// beyond the limits, with both numbers.  @throws QueueFull.  Nothing was queued then.
  RequestId submit(Request request);
  /// Ends a request where it is, in the queue, in prefill or between two tokens; its memory is free on return, its last
  /// events come with settle().  Unknown and ended requests are ignored.
  void cancel(RequestId id);
  /// Ends a continuation after its first n tokens, of those that step() has told of.
  void stop(RequestId id, std::size_t continuation, std::int64_t n_tokens);

  /// One pass: admits what fits, takes slices of prompts and the next token (recgen: group) of every continuation.
  std::span<const Event> step();
  /// Ends what has ended, or was cancelled: tells of it and gives its memory back.  After each step; between the two,
  /// whoever has heard of a token may stop() there.  The events of either are valid until the next call of either.
  std::span<const Event> settle();
  /// Nothing is left to do, nor to be told.
  bool idle() const;

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
