// One request on its way: its prompt, its continuations, what they take, and what its listener hears.
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

#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/sequence.h"

namespace photon {

/// @throws InputError naming the first id outside the vocabulary.
void check_tokens(const Spec& spec, std::span<const std::int32_t> tokens);
/// @throws InputError for recgen without a level.
void check_protocol(const Spec& spec, Protocol protocol);
/// @throws InputError for a request that this model cannot run, whatever the memory.
void check(const Request& request, const Spec& spec);

/// One continuation.
struct Stream {
  std::size_t id = 0;
  std::optional<Sequence> sequence;  // until the end
  std::vector<std::int32_t> generated{};
  std::int32_t latest = 0;  // hiergen: chosen, not consumed yet
  bool ended = false;
  std::vector<std::int32_t> group{};           // recgen: the tokens of the group in progress
  std::vector<TokenLogprob> group_logprobs{};  // and theirs, if asked for
};

/// What Engine::generate() reports beside RequestStats; of a request that runs alone.
struct JobWork {
  std::int64_t decode_tokens = 0;  // whose logits were computed after the prefill
  std::int64_t context_tokens = 0;
  KvTraffic prefill_kv{}, kv{};
  std::int64_t prefill_weight_bytes_read = 0;  // what the hierarchy had read when the prefill ended
};

/// A request waits, then consumes its prompt (prefilling()), then has streams(), until it is over().  Exceptions of its
/// listener are its own failure and do not leave it.
class Job {
 public:
  Job(std::uint64_t id, const Model& model, Request request, RequestListener& listener);

  std::uint64_t id() const { return id_; }
  const Request& request() const { return request_; }
  const JobWork& work() const { return work_; }
  const std::exception_ptr& failure() const { return failure_; }

  // ---- from the queue to the first token ----

  /// Leaves the queue with a sequence that has consumed a beginning of the prompt, found in the cache, or nothing.
  void start(Sequence sequence);
  bool prefilling() const { return prompt_.has_value(); }
  /// The prompt's sequence.
  Sequence& prompt() { return *prompt_; }
  /// Prompt tokens to be consumed before the next stop, or the prompt's end.
  std::span<const std::int32_t> next_tokens() const;
  bool prompt_consumed() const { return prompt_->n_tokens == std::ssize(request_.prompt); }
  void add_prompt_logprobs(std::span<const TokenLogprob> logprobs);
  /// The prefill is over: the prompt's sequence becomes that of the continuations.
  void split(std::int64_t weight_bytes_read);
  /// Where slices of the prompt end, in ascending order: removed as they are reached.
  std::deque<std::int64_t> stops{};
  /// The prompt as the states share it that were kept of it; null before the first.
  std::shared_ptr<const std::vector<std::int32_t>> kept_text{};

  // ---- continuations ----

  std::deque<Stream>& streams() { return streams_; }
  /// recgen from here on.
  bool begins_recgen(const Sequence& sequence) const {
    return request_.protocol == Protocol::recgen && sequence.n_tokens % group_tokens_ == 0;
  }
  /// Chooses the token at a position; `chunk`: those before it in its recgen chunk.  0 if the request fails of it.
  std::int32_t choose(Stream& stream, std::int64_t position, std::span<const float> logits,
                      std::span<const std::int32_t> chunk, Sampler& sampler, TokenLogprob* logprob);
  /// A token was chosen; those after the end of a stream are ignored.
  void add(Stream& stream, std::int32_t token, const TokenLogprob* logprob);
  bool wants_logprobs() const { return request_.n_top_logprobs.has_value(); }
  void count_decoded(std::int64_t n) { work_.decode_tokens += n; }
  /// Takes a stream's sequence away, and counts what it held.
  Sequence release(Stream& stream);

  // ---- the end ----

  void fail(std::exception_ptr failure);
  void cancel() { cancelled_ = true; }
  bool live() const { return !cancelled_ && failure_ == nullptr; }
  bool over() const;
  /// Frees everything, then tells the listener.
  void close();

  // ---- memory ----

  /// The most that the request holds at any moment, alone.
  std::int64_t kv_bytes_at_most() const { return kv_bytes_at_most_; }
  /// The most that it will still allocate.
  std::int64_t kv_bytes_to_come() const;
  std::int64_t kv_bytes_constant() const;  // of its sequences
  std::int64_t n_live_sequences() const;   // that decode

 private:
  using Clock = std::chrono::steady_clock;

  template <class Call>
  void tell(const Call& call);
  void end(Stream& stream, FinishReason reason);

  std::uint64_t id_;
  const Model& model_;
  Request request_;
  RequestListener& listener_;
  std::int64_t group_tokens_;                            // C_≤L
  std::int64_t kv_bytes_at_most_, kv_bytes_of_another_;  // of one continuation more
  std::optional<Sequence> prompt_;
  std::deque<Stream> streams_;
  bool cancelled_ = false;
  std::exception_ptr failure_;
  RequestStats stats_;
  JobWork work_;
  Clock::time_point submitted_ = Clock::now(), started_{}, prefilled_{};
};

}  // namespace photon
