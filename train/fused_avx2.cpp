// The fused training kernels for AVX2 and FMA.
#include <immintrin.h>

#include "train/fused_kernels.h"

namespace photon {
namespace {

constexpr int kLanes = 8;
using vf = float __attribute__((vector_size(32)));
using vu = std::uint32_t __attribute__((vector_size(32)));
using vi = std::int32_t __attribute__((vector_size(32)));

__m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
vf load_some(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
void store_some(float* p, vf x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
vf load_bf16(const std::uint16_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
vf load_some_bf16(const std::uint16_t* p, int n) {
  std::uint16_t x[kLanes] = {};
  for (int i = 0; i < n; ++i) x[i] = p[i];
  return load_bf16(x);
}
void store_bf16(std::uint16_t* p, vf x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
void store_some_bf16(std::uint16_t* p, vf x, int n) {
  std::uint16_t y[kLanes];
  store_bf16(y, x);
  for (int i = 0; i < n; ++i) p[i] = y[i];
}

vf square_root(vf x) { return _mm256_sqrt_ps(x); }
vu zip_low(vu a, vu b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
vu zip_high(vu a, vu b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

constexpr int kTileRows = 4;    // of the matrix products inside attention: 8 accumulators, 2 operands
constexpr bool kPairs = false;  // no bf16 dot product
template <int kElements>
struct Units;

#include "train/fused_kernels_impl.inc"

constexpr FusedKernels kTable = PHOTON_FUSED_TABLE("avx2");

}  // namespace

const FusedKernels& fused_avx2() { return kTable; }

}  // namespace photon
