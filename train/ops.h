// The differentiable operations of a Transformer block: plain LibTorch for every device and dtype, and on the CPU the
// fused versions of fused.h where they apply.  docs/architecture.md §2.
#pragma once

#include <cstdint>
#include <vector>

#include "spec/spec.h"
#include "train/torch.h"

namespace photon::ops {

/// cos and sin of position·theta^(-2i/h) for positions 0 … S-1: every stream that we lay out starts at position 0.
struct RopeTable {
  torch::Tensor cos, sin;  // [S, h/2] float32 (float64 for a float64 model)
};
RopeTable rope_table(int64_t n_positions, const StackSpec& stack, const torch::TensorOptions& options);

/// First and second half of each head of x [B, S, N, h] rotated by the angle of their position; odd h: the middle
/// stays.
torch::Tensor rotate(const torch::Tensor& x, const RopeTable& table);

/// First position that position s of a stream attends to: it sees [first_visible(span, s), s].  A `chunk` stream is one
/// group by itself (groups are batch entries), so there it is 0.
int64_t first_visible(const Span& span, int64_t s);

// Activations x may be float32, bfloat16, float16 or float64; weights are the float32 (or float64) parameters.
// Each returns a new tensor and is differentiable in all its tensor arguments.

/// y = x wᵀ in x's dtype.  x [..., k], w [o, k] of any float dtype; returns [..., o].
torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight);
/// The same for several weights of one dtype at once: returns [..., Σ o_i].
torch::Tensor linear(const torch::Tensor& x, const std::vector<torch::Tensor>& weights);

/// y = x / sqrt(mean(x²) + eps) ∘ weight, statistics in float32.  x [..., D], weight [D]; returns [..., D] as `dtype`.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType dtype);

/// The residual stream after y was added to it, x + y in x's dtype, and its norm in `dtype`.  x, y [..., D].
struct Normed {
  torch::Tensor sum, normed;
};
Normed add_rms_norm(const torch::Tensor& x, const torch::Tensor& y, const torch::Tensor& weight, double eps,
                    torch::ScalarType dtype);

/// silu(gate) ∘ up.  gate_up [..., 2F] holds gate in its first half, up in its second; returns [..., F].
torch::Tensor swiglu(const torch::Tensor& gate_up);

/// RoPE on queries and keys, then causal attention within the span, scale 1/sqrt(h).
/// qkv [B, S, (H+2K)·h] holds q, then k, then v; table of at least S positions; returns [B, S, H·h].
torch::Tensor attention(const torch::Tensor& qkv, const RopeTable& table, const StackSpec& stack);

/// mean over rows of -log softmax(logits)[target], in float32.  logits [N, V] of any float dtype, targets [N] int64.
torch::Tensor cross_entropy(const torch::Tensor& logits, const torch::Tensor& targets);

/// cross_entropy(linear(x, weight), targets) in pieces, so that the [N, V] logits never exist at once; the gradients
/// are computed with the loss.  x [N, E], weight [V, E], targets [N] int64.
torch::Tensor head_loss(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& targets);

/// Whether the CPU versions of fused.h are used (default true).  For tests and benchmarks; applies to the process.
void set_fused(bool enabled);
bool fused_enabled();

/// The same operations in plain LibTorch: what fused.h is tested against, and what other devices run.
namespace reference {
torch::Tensor linear(const torch::Tensor& x, const std::vector<torch::Tensor>& weights);
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType dtype);
Normed add_rms_norm(const torch::Tensor& x, const torch::Tensor& y, const torch::Tensor& weight, double eps,
                    torch::ScalarType dtype);
torch::Tensor swiglu(const torch::Tensor& gate_up);
torch::Tensor attention(const torch::Tensor& qkv, const RopeTable& table, const StackSpec& stack);
torch::Tensor cross_entropy(const torch::Tensor& logits, const torch::Tensor& targets);
}  // namespace reference

}  // namespace photon::ops
