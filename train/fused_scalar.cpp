// The fused training kernels for any CPU: vectors of four floats in the compiler's portable vector types.
#include "train/fused_kernels.h"

namespace photon {
namespace {

constexpr int kLanes = 4;
using vf = float __attribute__((vector_size(16)));
using vu = std::uint32_t __attribute__((vector_size(16)));
using vi = std::int32_t __attribute__((vector_size(16)));

vf load_some(const float* p, int n) {
  vf x{};
  for (int i = 0; i < n; ++i) x[i] = p[i];
  return x;
}
void store_some(float* p, vf x, int n) {
  for (int i = 0; i < n; ++i) p[i] = x[i];
}
vf load_some_bf16(const std::uint16_t* p, int n) {
  vu x{};
  for (int i = 0; i < n; ++i) x[i] = std::uint32_t{p[i]} << 16;
  return reinterpret_cast<vf>(x);
}
std::uint16_t round_to_bf16(std::uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);  // NaN
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
void store_some_bf16(std::uint16_t* p, vf x, int n) {
  const auto bits = reinterpret_cast<vu>(x);
  for (int i = 0; i < n; ++i) p[i] = round_to_bf16(bits[i]);
}
vf load_bf16(const std::uint16_t* p) { return load_some_bf16(p, kLanes); }
void store_bf16(std::uint16_t* p, vf x) { store_some_bf16(p, x, kLanes); }

vf square_root(vf x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
vu zip_low(vu a, vu b) { return vu{a[0], b[0], a[1], b[1]}; }
vu zip_high(vu a, vu b) { return vu{a[2], b[2], a[3], b[3]}; }

constexpr int kTileRows = 4;    // of the matrix products inside attention
constexpr bool kPairs = false;  // no bf16 dot product
template <int kElements>
struct Units;

#include "train/fused_kernels_impl.inc"

constexpr FusedKernels kTable = PHOTON_FUSED_TABLE("scalar");

}  // namespace

const FusedKernels& fused_scalar() { return kTable; }

}  // namespace photon
