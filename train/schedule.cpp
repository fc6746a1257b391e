// learning_rate(): warm-up, cosine, WSD; span_size().
#include "train/schedule.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "base/random.h"

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

std::int64_t span_size(const Recipe& recipe, std::int64_t step, std::int64_t pass) {
  const std::int64_t own = recipe.model.token_stack().span.size, least = recipe.batch.window_min;
  if (least == 0 || least == own) return own;
  constexpr std::uint64_t spans = 0x7370616e73;  // apart from what else draws from the run's seed
  const double u = Random(static_cast<std::uint64_t>(recipe.run.seed) ^ spans,
                          static_cast<std::uint64_t>(step * recipe.batch.accumulate + pass))
                       .uniform();
  const double drawn =
      static_cast<double>(least) * std::pow(static_cast<double>(own + 1) / static_cast<double>(least), u);
  return std::clamp(static_cast<std::int64_t>(drawn), least, own);
}

}  // namespace photon
