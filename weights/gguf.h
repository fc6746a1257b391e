// GGUF files, version 3: an atomic writer of what llama.cpp and its relatives read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "weights/tensor_source.h"

namespace photon {

using GgufValue = std::variant<bool, std::uint32_t, float, std::string, std::vector<std::int32_t>, std::vector<float>,
                               std::vector<std::string>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // keys in the order in which they are written

struct GgufTensor {
  std::string name;
  DType dtype = DType::f32;         // in the file: f32 or bf16, rounded to nearest even
  std::vector<std::int64_t> shape;  // one or two dimensions
  ReadRow rows;
};

/// Writes atomically, row by row: no tensor is copied as a whole.
/// @throws WeightsError for a repeated key or name, or a tensor that GGUF or this writer cannot hold
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensor>& tensors);

}  // namespace photon
