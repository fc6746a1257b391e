// Causal attention within a span: every span becomes dense attention over short pieces.
#include "train/attention.h"

#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace photon {
namespace {

using torch::Tensor;

// q [B, H, S, h], k and v [B, K, N, h]; visible [S, N] or [B, 1, S, N] bool, undefined: causal with S = N.
#if TORCH_VERSION_MAJOR >= 2
Tensor dense(const Tensor& q, Tensor k, Tensor v, const Tensor& visible) {
  if (const int64_t shared = q.size(1) / k.size(1); shared > 1) {
    k = k.repeat_interleave(shared, 1);
    v = v.repeat_interleave(shared, 1);
  }
  return visible.defined() ? at::scaled_dot_product_attention(q, k, v, visible, /*dropout_p=*/0.0, /*is_causal=*/false)
                           : at::scaled_dot_product_attention(q, k, v, {}, /*dropout_p=*/0.0, /*is_causal=*/true);
}
#else
Tensor dense(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& visible) {
  const int64_t B = q.size(0), H = q.size(1), S = q.size(2), h = q.size(3), K = k.size(1), N = k.size(2);
  // The H/K query heads that share a kv head are more rows of the same product.
  Tensor scores = torch::matmul(q.reshape({B, K, H / K * S, h}), k.transpose(2, 3)).view({B, H, S, N});
  const auto softmax_dtype = q.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  scores = scores.to(softmax_dtype) / std::sqrt(static_cast<double>(h));
  const Tensor mask = visible.defined() ? visible : torch::ones({S, N}, q.options().dtype(torch::kBool)).tril();
  scores = scores.masked_fill(mask.logical_not(), -std::numeric_limits<float>::infinity());
  const Tensor weights = torch::softmax(scores, -1).to(q.scalar_type());
  return torch::matmul(weights.view({B, K, H / K * S, N}), v).view({B, H, S, h});
}
#endif

// x [B, S, N, h] -> [B·pieces, N, size, h], zero positions added at the end.
Tensor fold(const Tensor& x, int64_t size) {
  const int64_t B = x.size(0), S = x.size(1), pieces = (S + size - 1) / size;
  const Tensor padded = pieces * size == S ? x : torch::constant_pad_nd(x, {0, 0, 0, 0, 0, pieces * size - S});
  return padded.reshape({B * pieces, size, x.size(2), x.size(3)}).transpose(1, 2);
}

// The inverse of fold(): y [B·pieces, H, size, h] -> [B, S, H, h].
Tensor unfold(const Tensor& y, int64_t B, int64_t S) {
  return y.transpose(1, 2).reshape({B, -1, y.size(1), y.size(3)}).narrow(1, 0, S);
}

// Pieces of `size` positions, each seeing the piece before it and itself: the last `size` positions are among these.
Tensor windowed(const Tensor& q, const Tensor& k, const Tensor& v, int64_t size) {
  const int64_t B = q.size(0), S = q.size(1), pieces = (S + size - 1) / size;
  const auto with_previous = [&](const Tensor& x) {  // [B·pieces, K, size, h] -> [B·pieces, K, 2·size, h]
    const Tensor own = fold(x, size).view({B, pieces, x.size(2), size, x.size(3)});
    const Tensor before = torch::constant_pad_nd(own.narrow(1, 0, pieces - 1), {0, 0, 0, 0, 0, 0, 1, 0});
    return torch::cat({before, own}, 3).flatten(0, 1);
  };
  const auto options = q.options().dtype(torch::kInt64);
  const Tensor query = torch::arange(size, options).view({1, size, 1});
  const Tensor key =
      torch::arange(2 * size, options).view({1, 1, 2 * size});  // position minus the piece before's start
  const Tensor piece = torch::arange(pieces, options).view({pieces, 1, 1});
  const Tensor visible = (key > query) & (key <= query + size) & (piece * size + key >= size);
  const Tensor per_batch = visible.unsqueeze(1).repeat({B, 1, 1, 1});  // [B·pieces, 1, size, 2·size]
  return unfold(dense(fold(q, size), with_previous(k), with_previous(v), per_batch), B, S);
}

}  // namespace

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Span& span) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
                  q.size(1) == k.size(1) && q.size(2) % k.size(2) == 0 && q.size(3) == k.size(3),
              "attend: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  const int64_t B = q.size(0), S = q.size(1);
  const bool bounded = (span.kind == Span::Kind::window || span.kind == Span::Kind::stream) && span.size < S;
  if (bounded) return windowed(q, k, v, span.size);
  const int64_t piece = span.kind == Span::Kind::block ? std::min(span.size, S) : S;
  return unfold(dense(fold(q, piece), fold(k, piece), fold(v, piece), Tensor()), B, S);
}

}  // namespace photon
