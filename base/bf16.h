// bfloat16: the upper half of a float32.  Storage only; arithmetic happens in float32 or in kernels/.
#pragma once

#include <bit>
#include <cstdint>

namespace photon {

struct bf16 {
  std::uint16_t bits = 0;
  bool operator==(const bf16&) const = default;
};

inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// Round to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace photon
