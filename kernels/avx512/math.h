// Lanes and elementary functions that the AVX-512 files share.  For those files alone: every function is internal to
// the file that includes it, so that none is linked into code for older CPUs (see isa.h).
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
// GCC 12 takes the intrinsics' own undefined registers for uninitialised variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/isa.h"

namespace photon {
namespace {

using i64 = std::int64_t;

inline __mmask16 first_lanes16(i64 n) { return static_cast<__mmask16>((1u << n) - 1); }    // 0 <= n <= 16
inline __mmask32 first_lanes32(i64 n) { return static_cast<__mmask32>((1ull << n) - 1); }  // 0 <= n <= 32

// The first min(n, 16) elements as float32, the other lanes 0.
inline __m512 load(const float* p, i64 n) {
  return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(first_lanes16(n), p);
}
inline __m512 load(const bf16* p, i64 n) {
  const __m256i bits =
      n >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)) : _mm256_maskz_loadu_epi16(first_lanes16(n), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline void store(float* p, __m512 v, i64 n) {
  if (n >= 16)
    _mm512_storeu_ps(p, v);
  else
    _mm512_mask_storeu_ps(p, first_lanes16(n), v);
}

// e^x within about 1 ulp; overflows to infinity, underflows through the denormals to 0; NaN stays NaN.
inline __m512 exp(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(90.0f), x);  // a NaN in the second operand is kept
  x = _mm512_max_ps(_mm512_set1_ps(-105.0f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r =
      _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);  // ln 2 in two parts: r = x - n ln 2, |r| <= ln 2 / 2
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);  // Taylor: the eighth term is below 2^-27
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
  return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

// silu(gate) ∘ up
inline __m512 swiglu(__m512 gate, __m512 up) {
  const __m512 denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), exp(_mm512_sub_ps(_mm512_setzero_ps(), gate)));
  return _mm512_mul_ps(_mm512_div_ps(gate, denominator), up);
}

}  // namespace
}  // namespace photon
