// The hierarchy over batches of sequences, for every number of levels: bottom-up encoding, top-down decoding, and the
// two protocols built from them.  docs/architecture.md §2 and §3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "engine/model.h"
#include "engine/sequence.h"
#include "engine/stack.h"

namespace photon {

/// Drives sequences of one model; owns buffers, no sequence.  For one thread, which shares its work over threads().
/// A batch holds every sequence at most once; all of its rows go through each stack together.
class Hierarchy {
 public:
  explicit Hierarchy(const Model& model);

  struct Extension {
    Sequence* sequence = nullptr;
    std::span<const std::int32_t> tokens;
  };
  using Visit = std::function<void(std::int64_t position, std::span<const float> logits)>;
  using VisitOf = std::function<void(std::size_t b, std::int64_t position, std::span<const float> logits)>;
  using Choose = std::function<std::int32_t(std::size_t b, std::int64_t position, std::span<const float> logits)>;

  static constexpr std::int64_t prefill_slice = 2048;  // tokens encoded at once: bounds memory, fills the matrix units
  /// Consumes a prompt of any length, also 0, in slices of bounded memory: encoders only.  Comes first in every
  /// sequence.
  void prefill(Sequence& sequence, std::span<const std::int32_t> tokens);
  /// hiergen: consumes tokens, one or more a sequence.
  void consume(std::span<const Extension> batch);
  /// Logits [batch, V] of each sequence's next token; at most once between two tokens.  Valid until the next call.
  MatView<const float> next_logits(std::span<Sequence* const> batch);
  /// consume(), then next_logits().
  MatView<const float> step(std::span<const Extension> batch);
  /// The teacher-forced forward pass: consumes tokens and visits the logits [V] of each, computed from those before it.
  /// Goes on where prefill() or score() stopped, in any pieces.
  void score(Sequence& sequence, std::span<const std::int32_t> tokens, const Visit& visit);

  /// recgen may begin where a whole number of top-level groups is consumed and the next token's logits were not asked
  /// for. `stream` decoders catch up with the past; the lower encoders' caches are given back.  Needs a level.
  void start_recgen(Sequence& sequence);
  /// recgen: one top-level group, C_≤L tokens, of each sequence.  `choose` picks the token at a position of batch[b]
  /// from its logits [V]: within a chunk in order, the chunks of a group interleaved; or, `one_by_one`, chunk after
  /// chunk with the same logits.
  void recgen_group(std::span<Sequence* const> batch, const Choose& choose, bool one_by_one = false);
  /// recgen with the tokens given instead of chosen: visits the logits [V] of each token of batch[b], as recgen_group()
  /// computes them from recgen's own states.  A sequence inside a top-level group finishes it like score() before
  /// recgen begins, as generation does.  What would follow an incomplete last group is left out, and its sequence
  /// cannot go on.
  void score_recgen(std::span<const Extension> batch, const VisitOf& visit);

  /// A unit between tokens and the top level, 1 <= level < L: X as its encoder makes it, or X̂ as the decoder above
  /// predicts it (again where a `stream` decoder replays).
  struct Unit {
    const Sequence* sequence = nullptr;
    std::int64_t level = 0, index = 0;
    bool predicted = false;
    std::span<const float> x;  // [D_level]
  };
  /// Watches every unit that is made from now on; none for an empty function.
  void watch_units(std::function<void(const Unit&)> watch) { watch_unit_ = std::move(watch); }

  /// What was done so far.
  const Work& work() const { return stack_.work; }
  const Model& model() const { return model_; }
  /// Where the time goes; off until enabled.
  Profile& profile() { return stack_.profile; }

 private:
  struct Units {  // [from, to) of some level
    Sequence* sequence = nullptr;
    std::int64_t from = 0, to = 0;
  };
  struct LayoutRows {  // [begin, end) of some decoder's layout; outputs are wanted from `wanted` on
    Sequence* sequence = nullptr;
    std::int64_t begin = 0, end = 0, wanted = 0;
  };
  struct DecoderRow {  // one position of a decoder: a prefix vector or a unit of content
    KvCache* cache = nullptr;
    std::int64_t position = 0;
    const float* prefix = nullptr;   // [E]
    const float* content = nullptr;  // [D_{l-1}]
    bool output = false;
  };
  struct LevelScratch {
    std::vector<Row> rows;
    std::vector<Sequence*> owners;  // of the encoder's rows
    Matrix<float> chunks, units;    // of the encoder: concatenations [n, C·D_{l-1}], units [n, D_l]
    std::vector<Units> groups;      // of the decoder: whose prefix is to be fed
    std::vector<LayoutRows> layout_rows;
    std::vector<DecoderRow> decoder_rows;
    Matrix<float> conds;                   // top level: [n, D_L]
    Matrix<float> prefixes;                // [n groups, R·E]
    Matrix<float> contents, projected, x;  // [n, D_{l-1}], [n, E], [n, E]
    Matrix<float> unrolled;                // recgen: what the groups were decoded to [n, D_{l-1}]
  };

  void encode(std::span<const Extension> batch, bool to_score = false);
  void encode_trunk(std::span<const Extension> batch);
  void encode_tokens(std::span<const Extension> batch);
  void encode_level(std::int64_t l, std::span<Sequence* const> batch);
  void append_units(std::int64_t l, MatView<const float> x);
  std::int64_t first_condition(Sequence& sequence, std::int64_t from) const;
  void forget(Sequence& sequence) const;
  void show(const Sequence& sequence, std::int64_t level, std::int64_t first, bool predicted,
            MatView<const float> x) const;

  MatView<const float> predict(std::int64_t l, std::span<const Units> units);
  MatView<const float> decode(std::int64_t l, std::span<const LayoutRows> batch);
  MatView<const float> unroll(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> conds,
                              const Choose& choose, bool one_by_one);
  MatView<const float> convert(std::int64_t l, MatView<const float> conds);
  MatView<const float> run_decoder(std::int64_t l);
  std::int64_t begin_of(std::int64_t l, Sequence& sequence, std::int64_t unit) const;
  MatView<const float> head(MatView<const float> x);
  void project(MatView<const float> x, const PackedWeight& w, MatView<float> y);

  std::int64_t L() const { return model_.n_levels(); }
  LevelScratch& scratch(std::int64_t l) { return levels_[static_cast<std::size_t>(l)]; }  // 0 serves tokens and trunk

  const Model& model_;
  StackScratch stack_;
  std::vector<LevelScratch> levels_;
  std::vector<Sequence*> sequences_;
  std::vector<std::int64_t> wanted_;  // of each sequence of a batch: the first top-level unit that will be read
  std::vector<Units> next_;
  Matrix<float> logits_;  // [n, V]
  std::function<void(const Unit&)> watch_unit_;
};

}  // namespace photon
