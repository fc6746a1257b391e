// AdamW over the model's parameters: one fused pass on the CPU, LibTorch operations elsewhere.
#include "train/optimizer.h"

#include <cmath>

#include "train/fused.h"

namespace photon {

Optimizer::Optimizer(const Photon& model, const OptimizerRecipe& recipe) : recipe_(recipe) {
  for (const auto& [name, parameter] : model.weights())
    states_.push_back({name, parameter, torch::zeros_like(parameter.detach()), torch::zeros_like(parameter.detach())});
}

void Optimizer::zero_grad() {
  for (State& state : states_) state.parameter.mutable_grad().reset();
}

double Optimizer::grad_norm() const {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> gradients;
  for (const State& state : states_)
    if (state.parameter.grad().defined()) gradients.push_back(state.parameter.grad().contiguous());
  if (gradients.empty()) return 0.0;
  if (gradients.front().is_cpu()) return fused::norm(gradients);
  std::vector<torch::Tensor> norms;
  for (const torch::Tensor& gradient : gradients) norms.push_back(gradient.norm());
  return torch::stack(norms).norm().item<double>();
}

void Optimizer::step(double lr, double grad_scale) {
  torch::NoGradGuard no_grad;
  const auto t = static_cast<double>(++steps_);
  for (auto& [name, parameter, m, v] : states_) {
    if (!parameter.grad().defined()) continue;
    const torch::Tensor grad = parameter.grad().contiguous();
    const double weight_decay = parameter.dim() >= 2 ? recipe_.weight_decay : 0.0;
    if (grad.is_cpu()) {
      torch::Tensor values = parameter.detach();
      fused::adamw(values, grad, m, v,
                   {lr, recipe_.beta1, recipe_.beta2, recipe_.eps, weight_decay, grad_scale, steps_});
      continue;
    }
    const torch::Tensor scaled = grad * grad_scale;
    m.mul_(recipe_.beta1).add_(scaled, 1.0 - recipe_.beta1);
    v.mul_(recipe_.beta2).addcmul_(scaled, scaled, 1.0 - recipe_.beta2);
    const torch::Tensor root = (v / (1.0 - std::pow(recipe_.beta2, t))).sqrt_().add_(recipe_.eps);
    parameter.mul_(1.0 - lr * weight_decay).addcdiv_(m, root, -lr / (1.0 - std::pow(recipe_.beta1, t)));
  }
}

}  // namespace photon
