// What the protocols predict for given tokens beside the teacher-forced forward pass: how far their probabilities are,
// and how far the units that the decoders predict, X̂, are from those that the encoders make, X.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/generate.h"
#include "eval/divergence.h"

namespace photon {

/// cos(X̂, X) of the units of one level between tokens and the top.
struct UnitCosine {
  std::int64_t level = 0;  // 1 … L-1
  Mean all{};
  std::vector<Mean> by_slot{};  // by the unit's place in its top-level group: recgen begins each from a true condition
};

struct ProtocolAgreement {
  Protocol protocol = Protocol::hiergen;
  Comparison tokens;              // of which the reference is the forward pass
  std::vector<UnitCosine> units;  // one each level
};

/// Decodes texts with each protocol, every token given instead of sampled: hiergen token by token, recgen group by
/// group from the beginning of the text.  One call at a time.
class Agreement {
 public:
  explicit Agreement(Runner& runner);  ///< borrows it

  /// Decodes texts, several in step; the first `n_given` tokens of each are not counted.
  /// @throws InputError for ids outside the vocabulary, Error if a logit is not finite.
  void add(std::span<const std::vector<std::int32_t>> texts, std::int64_t n_given = 0);
  /// hiergen; recgen too where the model has a level.
  std::vector<ProtocolAgreement> result() const;

 private:
  using Parts = std::vector<std::span<const std::int32_t>>;  // a slice of each text of a batch; may be empty
  struct Pass {                                              // over the slice, in one of three ways
    std::vector<Sequence> sequences;
    Matrix<float> logits;              // [batch · slice, V]
    std::vector<Matrix<float>> units;  // by level: X or X̂ [batch · units in a slice, D_level]
    Divergence divergence;             // from the forward pass
    std::vector<UnitCosine> cosines;

    Matrix<float>& units_of(std::int64_t level) { return units[static_cast<std::size_t>(level)]; }
    const Matrix<float>& units_of(std::int64_t level) const { return units[static_cast<std::size_t>(level)]; }
  };

  std::size_t batch_size(std::span<const std::vector<std::int32_t>> texts) const;
  void add_batch(std::span<const std::vector<std::int32_t>> texts, std::int64_t n_given);
  void start(Pass& pass, bool predicted);
  void keep(Pass& pass, std::size_t b, std::int64_t position, std::span<const float> logits) const;
  void score(Pass& pass, const Parts& parts, Protocol protocol);
  void run_forward(const Parts& parts);
  void run_hiergen(const Parts& parts);
  void run_recgen(const Parts& parts);
  void compare(Pass& pass, const Parts& parts, std::int64_t n_given) const;

  std::int64_t L() const { return model_.n_levels(); }
  std::int64_t slice_units(std::int64_t level) const { return slice_ / model_.spec.chunk_tokens(level); }

  Runner& runner_;
  const Model& model_;
  std::int64_t slice_;      // tokens held at once of each text: whole top-level groups
  std::int64_t first_ = 0;  // position of the slice
  Pass forward_, hiergen_, recgen_;
};

/// How often recgen writes what hiergen would: the likeliest token each time, from the same prompts.
struct GreedyAgreement {
  std::int64_t n_prompts = 0, n_tokens = 0;    // n_tokens each
  Mean equal;                                  // of positions
  std::vector<std::int64_t> first_difference;  // tokens before it; n_tokens where there is none
};
/// @throws InputError as Engine::generate().
GreedyAgreement greedy_agreement(Engine& engine, std::span<const std::vector<std::int32_t>> prompts,
                                 std::int64_t n_tokens);

}  // namespace photon
