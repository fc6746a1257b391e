// AdamW against its definition in float64.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/specs_testing.h"

namespace photon {
namespace {

TEST(Optimizer, StepsAsDefinedWithDecayOnMatricesOnly) {
  Photon model(spec_zoo().front().spec, {.seed = 1, .shake = true});
  const OptimizerRecipe recipe{.lr = 0, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.25};
  Optimizer optimizer(model, recipe);
  struct Expected {
    torch::Tensor p, m, v;  // float64
  };
  std::vector<Expected> expected;
  for (const auto& state : optimizer.states())
    expected.push_back({state.parameter.detach().to(torch::kFloat64), torch::zeros_like(state.m, torch::kFloat64),
                        torch::zeros_like(state.v, torch::kFloat64)});
  auto generator = at::detail::createCPUGenerator(7);
  for (int t = 1; t <= 3; ++t) {
    const double lr = 0.1 / t, scale = 0.5;
    optimizer.zero_grad();
    double squares = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      auto parameter = optimizer.states()[i].parameter;
      const auto grad = torch::randn(parameter.sizes(), generator);
      parameter.mutable_grad() = grad;
      const auto g = grad.to(torch::kFloat64) * scale;
      squares += grad.to(torch::kFloat64).square().sum().item<double>();
      auto& [p, m, v] = expected[i];
      m = 0.8 * m + 0.2 * g;
      v = 0.9 * v + 0.1 * g * g;
      const double decay = parameter.dim() == 2 ? 1 - lr * 0.25 : 1.0;
      p = decay * p - lr * (m / (1 - std::pow(0.8, t))) / ((v / (1 - std::pow(0.9, t))).sqrt() + 1e-3);
    }
    EXPECT_NEAR(optimizer.grad_norm(), std::sqrt(squares), 1e-6 * std::sqrt(squares));
    optimizer.step(lr, scale);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& state = optimizer.states()[i];
    EXPECT_TRUE(torch::allclose(state.parameter.detach().to(torch::kFloat64), expected[i].p, 1e-5, 1e-6)) << state.name;
    EXPECT_TRUE(torch::allclose(state.m.to(torch::kFloat64), expected[i].m, 1e-5, 1e-6)) << state.name;
    EXPECT_TRUE(torch::allclose(state.v.to(torch::kFloat64), expected[i].v, 1e-5, 1e-6)) << state.name;
  }
}

TEST(Optimizer, TheGradientNormShowsInfinitiesAndNaN) {
  Photon model(spec_zoo().front().spec);
  Optimizer optimizer(model, {});
  for (const auto& state : optimizer.states()) {
    auto parameter = state.parameter;
    parameter.mutable_grad() = torch::zeros(parameter.sizes());
  }
  auto grad = optimizer.states().back().parameter.grad();
  grad.view(-1)[3] = INFINITY;
  EXPECT_TRUE(std::isinf(optimizer.grad_norm()));
  grad.view(-1)[3] = NAN;
  EXPECT_TRUE(std::isnan(optimizer.grad_norm()));
}

}  // namespace
}  // namespace photon
