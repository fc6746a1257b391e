// One step of many requests: slices of prompts and the next token (recgen: group) of every continuation, all through
// the weights together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/hierarchy.h"
#include "engine/job.h"

namespace photon {

/// For one thread.
class Batch {
 public:
  explicit Batch(Hierarchy& hierarchy) : hierarchy_(hierarchy) {}

  /// Takes started jobs one step further; `prefill_tokens` of prompts, shared by all that have some left.  What a
  /// listener throws, or logits that are not finite, fail their job alone; where this throws, all have failed.
  void step(std::span<Job* const> jobs, std::int64_t prefill_tokens);

  /// Called where a prompt has reached one of its stops, before its logits are asked for.
  std::function<void(Job&)> at_stop;
  /// Called with a stream that has ended and its last state.
  std::function<void(Job&, Stream&, Sequence)> at_end;

 private:
  struct Slice {
    Job* job = nullptr;
    std::span<const std::int32_t> tokens;
  };
  struct LogitsRow {  // of a stream, or of all streams of a job whose prompt ends here
    Job* job = nullptr;
    Stream* stream = nullptr;
  };

  void share_out(std::span<Job* const> jobs, std::int64_t prefill_tokens);
  void consume(std::span<Job* const> jobs);
  void score(const Slice& slice);
  void predict(std::span<Job* const> jobs);
  void choose(Job& job, Stream& stream, std::span<const float> logits);
  void decode_groups(std::span<Job* const> jobs, bool one_by_one);

  Hierarchy& hierarchy_;
  Sampler sampler_;
  TokenLogprob logprob_;
  std::size_t first_ = 0;  // who is served first takes turns
  std::vector<Slice> slices_;
  std::vector<Hierarchy::Extension> extensions_;
  std::vector<Sequence*> sequences_;
  std::vector<LogitsRow> rows_;
};

}  // namespace photon
