// The peak loops with AVX2 and FMA.  See isa.h for what this file must not call.
#include <immintrin.h>

#include "kernels/avx2/avx2.h"
#include "kernels/isa.h"

namespace photon {
namespace {

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

// Fused multiply-adds on every register of sums, again and again; returns the first.  In assembly, because the compiler
// would compute ahead or move registers about.
float fma_f32(std::int64_t n_steps) {
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
  __m256 s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{}, s8{}, s9{};
  for (std::int64_t step = 0; step < n_steps; ++step)
    asm volatile(
        "vfmadd231ps %11, %10, %0\n\tvfmadd231ps %11, %10, %1\n\tvfmadd231ps %11, %10, %2\n\t"
        "vfmadd231ps %11, %10, %3\n\tvfmadd231ps %11, %10, %4\n\tvfmadd231ps %11, %10, %5\n\t"
        "vfmadd231ps %11, %10, %6\n\tvfmadd231ps %11, %10, %7\n\tvfmadd231ps %11, %10, %8\n\t"
        "vfmadd231ps %11, %10, %9"
        : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "+x"(s4), "+x"(s5), "+x"(s6), "+x"(s7), "+x"(s8), "+x"(s9)
        : "x"(a), "x"(b));
  return _mm256_cvtss_f32(s0);
}

// Without an instruction of its own: 16-bit sums of neighbours, 32-bit sums of those, addition.
float dot_int8(std::int64_t n_steps) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  __m256i s0{}, s1{}, s2{}, s3{}, p0, p1, p2, p3;
  for (std::int64_t step = 0; step < n_steps; ++step)
    asm volatile(
        "vpmaddubsw %9, %8, %4\n\tvpmaddubsw %9, %8, %5\n\tvpmaddubsw %9, %8, %6\n\tvpmaddubsw %9, %8, %7\n\t"
        "vpmaddwd %10, %4, %4\n\tvpmaddwd %10, %5, %5\n\tvpmaddwd %10, %6, %6\n\tvpmaddwd %10, %7, %7\n\t"
        "vpaddd %4, %0, %0\n\tvpaddd %5, %1, %1\n\tvpaddd %6, %2, %2\n\tvpaddd %7, %3, %3"
        : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "=&x"(p0), "=&x"(p1), "=&x"(p2), "=&x"(p3)
        : "x"(a), "x"(b), "x"(ones));
  return static_cast<float>(_mm256_cvtsi256_si32(s0));
}

constexpr PeakKernels::Loop f32{10 * 8 * 2, fma_f32};

}  // namespace

constinit const PeakKernels avx2::peak{.read = read, .f32 = f32, .bf16 = f32, .int8 = {4 * 32 * 2, dot_int8}};

}  // namespace photon
