#include "train/memory.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "train/ops.h"

namespace photon {
namespace {

using torch::Tensor;
using Tensors = torch::autograd::variable_list;

// f(inputs) whose intermediate results are made again for the gradient instead of being kept.
struct Recomputed : torch::autograd::Function<Recomputed> {
  using Function = std::function<Tensor(const Tensors&)>;

  static Tensor forward(torch::autograd::AutogradContext* ctx, const Function& f, const Tensors& inputs) {
    ctx->saved_data["f"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(f));
    ctx->save_for_backward(inputs);
    return f(inputs);
  }

  static Tensors backward(torch::autograd::AutogradContext* ctx, const Tensors& grads) {
    const auto& f = static_cast<Holder&>(*ctx->saved_data["f"].toCapsule()).f;
    Tensors inputs, wanted;
    for (const Tensor& input : ctx->get_saved_variables()) {
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
      if (input.requires_grad()) wanted.push_back(inputs.back());
    }
    torch::AutoGradMode gradients(true);
    const Tensors found = torch::autograd::grad({f(inputs)}, wanted, grads, /*retain_graph=*/false,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    Tensors result{Tensor()};  // none for f
    for (size_t i = 0, n = 0; i < inputs.size(); ++i)
      result.push_back(inputs[i].requires_grad() ? found[n++] : Tensor());
    return result;
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(Function function) : f(std::move(function)) {}
    Function f;
  };
};

// q [B, S, H, h], k [B, N, K, h] -> q kᵀ / sqrt(h) [B, H, S, N] in float (double for double).
Tensor scores_of(const Tensor& q, const Tensor& k) {
  const int64_t B = q.size(0), S = q.size(1), H = q.size(2), h = q.size(3), N = k.size(1), K = k.size(2);
  const Tensor rows = q.transpose(1, 2).reshape({B, K, H / K * S, h});  // the heads that share a kv head: more rows
  const Tensor scores = torch::matmul(rows, k.permute({0, 2, 3, 1})).view({B, H, S, N});
  return scores.to(q.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32) /
         std::sqrt(static_cast<double>(h));
}

// weights [B, H, S, N], v [B, N, K, h] -> [B, S, H, h]
Tensor values_of(const Tensor& weights, const Tensor& v) {
  const int64_t B = weights.size(0), H = weights.size(1), S = weights.size(2), N = weights.size(3), K = v.size(2),
                h = v.size(3);
  const Tensor sums = torch::matmul(weights.reshape({B, K, H / K * S, N}), v.transpose(1, 2));
  return sums.view({B, H, S, h}).transpose(1, 2);
}

Tensor where_visible(const Tensor& visible, torch::ScalarType dtype) {  // 0 where it is, else -inf
  return torch::zeros(visible.sizes(), visible.options().dtype(dtype))
      .masked_fill_(visible.logical_not(), -std::numeric_limits<float>::infinity());
}

}  // namespace

int64_t RowLayout::predicted_token(int64_t row) const {
  return row / period * chunk + std::max<int64_t>(0, row % period - prefix + 1);
}

RowLayout row_layout(const Spec& spec) {
  if (spec.trunk) return {};
  const LevelSpec& level = spec.level(1);
  const bool is_stream = level.decoder.span.kind == Span::Kind::stream;
  const int64_t R = level.converter_len, C = level.chunk_size;
  return {.period = is_stream ? R + C : R + C - 1, .prefix = R, .chunk = C, .group_tokens = spec.group_tokens()};
}

Tensor attend_and_remember(const Tensor& q, const Tensor& q_rotated, const Tensor& k, const Tensor& v, const Span& span,
                           const RowLayout& layout, const std::vector<Remembered>& memories) {
  const int64_t B = q.size(0), S = q.size(1), H = q.size(2);
  const auto dtype = q.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  const auto integers = q.options().dtype(torch::kInt64);
  std::vector<int64_t> visible_tokens, predicted;
  for (int64_t s = 0; s < S; ++s) {
    visible_tokens.push_back(layout.visible_tokens(s));
    predicted.push_back(layout.predicted_token(s));
  }
  const Tensor visible = torch::tensor(visible_tokens, torch::kInt64).to(q.device());
  const Tensor target = torch::tensor(predicted, torch::kInt64).to(q.device());

  int64_t most = S;  // scores of a row
  for (const Remembered& m : memories) most += m.k.size(1);
  constexpr int64_t scores_at_once = int64_t{1} << 22;
  const int64_t groups = std::max<int64_t>(1, scores_at_once / (B * H * most) / layout.period);
  const int64_t piece = layout.period * groups;

  std::vector<Tensor> parts;
  for (int64_t from = 0; from < S; from += piece) {
    const int64_t n = std::min(piece, S - from);
    // The own span: positions of the piece, and before it as far as the first row sees.
    const bool grouped = span.kind == Span::Kind::chunk;
    const int64_t first = grouped ? from : std::min(from, ops::first_visible(span, from));
    const Tensor row = torch::arange(from, from + n, integers).unsqueeze(1),
                 key = torch::arange(first, from + n, integers);
    Tensor seen = key <= row;
    if (grouped)
      seen = seen & (key.div(layout.period, "floor") == row.div(layout.period, "floor"));
    else if (span.has_size())
      seen = seen & (key > row - span.size);
    std::vector<Tensor> masks{where_visible(seen, dtype)}, log_distances;
    Tensors inputs{q.narrow(1, from, n), q_rotated.narrow(1, from, n), k.narrow(1, first, from + n - first),
                   v.narrow(1, first, from + n - first)};
    std::vector<Remembered> remembered;
    for (const Remembered& m : memories) {
      const int64_t entries = visible_tokens[static_cast<size_t>(from + n - 1)] / m.entry_tokens;
      if (entries == 0) continue;
      const Tensor entry = torch::arange(entries, integers);
      const Tensor shown = visible.narrow(0, from, n).unsqueeze(1);
      masks.push_back(where_visible((entry + 1) * m.entry_tokens <= shown, dtype));
      const Tensor distance = (target.narrow(0, from, n).unsqueeze(1) - entry).clamp_min(0);
      log_distances.push_back(m.rate.defined() ? distance.to(dtype).log1p() : Tensor());
      remembered.push_back(m);
      inputs.insert(inputs.end(), {m.k.narrow(1, 0, entries), m.v.narrow(1, 0, entries), m.offset});
      if (m.rate.defined()) inputs.push_back(m.rate);
    }
    const auto attend = [remembered, masks, log_distances, H, dtype](const Tensors& in) {
      std::vector<Tensor> scores{scores_of(in[1], in[2]) + masks[0]}, values{in[3]};
      std::vector<int64_t> widths{in[2].size(1)};
      for (size_t m = 0, i = 4; m < remembered.size(); ++m) {
        const Tensor &keys = in[i++], &of_keys = in[i++], &offset = in[i++];
        Tensor bias = offset.to(dtype).view({H, 1, 1}) + masks[m + 1];  // [H, n, entries]
        if (remembered[m].rate.defined()) bias = bias - in[i++].to(dtype).view({H, 1, 1}) * log_distances[m];
        scores.push_back(scores_of(remembered[m].rotated ? in[1] : in[0], keys) + bias);
        values.push_back(of_keys);
        widths.push_back(keys.size(1));
      }
      const Tensor weights = torch::softmax(torch::cat(scores, -1), -1).to(in[0].scalar_type());
      const auto each = weights.split_with_sizes(widths, -1);
      Tensor sum = values_of(each[0], values[0]);
      for (size_t m = 1; m < values.size(); ++m) sum = sum + values_of(each[m], values[m]);
      return sum;
    };
    parts.push_back(Recomputed::apply(Recomputed::Function(attend), inputs));
  }
  return torch::cat(parts, 1).reshape({B, S, H * q.size(3)});
}

}  // namespace photon
