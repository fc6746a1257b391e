// The fused training kernels for AVX-512 with the bf16 dot product.
#include <immintrin.h>

#include "train/fused_kernels.h"

namespace photon {
namespace {

constexpr int kLanes = 16;
using vf = float __attribute__((vector_size(64)));
using vu = std::uint32_t __attribute__((vector_size(64)));
using vi = std::int32_t __attribute__((vector_size(64)));

__mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
vf load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
void store_some(float* p, vf x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
vf widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
__m256i narrow(vf x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
vf load_bf16(const std::uint16_t* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
vf load_some_bf16(const std::uint16_t* p, int n) { return widen(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
void store_bf16(std::uint16_t* p, vf x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
void store_some_bf16(std::uint16_t* p, vf x, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(x)); }

vf square_root(vf x) { return _mm512_sqrt_ps(x); }
vf reciprocal(vf x) {
  const __m512 y = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.f)));
}
float sum_of_lanes(vf x) { return _mm512_reduce_add_ps(x); }
vf exp2_of_fraction(vf f);
vf exp2(vf x) {  // the bound keeps -infinity from becoming NaN; maximum and scaling pass NaN on
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-200.f), x);
  const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_scalef_ps(exp2_of_fraction(_mm512_sub_ps(bounded, whole)), whole);
}
vu zip_low(vu a, vu b) { return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
vu zip_high(vu a, vu b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

constexpr int kTileRows = 8;   // of the matrix products inside attention: 16 accumulators, 2 operands
constexpr bool kPairs = true;  // units of two bf16, multiplied by vdpbf16ps
template <int kElements>
struct Units;

template <>
struct Units<2> {
  static constexpr int kElements = 2;
  static vf multiply_add(std::uint32_t a, vu b, vf sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                            reinterpret_cast<__m512bh>(b));
  }
  static vu multiply_operand(vu x) { return x; }
  // Units a[i] | b[i] << 16.
  static vu zip(vf a, vf b) {
    const __m512i low = _mm512_cvtepu16_epi32(narrow(a)), high = _mm512_cvtepu16_epi32(narrow(b));
    return reinterpret_cast<vu>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  // The elements x[0] … x[15] in order, in 8 units.
  static void store(std::uint32_t* units, vf x) { store_bf16(reinterpret_cast<std::uint16_t*>(units), x); }
  static void store_some(std::uint32_t* row, std::int64_t element, vf x, int n) {
    store_some_bf16(reinterpret_cast<std::uint16_t*>(row) + element, x, n);
  }
};

#include "train/fused_kernels_impl.inc"

constexpr FusedKernels kTable = PHOTON_FUSED_TABLE("avx512_bf16");

}  // namespace

const FusedKernels& fused_avx512() { return kTable; }

}  // namespace photon
