// Rows of weights in int8 and int4, as files hold them (docs/model-format.md) and kernels pack them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bf16.h"
#include "base/dtype.h"

namespace photon {

/// Inputs that share one scale.  A row of k inputs has ⌈k/32⌉ groups.
inline constexpr std::int64_t quant_group = 32;
std::int64_t quant_groups(std::int64_t k);

/// int8: value q in [-127, 127], a byte each; int4: q in [-8, 7] stored as q + 8, input 2i in the low half of byte i,
/// 2i + 1 in the high half (8 beyond k).  The weight is q times its group's scale, which may be negative: int4 thereby
/// spends its one value more on the sign that needs it.
struct QuantizedRow {
  const std::byte* values = nullptr;  // [quantized_row_bytes(type, k)]
  const bf16* scales = nullptr;       // [quant_groups(k)]

  int q(DType type, std::int64_t i) const {  // of input i
    if (type == DType::int8) return std::to_integer<std::int8_t>(values[i]);
    return (std::to_integer<int>(values[i / 2]) >> (i % 2 * 4) & 15) - 8;
  }
};
std::int64_t quantized_row_bytes(DType type, std::int64_t k);  // without scales
/// Rounds a row: nearest values under a scale that is itself bfloat16; for int4 the one of a few scales that leaves the
/// smallest square error.  x finite.
void quantize_row(DType type, std::span<const float> x, std::span<std::byte> values, std::span<bf16> scales);
void dequantize_row(DType type, QuantizedRow row, std::span<float> out);

}  // namespace photon
