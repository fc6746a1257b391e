// What attention needs besides vectors: checks, writing positions in the layout of attention.h, angles.
#include "kernels/attention.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

#include "base/bf16.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// keys: groups of dimensions that fill 4 bytes, [h / group][S][group], then [S][h mod group]; values [S][h].
template <class T, class Key, class Value>
void store(T* head, std::int64_t slots, std::int64_t slot, std::span<const float> k, std::span<const float> v,
           Key to_key, Value to_value) {
  constexpr std::int64_t group = 4 / sizeof(T);
  const std::int64_t h = std::ssize(k), whole = h - h % group;
  const float* key = k.data();
  T* at = head + slot * group;
  for (std::int64_t i = 0; i < whole; i += group, at += slots * group, key += group)
    for (std::int64_t j = 0; j < group; ++j) at[j] = to_key(key[j]);
  at = head + slots * whole + slot * (h - whole);
  for (std::int64_t j = 0; j < h - whole; ++j) at[j] = to_key(key[j]);
  std::transform(v.begin(), v.end(), head + slots * h + slot * h, to_value);
}

// x = q · scale; the scale is rounded to bfloat16 first, so that it alone says what a stored byte means.
struct Quantiser {
  explicit Quantiser(std::span<const float> x) {
    float largest = 0;
    for (const float value : x) largest = std::max(largest, std::abs(value));
    // Vectors so small that 1 / scale would overflow become zeros.
    scale = to_bf16(largest < 1e-36f ? 0 : largest / 127);
    inverse = largest < 1e-36f ? 0 : 1 / to_float(scale);
  }
  int operator()(float value) const {
    constexpr float no_fraction = 0x1.8p23f;  // floats near it are integers: adding it rounds, ties to even
    return static_cast<int>(std::clamp((value * inverse + no_fraction) - no_fraction, -127.0f, 127.0f));
  }
  bf16 scale;
  float inverse;
};

[[maybe_unused]] bool fits(std::int64_t h, MatView<const float> q, std::span<const std::int64_t> visible,
                           std::span<const KvRun> runs, MatView<float> out) {
  std::int64_t positions = 0, seen = 1;
  for (const KvRun& run : runs) {
    if (run.n < 0 || run.first < 0 || run.first + run.n > run.slots) return false;
    positions += run.n;
  }
  for (const std::int64_t n : visible) {
    if (n < seen) return false;
    seen = n;
  }
  return h > 0 && std::ssize(visible) == q.rows && out.rows == q.rows && out.cols == q.cols && q.cols % h == 0 &&
         q.stride >= q.cols && out.stride >= out.cols && (visible.empty() || seen <= positions);
}

}  // namespace

void kv_store(DType type, std::byte* head, std::int64_t slots, std::int64_t slot, std::span<const float> k,
              std::span<const float> v) {
  assert(k.size() == v.size() && 0 <= slot && slot < slots);
  const std::int64_t h = std::ssize(k);
  switch (type) {
    case DType::f32: {
      const auto same = [](float x) { return x; };
      return store(reinterpret_cast<float*>(head), slots, slot, k, v, same, same);
    }
    case DType::bf16: {
      const auto rounded = [](float x) { return to_bf16(x); };
      return store(reinterpret_cast<bf16*>(head), slots, slot, k, v, rounded, rounded);
    }
    case DType::int8: {
      const Quantiser key(k), value(v);
      store(
          reinterpret_cast<std::uint8_t*>(head), slots, slot, k, v,
          [&](float x) { return static_cast<std::uint8_t>(key(x) + 128); },
          [&](float x) { return static_cast<std::uint8_t>(value(x)); });
      bf16* scales = reinterpret_cast<bf16*>(head + 2 * slots * h);  // of keys [S], of values [S]
      scales[slot] = key.scale, scales[slots + slot] = value.scale;
      return;
    }
    case DType::int4:
      assert(false && "no cache is int4");
  }
}

void attend(DType type, std::int64_t head_dim, MatView<const float> q, std::span<const std::int64_t> visible,
            std::span<const KvRun> runs, MatView<float> out, MatView<float> top, MatView<float> sum) {
  assert(top.data == nullptr ||
         (top.rows == q.rows && top.cols * head_dim == q.cols && sum.rows == top.rows && sum.cols == top.cols));
  assert(fits(head_dim, q, visible, runs, out));
  kernels().attention.attend({.type = type,
                              .head_dim = head_dim,
                              .q = q,
                              .visible = visible.data(),
                              .runs = runs.data(),
                              .n_runs = std::ssize(runs),
                              .out = out,
                              .top = top,
                              .sum = sum});
}

void rope_table(std::span<const std::int64_t> positions, double theta, std::int64_t head_dim, MatView<float> cos_sin) {
  const std::int64_t half = head_dim / 2;
  assert(std::ssize(positions) == cos_sin.rows && cos_sin.cols == 2 * half);
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    float* at = cos_sin.data + i;  // [2·half]
    for (const std::int64_t position : positions) {
      const double angle = static_cast<double>(position) * frequency;
      at[0] = static_cast<float>(std::cos(angle));
      at[half] = static_cast<float>(std::sin(angle));
      at += cos_sin.stride;
    }
  }
}

void rotate(MatView<const float> cos_sin, std::int64_t head_dim, MatView<float> x) {
  assert(head_dim > 0 && x.cols % head_dim == 0 && cos_sin.rows == x.rows && cos_sin.cols == head_dim / 2 * 2);
  kernels().attention.rotate(cos_sin, head_dim, x);
}

}  // namespace photon
