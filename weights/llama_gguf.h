// A vanilla model as a GGUF file of architecture "llama": names, metadata and llama.cpp's order of query and key rows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "weights/gguf.h"
#include "weights/tensor_source.h"

namespace photon {

struct LlamaGguf {
  GgufMetadata metadata;            // without the tokenizer's
  std::vector<GgufTensor> tensors;  // read from what the source borrows
};

/// What write_gguf() needs for a model.
/// @param dtype           of the matrices; none: as they are stored, float32 where they are not.  Norms are float32.
/// @param context_length  the longest context that readers shall offer; the model itself has no limit
/// @throws InputError for a model that the architecture cannot hold: levels, odd head_dim, or quantised weights
LlamaGguf llama_gguf(const Spec& spec, const TensorSource& source, const std::string& name, std::optional<DType> dtype,
                     std::int64_t context_length);

/// llama.cpp rotates neighbours (2i, 2i + 1), we rotate halves (i, i + h/2): row 2i + j of its head is row i + j·h/2 of
/// ours.  The order for a matrix of n_heads heads, head_dim even.
std::vector<std::int64_t> interleaved_rows(std::int64_t n_heads, std::int64_t head_dim);

}  // namespace photon
