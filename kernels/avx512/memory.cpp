// Reading a text with AVX-512: what text_memory_blocks.h asks for.  See isa.h for what this file must not call.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/math.h"
#include "kernels/text_memory_blocks.h"

namespace photon {
namespace {

struct Vectors {
  using Floats = __m512;
  static constexpr i64 lanes = 16;

  static Floats load(const float* p, i64 n) { return photon::load(p, n); }
  static Floats load(const bf16* p, i64 n) { return photon::load(p, n); }
  static void store(float* p, Floats x, i64 n) { photon::store(p, x, n); }
  static Floats set1(float x) { return _mm512_set1_ps(x); }
  static Floats fmadd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats exp(Floats x) { return photon::exp(x); }
};

}  // namespace

constinit const MemoryKernels avx512::memory{.read_text = TextReader<Vectors>::read};

}  // namespace photon
