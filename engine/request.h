// What is asked of the engine, and what it answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/logprob.h"
#include "engine/sampler.h"
#include "spec/accounting.h"

namespace photon {

struct Request {
  std::vector<std::int32_t> prompt{};  // taken literally; may be empty
  std::int64_t n_tokens = 16;          // at most, of each continuation; 0: the prompt is only consumed (and scored)
  std::int64_t n_continuations = 1;    // they share the prompt's state, and every pass through the weights
  Protocol protocol = Protocol::hiergen;
  SamplerOptions sampler{};
  bool ignore_eos = false;
  bool one_by_one = false;    // recgen: a group's level-1 chunks one after another instead of at once; same tokens
  bool score_prompt = false;  // log-probabilities of the prompt's tokens, too: the exact forward pass
  std::optional<std::int64_t> n_top_logprobs{};  // log-probabilities of tokens, with so many alternatives (0 …)
};

/// @throws InputError naming the first id outside the vocabulary.
void check_tokens(const Spec& spec, std::span<const std::int32_t> tokens);
/// @throws FieldError for recgen without a level.
void check_protocol(const Spec& spec, Protocol protocol);
/// @throws FieldError for the first field that is out of range whatever the model is.
void check_options(const Request& request);
/// @throws InputError, FieldError for a request that this model cannot run, whatever the memory.
void check(const Request& request, const Spec& spec);

enum class FinishReason { eos, stopped, length, cancelled };

/// What a request took, all continuations together.
struct RequestStats {
  std::int64_t prompt_tokens = 0, cached_tokens = 0;  // cached: whose work was found in the prefix cache
  std::int64_t generated_tokens = 0;                  // all continuations, eos not counted
  double queue_ms = 0;
  double prefill_ms = 0;  // until the first token's logits are known (recgen at a group's start: until it can begin)
  std::int64_t decode_tokens = 0;   // computed after the prefill: all but the first (recgen at a group's start: all)
  double decode_ms = 0;             // until the request is over: with sampling, and with what its asker takes
  std::int64_t context_tokens = 0;  // consumed by the model in the longest continuation: the last one need not be
  std::int64_t kv_bytes_growing = 0, kv_bytes_constant = 0;  // of its sequences at the end, shared pages once
  KvTraffic prefill_kv{}, decode_kv{};
  std::int64_t decode_weight_bytes_read =
      0;  // after its prefill, matrices each once a call: shared with who ran beside it

  double prefill_tokens_per_s() const;
  double decode_tokens_per_s() const;
  /// Weights, keys and values that decoding moved, in 10⁹ bytes per second: to be held against the memory's bandwidth.
  double decode_gb_per_s() const;
};

// ---- events: what a step brings about, in the order in which it came ----

/// It left the queue.
struct Started {
  std::int64_t cached_tokens = 0;  // of the prompt, found in the prefix cache
};
/// A part of the prompt was consumed.
struct PromptConsumed {
  std::int64_t n_tokens = 0;  // of it so far, cached ones included
};
/// The next prompt tokens' log-probabilities (score_prompt with n_top_logprobs).
struct PromptScored {
  std::vector<TokenLogprob> logprobs;
};
/// A token of a continuation; or the eos that ends it, which is none of its tokens.
struct TokenChosen {
  std::size_t continuation = 0;
  std::int32_t token = 0;
  std::optional<TokenLogprob> logprob;  // if asked for
  bool is_eos = false;
};
/// No more tokens of this continuation.
struct Finished {
  std::size_t continuation = 0;
  FinishReason reason = FinishReason::length;
};
/// The last event of every request.
struct Done {
  RequestStats stats;
  std::exception_ptr failure;  // why the engine could not go on; null if it could
};

using RequestId = std::uint64_t;
struct Event {
  template <class What>
  Event(RequestId id, What&& event) : request(id), what(std::forward<What>(event)) {}

  RequestId request = 0;
  std::variant<Started, PromptConsumed, PromptScored, TokenChosen, Finished, Done> what;
};

}  // namespace photon
