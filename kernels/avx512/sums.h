// A register of a product's sums: what matmul_tiles.h asks of a Type's Vector.  For the AVX-512 files alone (see
// isa.h).
#pragma once

#include "kernels/avx512/math.h"

namespace photon {
namespace {

struct Lanes {
  using Vector = __m512;
  static constexpr int lanes = 16;
  static Vector load(const float* y, i64 n) { return photon::load(y, n); }
  static void store(float* y, Vector sum, i64 n) { photon::store(y, sum, n); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector swiglu(Vector gate, Vector up) { return photon::swiglu(gate, up); }
  static Vector total(Vector sum) { return sum; }
};

}  // namespace
}  // namespace photon
