// Products with packed weights in short loops: the reference that every other instruction set is held to.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

using i64 = std::int64_t;
using Sums = float[panel_outputs];

template <class T>
T read(const std::byte* p, i64 i) {
  T value;
  std::memcpy(&value, p + i * static_cast<i64>(sizeof(T)), sizeof(T));
  return value;
}

void multiply_f32(const float* x, const std::byte* panel, i64 k, Sums& sums) {
  for (i64 i = 0; i < k; ++i)
    for (i64 o = 0; o < panel_outputs; ++o) sums[o] += x[i] * read<float>(panel, i * panel_outputs + o);
}

void multiply_bf16(const float* x, const std::byte* panel, i64 k, Sums& sums) {
  for (i64 i = 0; i < k; ++i)
    for (i64 o = 0; o < panel_outputs; ++o)
      sums[o] += x[i] * to_float(read<bf16>(panel, (i / 2 * panel_outputs + o) * 2 + i % 2));
}

// Weight of the group's input i, output o; `values` the group's.
int int8_weight(const std::byte* values, i64 i, i64 o) {
  return std::to_integer<int>(values[(i / 4 * panel_outputs + o) * 4 + i % 4]) - 128;
}
int int4_weight(const std::byte* values, i64 i, i64 o) {
  const i64 in_half = i % 16;
  const int both = std::to_integer<int>(values[(in_half / 4 * panel_outputs + o) * 4 + in_half % 4]);
  return (i < 16 ? both & 15 : both >> 4) - 8;
}

template <int (&weight)(const std::byte*, i64, i64)>
void multiply_groups(const Int8Group* x, const std::byte* panel, i64 groups, i64 group_bytes, Sums& sums) {
  const std::byte* scales = panel + groups * group_bytes;  // bf16 [groups, 16]
  for (i64 g = 0; g < groups; ++g)
    for (i64 o = 0; o < panel_outputs; ++o) {
      int dot = 0;
      for (i64 i = 0; i < quant_group; ++i) dot += x[g].q[i] * weight(panel + g * group_bytes, i, o);
      sums[o] += static_cast<float>(dot) * (x[g].scale * to_float(read<bf16>(scales, g * panel_outputs + o)));
    }
}

void multiply(const MatmulCall& call, const std::byte* x, const std::byte* panel, Sums& sums) {
  std::fill(std::begin(sums), std::end(sums), 0.0f);
  const auto* floats = reinterpret_cast<const float*>(x);
  const i64 n_groups = (call.x.k + quant_group - 1) / quant_group;
  const auto* groups = reinterpret_cast<const Int8Group*>(x);
  switch (call.type) {
    case DType::f32:
      return multiply_f32(floats, panel, call.x.k, sums);
    case DType::bf16:
      return multiply_bf16(floats, panel, call.x.k, sums);
    case DType::int8:
      return multiply_groups<int8_weight>(groups, panel, n_groups, 512, sums);
    case DType::int4:
      return multiply_groups<int4_weight>(groups, panel, n_groups, 256, sums);
  }
}

void matmul_any(const MatmulCall& call) {
  for (i64 r = 0; r < call.x.rows; ++r) {
    const std::byte* x = call.x.data + r * call.x.stride;
    float* y = call.y.data + r * call.y.stride;
    i64 columns = call.y.cols;  // left
    for (i64 p = 0; p < call.n_panels; ++p, y += panel_outputs, columns -= panel_outputs) {
      Sums sums;
      multiply(call, x, call.panels + p * call.panel_bytes, sums);
      const i64 n = std::min(panel_outputs, columns);
      if (call.epilogue == Epilogue::swiglu) {
        Sums up;
        multiply(call, x, call.panels + ++p * call.panel_bytes, up);
        for (i64 o = 0; o < n; ++o) y[o] = sums[o] / (1 + std::exp(-sums[o])) * up[o];
      } else {
        for (i64 o = 0; o < n; ++o) y[o] = call.epilogue == Epilogue::add ? y[o] + sums[o] : sums[o];
      }
    }
  }
}

void to_int8(const float* x, Int8Group* groups, i64 k) {
  for (i64 first = 0; first < k; first += quant_group) {
    Int8Group& group = groups[first / quant_group];
    group = {};
    const i64 n = std::min(quant_group, k - first);
    float largest = 0;
    bool finite = true;
    for (i64 i = first; i < first + n; ++i) {
      largest = std::max(largest, std::abs(x[i]));
      finite = finite && std::isfinite(x[i]);
    }
    if (!finite) group.scale = std::numeric_limits<float>::quiet_NaN();
    if (!finite || largest < 1e-36f) continue;
    group.scale = largest / 127;
    int total = 0;
    for (i64 i = 0; i < n; ++i) {
      group.q[i] = static_cast<std::int8_t>(std::nearbyint(x[first + i] / group.scale));
      total += group.q[i];
    }
    group.start = -128 * total;
  }
}

}  // namespace

constinit const MatmulKernels scalar::matmul{.bf16_inputs = InputForm::f32, .matmul = matmul_any, .to_int8 = to_int8};

}  // namespace photon
