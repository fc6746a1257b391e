// The types that numbers are held in: weights (all four), KV caches (not int4), the arithmetic of training (f32, bf16).
#pragma once

#include <cstdint>
#include <string_view>

namespace photon {

enum class DType {
  f32,
  bf16,
  int8,  // groups under one bfloat16 scale: 32 inputs of a weight matrix, one vector of a KV cache
  int4,  // likewise, weights only
};
std::string_view to_string(DType type);       // "f32", "bf16", "int8", "int4"
bool is_quantized(DType type);                // int8 or int4
DType parse_dtype(std::string_view text);     ///< @throws InputError naming the word and the types there are
DType parse_kv_dtype(std::string_view text);  ///< likewise, for those of KV caches

/// Bytes of one position of one kv head in a cache: key and value of head_dim elements each.  Not for int4.
std::int64_t kv_position_bytes(DType type, std::int64_t head_dim);

}  // namespace photon
