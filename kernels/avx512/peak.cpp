// The peak loops with AVX-512, BF16 and VNNI.  See isa.h for what this file must not call.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
// GCC 12 takes the intrinsics' own undefined registers for uninitialised variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/avx512/avx512.h"
#include "kernels/isa.h"

namespace photon {
namespace {

// One instruction on every register of sums, again and again; returns the first.  In assembly, because the compiler
// would compute ahead or move registers about; a macro, because an instruction's name cannot be a parameter.
#define PHOTON_REPEAT(name, instruction)                                                                              \
  __m512i name(__m512i a, __m512i b, std::int64_t n_steps) {                                                          \
    __m512i s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{}, s8{}, s9{};                                               \
    for (std::int64_t step = 0; step < n_steps; ++step)                                                               \
      asm volatile(                                                                                                   \
          instruction " %11, %10, %0\n\t" instruction " %11, %10, %1\n\t" instruction " %11, %10, %2\n\t" instruction \
                      " %11, %10, %3\n\t" instruction " %11, %10, %4\n\t" instruction " %11, %10, %5\n\t" instruction \
                      " %11, %10, %6\n\t" instruction " %11, %10, %7\n\t" instruction " %11, %10, %8\n\t" instruction \
                      " %11, %10, %9"                                                                                 \
          : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7), "+v"(s8), "+v"(s9)        \
          : "v"(a), "v"(b));                                                                                          \
    return s0;                                                                                                        \
  }
PHOTON_REPEAT(repeat_fma_f32, "vfmadd231ps")
PHOTON_REPEAT(repeat_dot_bf16, "vdpbf16ps")
PHOTON_REPEAT(repeat_dot_int8, "vpdpbusd")
#undef PHOTON_REPEAT

float dot_bf16(std::int64_t n_steps) {
  const __m512i a = _mm512_set1_epi16(0x3f00), b = _mm512_set1_epi16(0x3e80);  // 0.5 and 0.25
  return _mm512_cvtss_f32(_mm512_castsi512_ps(repeat_dot_bf16(a, b, n_steps)));
}

}  // namespace

std::uint64_t avx512::read(const void* data, std::int64_t n_blocks, bool ahead) {
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
  alignas(64) std::uint64_t lanes[8];
  _mm512_store_si512(lanes, sums[0]);
  std::uint64_t total = 0;  // not by the intrinsic, whose sum is signed: it may wrap
  for (const std::uint64_t lane : lanes) total += lane;
  return total;
}

float avx512::fma_f32(std::int64_t n_steps) {
  const __m512i a = _mm512_castps_si512(_mm512_set1_ps(0.5f)), b = _mm512_castps_si512(_mm512_set1_ps(0.25f));
  return _mm512_cvtss_f32(_mm512_castsi512_ps(repeat_fma_f32(a, b, n_steps)));
}
float avx512::dot_int8(std::int64_t n_steps) {
  return static_cast<float>(_mm512_cvtsi512_si32(repeat_dot_int8(_mm512_set1_epi8(3), _mm512_set1_epi8(-2), n_steps)));
}

constinit const PeakKernels avx512::peak{.read = avx512::read,
                                         .f32 = {avx512::fma_operations, avx512::fma_f32},
                                         .bf16 = {avx512::peak_registers * 32 * 2, dot_bf16},
                                         .int8 = {avx512::dot_int8_operations, avx512::dot_int8}};

}  // namespace photon
