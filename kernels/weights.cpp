// Packing rows of weights into panels.  Runs once, at load.
#include "kernels/weights.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace photon {
namespace {

constexpr std::int64_t line = 64;  // bytes

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::int64_t PackedWeight::n_panels() const {
  return gated ? 2 * ceil_div(outputs / 2, panel_outputs) : ceil_div(outputs, panel_outputs);
}
std::int64_t PackedWeight::bytes() const { return n_panels() * panel_bytes(type, k); }

std::int64_t panel_bytes(DType type, std::int64_t k) {
  constexpr std::int64_t scales = panel_outputs * 2;
  switch (type) {
    case DType::f32:
      return k * panel_outputs * 4;
    case DType::bf16:
      return ceil_div(k, 2) * panel_outputs * 4;
    case DType::int8:
      return ceil_div(quant_groups(k) * (quant_group * panel_outputs + scales), line) * line;
    case DType::int4:
      return ceil_div(quant_groups(k) * (quant_group * panel_outputs / 2 + scales), line) * line;
  }
  return 0;
}

void pack_panel(DType type, const std::array<const float*, panel_outputs>& rows, std::int64_t k, std::byte* panel) {
  assert(!is_quantized(type));
  const auto at = [&](std::size_t o, std::int64_t i) { return rows[o] != nullptr && i < k ? rows[o][i] : 0.0f; };
  if (type == DType::f32) {
    auto* out = reinterpret_cast<float*>(panel);
    for (std::int64_t i = 0; i < k; ++i)
      for (std::size_t o = 0; o < panel_outputs; ++o) *out++ = at(o, i);
  } else {
    auto* out = reinterpret_cast<bf16*>(panel);
    for (std::int64_t i = 0; i < k; i += 2)
      for (std::size_t o = 0; o < panel_outputs; ++o) *out++ = to_bf16(at(o, i)), *out++ = to_bf16(at(o, i + 1));
  }
}

void pack_panel(DType type, const std::array<QuantizedRow, panel_outputs>& rows, std::int64_t k, std::byte* panel) {
  assert(is_quantized(type));
  const std::int64_t groups = quant_groups(k);
  std::byte* out = panel;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto at = [&](const QuantizedRow& row, std::int64_t i) {  // q of the group's input i
      i += g * quant_group;
      if (row.values == nullptr || i >= k) return 0;
      return row.q(type, i);
    };
    const std::int64_t steps = type == DType::int8 ? 8 : 4;
    for (std::int64_t i = 0; i < steps * 4; i += 4)
      for (const QuantizedRow& row : rows)
        for (std::int64_t j = i; j < i + 4; ++j)
          *out++ = static_cast<std::byte>(type == DType::int8 ? at(row, j) + 128
                                                              : (at(row, j) + 8) | (at(row, j + 16) + 8) << 4);
  }
  for (std::int64_t g = 0; g < groups; ++g)
    for (const QuantizedRow& row : rows) {
      const bf16 scale = row.values == nullptr ? bf16{} : row.scales[g];
      std::memcpy(out, &scale, sizeof scale);
      out += sizeof scale;
    }
  std::fill(out, panel + panel_bytes(type, k), std::byte{});
}

}  // namespace photon
