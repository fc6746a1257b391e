// The reference that every other instruction set is held to: short loops, no cleverness.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/isa.h"

namespace photon {
namespace {

float to_float(float x) { return x; }
using photon::to_float;

template <class W>
void matmul(MatView<const float> x, MatView<const W> w, MatView<float> y, bool add) {
  for (std::int64_t i = 0; i < x.rows; ++i)
    for (std::int64_t o = 0; o < w.rows; ++o) {
      const float* xi = x.data + i * x.stride;  // [k]
      const W* wo = w.data + o * w.stride;      // [k]
      float sum = 0;
      for (std::int64_t k = 0; k < x.cols; ++k) sum += xi[k] * to_float(wo[k]);
      float& out = y.data[i * y.stride + o];
      out = add ? out + sum : sum;
    }
}

void rms_norm(const float* x, const float* w, float eps, float* y, std::int64_t n) {
  double squares = 0;
  for (std::int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + eps));
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * w[i];
}

// One query head at a time: `top` is the largest score so far, `sum` = Σ exp(score - top), out = Σ exp(score - top) v.
template <class T>
void attend(const AttendShape& shape, const float* q, const OldKvRun<T>* runs, std::int64_t n_runs, float* out) {
  const std::int64_t h = shape.head_dim, group = shape.n_heads / shape.n_kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  for (std::int64_t head = 0; head < shape.n_heads; ++head) {
    const float* qh = q + head * h;  // [h]
    float* o = out + head * h;       // [h]
    std::fill(o, o + h, 0.0f);
    float top = -std::numeric_limits<float>::infinity(), sum = 0;
    for (const OldKvRun<T>* run = runs; run != runs + n_runs; ++run)
      for (std::int64_t p = 0; p < run->n; ++p) {
        const T* k = run->k + p * run->stride + head / group * h;  // [h]
        const T* v = run->v + p * run->stride + head / group * h;  // [h]
        float score = 0;
        for (std::int64_t i = 0; i < h; ++i) score += qh[i] * to_float(k[i]);
        score *= scale;
        const float new_top = std::max(top, score);
        const float keep = std::exp(top - new_top), weight = std::exp(score - new_top);
        for (std::int64_t i = 0; i < h; ++i) o[i] = o[i] * keep + weight * to_float(v[i]);
        sum = sum * keep + weight;
        top = new_top;
      }
    for (std::int64_t i = 0; i < h; ++i) o[i] /= sum;
  }
}

void swiglu(float* gate, const float* up, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
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

constinit const Isa scalar_isa{
    .matmul_f32 = matmul<float>,
    .matmul_bf16 = matmul<bf16>,
    .rms_norm = rms_norm,
    .attend_f32 = attend<float>,
    .attend_bf16 = attend<bf16>,
    .swiglu = swiglu,
    .to_bf16 = round_to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
