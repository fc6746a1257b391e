// Reading a text as the equation has it: the reference for every other instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

std::int32_t id_of(const TextCall& call, std::int64_t j) {
  std::int32_t id = 0;
  std::memcpy(&id, call.pages[j / call.page_tokens] + j % call.page_tokens * call.id_bytes, call.id_bytes);
  return id;
}

float score_of(const TextCall& call, std::int64_t head, std::int64_t j) {
  float score = 0;
  for (std::int64_t o = 0; o < call.context && o <= j; ++o)
    score += call.scores[head][o * call.score_stride + id_of(call, j - o)];
  if (call.rates[head] != 0) score -= call.rates[head] * call.log_distances[call.predicted - j];
  return score;
}

float value_of(const TextCall& call, std::int64_t head, std::int64_t id, std::int64_t i) {
  const std::int64_t at = id * call.head_dim + i;
  return call.type == DType::f32 ? reinterpret_cast<const float*>(call.values[head])[at]
                                 : to_float(reinterpret_cast<const bf16*>(call.values[head])[at]);
}

void read_text(const TextCall& call) {
  for (std::int64_t head = 0; head < call.n_heads; ++head) {
    float top = -std::numeric_limits<float>::infinity(), sum = 0;
    for (std::int64_t j = call.first; j < call.last; ++j) top = std::max(top, score_of(call, head, j));
    float* const out = call.out[head];
    std::fill_n(out, call.head_dim, 0.0f);
    for (std::int64_t j = call.first; j < call.last; ++j) {
      const float weight = std::exp(score_of(call, head, j) - top);
      sum += weight;
      call.weights[id_of(call, j) * text_heads] += weight;
    }
    for (std::int64_t i = 0; i < call.n_ids; ++i) {
      float& weight = call.weights[call.ids[i] * text_heads];
      for (std::int64_t d = 0; d < call.head_dim; ++d) out[d] += weight * value_of(call, head, call.ids[i], d);
      weight = 0;
    }
    call.top[head] = top, call.sum[head] = sum;
  }
}

}  // namespace

constinit const MemoryKernels scalar::memory{.read_text = read_text};

}  // namespace photon
