// Small specs that reach every path of the model: every span, both chunkers, unequal chunks, odd head sizes, GQA.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "spec/spec.h"

namespace photon {

struct NamedSpec {
  std::string name;
  Spec spec;
};
inline std::ostream& operator<<(std::ostream& out, const NamedSpec& s) { return out << s.name; }

inline StackSpec stack(int64_t d_model, int64_t n_layers, Span span, int64_t n_heads = 4, int64_t n_kv_heads = 2,
                       int64_t head_dim = 12) {
  return {.d_model = d_model,
          .n_layers = n_layers,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .d_ff = 2 * d_model + 3,
          .rope_theta = 10000.0,
          .span = span};
}

/// Level with chunk_size C, converter_len R: encoder of width D, decoder of width E.
inline LevelSpec level(int64_t C, int64_t R, int64_t D, Span encoder, int64_t E, Span decoder,
                       Chunker chunker = Chunker::linear) {
  return {.chunk_size = C,
          .converter_len = R,
          .chunker = chunker,
          .encoder = stack(D, 2, encoder),
          .decoder = stack(E, 2, decoder, 2, 1, 16)};
}

inline std::vector<NamedSpec> spec_zoo() {
  using enum Span::Kind;
  const Span all{global}, own{chunk};
  const auto model = [](int64_t d_embed, std::vector<LevelSpec> levels) {
    Spec spec;
    spec.vocab_size = 101, spec.d_embed = d_embed, spec.levels = std::move(levels);
    return spec;
  };
  Spec vanilla = model(40, {});
  vanilla.trunk = stack(40, 2, all, 2, 2, 52);
  Spec tied = vanilla;
  tied.tie_embeddings = true;
  return {
      {"vanilla", vanilla},
      {"vanilla_tied", tied},
      {"block_chunk", model(24, {level(4, 2, 40, all, 32, own)})},
      {"block_stream", model(24, {level(4, 1, 40, all, 32, {stream, 9})})},
      {"photon_paper_concat",
       model(12, {level(4, 4, 48, all, 48, own, Chunker::concat), level(4, 4, 40, all, 48, own)})},
      {"photon_unequal", model(20, {level(4, 1, 40, all, 24, own), level(2, 2, 32, all, 40, own)})},
      {"photon_window_stream",
       model(32, {level(4, 1, 40, {window, 3}, 32, {stream, 7}), level(2, 4, 48, all, 40, {stream, 5})})},
      {"photon_block_mixed", model(32, {level(3, 2, 40, {block, 2}, 24, {stream, 64}), level(2, 1, 48, all, 40, own)})},
      {"photon_three_levels", model(16, {level(3, 2, 32, {window, 4}, 24, own), level(5, 1, 36, {block, 2}, 32, own),
                                         level(2, 4, 40, all, 36, {stream, 6})})},
  };
}

}  // namespace photon
