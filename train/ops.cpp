// The operations in plain LibTorch, and the choice between them and the fused ones.
#include "train/ops.h"

#include <algorithm>
#include <atomic>

#include "train/attention.h"
#include "train/fused.h"

namespace photon::ops {
namespace {

using torch::Tensor;

std::atomic<bool> use_fused{true};

bool fuse(const Tensor& x) { return use_fused && fused::takes(x); }

torch::ScalarType statistics_dtype(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

}  // namespace

Tensor rotate(const Tensor& x, const RopeTable& table) {
  const int64_t S = x.size(1), h = x.size(3), half = h / 2;
  const Tensor cos = table.cos.narrow(0, 0, S).unsqueeze(1).to(statistics_dtype(x));  // [S, 1, h/2]
  const Tensor sin = table.sin.narrow(0, 0, S).unsqueeze(1).to(statistics_dtype(x));
  const Tensor a = x.narrow(3, 0, half), middle = x.narrow(3, half, h - 2 * half), b = x.narrow(3, h - half, half);
  return torch::cat({(a * cos - b * sin).to(x.scalar_type()), middle, (b * cos + a * sin).to(x.scalar_type())}, 3);
}

void set_fused(bool enabled) { use_fused = enabled; }
bool fused_enabled() { return use_fused; }

RopeTable rope_table(int64_t n_positions, const StackSpec& stack, const torch::TensorOptions& options) {
  const int64_t half = stack.head_dim / 2;
  const auto f64 = torch::TensorOptions(torch::kFloat64);
  const Tensor frequencies = torch::pow(stack.rope_theta, torch::arange(half, f64) * (-2.0 / double(stack.head_dim)));
  const Tensor angles = torch::arange(n_positions, f64).unsqueeze(1) * frequencies;  // [S, h/2]
  return {angles.cos().to(options), angles.sin().to(options)};
}

int64_t first_visible(const Span& span, int64_t s) {
  switch (span.kind) {
    case Span::Kind::global:
    case Span::Kind::chunk:
      return 0;
    case Span::Kind::window:
    case Span::Kind::stream:
      return std::max<int64_t>(0, s - span.size + 1);
    case Span::Kind::block:
      return s / span.size * span.size;
  }
  return 0;
}

Tensor linear(const Tensor& x, const Tensor& weight) { return linear(x, std::vector<Tensor>{weight}); }
Tensor linear(const Tensor& x, const std::vector<Tensor>& weights) {
  const bool as_is = weights.size() == 1 && weights.front().scalar_type() == x.scalar_type();
  if (as_is || !fuse(x) || !fused::takes(weights.front())) return reference::linear(x, weights);
  return torch::linear(x, fused::stack_rows(weights, x.scalar_type()));
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, torch::ScalarType dtype) {
  return fuse(x) ? fused::rms_norm(x, weight, eps, dtype) : reference::rms_norm(x, weight, eps, dtype);
}
Normed add_rms_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps, torch::ScalarType dtype) {
  const bool fusable = fuse(x) && fused::takes(y);
  return fusable ? fused::add_rms_norm(x, y, weight, eps, dtype) : reference::add_rms_norm(x, y, weight, eps, dtype);
}
Tensor swiglu(const Tensor& gate_up) { return fuse(gate_up) ? fused::swiglu(gate_up) : reference::swiglu(gate_up); }
Tensor attention(const Tensor& qkv, const RopeTable& table, const StackSpec& stack) {
  return fuse(qkv) ? fused::attention(qkv, table, stack) : reference::attention(qkv, table, stack);
}
Tensor cross_entropy(const Tensor& logits, const Tensor& targets) {
  return fuse(logits) ? fused::cross_entropy(logits, targets) : reference::cross_entropy(logits, targets);
}

namespace {

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& targets, bool differentiable) {
    // On the CPU a piece's logits stay in the cache between the product, the loss and its gradient.
    const int64_t piece_elements = x.device().is_cpu() ? int64_t{1} << 22 : int64_t{1} << 27;
    const int64_t N = x.size(0), piece = std::clamp<int64_t>(piece_elements / weight.size(0), 1, N);
    torch::AutoGradMode gradients(differentiable);
    const Tensor w = weight.detach().to(x.scalar_type()).requires_grad_(differentiable);
    Tensor loss = torch::zeros({}, x.options().dtype(statistics_dtype(x)));
    Tensor grad_x, grad_weight;
    if (differentiable) grad_x = torch::empty_like(x), grad_weight = torch::zeros_like(weight);
    for (int64_t first = 0; first < N; first += piece) {
      const int64_t n = std::min(piece, N - first);
      const Tensor rows = x.detach().narrow(0, first, n).requires_grad_(differentiable);
      const Tensor share = cross_entropy(ops::linear(rows, w), targets.narrow(0, first, n)) * (double(n) / double(N));
      loss += share.detach();
      if (!differentiable) continue;
      const auto grads = torch::autograd::grad({share}, {rows, w});
      grad_x.narrow(0, first, n).copy_(grads[0]);
      grad_weight += grads[1];
    }
    if (differentiable) ctx->save_for_backward({grad_x, grad_weight});
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {saved[0] * grads[0], saved[1] * grads[0], Tensor(), Tensor()};
  }
};

}  // namespace

Tensor head_loss(const Tensor& x, const Tensor& weight, const Tensor& targets) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1) && targets.dim() == 1 &&
                  targets.size(0) == x.size(0) && x.size(0) > 0,
              "head_loss: x ", x.sizes(), ", weight ", weight.sizes(), ", targets ", targets.sizes());
  const bool differentiable = torch::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return HeadLossFunction::apply(x, weight, targets, differentiable);
}

namespace reference {

Tensor linear(const Tensor& x, const std::vector<Tensor>& weights) {
  const Tensor weight = weights.size() == 1 ? weights.front() : torch::cat(weights);
  return torch::linear(x, weight.to(x.scalar_type()));
}

Normed add_rms_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps, torch::ScalarType dtype) {
  const Tensor sum = x + y.to(x.scalar_type());
  return {sum, rms_norm(sum, weight, eps, dtype)};
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, torch::ScalarType dtype) {
  const Tensor wide = x.to(statistics_dtype(x));
  const Tensor scale = torch::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * scale * weight).to(dtype);
}

Tensor swiglu(const Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  return torch::silu(halves[0]) * halves[1];
}

Tensor attention(const Tensor& qkv, const RopeTable& table, const StackSpec& stack) {
  const int64_t B = qkv.size(0), S = qkv.size(1), H = stack.n_heads, K = stack.n_kv_heads, h = stack.head_dim;
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) == (H + 2 * K) * h && table.cos.size(0) >= S, "attention: qkv ",
              qkv.sizes(), " for H ", H, ", K ", K, ", h ", h, ", table of ", table.cos.size(0), " positions");
  const Tensor heads = qkv.view({B, S, H + 2 * K, h});
  const Tensor q = rotate(heads.narrow(2, 0, H), table);  // [B, S, H, h]
  const Tensor k = rotate(heads.narrow(2, H, K), table);  // [B, S, K, h]
  const Tensor v = heads.narrow(2, H + K, K);             // [B, S, K, h]
  return attend(q, k, v, stack.span).reshape({B, S, H * h});
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets) {
  return torch::nll_loss(torch::log_softmax(logits.to(statistics_dtype(logits)), 1), targets);
}

}  // namespace reference
}  // namespace photon::ops
