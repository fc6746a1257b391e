// The vectors that the fused training operations are written in, and what takes no instruction of its own.  For the
// training files of the instruction sets alone: everything is internal to the file that includes it (see isa.h).
#pragma once

#include "base/bf16.h"
#include "kernels/training.h"

namespace photon::training {
namespace {

using i64 = std::int64_t;
using u32 = std::uint32_t;

// Lanes of 32 bits in the compiler's own vector types.
template <int lanes>
struct Lanes;
template <>
struct Lanes<4> {
  using Floats = float __attribute__((vector_size(16)));
  using Words = u32 __attribute__((vector_size(16)));
  using Ints = std::int32_t __attribute__((vector_size(16)));
};
template <>
struct Lanes<8> {
  using Floats = float __attribute__((vector_size(32)));
  using Words = u32 __attribute__((vector_size(32)));
  using Ints = std::int32_t __attribute__((vector_size(32)));
};
template <>
struct Lanes<16> {
  using Floats = float __attribute__((vector_size(64)));
  using Words = u32 __attribute__((vector_size(64)));
  using Ints = std::int32_t __attribute__((vector_size(64)));
};

/// What every instruction set's vectors have in common.  They derive from it, add
///
///   load store               whole vectors of bf16 elements, beside those of float32 and words below
///   load_some store_some     the first n < lanes elements, float32 or bf16; the others read as 0
///   square_root
///   zip_low zip_high         the lower, or upper, halves of two vectors of words in turn
///   tile_rows                rows of sums that the registers hold, two vectors each; divides group_rows
///   Bf16Units                what products inside attention multiply if all is bf16 (training_products.h)
///
/// and hide what they do better.
template <int n>
struct PortableVectors {
  static constexpr int lanes = n;
  using Floats = typename Lanes<n>::Floats;
  using Words = typename Lanes<n>::Words;
  using Ints = typename Lanes<n>::Ints;

  static Floats load(const float* p) { return read<Floats>(p); }
  static Words load(const u32* p) { return read<Words>(p); }
  static Ints load(const std::int32_t* p) { return read<Ints>(p); }
  static void store(float* p, Floats x) { __builtin_memcpy(p, &x, sizeof(x)); }
  static void store(u32* p, Words x) { __builtin_memcpy(p, &x, sizeof(x)); }

  static Floats set1(float x) { return Floats{} + x; }
  static Ints set1(std::int32_t x) { return Ints{} + x; }
  static Floats max(Floats a, Floats b) { return a > b ? a : b; }  // b if either is NaN
  static Floats min(Floats a, Floats b) { return a < b ? a : b; }
  static Floats reciprocal(Floats x) { return 1.f / x; }

  static float sum_of(Floats x) {
    float each[lanes];
    store(each, x);
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) each[i] += each[i + half];
    }
    return each[0];
  }
  static float max_of(Floats x) {
    float best = x[0];
    for (int i = 1; i < lanes; ++i) best = x[i] > best ? x[i] : best;
    return best;
  }

  // 2^f within 2e-7 relative for f in [-1/2, 1/2].
  static Floats exp2_of_fraction(Floats f) {
    Floats y = set1(1.535336188319500e-4f);
    y = y * f + 1.339887440266574e-3f;
    y = y * f + 9.618437357674640e-3f;
    y = y * f + 5.550332471162809e-2f;
    y = y * f + 2.402264791363012e-1f;
    y = y * f + 6.931472028550421e-1f;
    return y * f + 1.f;
  }
  // 2^x within 2e-7 relative; 0 far below 2^-126, NaN for NaN, unspecified above 2^127.
  static Floats exp2(Floats x) {
    const Floats shift = set1(12582912.f);  // 1.5·2^23: adding it rounds to an integer
    const Floats bounded = max(set1(-126.f), x);
    const Floats shifted = bounded + shift;
    const Floats y = exp2_of_fraction(bounded - (shifted - shift));
    const Words exponent = (reinterpret_cast<Words>(shifted) << 23) + 0x3f800000u;
    return x < set1(-126.f) ? Floats{} : y * reinterpret_cast<Floats>(exponent);
  }

 private:
  template <class Vector>
  static Vector read(const void* p) {
    Vector x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
};

constexpr float log2_e = 1.44269504088896341f;

template <class V>
typename V::Floats exp(typename V::Floats x) {
  return V::exp2(x * log2_e);
}

template <class V>
typename V::Floats load(const float* p, i64 i, i64 n) {  // elements [i, i + n), at most a vector of them
  return n >= V::lanes ? V::load(p + i) : V::load_some(p + i, static_cast<int>(n));
}
template <class V>
void store(float* p, i64 i, typename V::Floats x, i64 n) {
  n >= V::lanes ? V::store(p + i, x) : V::store_some(p + i, x, static_cast<int>(n));
}

// One row of a matrix of either element type; `n` elements are left from element i on, only those are touched.
template <class V>
struct RowReader {
  const float* f32;
  const photon::bf16* bf16;
  RowReader(const InRows& m, i64 row)
      : f32(m.is_bf16 ? nullptr : static_cast<const float*>(m.data) + row * m.stride),
        bf16(m.is_bf16 ? static_cast<const photon::bf16*>(m.data) + row * m.stride : nullptr) {}
  typename V::Floats at(i64 i, i64 n) const {
    if (n >= V::lanes) return f32 ? V::load(f32 + i) : V::load(bf16 + i);
    return f32 ? V::load_some(f32 + i, static_cast<int>(n)) : V::load_some(bf16 + i, static_cast<int>(n));
  }
  void prefetch(i64 n) const {
    const char *begin = f32 ? reinterpret_cast<const char*>(f32) : reinterpret_cast<const char*>(bf16),
               *end = f32 ? reinterpret_cast<const char*>(f32 + n) : reinterpret_cast<const char*>(bf16 + n);
    for (const char* line = begin; line < end; line += 64) __builtin_prefetch(line);
  }
};
template <class V>
struct RowWriter {
  float* f32;
  photon::bf16* bf16;
  RowWriter(const OutRows& m, i64 row)
      : f32(m.is_bf16 ? nullptr : static_cast<float*>(m.data) + row * m.stride),
        bf16(m.is_bf16 ? static_cast<photon::bf16*>(m.data) + row * m.stride : nullptr) {}
  void put(i64 i, typename V::Floats x, i64 n) const {
    if (n >= V::lanes) {
      f32 ? V::store(f32 + i, x) : V::store(bf16 + i, x);
    } else {
      f32 ? V::store_some(f32 + i, x, static_cast<int>(n)) : V::store_some(bf16 + i, x, static_cast<int>(n));
    }
  }
};

}  // namespace
}  // namespace photon::training
