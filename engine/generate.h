// The engine for C++ users: load a model folder, generate with either protocol, score a sequence.
//
//   photon::Engine engine("models/stories");
//   photon::GenerateOptions options{.n_tokens = 100};
//   engine.generate(prompt, options, [](std::size_t, std::int32_t token) { …; return true; });
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/hierarchy.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "spec/accounting.h"

namespace photon {

struct GenerateOptions {
  std::int64_t n_tokens = 128;       // at most; >= 0
  std::int64_t n_continuations = 1;  // >= 1: they share the prompt's cache, and every pass through the weights
  Protocol protocol = Protocol::hiergen;
  SamplerOptions sampler{};
  bool ignore_eos = false;
  bool one_by_one = false;  // recgen: a group's level-1 chunks one after another instead of at once; same tokens
  /// Most bytes that the KV caches may take; 0: what the machine has left.
  std::int64_t kv_budget_bytes = 0;
};

/// @throws InputError naming the first option that is out of range, as a command-line flag.
void check(const GenerateOptions& options);

/// What a generation took, all continuations together.  KV bytes are those that continuations hold when they end, pages
/// that they share counted once, except for the peak.
struct GenerateStats {
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
  double prefill_ms = 0;  // until the first token's logits are known (recgen at a group's start: until it can begin)
  std::int64_t decode_tokens = 0;   // computed after the prefill: all but the first (recgen at a group's start: all)
  double decode_ms = 0;             // sampling and the callback's time included
  std::int64_t context_tokens = 0;  // consumed by the model in the longest continuation: the last one need not be
  std::int64_t kv_bytes_growing = 0, kv_bytes_constant = 0, kv_bytes_peak = 0;
  KvTraffic prefill_kv{}, decode_kv{};
  std::int64_t decode_weight_bytes_read = 0;  // matrices, each once a call

  double prefill_tokens_per_s() const;
  double decode_tokens_per_s() const;
  /// Weights, keys and values that decoding moved, in 10⁹ bytes per second: to be held against the memory's bandwidth.
  double decode_gb_per_s() const;
};

struct Continuation {
  std::vector<std::int32_t> tokens;  // without the prompt and without the eos that ended it
  bool stopped_at_eos = false;
};
struct Generation {
  std::vector<Continuation> continuations;  // n_continuations of them
  GenerateStats stats;
  const std::vector<std::int32_t>& tokens() const { return continuations.front().tokens; }
};

struct Score {
  std::vector<float> logprobs;       // ln p(token i | tokens before i), the first given the empty context
  std::vector<std::int32_t> argmax;  // the likeliest token at each position; ties to the lowest id
};

/// A loaded model.  One call at a time; it uses threads() threads.
class Engine {
 public:
  /// @throws SpecError, WeightsError or InputError naming file and field.
  explicit Engine(const std::filesystem::path& folder, const Precision& precision = {});

  const Model& model() const { return model_; }
  const Spec& spec() const { return model_.spec; }
  /// @throws InputError naming the first id outside the vocabulary.
  void check_tokens(std::span<const std::int32_t> tokens) const;
  /// @throws InputError for recgen without a level.
  void check_protocol(Protocol protocol) const;

  /// Called with each token of a continuation; returning false ends that continuation after it.
  using OnToken = std::function<bool(std::size_t continuation, std::int32_t token)>;
  /// Continues a prompt, which may be empty and is taken literally.
  ///
  /// hiergen computes the teacher-forced forward pass.  recgen finishes the prompt's last top-level group with hiergen,
  /// then decodes group by group (docs/architecture.md §3); its repetition penalty sees the tokens before the group and
  /// those of the own chunk.  The random number of a token depends on seed, continuation and position alone, so both
  /// orders of a group's chunks give the same tokens, and continuation i is the same whatever their number.
  /// @throws InputError for token ids outside the vocabulary, options out of range, recgen without a level, or a
  /// generation that does not fit into the KV budget, with both numbers.
  Generation generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                      const OnToken& on_token = {});

  /// Log-probabilities that a protocol gives a whole sequence, in bounded memory.  hiergen: the teacher-forced forward
  /// pass. recgen: group by group from the empty context, the tokens forced through recgen's own states.
  /// @throws InputError for ids outside the vocabulary, or recgen without a level.
  Score score(std::span<const std::int32_t> tokens, Protocol protocol = Protocol::hiergen);
  /// Several sequences, each as if it were alone.  recgen decodes them in step.
  std::vector<Score> score(std::span<const std::span<const std::int32_t>> texts, Protocol protocol);

 private:
  void check_memory(std::int64_t n_prompt, const GenerateOptions& options) const;

  Model model_;
  Hierarchy hierarchy_;
  KvPool pool_;
};

}  // namespace photon
