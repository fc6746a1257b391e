// The loops of peak.h with AVX-512, BF16 and VNNI.  See isa.h for what this file must not call.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
// GCC 12 takes the intrinsics' own undefined registers for uninitialised variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/peak.h"

namespace photon {
namespace {

constexpr int registers = 20;  // of sums: more than latency times throughput

std::uint64_t read(const void* data, std::int64_t n_blocks, bool ahead) {
  constexpr int together = 8;  // vectors of 64 bytes
  const char* at = static_cast<const char*>(data);
  __m512i sums[together];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (const char* end = at + n_blocks * peak_block_bytes; at != end; at += together * 64)
#pragma GCC unroll 8
    for (int j = 0; j < together; ++j) {
      if (ahead) _mm_prefetch(at + 8192 + 64 * j, _MM_HINT_T1);
      sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(at + 64 * j));
    }
  for (int j = 1; j < together; ++j) sums[0] = _mm512_add_epi64(sums[0], sums[j]);
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}

float fma_f32(std::int64_t n_steps) {
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f), sums[registers];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < n_steps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));  // unknown again: nothing can be computed ahead
#pragma GCC unroll 20
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
  }
  for (int j = 1; j < registers; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

float dot_bf16(std::int64_t n_steps) {
  __m512i a = _mm512_set1_epi16(0x3f00), b = _mm512_set1_epi16(0x3e80);  // 0.5 and 0.25
  __m512 sums[registers];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < n_steps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 20
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
  for (int j = 1; j < registers; ++j) sums[0] = _mm512_add_ps(sums[0], sums[j]);
  return _mm512_cvtss_f32(sums[0]);
}

float dot_int8(std::int64_t n_steps) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2), sums[registers];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (std::int64_t step = 0; step < n_steps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 20
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
  }
  for (int j = 1; j < registers; ++j) sums[0] = _mm512_add_epi32(sums[0], sums[j]);
  return static_cast<float>(_mm512_cvtsi512_si32(sums[0]));
}

}  // namespace

constinit const PeakLoops avx512_peak{.read = read,
                                      .f32 = {registers * 16 * 2, fma_f32},
                                      .bf16 = {registers * 32 * 2, dot_bf16},
                                      .int8 = {registers * 64 * 2, dot_int8}};

}  // namespace photon
