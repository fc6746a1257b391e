// One step of many requests: slices of prompts and the next token (recgen: group) of every continuation, all through
// the weights together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/active_request.h"
#include "engine/runner.h"

namespace photon {

/// For one thread.
class Batch {
 public:
  explicit Batch(Runner& runner) : runner_(runner) {}

  /// Takes started requests one step further; `prefill_tokens` of prompts, shared by all that have some left.  Logits
  /// that are not finite fail their request alone; where this throws, all have failed.
  void step(std::span<ActiveRequest* const> requests, std::int64_t prefill_tokens, std::vector<Event>& events);

  /// Called where a prompt has reached one of its stops, before its logits are asked for.
  std::function<void(ActiveRequest&)> at_stop;

 private:
  struct Slice {
    ActiveRequest* request = nullptr;
    std::span<const std::int32_t> tokens;
  };
  struct Asker {  // of a row of logits: a continuation, or all of a request whose prompt ends here
    ActiveRequest* request = nullptr;
    Continuation* continuation = nullptr;
  };

  void share_out(std::span<ActiveRequest* const> requests, std::int64_t prefill_tokens);
  void consume(std::span<ActiveRequest* const> requests, std::vector<Event>& events);
  void predict(std::span<ActiveRequest* const> requests, std::vector<Event>& events);
  void choose(ActiveRequest& request, Continuation& continuation, std::span<const float> logits,
              std::vector<Event>& events);
  void decode_groups(std::span<ActiveRequest* const> requests, bool one_by_one, std::vector<Event>& events);

  Runner& runner_;
  Sampler sampler_;
  TokenLogprob logprob_;
  std::size_t first_ = 0;  // who is served first takes turns
  std::vector<Slice> slices_;
  std::vector<Extension> extensions_;
  std::vector<Sequence*> sequences_;
  std::vector<Asker> askers_;
};

}  // namespace photon
