// The operations of ops.h on the CPU, each one pass over its arrays in float32 or bfloat16, and the optimiser's
// arithmetic. Results do not depend on the number of threads, bit for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "train/ops.h"
#include "train/torch.h"

namespace photon::fused {

/// Whether these versions take x: a float32 or bfloat16 tensor on the CPU.  Parameters must be float32.
bool takes(const torch::Tensor& x);

// As in ops.h.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType dtype);
ops::Normed add_rms_norm(const torch::Tensor& x, const torch::Tensor& y, const torch::Tensor& weight, double eps,
                         torch::ScalarType dtype);
torch::Tensor stack_rows(const std::vector<torch::Tensor>& weights, torch::ScalarType dtype);
torch::Tensor swiglu(const torch::Tensor& gate_up);
torch::Tensor attention(const torch::Tensor& qkv, const ops::RopeTable& table, const StackSpec& stack);
torch::Tensor cross_entropy(const torch::Tensor& logits, const torch::Tensor& targets);

struct AdamWStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  double grad_scale = 1;  // of the gradient, before anything else: clipping
  int64_t step = 1;       // t = 1, 2, …: m and v are divided by 1 - beta^t
};
/// One AdamW step with decoupled weight decay, in place on param and its moments m and v.  All contiguous float32 CPU
/// tensors of one shape; m and v start as zeros.
void adamw(torch::Tensor& param, const torch::Tensor& grad, torch::Tensor& m, torch::Tensor& v, const AdamWStep& step);

/// Has the C library keep freed memory for the next step instead of returning it to the system, which would have to
/// clear every page again.  For the whole process, which from then on holds what it needed at most; no effect but with
/// glibc.
void keep_freed_memory();

/// sqrt(Σ g²) over all elements of contiguous float32 CPU tensors, accumulated in float64 in a fixed order.
double norm(const std::vector<torch::Tensor>& gradients);

}  // namespace photon::fused
