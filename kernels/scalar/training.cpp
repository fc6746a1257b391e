// Training's fused operations for any CPU: vectors of four floats in the compiler's portable vector types.
#include "kernels/scalar/scalar.h"
#include "kernels/training_table.h"

namespace photon::training {
namespace {

struct Vectors : PortableVectors<4> {
  using PortableVectors::load, PortableVectors::store;
  static Floats load(const bf16* p) { return load_some(p, lanes); }
  static void store(bf16* p, Floats x) { store_some(p, x, lanes); }
  static Floats load_some(const float* p, int n) {
    Floats x{};
    for (int i = 0; i < n; ++i) x[i] = p[i];
    return x;
  }
  static void store_some(float* p, Floats x, int n) {
    for (int i = 0; i < n; ++i) p[i] = x[i];
  }
  static Floats load_some(const bf16* p, int n) {
    Words x{};
    for (int i = 0; i < n; ++i) x[i] = u32{p[i].bits} << 16;
    return reinterpret_cast<Floats>(x);
  }
  static void store_some(bf16* p, Floats x, int n) {
    for (int i = 0; i < n; ++i) p[i] = to_bf16(x[i]);
  }

  static Floats square_root(Floats x) {
    for (int i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
  }
  static Words zip_low(Words a, Words b) { return Words{a[0], b[0], a[1], b[1]}; }
  static Words zip_high(Words a, Words b) { return Words{a[2], b[2], a[3], b[3]}; }

  static constexpr int tile_rows = 4;
  using Bf16Units = Singles<Vectors>;
};

}  // namespace
}  // namespace photon::training

namespace photon {

constinit const TrainingKernels scalar::training = training::kernels_of<training::Vectors>();

}  // namespace photon
