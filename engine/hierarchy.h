// The maps of the hierarchy over batches of sequences, for every number of levels: bottom-up X⁽ˡ⁾, top-down X̂⁽ˡ⁾,
// logits. hiergen.h and recgen.h build the two protocols from them.  docs/architecture.md §2.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "engine/model.h"
#include "engine/ops.h"
#include "engine/sequence.h"
#include "engine/stack.h"

namespace photon {

/// A unit between tokens and the top level, 1 <= level < L: X as its encoder makes it, or X̂ as the decoder above
/// predicts it (again where a `stream` decoder replays).
struct Unit {
  const Sequence* sequence = nullptr;
  std::int64_t level = 0, index = 0;
  bool predicted = false;
  std::span<const float> x;  // [D_level]
};

/// Drives sequences of one model; owns buffers, no sequence.  For one thread, which shares its work over threads().
/// A batch holds every sequence at most once; all of its rows go through each stack together.  Results are views of
/// buffers, valid until the next call of the same function.
class Hierarchy {
 public:
  explicit Hierarchy(const Model& model);

  // ---- bottom-up ----

  struct Given {
    Sequence* sequence = nullptr;
    std::span<const std::int32_t> tokens{};
    std::int64_t first_wanted = 0;  // the first token whose logits may still be asked for
  };
  /// Consumes tokens: X⁽⁰⁾ = embed(t), then encode_level(l) up to the top (L = 0: the trunk).
  void encode(std::span<const Given> batch);
  /// X⁽ˡ⁾ = Encoder_l(Chunker_l(X⁽ˡ⁻¹⁾)) of every complete chunk of level l-1 that has no unit yet.
  /// @param wanted  per sequence: top-level units before this one will not be read; empty: all may be
  void encode_level(std::int64_t l, std::span<Sequence* const> batch, std::span<const std::int64_t> wanted = {});

  // ---- top-down ----

  struct Units {  // [from, to) of some level
    Sequence* sequence = nullptr;
    std::int64_t from = 0, to = 0;
  };
  /// X̂⁽ˡ⁾ [n, width of cond⁽ˡ⁾] of units of level l, what their groups are decoded from; at the top the shifted X⁽ᴸ⁾.
  /// For l = 0: X̂⁽⁰⁾ of tokens.  Each unit at most once, in order.
  MatView<const float> predict(std::int64_t l, std::span<const Units> units);
  /// logits [n, V] = lm_head · X̂⁽⁰⁾
  MatView<const float> head(MatView<const float> x);

  /// U⁽ˡ⁾ = Converter_l(cond⁽ˡ⁾) [n, R·E]: vector r of a group at columns r·E …
  MatView<const float> convert(std::int64_t l, MatView<const float> conds);
  struct DecoderRow {  // one position of a decoder: a prefix vector or a unit of content
    KvCache* cache = nullptr;
    std::int64_t position = 0;
    const float* prefix = nullptr;   // [E]
    const float* content = nullptr;  // [D_{l-1}], or what decoder_embedding gives [E_1]
    bool output = false;
    Past past{};
  };
  /// Decoder_l over rows; the outputs [m, E] of the marked ones.
  MatView<const float> run_decoder(std::int64_t l, std::span<const DecoderRow> rows);
  /// What a row of Decoder_l may ask: of the group of level l with its first unit here, predicting a unit of level l-1.
  Past past_of(std::int64_t l, Sequence& sequence, std::int64_t first_unit, std::int64_t predicted) const;
  /// A `stream` decoder of level l takes its rows of the past into its cache, so that group unit / C can begin next.
  void catch_up(std::int64_t l, Sequence& sequence, std::int64_t unit);

  /// Where Decoder_l has to begin, or to go on, so that its predictions from `unit` on are exact.
  std::int64_t begin_of(std::int64_t l, Sequence& sequence, std::int64_t unit) const;
  /// Drops the units that neither a chunk in progress nor a prediction that may still be asked for will want.
  void forget(Sequence& sequence) const;
  /// Tells whoever watches of units `first` … of a level.
  void show(const Sequence& sequence, std::int64_t level, std::int64_t first, bool predicted,
            MatView<const float> x) const;
  std::function<void(const Unit&)> watch_unit;

  std::int64_t L() const { return model_.n_levels(); }
  const Model& model() const { return model_; }
  Ops& ops() { return ops_; }
  const Ops& ops() const { return ops_; }

 private:
  struct LayoutRows {  // [begin, end) of some decoder's layout; outputs are wanted from `wanted` on
    Sequence* sequence = nullptr;
    std::int64_t begin = 0, end = 0, wanted = 0;
  };
  struct LevelScratch {
    std::vector<Row> rows;
    std::vector<Sequence*> owners;      // of the encoder's rows
    std::vector<const float*> sources;  // of what is gathered
    Matrix<float> chunks, units;        // of the encoder: concatenations [n, C·D_{l-1}], units [n, D_l]
    std::vector<Units> groups;          // of the decoder: whose prefix is to be fed
    std::vector<LayoutRows> layout_rows;
    std::vector<DecoderRow> decoder_rows;
    Matrix<float> conds;                   // top level: [n, D_L]
    Matrix<float> prefixes;                // [n groups, R·E]
    Matrix<float> contents, projected, x;  // [n, content_width], [n, E], [n, E]
  };

  void encode_trunk(std::span<const Given> batch, std::span<const std::int64_t> wanted);
  void encode_tokens(std::span<const Given> batch);
  void keep_for_decoder(const Given& given);
  void append_units(std::int64_t l, MatView<const float> x);
  void remember_units(MatView<const float> x);
  MatView<const float> conditions(std::span<const Units> units);
  MatView<const float> decode(std::int64_t l, std::span<const LayoutRows> batch);
  std::int64_t first_condition(Sequence& sequence, std::int64_t from) const;

  LevelScratch& scratch(std::int64_t l) { return levels_[l]; }  // 0 serves tokens and trunk

  const Model& model_;
  Ops ops_;
  StackScratch stack_;
  std::vector<LevelScratch> levels_;
  std::vector<Sequence*> sequences_;
  std::vector<std::int32_t> tokens_;  // of the trunk's rows
  std::vector<std::int64_t> wanted_;
  std::vector<Ops::RememberedUnit> remembered_;
  Matrix<float> logits_;  // [n, V]
};

}  // namespace photon
