// AVX-512 with BF16 (Zen 4, Cooper Lake, Sapphire Rapids and later).  See isa.h for what this file must not call.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/math.h"

namespace photon {
namespace {

void rms_norm(const float* x, const float* w, float eps, float* y, i64 n) {
  __m512 squares = _mm512_setzero_ps();
  for (i64 i = 0; i < n; i += 16) {
    const __m512 v = load(x + i, n - i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float scale = 1 / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / static_cast<float>(n) + eps);
  for (i64 i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes16(n - i < 16 ? n - i : 16);
    const __m512 normed = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(scale));
    _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(normed, _mm512_maskz_loadu_ps(lanes, w + i)));
  }
}

void to_bf16(const float* x, bf16* y, i64 n) {
  for (i64 i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes16(n - i < 16 ? n - i : 16);
    const __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes, x + i));
    // Integer rounding: vcvtneps2bf16 would flush denormals to zero.
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(v, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
    const __m512 f = _mm512_castsi512_ps(v);
    const __m512i nan = _mm512_or_si512(v, _mm512_set1_epi32(0x400000));
    const __m512i bits = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q), nan);
    _mm256_mask_storeu_epi16(y + i, lanes, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
}

float log_sum_exp(const float* x, i64 n) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 tops = lowest;
  for (i64 i = 0; i < n; i += 16)
    tops = _mm512_max_ps(tops, _mm512_mask_loadu_ps(lowest, first_lanes16(n - i < 16 ? n - i : 16), x + i));
  const float top = _mm512_reduce_max_ps(tops);
  if (__builtin_isinf(top)) return top;
  __m512 sum = _mm512_setzero_ps();
  for (i64 i = 0; i < n; i += 16) {
    const __m512 v = _mm512_mask_loadu_ps(lowest, first_lanes16(n - i < 16 ? n - i : 16), x + i);
    sum = _mm512_add_ps(sum, exp(_mm512_sub_ps(v, _mm512_set1_ps(top))));
  }
  return top + __builtin_logf(_mm512_reduce_add_ps(sum));
}

}  // namespace

constinit const RowKernels avx512::rows{
    .rms_norm = rms_norm,
    .to_bf16 = to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
