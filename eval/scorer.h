// What tasks ask of a model: log-probabilities of tokens given a context.  One implementation for each protocol.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/generate.h"

namespace photon {

struct TokenScore {
  float logprob = 0;    // ln p(token | everything before it)
  bool greedy = false;  // it is the likeliest token; ties to the lowest id
  bool operator==(const TokenScore&) const = default;
};

/// A document's score under a model and a protocol.  One call at a time; work is shared over threads().
class Scorer {
 public:
  virtual ~Scorer() = default;

  /// Every token of each continuation, given the context and the continuation's tokens before it.  The continuations
  /// are alternatives: each follows the context, whose work they share.  Tokens are taken literally: whatever prefix
  /// token a request has is part of its context, and nothing is cut off.  Both may be empty.
  /// @throws InputError for ids outside the vocabulary, Error if a logit is not finite.
  virtual std::vector<std::vector<TokenScore>> score(std::span<const std::int32_t> context,
                                                     std::span<const std::vector<std::int32_t>> continuations) = 0;
  virtual Protocol protocol() const = 0;
};

/// The teacher-forced forward pass, which is what hiergen computes.  The scores are those of Engine::score() over
/// context and continuation, bit for bit where a row does not depend on its batch (kernels/matmul.h).
class HiergenScorer : public Scorer {
 public:
  explicit HiergenScorer(const Engine& engine);  ///< borrows it

  std::vector<std::vector<TokenScore>> score(std::span<const std::int32_t> context,
                                             std::span<const std::vector<std::int32_t>> continuations) override;
  Protocol protocol() const override { return Protocol::hiergen; }

 private:
  const Engine& engine_;
  Hierarchy hierarchy_;
  KvPool pool_;
};

/// The likelihood that recgen assigns to given tokens: they are forced through recgen's own states.  As in generation,
/// what is left of the context's last top-level group is scored by hiergen; recgen goes on from there, so the
/// continuation's later groups are predicted from units that have not seen it.  How likely the context itself is plays
/// no part.
class RecgenScorer : public Scorer {
 public:
  explicit RecgenScorer(const Engine& engine);  ///< borrows it.  @throws InputError for a model without a level

  std::vector<std::vector<TokenScore>> score(std::span<const std::int32_t> context,
                                             std::span<const std::vector<std::int32_t>> continuations) override;
  Protocol protocol() const override { return Protocol::recgen; }

 private:
  const Engine& engine_;
  Hierarchy hierarchy_;
  KvPool pool_;
};

}  // namespace photon
