#include "weights/quantized_row.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>

namespace photon {
namespace {

using Group = std::array<float, quant_group>;  // zeros beyond k

float largest_magnitude(const Group& x) {  // with its sign
  float extreme = 0;
  for (const float value : x) extreme = std::abs(value) > std::abs(extreme) ? value : extreme;
  return extreme;
}

// q = round(x / scale) within [low, high]; returns the square error.
double round_group(const Group& x, bf16 scale, float low, float high, Group& q) {
  const float s = to_float(scale);
  if (s == 0) return q.fill(0), std::numeric_limits<double>::max();
  constexpr float shift = 0x1.8p23f;  // float32 has no fraction bits there: adding it rounds to nearest even
  float sum = 0;                      // of squares, in steps of the scale
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float steps = x[i] / s;
    q[i] = std::min(std::max(steps, low), high) + shift - shift;
    sum += (steps - q[i]) * (steps - q[i]);
  }
  return sum * (static_cast<double>(s) * s);
}

bf16 quantize_int8(const Group& x, Group& q) {
  const bf16 scale = to_bf16(std::abs(largest_magnitude(x)) / 127);
  round_group(x, scale, -127, 127, q);
  return scale;
}

bf16 quantize_int4(const Group& x, Group& best) {
  // What the value of largest magnitude becomes, or would without the limits: a large one costs the outlier and serves
  // the others.  8 is beyond the highest value, -8 is not: the sign of the scale decides.
  constexpr std::array targets{-8.5f, -8.0f, -7.5f, -7.0f, -6.5f, 6.5f, 7.0f, 7.5f, 8.0f, 8.5f};
  const float extreme = largest_magnitude(x);
  bf16 scale;
  best.fill(0);
  double least = std::numeric_limits<double>::max();
  for (const float target : targets) {
    const bf16 candidate = to_bf16(extreme / target);
    Group q;
    const double error = round_group(x, candidate, -8, 7, q);
    if (error < least) least = error, best = q, scale = candidate;
  }
  return scale;
}

}  // namespace

std::int64_t quant_groups(std::int64_t k) { return (k + quant_group - 1) / quant_group; }

std::int64_t quantized_row_bytes(DType type, std::int64_t k) {
  assert(is_quantized(type));
  return type == DType::int8 ? k : (k + 1) / 2;
}

void quantize_row(DType type, std::span<const float> x, std::span<std::byte> values, std::span<bf16> scales) {
  const auto k = std::ssize(x);
  assert(std::ssize(values) == quantized_row_bytes(type, k) && std::ssize(scales) == quant_groups(k));
  for (std::int64_t g = 0; g < quant_groups(k); ++g) {
    const std::int64_t first = g * quant_group, n = std::min(quant_group, k - first);
    Group group{}, q;
    std::copy_n(x.begin() + first, n, group.begin());
    bf16& scale = scales[static_cast<std::size_t>(g)];
    if (type == DType::int8) {
      scale = quantize_int8(group, q);
      for (std::int64_t i = 0; i < n; ++i)
        values[static_cast<std::size_t>(first + i)] =
            static_cast<std::byte>(static_cast<std::int8_t>(q[static_cast<std::size_t>(i)]));
    } else {
      scale = quantize_int4(group, q);
      for (std::int64_t i = 0; i < n; i += 2) {
        const auto low = static_cast<int>(q[static_cast<std::size_t>(i)]) + 8;
        const auto high = static_cast<int>(q[static_cast<std::size_t>(i + 1)]) + 8;
        values[static_cast<std::size_t>((first + i) / 2)] = static_cast<std::byte>(low | high << 4);
      }
    }
  }
}

void dequantize_row(DType type, QuantizedRow row, std::span<float> out) {
  assert(is_quantized(type));
  for (std::int64_t i = 0; i < std::ssize(out); ++i) {
    out[static_cast<std::size_t>(i)] = static_cast<float>(row.q(type, i)) * to_float(row.scales[i / quant_group]);
  }
}

}  // namespace photon
