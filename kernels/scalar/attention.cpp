// Attention as the equation has it: the reference for every other instruction set, and the way for heads too large for
// their buffers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

float to_float(float x) { return x; }
using photon::to_float;

// One head's part of a page, element by element (layout: attention.h).
template <class T>
struct Head {
  Head(const KvRun& run, std::int64_t head_dim)
      : at(reinterpret_cast<const T*>(run.head)),
        scales(reinterpret_cast<const bf16*>(run.head + 2 * run.slots * head_dim)),
        slots(run.slots),
        h(head_dim) {}
  float key(std::int64_t slot, std::int64_t i) const {
    constexpr std::int64_t group = 4 / sizeof(T);
    const std::int64_t whole = h - h % group;
    const T x = at[i < whole ? (i / group * slots + slot) * group + i % group
                             : whole * slots + slot * (h - whole) + (i - whole)];
    if constexpr (std::is_same_v<T, std::int8_t>)  // stored as q + 128, which flips the sign bit
      return static_cast<float>(static_cast<std::int8_t>(x ^ -128)) * to_float(scales[slot]);
    else
      return to_float(x);
  }
  float value(std::int64_t slot, std::int64_t i) const {
    const T x = at[(slots + slot) * h + i];
    if constexpr (std::is_same_v<T, std::int8_t>)
      return static_cast<float>(x) * to_float(scales[slots + slot]);
    else
      return to_float(x);
  }
  const T* at;
  const bf16* scales;
  std::int64_t slots, h;
};

// `top` is the largest score so far, `sum` = Σ exp(score - top), out = Σ exp(score - top) v.
template <class T>
void attend(const float* q, const AttendCall& call, std::int64_t visible, float* out, float& top, float& sum) {
  const std::int64_t h = call.head_dim;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  std::fill(out, out + h, 0.0f);
  top = -std::numeric_limits<float>::infinity(), sum = 0;
  for (const KvRun* run = call.runs; visible > 0; ++run) {
    const Head<T> head(*run, h);
    for (std::int64_t slot = run->first; slot < run->first + run->n && visible > 0; ++slot, --visible) {
      float score = 0;
      for (std::int64_t i = 0; i < h; ++i) score += q[i] * head.key(slot, i);
      score *= scale;
      const float new_top = std::max(top, score);
      const float keep = std::exp(top - new_top), weight = std::exp(score - new_top);
      for (std::int64_t i = 0; i < h; ++i) out[i] = out[i] * keep + weight * head.value(slot, i);
      sum = sum * keep + weight;
      top = new_top;
    }
  }
  for (std::int64_t i = 0; i < h; ++i) out[i] /= sum;
}

void attend_all(const AttendCall& call) {
  for (std::int64_t r = 0; r < call.q.rows; ++r)
    for (std::int64_t i = 0; i < call.q.cols; i += call.head_dim) {
      const float* q = call.q.data + r * call.q.stride + i;
      float* out = call.out.data + r * call.out.stride + i;
      const bool told = call.top.data != nullptr;
      float unused_top, unused_sum;
      float& top = told ? call.top.data[r * call.top.stride + i / call.head_dim] : unused_top;
      float& sum = told ? call.sum.data[r * call.sum.stride + i / call.head_dim] : unused_sum;
      switch (call.type) {
        case DType::f32:
          attend<float>(q, call, call.visible[r], out, top, sum);
          break;
        case DType::bf16:
          attend<bf16>(q, call, call.visible[r], out, top, sum);
          break;
        case DType::int8:
          attend<std::int8_t>(q, call, call.visible[r], out, top, sum);
          break;
        case DType::int4:
          break;  // no cache
      }
    }
}

void rotate_all(MatView<const float> cos_sin, std::int64_t head_dim, MatView<float> x) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* cosines = cos_sin.data + r * cos_sin.stride;
    const float* sines = cosines + half;
    for (float* a = x.data + r * x.stride; a != x.data + r * x.stride + x.cols; a += head_dim) {
      float* b = a + (head_dim - half);
      for (std::int64_t i = 0; i < half; ++i) {
        const float first = a[i], second = b[i];
        a[i] = first * cosines[i] - second * sines[i];
        b[i] = second * cosines[i] + first * sines[i];
      }
    }
  }
}

}  // namespace

constinit const AttentionKernels scalar::attention{
    .largest_rounded_head = 0, .rounds_weights = false, .attend = attend_all, .rotate = rotate_all};

}  // namespace photon
