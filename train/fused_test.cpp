// The fused operations and their gradients against plain LibTorch in float64 (their kernels:
// kernels/training_test.cpp).
#include "train/fused.h"

#include <gtest/gtest.h>
#include <torch/optim/adamw.h>

#include <functional>
#include <vector>

#include "train/torch.h"

namespace photon {
namespace {

using torch::Tensor;

Tensor random(std::vector<int64_t> shape, uint64_t seed, torch::ScalarType dtype = torch::kFloat32) {
  auto generator = at::detail::createCPUGenerator(seed);
  return torch::randn(shape, generator).to(dtype);
}

// The function's value and its gradients with respect to the inputs, for the gradient `weights` of the output.
struct Derivatives {
  Tensor value;
  std::vector<Tensor> gradients;
};
using Function = std::function<Tensor(const std::vector<Tensor>&)>;
Derivatives differentiate(const Function& function, const std::vector<Tensor>& inputs, const Tensor& weights) {
  std::vector<Tensor> leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_());
  const Tensor value = function(leaves);
  value.backward(weights.to(value.scalar_type()).expand_as(value).clone());
  Derivatives outcome{value.detach(), {}};
  for (const Tensor& leaf : leaves) outcome.gradients.push_back(leaf.grad());
  return outcome;
}

// |got - want| <= tolerance · (largest |want| + |want|); NaN fails.
void expect_close(const Tensor& got, const Tensor& want, double tolerance, const char* what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const Tensor wide = want.to(torch::kFloat64);
  const Tensor bound = tolerance * (wide.abs().max() + wide.abs());
  const Tensor error = (got.to(torch::kFloat64) - wide).abs();
  EXPECT_TRUE((error <= bound).all().item<bool>())
      << what << ": error " << error.max().item<double>() << ", largest " << wide.abs().max().item<double>();
}

// Fused in the inputs' dtype against the reference on the same numbers in float64.
void expect_same(const Function& fused, const Function& reference, const std::vector<Tensor>& inputs,
                 const Tensor& weights, double tolerance) {
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(input.to(torch::kFloat64));
  const Derivatives got = differentiate(fused, inputs, weights);
  const Derivatives want = differentiate(reference, wide, weights.to(torch::kFloat64));
  expect_close(got.value, want.value, tolerance, "value");
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(got.gradients[i].defined(), want.gradients[i].defined());
    if (!want.gradients[i].defined()) continue;
    EXPECT_EQ(got.gradients[i].scalar_type(), inputs[i].scalar_type());
    expect_close(got.gradients[i], want.gradients[i], tolerance, "gradient");
  }
}

double tolerance_of(torch::ScalarType dtype) { return dtype == torch::kBFloat16 ? 8e-3 : 2e-6; }
constexpr torch::ScalarType kDtypes[] = {torch::kFloat32, torch::kBFloat16};

TEST(Fused, RmsNormAndItsGradientsEqualTheReference) {
  for (const auto x_dtype : kDtypes) {
    for (const auto out_dtype : kDtypes) {
      for (const int64_t D : {1, 7, 16, 52, 256, 417}) {
        const Tensor x = random({3, 100, D}, 1, x_dtype), weight = random({D}, 2),
                     g = random({3, 100, D}, 3, out_dtype);
        const auto low = x_dtype == torch::kBFloat16 ? x_dtype : out_dtype;
        // D = 1 cancels to zero: only rounding is left of the gradient of x.
        if (D == 1) continue;
        expect_same([&](const auto& in) { return fused::rms_norm(in[0], in[1], 1e-5, out_dtype); },
                    [&](const auto& in) { return ops::reference::rms_norm(in[0], in[1], 1e-5, torch::kFloat64); },
                    {x, weight}, g, tolerance_of(low));
      }
    }
  }
}

TEST(Fused, AddRmsNormAndItsGradientsEqualTheReference) {
  for (const auto y_dtype : kDtypes) {
    for (const auto out_dtype : kDtypes) {
      for (const int64_t D : {7, 16, 52, 417}) {
        const Tensor x = random({150, D}, 1), y = random({150, D}, 2, y_dtype), weight = random({D}, 3);
        const Tensor g = random({150, 2 * D}, 4, out_dtype);
        const auto both = [](const ops::Normed& n) { return torch::cat({n.sum, n.normed.to(n.sum.scalar_type())}, 1); };
        const auto low = y_dtype == torch::kBFloat16 ? y_dtype : out_dtype;
        expect_same([&](const auto& in) { return both(fused::add_rms_norm(in[0], in[1], in[2], 1e-5, out_dtype)); },
                    [&](const auto& in) {
                      return both(ops::reference::add_rms_norm(in[0], in[1], in[2], 1e-5, torch::kFloat64));
                    },
                    {x, y, weight}, g, tolerance_of(low));
      }
    }
  }
}

TEST(Fused, AddRmsNormNeedsOnlyOneOfItsResults) {
  for (const bool use_sum : {false, true}) {
    const auto pick = [&](const ops::Normed& n) { return use_sum ? n.sum : n.normed; };
    expect_same(
        [&](const auto& in) { return pick(fused::add_rms_norm(in[0], in[1], in[2], 1e-5, torch::kFloat32)); },
        [&](const auto& in) { return pick(ops::reference::add_rms_norm(in[0], in[1], in[2], 1e-5, torch::kFloat64)); },
        {random({9, 20}, 1), random({9, 20}, 2), random({20}, 3)}, random({9, 20}, 4), 2e-6);
  }
}

TEST(Fused, LinearOfSeveralWeightsEqualsTheReference) {
  for (const auto dtype : kDtypes) {
    expect_same(
        [](const auto& in) {
          return ops::linear(in[0], {in[1], in[2], in[3]});
        },
        [](const auto& in) {
          return ops::reference::linear(in[0], {in[1], in[2], in[3]});
        },
        {random({4, 9, 33}, 1, dtype), random({5, 33}, 2), random({16, 33}, 3), random({1, 33}, 4)},
        random({4, 9, 22}, 5, dtype), tolerance_of(dtype));
  }
}

TEST(Fused, SwigluAndItsGradientEqualTheReference) {
  for (const auto dtype : kDtypes) {
    for (const int64_t F : {1, 15, 16, 17, 704}) {
      const Tensor gate_up = (random({2, 33, 2 * F}, 1) * 4).to(dtype), g = random({2, 33, F}, 2, dtype);
      expect_same([](const auto& in) { return fused::swiglu(in[0]); },
                  [](const auto& in) { return ops::reference::swiglu(in[0]); }, {gate_up}, g, tolerance_of(dtype));
    }
  }
}

TEST(Fused, CrossEntropyAndItsGradientEqualTheReference) {
  for (const auto dtype : kDtypes) {
    for (const int64_t V : {1, 5, 16, 100, 4099}) {
      const Tensor logits = (random({37, V}, 1) * 5).to(dtype);
      const Tensor targets = torch::remainder(torch::arange(37) * 7919, V);
      const auto low = dtype == torch::kBFloat16 ? 8e-3 : 1e-5;
      if (V == 1) {
        EXPECT_NEAR(fused::cross_entropy(logits, targets).item<double>(), 0.0, 1e-6);
        continue;
      }
      expect_same([&](const auto& in) { return fused::cross_entropy(in[0], targets); },
                  [&](const auto& in) { return ops::reference::cross_entropy(in[0], targets); }, {logits},
                  torch::tensor(2.5), low);
      EXPECT_NEAR(fused::cross_entropy(logits, targets).item<double>(),
                  ops::reference::cross_entropy(logits.to(torch::kFloat64), targets).item<double>(), 2e-6 * 12);
    }
  }
}

TEST(Fused, CrossEntropyRefusesATargetOutsideTheVocabulary) {
  const Tensor logits = torch::zeros({2, 5});
  EXPECT_THROW(fused::cross_entropy(logits, torch::tensor({0, 5}, torch::kInt64)), c10::Error);
  EXPECT_THROW(fused::cross_entropy(logits, torch::tensor({-1, 4}, torch::kInt64)), c10::Error);
}

StackSpec heads(int64_t H, int64_t K, int64_t h, Span span) {
  StackSpec stack;
  stack.n_heads = H;
  stack.n_kv_heads = K;
  stack.head_dim = h;
  stack.span = span;
  return stack;
}

void expect_same_attention(int64_t B, int64_t S, const StackSpec& stack, torch::ScalarType dtype) {
  SCOPED_TRACE(::testing::Message() << "B " << B << ", S " << S << ", H " << stack.n_heads << ", K " << stack.n_kv_heads
                                    << ", h " << stack.head_dim << ", " << to_string(stack.span) << ", " << dtype);
  const int64_t H = stack.n_heads, K = stack.n_kv_heads, h = stack.head_dim;
  const Tensor qkv = (random({B, S, (H + 2 * K) * h}, 1) * 1.5).to(dtype), g = random({B, S, H * h}, 2, dtype);
  const auto f32 = ops::rope_table(S + 3, stack, torch::TensorOptions(torch::kFloat32));
  const ops::RopeTable f64{f32.cos.to(torch::kFloat64), f32.sin.to(torch::kFloat64)};
  // bf16: queries, keys, weights and output are rounded, as in the eager reference.
  expect_same([&](const auto& in) { return fused::attention(in[0], f32, stack); },
              [&](const auto& in) { return ops::reference::attention(in[0], f64, stack); }, {qkv}, g,
              dtype == torch::kBFloat16 ? 1.5e-2 : 5e-6);
}

TEST(Fused, AttentionAndItsGradientEqualTheReferenceForEverySpan) {
  using Kind = Span::Kind;
  for (const auto dtype : kDtypes) {
    for (const Span span :
         {Span{Kind::global, 0}, Span{Kind::window, 1}, Span{Kind::window, 16}, Span{Kind::window, 70},
          Span{Kind::block, 4}, Span{Kind::block, 5}, Span{Kind::stream, 64}, Span{Kind::chunk, 0}}) {
      for (const int64_t S : {1, 2, 5, 33, 64, 150}) expect_same_attention(2, S, heads(2, 2, 8, span), dtype);
    }
  }
}

TEST(Fused, AttentionEqualsTheReferenceForEveryHeadShape) {
  for (const auto dtype : kDtypes) {
    for (const int64_t h : {1, 2, 3, 13, 16, 32, 52, 64, 80}) {
      expect_same_attention(1, 70, heads(4, 2, h, {Span::Kind::global, 0}), dtype);
      expect_same_attention(1, 70, heads(6, 1, h, {Span::Kind::window, 9}), dtype);
    }
  }
}

TEST(Fused, AttentionJoinsShortSequencesWithoutMixingThem) {
  for (const auto dtype : kDtypes) {
    for (int64_t S = 1; S <= 17; ++S) {
      for (const int64_t B : {1, 2, 7, 50}) {
        expect_same_attention(B, S, heads(2, 1, 12, {Span::Kind::chunk, 0}), dtype);
      }
    }
  }
}

TEST(Fused, AttentionOfLongSequencesEqualsTheReference) {
  expect_same_attention(1, 700, heads(1, 1, 32, {Span::Kind::global, 0}), torch::kBFloat16);
  expect_same_attention(1, 700, heads(1, 1, 32, {Span::Kind::window, 200}), torch::kFloat32);
}

TEST(Fused, AttentionGradientEqualsFiniteDifferences) {
  const auto stack = heads(2, 1, 4, {Span::Kind::window, 3});
  const auto table = ops::rope_table(6, stack, torch::TensorOptions(torch::kFloat32));
  const Tensor g = random({1, 6, 8}, 1), at = random({1, 6, 16}, 2);
  const auto value = [&](const Tensor& qkv) { return (fused::attention(qkv, table, stack) * g).sum(); };
  const Tensor leaf = at.clone().requires_grad_();
  value(leaf).backward();
  constexpr double step = 1e-2;
  for (int64_t i = 0; i < at.numel(); ++i) {
    Tensor above = at.clone(), below = at.clone();
    above.view(-1)[i] += step;
    below.view(-1)[i] -= step;
    const double slope = (value(above) - value(below)).item<double>() / (2 * step);
    EXPECT_NEAR(leaf.grad().view(-1)[i].item<double>(), slope, 2e-3) << i;
  }
}

TEST(Fused, AttentionNeverLooksAhead) {
  using Kind = Span::Kind;
  for (const Span span : {Span{Kind::global, 0}, Span{Kind::window, 7}, Span{Kind::block, 5}}) {
    for (const auto dtype : kDtypes) {
      const auto stack = heads(2, 2, 8, span);
      const auto table = ops::rope_table(100, stack, torch::TensorOptions(torch::kFloat32));
      for (const int64_t p : {0, 31, 32, 63, 64, 99}) {
        const Tensor qkv = random({1, 100, 48}, 1, dtype).requires_grad_();
        Tensor changed = qkv.detach().clone();
        changed[0][p] += 1;
        const Tensor y = fused::attention(qkv, table, stack), z = fused::attention(changed, table, stack);
        EXPECT_TRUE(torch::equal(y.narrow(1, 0, p), z.narrow(1, 0, p)));
        EXPECT_FALSE(torch::equal(y.select(1, p), z.select(1, p)));
        y.select(1, p).sum().backward();
        EXPECT_EQ(qkv.grad().narrow(1, p + 1, 99 - p).count_nonzero().item<int64_t>(), 0);
        qkv.mutable_grad().reset();
      }
    }
  }
}

TEST(Fused, ResultsDoNotDependOnTheThreads) {
  const auto stack = heads(4, 2, 52, {Span::Kind::window, 40});
  const auto table = ops::rope_table(150, stack, torch::TensorOptions(torch::kFloat32));
  const std::vector<Tensor> inputs = {random({2, 150, 416}, 1, torch::kBFloat16), random({1000, 96}, 2),
                                      random({96}, 3), random({500, 333}, 4)};
  const Tensor targets = torch::arange(500).remainder(333);
  const auto run = [&](const std::vector<Tensor>& in) {
    return fused::attention(in[0], table, stack).to(torch::kFloat32).square().sum() +
           fused::rms_norm(in[1], in[2], 1e-5, torch::kFloat32).pow(3).sum() + fused::swiglu(in[1]).square().sum() +
           fused::cross_entropy(in[3], targets);
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Derivatives alone = differentiate(run, inputs, torch::tensor(1.0));
  at::set_num_threads(3);
  const Derivatives shared = differentiate(run, inputs, torch::tensor(1.0));
  at::set_num_threads(threads);
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(torch::equal(alone.gradients[i], shared.gradients[i])) << i;
}

TEST(Fused, AdamwStepsAsLibTorchDoes) {
  Tensor param = random({37, 11}, 1);
  Tensor ours = param.clone(), m = torch::zeros_like(ours), v = torch::zeros_like(ours);
  param.requires_grad_();
  const auto options = torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).eps(1e-8).weight_decay(0.1);
  torch::optim::AdamW optimizer({param}, options);
  for (int64_t step = 1; step <= 5; ++step) {
    const Tensor grad = random({37, 11}, 10 + static_cast<uint64_t>(step));
    param.mutable_grad() = grad * 0.5;
    optimizer.step();
    fused::adamw(ours, grad, m, v, {1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, step});
    expect_close(ours, param.detach(), 1e-6, "param");
  }
}

TEST(Fused, NormIsOfAllElements) {
  const std::vector<Tensor> gradients = {random({300, 301}, 1), random({7}, 2)};
  const Tensor all = torch::cat({gradients[0].flatten(), gradients[1]}).to(torch::kFloat64);
  EXPECT_NEAR(fused::norm(gradients), all.norm().item<double>(), 1e-5 * all.norm().item<double>());
}

}  // namespace
}  // namespace photon
