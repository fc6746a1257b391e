// Training's fused operations with AVX-512 and the bf16 dot product.  See isa.h for what this file must not call.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/math.h"
#include "kernels/training_table.h"

namespace photon::training {
namespace {

struct Pairs;

struct Vectors : PortableVectors<16> {
  using PortableVectors::load, PortableVectors::store;
  static Floats load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes16(n), p); }
  static void store_some(float* p, Floats x, int n) { _mm512_mask_storeu_ps(p, first_lanes16(n), x); }
  static Floats load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Floats load_some(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first_lanes16(n), p)); }
  static void store(bf16* p, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
  static void store_some(bf16* p, Floats x, int n) { _mm256_mask_storeu_epi16(p, first_lanes16(n), narrow(x)); }
  static Floats widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
  static __m256i narrow(Floats x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

  static Floats square_root(Floats x) { return _mm512_sqrt_ps(x); }
  static Floats reciprocal(Floats x) {
    const __m512 y = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.f)));
  }
  static float sum_of(Floats x) { return _mm512_reduce_add_ps(x); }
  static Floats exp2(Floats x) {  // the bound keeps -infinity from becoming NaN; maximum and scaling pass NaN on
    const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-200.f), x);
    const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(exp2_of_fraction(_mm512_sub_ps(bounded, whole)), whole);
  }
  static Words zip_low(Words a, Words b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static Words zip_high(Words a, Words b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }

  static constexpr int tile_rows = 8;  // 16 accumulators, 2 operands
  using Bf16Units = Pairs;
};

// Units of two bf16, multiplied by vdpbf16ps.
struct Pairs {
  using V = Vectors;
  static constexpr int elements = 2;
  static V::Floats multiply_add(u32 a, V::Words b, V::Floats sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                            reinterpret_cast<__m512bh>(b));
  }
  // Units a[i] | b[i] << 16.
  static V::Words zip(V::Floats a, V::Floats b) {
    const __m512i low = _mm512_cvtepu16_epi32(V::narrow(a)), high = _mm512_cvtepu16_epi32(V::narrow(b));
    return reinterpret_cast<V::Words>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  static void store(u32* units, V::Floats x) { V::store(reinterpret_cast<bf16*>(units), x); }
  static void store_some(u32* row, i64 element, V::Floats x, int n) {
    V::store_some(reinterpret_cast<bf16*>(row) + element, x, n);
  }
};

}  // namespace
}  // namespace photon::training

namespace photon {

constinit const TrainingKernels avx512::training = training::kernels_of<training::Vectors>();

}  // namespace photon
