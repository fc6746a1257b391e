// AVX2 with FMA (Haswell, Zen and later).  See isa.h for what this file must not call.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/math.h"

namespace photon {
namespace {

void rms_norm(const float* x, const float* w, float eps, float* y, i64 n) {
  __m256 squares = _mm256_setzero_ps();
  for (i64 i = 0; i < n; i += 8) {
    const __m256 v = load(x + i, n - i);
    squares = _mm256_fmadd_ps(v, v, squares);
  }
  const __m256 scale = _mm256_set1_ps(1 / __builtin_sqrtf(sum_of(squares) / static_cast<float>(n) + eps));
  for (i64 i = 0; i < n; i += 8)
    store(y + i, _mm256_mul_ps(_mm256_mul_ps(load(x + i, n - i), scale), load(w + i, n - i)), n - i);
}

void to_bf16(const float* x, bf16* y, i64 n) {
  for (i64 i = 0; i < n; i += 8) {
    const __m256 f = load(x + i, n - i);
    const __m256i v = _mm256_castps_si256(f);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(v, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_or_si256(v, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
    const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    __builtin_memcpy(static_cast<void*>(y + i), &packed,
                     static_cast<unsigned long>(n - i < 8 ? n - i : 8) * sizeof(bf16));
  }
}

float log_sum_exp(const float* x, i64 n) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  const auto or_lowest = [&](i64 i) {
    return _mm256_blendv_ps(lowest, load(x + i, n - i), _mm256_castsi256_ps(first_lanes(n - i)));
  };
  __m256 tops = lowest;
  for (i64 i = 0; i < n; i += 8) tops = _mm256_max_ps(tops, or_lowest(i));
  const float top = max_of(tops);
  if (__builtin_isinf(top)) return top;
  __m256 sum = _mm256_setzero_ps();
  for (i64 i = 0; i < n; i += 8) sum = _mm256_add_ps(sum, exp(_mm256_sub_ps(or_lowest(i), _mm256_set1_ps(top))));
  return top + __builtin_logf(sum_of(sum));
}

}  // namespace

constinit const RowKernels avx2::rows{
    .rms_norm = rms_norm,
    .to_bf16 = to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
