// The engine for C++ users: load a model folder, generate with either protocol, score sequences.
//
//   photon::Engine engine("models/photon-stories");
//   photon::Request request{.prompt = tokens, .n_tokens = 100, .sampler = photon::readable_text()};
//   engine.generate(request, [](std::size_t, std::int32_t token) { …; return true; });
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/runner.h"

namespace photon {

struct GeneratedTokens {
  std::vector<std::int32_t> tokens;  // without the prompt and without the eos that ended them
  bool stopped_at_eos = false;
};
struct Generation {
  std::vector<GeneratedTokens> continuations;  // n_continuations of them
  RequestStats stats{};
  std::int64_t kv_bytes_peak = 0;
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

  const Model& model() const { return runner_.model(); }
  const Spec& spec() const { return runner_.spec(); }
  /// What everything else that drives the model borrows, between two calls.
  Runner& runner() { return runner_; }

  /// Called with each token of a continuation; returning false ends that continuation after it.
  using OnToken = std::function<bool(std::size_t continuation, std::int32_t token)>;
  using OnPrompt = std::function<void(std::int64_t n_tokens)>;
  /// Continues a prompt.
  ///
  /// hiergen computes the teacher-forced forward pass.  recgen finishes the prompt's last top-level group with hiergen,
  /// then decodes group by group (docs/architecture.md §3); its repetition penalty sees the tokens before the group and
  /// those of the own chunk.  The random number of a token depends on seed, continuation and position alone, so both
  /// orders of a group's chunks give the same tokens, and continuation i is the same whatever their number.
  /// @param kv_budget_bytes  most bytes that the KV caches may take; 0: what the machine has left
  /// @throws InputError for token ids outside the vocabulary, FieldError for fields out of range or recgen without a
  /// level, and InputError for a generation that does not fit into the KV budget, with both numbers.
  /// @param on_prompt  hears how much of a long prompt is consumed, now and then
  Generation generate(const Request& request, const OnToken& on_token = {}, std::int64_t kv_budget_bytes = 0,
                      const OnPrompt& on_prompt = {});

  /// Log-probabilities that a protocol gives whole sequences, each as if it were alone, in bounded memory; all of them
  /// go through the weights together.  hiergen: the teacher-forced forward pass.  recgen: group by group from the empty
  /// context, the tokens forced through recgen's own states.
  /// @throws InputError for ids outside the vocabulary, FieldError for recgen without a level.
  std::vector<Score> score(std::span<const std::span<const std::int32_t>> texts, Protocol protocol);
  Score score(std::span<const std::int32_t> tokens, Protocol protocol = Protocol::hiergen);

 private:
  void check_memory(const Request& request, std::int64_t kv_budget_bytes) const;
  void score_together(std::span<const std::span<const std::int32_t>> texts, Protocol protocol, std::span<Score> scores);

  Runner runner_;
};

}  // namespace photon
