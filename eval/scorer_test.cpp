// Properties of scorers: what is scored after a shared context is what the whole sequence gets.
#include "eval/scorer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/models_testing.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

class ScorerOf : public testing::TestWithParam<NamedSpec> {
 protected:
  void SetUp() override { set_threads(1); }

  TestModel folder{GetParam().spec, /*seed=*/3};
  Engine engine{folder.path()};
};

INSTANTIATE_TEST_SUITE_P(Zoo, ScorerOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(ScorerOf, ContinuationsAfterASharedContextAreScoredAsWholeSequencesBitForBit) {
  Scorer scorer(engine.runner(), Protocol::hiergen);
  for (const std::int64_t n_context : {0, 1, 2, 3, 5, 8, 15, 16, 17, 70}) {
    const auto context = random_tokens(n_context, GetParam().spec.vocab_size, 7);
    std::vector<std::vector<std::int32_t>> continuations;
    for (const std::int64_t n : {1, 4, 0, 33})
      continuations.push_back(random_tokens(n, GetParam().spec.vocab_size, 100 + static_cast<std::uint64_t>(n)));
    const auto scores = scorer.score(context, continuations);
    ASSERT_EQ(scores.size(), continuations.size());
    for (std::size_t c = 0; c < scores.size(); ++c) {
      std::vector<std::int32_t> whole = context;
      whole.insert(whole.end(), continuations[c].begin(), continuations[c].end());
      const Score want = engine.score(whole);
      ASSERT_EQ(scores[c].size(), continuations[c].size());
      for (std::size_t i = 0; i < scores[c].size(); ++i) {
        const std::size_t at = context.size() + i;
        EXPECT_EQ(scores[c][i].logprob, want.logprobs[at]) << n_context << " given, continuation " << c << " at " << i;
        EXPECT_EQ(scores[c][i].greedy, want.argmax[at] == whole[at]);
      }
    }
  }
}

TEST_P(ScorerOf, GreedyIsTheLikeliestTokenAndNoOther) {
  Scorer scorer(engine.runner(), Protocol::hiergen);
  const auto context = random_tokens(9, GetParam().spec.vocab_size, 8);
  std::vector<std::vector<std::int32_t>> all;
  for (std::int32_t token = 0; token < GetParam().spec.vocab_size; ++token) all.push_back({token});
  const auto scores = scorer.score(context, all);
  std::size_t best = 0;
  int n_greedy = 0;
  for (std::size_t token = 0; token < scores.size(); ++token) {
    n_greedy += scores[token][0].greedy;
    if (scores[token][0].logprob > scores[best][0].logprob) best = token;
  }
  EXPECT_EQ(n_greedy, 1);
  EXPECT_TRUE(scores[best][0].greedy);
}

TEST(Scorer, RefusesForeignIdsInContextAndContinuation) {
  const TestModel folder(tiny_specs().front().spec);
  Engine engine(folder.path());
  Scorer scorer(engine.runner(), Protocol::hiergen);
  const std::vector<std::int32_t> good{1}, bad{1, static_cast<std::int32_t>(engine.spec().vocab_size)};
  const std::vector<std::vector<std::int32_t>> one{good}, two{good, bad};
  EXPECT_THROW(scorer.score(bad, one), InputError);
  EXPECT_THROW(scorer.score(good, two), InputError);
  EXPECT_EQ(scorer.score(good, {}).size(), 0u);
}

}  // namespace
}  // namespace photon
