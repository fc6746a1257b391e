// A request on its way: its prompt, its continuations, what they take, and the events that they bring about.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/model.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/sequence.h"

namespace photon {

/// One continuation of a prompt.
struct Continuation {
  std::size_t id = 0;
  std::optional<Sequence> sequence{};  // until the end
  std::vector<std::int32_t> tokens{};
  std::optional<FinishReason> finish{};
  bool told = false;                           // that it has finished
  std::int32_t latest = 0;                     // hiergen: chosen, not consumed yet
  std::vector<std::int32_t> group{};           // recgen: the tokens of the group in progress
  std::vector<TokenLogprob> group_logprobs{};  // and theirs, if asked for
};

/// A request waits, then consumes its prompt (prefilling()), then has continuations(), until it is over().
class ActiveRequest {
 public:
  ActiveRequest(RequestId id, const Model& model, Request request);

  RequestId id() const { return id_; }
  const Request& request() const { return request_; }

  // ---- from the queue to the first token ----

  /// Leaves the queue with a sequence that has consumed a beginning of the prompt, found in the cache, or nothing.
  void start(Sequence sequence);
  bool prefilling() const { return prompt_.has_value(); }
  /// The prompt's sequence.
  Sequence& prompt() { return *prompt_; }
  /// Prompt tokens to be consumed before the next stop, or the prompt's end.
  std::span<const std::int32_t> next_tokens() const;
  bool prompt_consumed() const { return prompt_->n_tokens == std::ssize(request_.prompt); }
  /// The prefill is over: the prompt's sequence becomes that of the continuations.
  /// @param weight_bytes_read  by the runner so far
  void split(std::int64_t weight_bytes_read);
  /// Where slices of the prompt end, in ascending order: removed as they are reached.
  std::deque<std::int64_t> stops{};
  /// The prompt as the states share it that were kept of it; null before the first.
  std::shared_ptr<const std::vector<std::int32_t>> kept_text{};

  // ---- continuations ----

  std::deque<Continuation>& continuations() { return continuations_; }
  /// recgen from here on.
  bool begins_recgen(const Sequence& sequence) const {
    return request_.protocol == Protocol::recgen && sequence.n_tokens % group_tokens_ == 0;
  }
  /// Chooses the token at a position; `chunk`: those before it in its recgen chunk.  0 if the request fails of it.
  std::int32_t choose(Continuation& continuation, std::int64_t position, std::span<const float> logits,
                      std::span<const std::int32_t> chunk, Sampler& sampler, TokenLogprob* logprob);
  /// A token was chosen; those after the end of a continuation are ignored.
  void add(Continuation& continuation, std::int32_t token, const TokenLogprob* logprob, std::vector<Event>& events);
  bool wants_logprobs() const { return request_.n_top_logprobs.has_value(); }
  void count_decoded(std::int64_t n) { stats_.decode_tokens += n; }
  /// The asker wants a continuation to end after its first n tokens.
  void stop(std::size_t continuation, std::int64_t n);

  // ---- the end ----

  void fail(std::exception_ptr failure);
  void cancel() { cancelled_ = true; }
  bool live() const { return !cancelled_ && failure_ == nullptr; }
  bool over() const;
  /// Tells of the end of a continuation that has finished; takes its sequence away, if it has one, and counts what that
  /// held.
  std::optional<Sequence> release(Continuation& continuation, std::vector<Event>& events);
  /// Frees everything, and tells of it.
  void close(std::int64_t weight_bytes_read, std::vector<Event>& events);

  // ---- memory ----

  /// The most that the request holds at any moment, alone.
  std::int64_t kv_bytes_at_most() const { return kv_bytes_at_most_; }
  /// The most that it will still allocate.
  std::int64_t kv_bytes_to_come() const;
  std::int64_t kv_bytes_constant() const;  // of its sequences
  std::int64_t n_live_sequences() const;   // that decode

 private:
  using Clock = std::chrono::steady_clock;

  std::optional<Sequence> take(Continuation& continuation);

  RequestId id_;
  const Model& model_;
  Request request_;
  std::int64_t group_tokens_;                            // C_≤L
  std::int64_t kv_bytes_at_most_, kv_bytes_of_another_;  // of one continuation more
  std::optional<Sequence> prompt_;
  std::deque<Continuation> continuations_;
  bool cancelled_ = false;
  std::exception_ptr failure_;
  RequestStats stats_;
  std::int64_t prefill_weight_bytes_read_ = 0;  // what the runner had read when the prefill ended
  KvTraffic kv_;                                // of everything so far
  Clock::time_point submitted_ = Clock::now(), started_{}, prefilled_{};
};

}  // namespace photon
