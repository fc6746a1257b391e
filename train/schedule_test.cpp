// Values of the learning rate schedules.
#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

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

Recipe windowed(std::int64_t own, std::int64_t least) {
  Recipe recipe;
  recipe.model.trunk.emplace();
  recipe.model.trunk->span = {Span::Kind::window, own};
  recipe.batch.window_min = least;
  recipe.run.seed = 7;
  return recipe;
}

TEST(SpanSize, IsTheModelsOwnUnlessASmallerOneIsAskedFor) {
  for (std::int64_t step = 1; step <= 20; ++step) {
    EXPECT_EQ(span_size(windowed(64, 0), step, 0), 64);
    EXPECT_EQ(span_size(windowed(64, 64), step, 0), 64);
  }
}

TEST(SpanSize, IsDrawnEvenlyInItsLogarithmAndOnceForEveryPass) {
  Recipe recipe = windowed(64, 4);
  recipe.batch.accumulate = 2;
  int below_16 = 0, differ = 0;
  std::set<std::int64_t> seen;
  constexpr int steps = 2000;
  for (std::int64_t step = 1; step <= steps; ++step) {
    const std::int64_t size = span_size(recipe, step, 0);
    EXPECT_EQ(size, span_size(recipe, step, 0));
    differ += size != span_size(recipe, step, 1);
    below_16 += size < 16;
    seen.insert(size);
  }
  EXPECT_EQ(*seen.begin(), 4);
  EXPECT_EQ(*seen.rbegin(), 64);
  EXPECT_NEAR(below_16, steps / 2, steps / 20) << "4 to 15 are as many octaves as 16 to 64";
  EXPECT_GT(differ, steps / 2);
  recipe.run.seed = 8;
  int other = 0;
  for (std::int64_t step = 1; step <= 100; ++step)
    other += span_size(recipe, step, 0) != span_size(windowed(64, 4), step, 0);
  EXPECT_GT(other, 50);
}

}  // namespace
}  // namespace photon
