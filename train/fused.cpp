// Autograd functions around the kernels of kernels/training.h: shapes, memory, and the split over threads.
#include "train/fused.h"

#include <ATen/Parallel.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernels.h"
#include "kernels/training.h"

namespace photon::fused {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Columns [first, …) of a contiguous tensor [..., width] as rows.
training::InRows in_rows(const Tensor& x, int64_t first = 0) {
  const bool is_bf16 = x.scalar_type() == torch::kBFloat16;
  const auto* data = static_cast<const char*>(x.data_ptr()) + first * static_cast<int64_t>(x.element_size());
  return {data, x.size(-1), is_bf16};
}
training::OutRows out_rows(const Tensor& x, int64_t first = 0) {
  const training::InRows rows = in_rows(x, first);
  return {const_cast<void*>(rows.data), rows.stride, rows.is_bf16};
}
int64_t count_rows(const Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

// Runs body(first, end) over [0, rows) with at least about 2¹⁵ elements each.
template <class Body>
void for_rows(int64_t rows, int64_t width, const Body& body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width)), body);
}

// Of {x, weight}: {rms_norm(x)}.  Of {x, weight, y}: {rms_norm(x + y), x + y}.
struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, double eps, int64_t dtype) {
    const Tensor x = inputs[0].contiguous(), weight = inputs[1].contiguous();
    const int64_t rows = count_rows(x), D = x.size(-1);
    variable_list outputs{torch::empty(x.sizes(), x.options().dtype(static_cast<torch::ScalarType>(dtype)))};
    const Tensor scale = torch::empty({rows}, weight.options());
    Tensor y;  // lives until the kernels have run
    training::RmsNorm op;
    op.width = D;
    op.eps = static_cast<float>(eps);
    op.x = in_rows(x);
    op.weight = weight.data_ptr<float>();
    op.out = out_rows(outputs[0]);
    op.scale = scale.data_ptr<float>();
    if (inputs.size() == 3) {
      y = inputs[2].contiguous();
      outputs.push_back(torch::empty_like(x));
      op.y = in_rows(y);
      op.sum = out_rows(outputs[1]);
      ctx->saved_data["y_dtype"] = static_cast<int64_t>(y.scalar_type());
    }
    for_rows(rows, D, [&](int64_t first, int64_t end) { kernels().training.rms_norm(op, first, end); });
    ctx->save_for_backward({y.defined() ? outputs[1] : x, weight, scale});
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int64_t kBlock = 128;  // rows per partial sum of the weight's gradient
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    const bool added = grads.size() == 2;
    const auto y_dtype = added ? static_cast<torch::ScalarType>(ctx->saved_data["y_dtype"].toInt()) : x.scalar_type();
    const Tensor grad_sum = added && grads[1].defined() ? grads[1].contiguous() : Tensor();
    if (!grads[0].defined())  // the norm went unused
      return {grad_sum, Tensor(), grad_sum.defined() ? grad_sum.to(y_dtype) : Tensor(), Tensor(), Tensor()};

    const Tensor grad_out = grads[0].contiguous(), grad_x = torch::empty_like(x);
    const Tensor grad_y = y_dtype == x.scalar_type() ? grad_x : torch::empty(x.sizes(), x.options().dtype(y_dtype));
    const int64_t rows = count_rows(x), D = x.size(-1), blocks = (rows + kBlock - 1) / kBlock;
    const Tensor partial = torch::zeros({blocks, D}, weight.options());
    training::RmsNormBackward op;
    op.width = D;
    op.x = in_rows(x);
    op.weight = weight.data_ptr<float>();
    op.scale = scale.data_ptr<float>();
    op.grad_out = in_rows(grad_out);
    if (grad_sum.defined()) op.grad_sum = in_rows(grad_sum);
    op.grad_x = out_rows(grad_x);
    if (y_dtype != x.scalar_type()) op.grad_y = out_rows(grad_y);
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t end) {
      for (int64_t block = first; block < end; ++block) {
        training::RmsNormBackward part = op;
        part.grad_weight = partial.data_ptr<float>() + block * D;
        kernels().training.rms_norm_backward(part, block * kBlock, std::min(rows, (block + 1) * kBlock));
      }
    });
    const Tensor grad_weight = torch::zeros({D}, weight.options());
    float* total = grad_weight.data_ptr<float>();
    for (int64_t block = 0; block < blocks; ++block) {
      const float* part = partial.data_ptr<float>() + block * D;
      for (int64_t i = 0; i < D; ++i) total[i] += part[i];
    }
    if (added) return {grad_x, grad_weight, grad_y, Tensor(), Tensor()};
    return {grad_x, grad_weight, Tensor(), Tensor()};
  }
};

// The rows of all weights [o_i, k] one below the other, in another element type.
struct StackRowsFunction : torch::autograd::Function<StackRowsFunction> {
  static Tensor forward(AutogradContext* ctx, at::TensorList weights, int64_t dtype) {
    int64_t rows = 0;
    std::vector<int64_t> heights;
    for (const Tensor& weight : weights) {
      heights.push_back(weight.size(0));
      rows += weight.size(0);
    }
    const auto& first_weight = weights.front();
    const int64_t width = first_weight.size(1);
    const Tensor all = torch::empty({rows, width}, first_weight.options().dtype(static_cast<torch::ScalarType>(dtype)));
    int64_t row = 0;
    for (const Tensor& weight : weights) {
      copy(weight.contiguous(), all.narrow(0, row, weight.size(0)));
      row += weight.size(0);
    }
    ctx->saved_data["heights"] = heights;
    ctx->saved_data["dtype"] = static_cast<int64_t>(first_weight.scalar_type());
    return all;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor grad = grads[0].contiguous();
    const auto options = grad.options().dtype(static_cast<torch::ScalarType>(ctx->saved_data["dtype"].toInt()));
    variable_list parts;
    int64_t row = 0;
    for (const int64_t height : ctx->saved_data["heights"].toIntVector()) {
      parts.push_back(torch::empty({height, grad.size(1)}, options));
      copy(grad.narrow(0, row, height), parts.back());
      row += height;
    }
    parts.emplace_back();
    return parts;
  }

  static void copy(const Tensor& from, const Tensor& to) {
    const training::Convert op{from.size(1), in_rows(from), out_rows(to)};
    for_rows(from.size(0), from.size(1),
             [&](int64_t first, int64_t end) { kernels().training.convert(op, first, end); });
  }
};

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up_in) {
    const Tensor gate_up = gate_up_in.contiguous();
    const int64_t width = gate_up.size(-1) / 2;
    auto sizes = gate_up.sizes().vec();
    sizes.back() = width;
    const Tensor out = torch::empty(sizes, gate_up.options());
    const training::Swiglu op{width, in_rows(gate_up), in_rows(gate_up, width), out_rows(out)};
    for_rows(count_rows(gate_up), width,
             [&](int64_t first, int64_t end) { kernels().training.swiglu(op, first, end); });
    ctx->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0];
    const Tensor grad = grads[0].contiguous(), grad_in = torch::empty_like(gate_up);
    const int64_t width = gate_up.size(-1) / 2;
    const training::SwigluBackward op{width,         in_rows(gate_up),  in_rows(gate_up, width),
                                      in_rows(grad), out_rows(grad_in), out_rows(grad_in, width)};
    for_rows(count_rows(gate_up), width,
             [&](int64_t first, int64_t end) { kernels().training.swiglu_backward(op, first, end); });
    return {grad_in};
  }
};

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& logits_in, const Tensor& targets_in) {
    const Tensor logits = logits_in.contiguous(), targets = targets_in.contiguous();
    const int64_t N = logits.size(0), V = logits.size(1);
    const auto* ids = targets.data_ptr<int64_t>();
    TORCH_CHECK(std::all_of(ids, ids + N, [&](int64_t id) { return 0 <= id && id < V; }),
                "cross_entropy: a target is outside [0, ", V, ")");
    const auto f32 = logits.options().dtype(torch::kFloat32);
    const Tensor log_sum_exp = torch::empty({N}, f32), nll = torch::empty({N}, f32);
    const training::CrossEntropy op{V, in_rows(logits), ids, log_sum_exp.data_ptr<float>(), nll.data_ptr<float>()};
    for_rows(N, V, [&](int64_t first, int64_t end) { kernels().training.cross_entropy(op, first, end); });
    double total = 0;
    for (int64_t i = 0; i < N; ++i) total += static_cast<double>(op.nll[i]);
    ctx->save_for_backward({logits, targets, log_sum_exp});
    return torch::full({}, total / static_cast<double>(N), f32);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &logits = saved[0], &targets = saved[1], &log_sum_exp = saved[2];
    const Tensor grad = torch::empty_like(logits);
    const int64_t N = logits.size(0), V = logits.size(1);
    const training::CrossEntropyBackward op{V,
                                            in_rows(logits),
                                            targets.data_ptr<int64_t>(),
                                            log_sum_exp.data_ptr<float>(),
                                            grads[0].item<float>() / static_cast<float>(N),
                                            out_rows(grad)};
    for_rows(N, V, [&](int64_t first, int64_t end) { kernels().training.cross_entropy_backward(op, first, end); });
    return {grad, Tensor()};
  }
};

// One attention problem: its sequences, short ones joined so that their queries fill the vectors.
struct AttentionProblem {
  training::Attention op;
  int64_t rows = 0, joined = 0;  // B·S; S times the sequences that are joined
  std::vector<std::int32_t> first_visible, positions;

  AttentionProblem(const Tensor& qkv, const Tensor& cos, const Tensor& sin, const StackSpec& stack) {
    constexpr int64_t kVector = 16;
    const int64_t S = qkv.size(1), H = stack.n_heads, K = stack.n_kv_heads, h = stack.head_dim;
    const int64_t together = std::max<int64_t>(1, kVector / S);
    rows = qkv.size(0) * S;
    joined = together * S;
    for (int64_t s = 0; s < joined; ++s) {
      first_visible.push_back(static_cast<std::int32_t>(s / S * S + ops::first_visible(stack.span, s % S)));
      positions.push_back(static_cast<std::int32_t>(s % S));
    }
    op.n_heads = H;
    op.n_kv_heads = K;
    op.head_dim = h;
    op.q = in_rows(qkv);
    op.k = in_rows(qkv, H * h);
    op.v = in_rows(qkv, (H + K) * h);
    op.first_visible = first_visible.data();
    op.positions = positions.data();
    op.cos = cos.data_ptr<float>();
    op.sin = sin.data_ptr<float>();
    op.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(h)));
  }
  // op points into the vectors.
  AttentionProblem(const AttentionProblem&) = delete;
  AttentionProblem& operator=(const AttentionProblem&) = delete;

  // Runs body(first_row, n_rows, kv_head, scratch) for every joined sequence and kv head.
  template <class Body>
  void run(const Body& body) const {
    const int64_t K = op.n_kv_heads, tasks = (rows + joined - 1) / joined * K;
    at::parallel_for(0, tasks, std::max<int64_t>(1, 64 / joined), [&](int64_t first, int64_t end) {
      const Tensor scratch = torch::empty({kernels().training.attention_scratch(joined, op.head_dim)}, torch::kUInt8);
      for (int64_t task = first; task < end; ++task) {
        const int64_t row = task / K * joined;
        body(row, std::min(joined, rows - row), task % K, scratch.data_ptr());
      }
    });
  }
};

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& qkv_in, const Tensor& cos, const Tensor& sin, int64_t H,
                        int64_t K, int64_t h, int64_t span_kind, int64_t span_size) {
    const Tensor qkv = qkv_in.contiguous();
    const StackSpec stack = stack_of(H, K, h, span_kind, span_size);
    AttentionProblem problem(qkv, cos, sin, stack);
    const Tensor out = torch::empty({qkv.size(0), qkv.size(1), H * h}, qkv.options());
    const Tensor log2_sum = torch::empty({problem.rows, H}, cos.options());
    problem.op.out = out_rows(out);
    problem.op.log2_sum = log2_sum.data_ptr<float>();
    problem.run([&](int64_t row, int64_t n, int64_t kv_head, void* scratch) {
      kernels().training.attention(problem.op, row, n, kv_head, scratch);
    });
    ctx->save_for_backward({qkv, cos, sin, out, log2_sum});
    ctx->saved_data["stack"] = std::vector<int64_t>{H, K, h, span_kind, span_size};
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &qkv = saved[0], &out = saved[3], &log2_sum = saved[4];
    const auto s = ctx->saved_data["stack"].toIntVector();
    const StackSpec stack = stack_of(s[0], s[1], s[2], s[3], s[4]);
    const int64_t H = stack.n_heads, K = stack.n_kv_heads, h = stack.head_dim;
    const Tensor grad = grads[0].contiguous(), grad_qkv = torch::empty_like(qkv);
    AttentionProblem problem(qkv, saved[1], saved[2], stack);
    problem.op.out = out_rows(out);
    problem.op.log2_sum = log2_sum.data_ptr<float>();
    const training::AttentionBackward op{problem.op, in_rows(grad), out_rows(grad_qkv), out_rows(grad_qkv, H * h),
                                         out_rows(grad_qkv, (H + K) * h)};
    problem.run([&](int64_t row, int64_t n, int64_t kv_head, void* scratch) {
      kernels().training.attention_backward(op, row, n, kv_head, scratch);
    });
    return {grad_qkv, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }

  static StackSpec stack_of(int64_t H, int64_t K, int64_t h, int64_t span_kind, int64_t span_size) {
    StackSpec stack;
    stack.n_heads = H;
    stack.n_kv_heads = K;
    stack.head_dim = h;
    stack.span = {static_cast<Span::Kind>(span_kind), span_size};
    return stack;
  }
};

void check_f32(const Tensor& x, const char* what) {
  TORCH_CHECK(x.scalar_type() == torch::kFloat32 && x.device().is_cpu() && x.is_contiguous(), what, ": ", x.toString(),
              " is not a contiguous float32 CPU tensor");
}

bool is_element(torch::ScalarType dtype) { return dtype == torch::kFloat32 || dtype == torch::kBFloat16; }

void check_element(torch::ScalarType dtype) {
  TORCH_CHECK(is_element(dtype), "fused operations give float32 or bfloat16, not ", dtype);
}

}  // namespace

bool takes(const Tensor& x) { return x.device().is_cpu() && is_element(x.scalar_type()); }

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, torch::ScalarType dtype) {
  check_element(dtype);
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1), "rms_norm: x ", x.sizes(), ", weight ",
              weight.sizes());
  const std::vector<Tensor> inputs{x, weight};
  return RmsNormFunction::apply(at::TensorList(inputs), eps, static_cast<int64_t>(dtype))[0];
}

ops::Normed add_rms_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps, torch::ScalarType dtype) {
  check_element(dtype);
  TORCH_CHECK(x.dim() >= 1 && y.sizes() == x.sizes() && weight.dim() == 1 && weight.size(0) == x.size(-1),
              "add_rms_norm: x ", x.sizes(), ", y ", y.sizes(), ", weight ", weight.sizes());
  const std::vector<Tensor> inputs{x, weight, y};
  const auto both = RmsNormFunction::apply(at::TensorList(inputs), eps, static_cast<int64_t>(dtype));
  return {both[1], both[0]};
}

Tensor stack_rows(const std::vector<Tensor>& weights, torch::ScalarType dtype) {
  check_element(dtype);
  for (const Tensor& weight : weights)
    TORCH_CHECK(weight.dim() == 2 && weight.size(1) == weights.front().size(1) &&
                    weight.scalar_type() == weights.front().scalar_type(),
                "stack_rows: ", weight.sizes(), " below ", weights.front().sizes());
  return StackRowsFunction::apply(at::TensorList(weights), static_cast<int64_t>(dtype));
}

Tensor swiglu(const Tensor& gate_up) {
  TORCH_CHECK(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0, "swiglu: gate_up ", gate_up.sizes());
  return SwigluFunction::apply(gate_up);
}

Tensor attention(const Tensor& qkv, const ops::RopeTable& rope, const StackSpec& stack) {
  const int64_t H = stack.n_heads, K = stack.n_kv_heads, h = stack.head_dim;
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) == (H + 2 * K) * h && rope.cos.size(0) >= qkv.size(1), "attention: qkv ",
              qkv.sizes(), " for H ", H, ", K ", K, ", h ", h, ", table of ", rope.cos.size(0), " positions");
  return AttentionFunction::apply(qkv, rope.cos.contiguous(), rope.sin.contiguous(), H, K, h,
                                  static_cast<int64_t>(stack.span.kind), stack.span.size);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets) {
  TORCH_CHECK(logits.dim() == 2 && targets.dim() == 1 && targets.size(0) == logits.size(0) && logits.numel() > 0,
              "cross_entropy: logits ", logits.sizes(), ", targets ", targets.sizes());
  return CrossEntropyFunction::apply(logits, targets);
}

void adamw(Tensor& param, const Tensor& grad, Tensor& m, Tensor& v, const AdamWStep& step) {
  check_f32(param, "adamw param"), check_f32(grad, "adamw grad"), check_f32(m, "adamw m"), check_f32(v, "adamw v");
  TORCH_CHECK(grad.sizes() == param.sizes() && m.sizes() == param.sizes() && v.sizes() == param.sizes(),
              "adamw: param ", param.sizes(), ", grad ", grad.sizes(), ", m ", m.sizes(), ", v ", v.sizes());
  const auto t = static_cast<double>(step.step);
  training::AdamW op;
  op.param = param.data_ptr<float>();
  op.grad = grad.data_ptr<float>();
  op.m = m.data_ptr<float>();
  op.v = v.data_ptr<float>();
  op.grad_scale = static_cast<float>(step.grad_scale);
  op.beta1 = static_cast<float>(step.beta1);
  op.beta2 = static_cast<float>(step.beta2);
  op.eps = static_cast<float>(step.eps);
  op.decay = static_cast<float>(1.0 - step.lr * step.weight_decay);
  op.step_size = static_cast<float>(step.lr / (1.0 - std::pow(step.beta1, t)));
  op.v_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(step.beta2, t)));
  at::parallel_for(0, param.numel(), 16384,
                   [&](int64_t first, int64_t end) { kernels().training.adamw(op, first, end); });
}

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kNever = std::numeric_limits<int>::max();
  mallopt(M_MMAP_MAX, 0);             // large blocks come from the heap,
  mallopt(M_TRIM_THRESHOLD, kNever);  // which does not shrink,
  mallopt(M_TOP_PAD, 64 << 20);       // and grows by large steps
#endif
}

double norm(const std::vector<Tensor>& gradients) {
  constexpr int64_t kBlock = 65536;
  double total = 0;
  for (const Tensor& gradient : gradients) {
    check_f32(gradient, "norm");
    const auto* data = gradient.data_ptr<float>();
    const int64_t n = gradient.numel(), blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> partial(static_cast<size_t>(blocks));
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t end) {
      for (int64_t block = first; block < end; ++block)
        partial[static_cast<size_t>(block)] =
            kernels().training.sum_of_squares(data + block * kBlock, std::min(kBlock, n - block * kBlock));
    });
    for (const double part : partial) total += part;
  }
  return std::sqrt(total);
}

}  // namespace photon::fused
