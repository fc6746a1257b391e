// The reference that every other instruction set is held to: short loops, no cleverness.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

void rms_norm(const float* x, const float* w, float eps, float* y, std::int64_t n) {
  double squares = 0;
  for (std::int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + eps));
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * w[i];
}

void round_to_bf16(const float* x, bf16* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = to_bf16(x[i]);
}

float log_sum_exp(const float* x, std::int64_t n) {
  float top = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < n; ++i) top = std::max(top, x[i]);
  if (std::isinf(top)) return top;
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i] - top));
  return top + static_cast<float>(std::log(sum));
}

}  // namespace

constinit const RowKernels scalar::rows{
    .rms_norm = rms_norm,
    .to_bf16 = round_to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
