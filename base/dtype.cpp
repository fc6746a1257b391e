#include "base/dtype.h"

#include <fmt/format.h>

#include <array>
#include <cassert>

#include "base/error.h"

namespace photon {
namespace {

constexpr std::array all_types{DType::f32, DType::bf16, DType::int8, DType::int4};

}  // namespace

std::string_view to_string(DType type) {
  switch (type) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::int8:
      return "int8";
    case DType::int4:
      return "int4";
  }
  return "?";
}

bool is_quantized(DType type) { return type == DType::int8 || type == DType::int4; }

DType parse_dtype(std::string_view text) {
  for (const DType type : all_types)
    if (text == to_string(type)) return type;
  throw InputError(fmt::format("'{}' is no weight type; there are f32, bf16, int8 and int4", text));
}

DType parse_kv_dtype(std::string_view text) {
  for (const DType type : all_types)
    if (type != DType::int4 && text == to_string(type)) return type;
  throw InputError(fmt::format("'{}' is no type of KV cache; there are f32, bf16, int8", text));
}

std::int64_t kv_position_bytes(DType type, std::int64_t head_dim) {
  switch (type) {
    case DType::f32:
      return 2 * 4 * head_dim;
    case DType::bf16:
      return 2 * 2 * head_dim;
    case DType::int8:
      return 2 * (head_dim + 2);
    case DType::int4:
      break;
  }
  assert(false && "no cache is int4");
  return 0;
}

}  // namespace photon
