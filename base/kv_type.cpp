#include "base/kv_type.h"

#include <fmt/format.h>

#include "base/error.h"

namespace photon {

std::string_view to_string(KvType type) {
  switch (type) {
    case KvType::f32:
      return "f32";
    case KvType::bf16:
      return "bf16";
    case KvType::int8:
      return "int8";
  }
  return "?";
}

KvType parse_kv_type(std::string_view text) {
  for (const KvType type : {KvType::f32, KvType::bf16, KvType::int8})
    if (text == to_string(type)) return type;
  throw InputError(fmt::format("'{}' is no type of KV cache; there are f32, bf16, int8", text));
}

std::int64_t kv_position_bytes(KvType type, std::int64_t head_dim) {
  switch (type) {
    case KvType::f32:
      return 2 * 4 * head_dim;
    case KvType::bf16:
      return 2 * 2 * head_dim;
    case KvType::int8:
      return 2 * (head_dim + 2);
  }
  return 0;
}

}  // namespace photon
