// GGUF files, version 3: an atomic writer of what llama.cpp and its relatives read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "weights/quantized.h"
#include "weights/safetensors.h"

namespace photon {

using GgufValue = std::variant<bool, std::uint32_t, float, std::string, std::vector<std::int32_t>, std::vector<float>,
                               std::vector<std::string>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // keys in the order in which they are written

/// A tensor to write; the source's bytes are borrowed and must stay valid until it is written.
struct GgufTensor {
  std::string name;
  DType dtype = DType::f32;                  // in the file: f32 or bf16, rounded to nearest even
  TensorView source{};                       // F32 or BF16, row-major; one or two dimensions
  std::vector<std::int64_t> row_order = {};  // row i of the file is row row_order[i] of the source; empty: as they lie
};

/// Writes atomically, row by row: no tensor is copied as a whole.
/// @throws WeightsError for a repeated key or name, or a tensor that GGUF or this writer cannot hold
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensor>& tensors);

}  // namespace photon
