// The memory-bound arithmetic of training on the CPU, fused: what a table of kernels.h holds for train/.  Arithmetic is
// float32; arrays are float32 or bfloat16.  Every function is noexcept, allocates nothing, works on the rows it is
// given on the calling thread, and gives the same bits however the rows are split among threads.
#pragma once

#include <cstdint>

namespace photon {
namespace training {

/// Rows of float32 or bfloat16 elements that are read; `stride` elements from row to row.
struct InRows {
  const void* data = nullptr;
  std::int64_t stride = 0;
  bool is_bf16 = false;
};
/// Rows that are written.
struct OutRows {
  void* data = nullptr;
  std::int64_t stride = 0;
  bool is_bf16 = false;
};

/// out = x / sqrt(mean(x²) + eps) ∘ weight, or the same of the sum x + y, which is then written to `sum`.
struct RmsNorm {
  std::int64_t width = 0;  // D
  float eps = 0;
  InRows x{}, y{};                // [n, D]; y.data may be null: no sum
  const float* weight = nullptr;  // [D]
  OutRows sum{}, out{};           // [n, D]; sum only with y
  float* scale = nullptr;         // [n] 1 / sqrt(mean(x²) + eps), for the backward pass
};
struct RmsNormBackward {
  std::int64_t width = 0;
  InRows x{};                     // [n, D] what was normalised: x, or the sum
  const float* weight = nullptr;  // [D]
  const float* scale = nullptr;   // [n]
  InRows grad_out{}, grad_sum{};  // [n, D]; grad_sum.data may be null
  OutRows grad_x{}, grad_y{};     // [n, D]; equal but for the element type; grad_y.data may be null
  float* grad_weight = nullptr;   // [D], the rows' contributions are added
};

/// out = silu(gate) ∘ up
struct Swiglu {
  std::int64_t width = 0;
  InRows gate{}, up{};  // [n, d_ff]
  OutRows out{};        // [n, d_ff]
};
struct SwigluBackward {
  std::int64_t width = 0;
  InRows gate{}, up{}, grad_out{};  // [n, d_ff]
  OutRows grad_gate{}, grad_up{};   // [n, d_ff]
};

/// nll[i] = log Σ exp(logits[i]) - logits[i, target[i]]
struct CrossEntropy {
  std::int64_t width = 0;                 // V
  InRows logits{};                        // [n, V]
  const std::int64_t* targets = nullptr;  // [n], within [0, V)
  float* log_sum_exp = nullptr;           // [n]
  float* nll = nullptr;                   // [n]
};
/// grad = (softmax(logits) - onehot(target)) · scale
struct CrossEntropyBackward {
  std::int64_t width = 0;
  InRows logits{};
  const std::int64_t* targets = nullptr;
  const float* log_sum_exp = nullptr;
  float scale = 0;
  OutRows grad{};  // [n, V]
};

/// Causal attention within one sequence whose position s sees the positions [first_visible[s], s].
/// Queries and keys are rotated (RoPE, rotate-half) while they are loaded if there are tables.
struct Attention {
  std::int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;  // H, K, h
  InRows q{}, k{}, v{};                                    // [S, H*h], [S, K*h], [S, K*h]; all of one element type
  const std::int32_t* first_visible = nullptr;             // [S], does not decrease
  const std::int32_t* positions = nullptr;                 // [S] rows of the tables
  const float* cos = nullptr;                              // [any, h/2], or null: no rotation
  const float* sin = nullptr;
  float scale = 0;            // of the scores: 1 / sqrt(h)
  OutRows out{};              // [S, H*h]; read by the backward pass
  float* log2_sum = nullptr;  // [S, H] log₂ Σ exp(scaled scores); written forward, read backward
};
struct AttentionBackward {
  Attention forward{};
  InRows grad_out{};  // [S, H*h]
  OutRows grad_q{}, grad_k{}, grad_v{};
};

/// out = in, between element types.
struct Convert {
  std::int64_t width = 0;
  InRows in{};
  OutRows out{};
};

/// One decoupled-weight-decay Adam step over elements; step_size = lr / (1 - beta1^t), v_scale = 1 / sqrt(1 - beta2^t).
struct AdamW {
  float* param = nullptr;
  const float* grad = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float grad_scale = 1;                                                        // clipping
  float beta1 = 0, beta2 = 0, eps = 0, decay = 1, step_size = 0, v_scale = 1;  // decay = 1 - lr·weight_decay
};

}  // namespace training

struct TrainingKernels {
  void (&rms_norm)(const training::RmsNorm& op, std::int64_t first_row, std::int64_t end_row);
  void (&rms_norm_backward)(const training::RmsNormBackward& op, std::int64_t first_row, std::int64_t end_row);
  void (&swiglu)(const training::Swiglu& op, std::int64_t first_row, std::int64_t end_row);
  void (&swiglu_backward)(const training::SwigluBackward& op, std::int64_t first_row, std::int64_t end_row);
  void (&cross_entropy)(const training::CrossEntropy& op, std::int64_t first_row, std::int64_t end_row);
  void (&cross_entropy_backward)(const training::CrossEntropyBackward& op, std::int64_t first_row,
                                 std::int64_t end_row);
  // One kv head and its query heads over the sequence of rows [first_row, first_row + S); first_visible and positions
  // count from first_row.  `scratch` holds attention_scratch() bytes, aligned to 64, of any content.
  void (&attention)(const training::Attention& op, std::int64_t first_row, std::int64_t S, std::int64_t kv_head,
                    void* scratch);
  void (&attention_backward)(const training::AttentionBackward& op, std::int64_t first_row, std::int64_t S,
                             std::int64_t kv_head, void* scratch);
  std::int64_t (&attention_scratch)(std::int64_t S, std::int64_t head_dim);  // enough for either direction
  void (&convert)(const training::Convert& op, std::int64_t first_row, std::int64_t end_row);
  void (&adamw)(const training::AdamW& op, std::int64_t first, std::int64_t end);
  double (&sum_of_squares)(const float* x, std::int64_t n);
};

}  // namespace photon
