// Forward and backward of each operation around the matrix products, plain LibTorch (/0) beside fused (/1), in the
// shapes of the 8 M parameter models: 4096 tokens a step, d_model 256, 8 heads of 32, d_ff 704, vocabulary 4096.
#include <benchmark/benchmark.h>

#include "train/ops.h"
#include "train/torch.h"

namespace photon {
namespace {

using torch::Tensor;

constexpr int64_t kTokens = 4096, kWidth = 256, kHeads = 8, kHeadDim = 32, kHidden = 704, kVocabulary = 4096;

Tensor leaf(std::vector<int64_t> shape, torch::ScalarType dtype) {
  return torch::randn(shape).to(dtype).requires_grad_();
}

template <class Function>
void run(benchmark::State& state, const std::vector<Tensor>& leaves, const Function& function) {
  ops::set_fused(state.range(0) != 0);
  const Tensor grad = torch::ones_like(function());
  for (auto _ : state) {
    function().backward(grad);
    for (const Tensor& x : leaves) x.mutable_grad().reset();
  }
  ops::set_fused(true);
}

// Positions of B sequences of S, all attended within the span.
void attention(benchmark::State& state, Span span, int64_t B, int64_t S) {
  StackSpec stack;
  stack.d_model = kWidth;
  stack.n_heads = stack.n_kv_heads = kHeads;
  stack.head_dim = kHeadDim;
  stack.span = span;
  const auto table = ops::rope_table(S, stack, torch::TensorOptions(torch::kFloat32));
  const Tensor qkv = leaf({B, S, 3 * kHeads * kHeadDim}, torch::kBFloat16);
  run(state, {qkv}, [&] { return ops::attention(qkv, table, stack); });
}
BENCHMARK_CAPTURE(attention, global, Span{Span::Kind::global, 0}, kTokens / 256, 256)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK_CAPTURE(attention, global_512, Span{Span::Kind::global, 0}, kTokens / 512, 512)
    ->Arg(0)
    ->Arg(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(attention, window_16, Span{Span::Kind::window, 16}, kTokens / 256, 64)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK_CAPTURE(attention, stream_64, Span{Span::Kind::stream, 64}, kTokens / 256, 320)
    ->Arg(0)
    ->Arg(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(attention, chunk, Span{Span::Kind::chunk, 0}, kTokens / 4, 7)->Arg(0)->Arg(1)->UseRealTime();

void cross_entropy(benchmark::State& state) {
  const Tensor logits = leaf({kTokens, kVocabulary}, torch::kBFloat16);
  const Tensor targets = torch::randint(kVocabulary, {kTokens}, torch::kInt64);
  run(state, {logits}, [&] { return ops::cross_entropy(logits, targets); });
}
BENCHMARK(cross_entropy)->Arg(0)->Arg(1)->UseRealTime();

void add_rms_norm(benchmark::State& state) {
  const Tensor x = leaf({kTokens, kWidth}, torch::kFloat32), y = leaf({kTokens, kWidth}, torch::kBFloat16);
  const Tensor weight = leaf({kWidth}, torch::kFloat32);
  run(state, {x, y, weight}, [&] {
    const ops::Normed n = ops::add_rms_norm(x, y, weight, 1e-5, torch::kBFloat16);
    return n.normed + n.sum;
  });
}
BENCHMARK(add_rms_norm)->Arg(0)->Arg(1)->UseRealTime();

void swiglu(benchmark::State& state) {
  const Tensor gate_up = leaf({kTokens, 2 * kHidden}, torch::kBFloat16);
  run(state, {gate_up}, [&] { return ops::swiglu(gate_up); });
}
BENCHMARK(swiglu)->Arg(0)->Arg(1)->UseRealTime();

}  // namespace
}  // namespace photon
