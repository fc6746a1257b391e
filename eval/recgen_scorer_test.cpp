// Properties of scoring under recgen: continuations have the likelihood that generation would give them.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "eval/scorer.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

class RecgenScorerOf : public testing::TestWithParam<NamedSpec> {
 protected:
  void SetUp() override { set_threads(1); }

  TestModel folder{GetParam().spec, /*seed=*/3};
  Engine engine{folder.path()};
};
INSTANTIATE_TEST_SUITE_P(Zoo, RecgenScorerOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

// After whole groups: the float64 reference of recgen.  Inside a group: hiergen first, recgen from the boundary on.
TEST_P(RecgenScorerOf, ScoresContinuationsAsItGeneratesThem) {
  const Spec& spec = GetParam().spec;
  if (spec.n_levels() == 0) {
    EXPECT_THROW(Scorer(engine.runner(), Protocol::recgen), InputError);
    return;
  }
  Scorer scorer(engine.runner(), Protocol::recgen);
  Scorer exact(engine.runner(), Protocol::hiergen);
  const std::int64_t T = spec.group_tokens();
  for (const std::int64_t n_context : {std::int64_t{0}, T, 2 * T, T - 1, T + 1}) {
    const auto context = random_tokens(n_context, spec.vocab_size, 7);
    const std::int64_t n_exact = (T - n_context % T) % T;
    std::vector<std::vector<std::int32_t>> continuations{{}, random_tokens(1, spec.vocab_size, 20)};
    for (const std::uint64_t seed : {21, 22})
      continuations.push_back(random_tokens(n_exact + T, spec.vocab_size, seed));
    const auto scores = scorer.score(context, continuations);
    const auto exact_scores = exact.score(context, continuations);
    EXPECT_TRUE(scores[0].empty());
    for (std::size_t c = 1; c < scores.size(); ++c) {
      ASSERT_EQ(scores[c].size(), continuations[c].size());
      for (std::size_t i = 0; i < scores[c].size() && static_cast<std::int64_t>(i) < n_exact; ++i)
        EXPECT_EQ(scores[c][i], exact_scores[c][i]) << n_context << " given, token " << i;
    }
    for (std::size_t c = 2; c < scores.size(); ++c) {
      std::vector<std::int32_t> before = context;
      const auto boundary = continuations[c].begin() + n_exact;
      before.insert(before.end(), continuations[c].begin(), boundary);
      const auto logits = reference_recgen_logits(folder.path(), before, std::span(boundary, continuations[c].end()));
      for (std::size_t i = 0; i < logits.size(); ++i) {
        const std::size_t at = static_cast<std::size_t>(n_exact) + i;
        double sum = 0;
        for (const double x : logits[i]) sum += std::exp(x);
        EXPECT_NEAR(static_cast<double>(scores[c][at].logprob),
                    logits[i][static_cast<std::size_t>(continuations[c][at])] - std::log(sum), 2e-4);
      }
    }
  }
}

TEST(RecgenScorer, RefusesForeignIds) {
  const TestModel folder(tiny_spec("paper"));
  Engine engine(folder.path());
  Scorer scorer(engine.runner(), Protocol::recgen);
  const std::vector<std::int32_t> good{1}, bad{-1};
  EXPECT_THROW(scorer.score(bad, {}), InputError);
  EXPECT_THROW(scorer.score(good, std::vector<std::vector<std::int32_t>>{good, bad}), InputError);
  EXPECT_EQ(scorer.score(good, {}).size(), 0u);
}

}  // namespace
}  // namespace photon
