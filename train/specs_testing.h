// Small specs for the tests of the training model.
#pragma once

#include <vector>

#include "engine/models_testing.h"

namespace photon {

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

/// Every number of levels, span, chunker and awkward size: the models that the engine is tested with.
inline std::vector<NamedSpec> spec_zoo() { return tiny_specs(); }

}  // namespace photon
