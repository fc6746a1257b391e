// Training's fused operations with AVX2 and FMA.  See isa.h for what this file must not call.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/math.h"
#include "kernels/training_table.h"

namespace photon::training {
namespace {

struct Vectors : PortableVectors<8> {
  using PortableVectors::load, PortableVectors::store;
  static Floats load_some(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
  static void store_some(float* p, Floats x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
  static Floats load(const bf16* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static Floats load_some(const bf16* p, int n) {
    bf16 x[lanes] = {};
    for (int i = 0; i < n; ++i) x[i] = p[i];
    return load(x);
  }
  static void store(bf16* p, Floats x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static void store_some(bf16* p, Floats x, int n) {
    bf16 y[lanes];
    store(y, x);
    for (int i = 0; i < n; ++i) p[i] = y[i];
  }

  static Floats square_root(Floats x) { return _mm256_sqrt_ps(x); }
  static Words zip_low(Words a, Words b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
  static Words zip_high(Words a, Words b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

  static constexpr int tile_rows = 4;  // 8 accumulators, 2 operands
  using Bf16Units = Singles<Vectors>;  // no bf16 dot product
};

}  // namespace
}  // namespace photon::training

namespace photon {

constinit const TrainingKernels avx2::training = training::kernels_of<training::Vectors>();

}  // namespace photon
