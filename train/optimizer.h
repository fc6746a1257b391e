// AdamW with decoupled weight decay on matrices only, and the global gradient norm.
#pragma once

#include <string>
#include <vector>

#include "train/model.h"
#include "train/recipe.h"
#include "train/torch.h"

namespace photon {

/// Per parameter p with gradient g, at step t:  m = β₁m + (1-β₁)g,  v = β₂v + (1-β₂)g²,
///   p = (1 - lr·weight_decay·[p is a matrix])·p - lr · (m/(1-β₁ᵗ)) / (sqrt(v/(1-β₂ᵗ)) + eps).
/// States are float32.  On the CPU the bits do not depend on the number of threads.  Norm weights and the start latent
/// (one dimension) are not decayed.
class Optimizer {
 public:
  Optimizer(const Photon& model, const OptimizerRecipe& recipe);

  /// Forgets all gradients.
  void zero_grad();
  /// sqrt(Σ g²) over all parameters; may be infinite or NaN, which the caller must look at before step().
  double grad_norm() const;
  /// One update with the gradients scaled by `grad_scale`.
  void step(double lr, double grad_scale);

  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

  struct State {
    std::string name;               // of the parameter
    torch::Tensor parameter, m, v;  // of one shape, float32
  };
  const std::vector<State>& states() const { return states_; }

 private:
  OptimizerRecipe recipe_;
  std::vector<State> states_;
  std::int64_t steps_ = 0;
};

}  // namespace photon
