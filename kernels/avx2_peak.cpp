// The loops of peak.h with AVX2 and FMA.  See isa.h for what this file must not call.
#include <immintrin.h>

#include "kernels/peak.h"

namespace photon {
namespace {

constexpr int registers = 12;  // of sums: more than latency times throughput; all 16 hold together with the inputs

std::uint64_t read(const void* data, std::int64_t n_blocks, bool ahead) {
  constexpr int together = 16;  // vectors of 32 bytes
  const char* at = static_cast<const char*>(data);
  __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (const char* end = at + n_blocks * peak_block_bytes; at != end; at += together * 32) {
    if (ahead)
      for (int line = 0; line < together * 32; line += 64) _mm_prefetch(at + 8192 + line, _MM_HINT_T1);
    for (int j = 0; j < together; ++j) {
      const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32 * j));
      sums[j % 4] = _mm256_add_epi64(sums[j % 4], words);
    }
  }
  const __m256i sum = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  alignas(32) std::uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sum);
  return parts[0] + parts[1] + parts[2] + parts[3];
}

float fma_f32(std::int64_t n_steps) {
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f), sums[registers];
  for (int j = 0; j < registers; ++j) sums[j] = _mm256_setzero_ps();
  for (std::int64_t step = 0; step < n_steps; ++step) {
    asm volatile("" : "+x"(a), "+x"(b));  // unknown again: nothing can be computed ahead
#pragma GCC unroll 12
    for (int j = 0; j < registers; ++j) sums[j] = _mm256_fmadd_ps(a, b, sums[j]);
  }
  for (int j = 1; j < registers; ++j) sums[0] = _mm256_add_ps(sums[0], sums[j]);
  return _mm256_cvtss_f32(sums[0]);
}

// Without an instruction of its own: 16-bit sums of neighbours, 32-bit sums of those, addition.
float dot_int8(std::int64_t n_steps) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2), sums[registers];
  const __m256i ones = _mm256_set1_epi16(1);
  for (int j = 0; j < registers; ++j) sums[j] = _mm256_setzero_si256();
  for (std::int64_t step = 0; step < n_steps; ++step) {
#pragma GCC unroll 12
    for (int j = 0; j < registers; ++j) {
      asm volatile("" : "+x"(a), "+x"(b));
      sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (int j = 1; j < registers; ++j) sums[0] = _mm256_add_epi32(sums[0], sums[j]);
  return static_cast<float>(_mm256_cvtsi256_si32(sums[0]));
}

constexpr PeakLoops::Loop f32{registers * 8 * 2, fma_f32};

}  // namespace

constinit const PeakLoops avx2_peak{.read = read, .f32 = f32, .bf16 = f32, .int8 = {registers * 32 * 2, dot_int8}};

}  // namespace photon
