// Values of the learning rate schedules.
#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace photon {
namespace {

Recipe recipe_of(ScheduleKind kind) {
  Recipe recipe;
  recipe.run.steps = 100;
  recipe.optimizer.lr = 2.0;
  recipe.schedule = {.kind = kind, .warmup_steps = 10, .min_lr_ratio = 0.1, .decay_fraction = 0.2};
  return recipe;
}

TEST(LearningRate, WarmsUpLinearlyToThePeak) {
  for (const auto kind : {ScheduleKind::cosine, ScheduleKind::wsd})
    for (std::int64_t step = 1; step <= 10; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(recipe_of(kind), step), 2.0 * static_cast<double>(step) / 10.0);
}

TEST(LearningRate, CosineIsHalfwayInTheMiddleAndEndsAtItsMinimum) {
  const Recipe recipe = recipe_of(ScheduleKind::cosine);
  EXPECT_NEAR(learning_rate(recipe, 55), 0.5 * (2.0 + 0.2), 1e-12);
  EXPECT_NEAR(learning_rate(recipe, 100), 0.2, 1e-12);
  for (std::int64_t step = 11; step <= 100; ++step)
    EXPECT_LT(learning_rate(recipe, step), learning_rate(recipe, step - 1)) << step;
}

TEST(LearningRate, WsdIsConstantUntilTheLastFifthThenFallsAsOneMinusTheRoot) {
  const Recipe recipe = recipe_of(ScheduleKind::wsd);
  for (std::int64_t step = 10; step <= 80; ++step) EXPECT_EQ(learning_rate(recipe, step), 2.0) << step;
  EXPECT_NEAR(learning_rate(recipe, 85), 2.0 * (0.1 + 0.9 * (1 - std::sqrt(0.25))), 1e-12);
  EXPECT_NEAR(learning_rate(recipe, 100), 0.2, 1e-12);
}

TEST(LearningRate, NeitherWarmUpNorDecayAreNeeded) {
  Recipe recipe = recipe_of(ScheduleKind::wsd);
  recipe.schedule.warmup_steps = 0;
  recipe.schedule.decay_fraction = 0;
  for (const std::int64_t step : {1, 50, 100}) EXPECT_EQ(learning_rate(recipe, step), 2.0);
}

}  // namespace
}  // namespace photon
