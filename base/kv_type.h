// How a cache stores keys and values, and how many bytes that takes.
#pragma once

#include <cstdint>
#include <string_view>

namespace photon {

enum class KvType {
  f32,
  bf16,
  int8,  // groups of one vector: a byte an element and a bfloat16 scale
};
std::string_view to_string(KvType type);      // "f32", "bf16", "int8"
KvType parse_kv_type(std::string_view text);  ///< @throws InputError naming the word and the types there are

/// Bytes of one position of one kv head: key and value of head_dim elements each.
std::int64_t kv_position_bytes(KvType type, std::int64_t head_dim);

}  // namespace photon
