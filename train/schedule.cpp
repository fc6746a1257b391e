// learning_rate(): warm-up, cosine, WSD.
#include "train/schedule.h"

#include <cassert>
#include <cmath>
#include <numbers>

namespace photon {

std::int64_t decay_steps(const Recipe& recipe) {
  const auto& [kind, warmup_steps, min_lr_ratio, decay_fraction] = recipe.schedule;
  return kind == ScheduleKind::cosine ? recipe.run.steps - warmup_steps
                                      : std::llround(decay_fraction * static_cast<double>(recipe.run.steps));
}

double learning_rate(const Recipe& recipe, std::int64_t step) {
  const auto& [kind, warmup_steps, min_lr_ratio, decay_fraction] = recipe.schedule;
  assert(1 <= step && step <= recipe.run.steps);
  const double peak = recipe.optimizer.lr;
  if (step <= warmup_steps) return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);

  const std::int64_t all = decay_steps(recipe), decayed = step - (recipe.run.steps - all);
  if (decayed <= 0) return peak;
  const double done = static_cast<double>(decayed) / static_cast<double>(all);  // in (0, 1]
  const double left =
      kind == ScheduleKind::cosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * done)) : 1.0 - std::sqrt(done);
  return peak * (min_lr_ratio + (1.0 - min_lr_ratio) * left);
}

}  // namespace photon
