// Comparing two models: divergence, agreement and losses against the float64 reference, across slices and documents.
#include "eval/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "engine/runner_testing.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// What one document adds to a comparison, from the logits of both models' reference passes.
struct Expected {
  double n = 0, kl = 0, kl_squares = 0, kl_max = 0, agreement = 0, reference_nats = 0, model_nats = 0;

  void add(const TestModel& reference, const TestModel& model, std::span<const std::int32_t> tokens,
           std::size_t given) {
    const auto p = reference_logits(reference.path(), tokens), q = reference_logits(model.path(), tokens);
    for (std::size_t i = given; i < tokens.size(); ++i) {
      const auto logp = log_softmax(p[i]), logq = log_softmax(q[i]);
      double divergence = 0;
      for (std::size_t v = 0; v < logp.size(); ++v) divergence += std::exp(logp[v]) * (logp[v] - logq[v]);
      n += 1, kl += divergence, kl_squares += divergence * divergence, kl_max = std::max(kl_max, divergence);
      agreement += std::ranges::max_element(logp) - logp.begin() == std::ranges::max_element(logq) - logq.begin();
      reference_nats -= logp[static_cast<std::size_t>(tokens[i])];
      model_nats -= logq[static_cast<std::size_t>(tokens[i])];
    }
  }
};

class ComparisonOf : public testing::TestWithParam<NamedSpec> {
 protected:
  ComparisonOf() { set_threads(1); }  // tiny models are faster so
  TestModel reference_folder{GetParam().spec, 1}, model_folder{GetParam().spec, 2};
  Engine reference{reference_folder.path()}, model{model_folder.path()};
};
INSTANTIATE_TEST_SUITE_P(EverySpec, ComparisonOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(ComparisonOf, TwoModelsEqualsTheReferenceOverSlicesAndDocuments) {
  const std::int64_t n = GetParam().name == "three" ? 270 : 40;  // once more than a slice: the reference is slow
  const auto tokens = random_tokens(n, GetParam().spec.vocab_size, 3);
  const auto document = std::span(tokens).first(23);
  Comparer comparer(reference.runner(), model.runner());
  comparer.add(tokens);
  comparer.add(document, /*n_given=*/1);
  comparer.add({});
  const Comparison got = comparer.result();

  Expected want;
  want.add(reference_folder, model_folder, tokens, 0);
  want.add(reference_folder, model_folder, document, 1);
  EXPECT_EQ(got.n_tokens, n + 22);
  EXPECT_NEAR(got.kl, want.kl / want.n, 1e-3);
  EXPECT_GT(got.kl, 0.01);  // the models do differ
  EXPECT_NEAR(got.kl_max, want.kl_max, 2e-3);
  const double mean = want.kl / want.n;
  EXPECT_NEAR(got.kl_standard_error, std::sqrt((want.kl_squares / want.n - mean * mean) / (want.n - 1)), 1e-3);
  EXPECT_NEAR(got.top1_agreement, want.agreement / want.n, 1.5 / want.n);  // a tie may fall either way
  EXPECT_NEAR(got.reference_nats, want.reference_nats / want.n, 1e-4);
  EXPECT_NEAR(got.model_nats, want.model_nats / want.n, 1e-4);
}

TEST_P(ComparisonOf, PiecesOfASequenceIsScoringItAtOnceBitForBit) {
  const auto tokens = random_tokens(100, GetParam().spec.vocab_size, 5);
  const auto scored = [&](std::initializer_list<std::size_t> pieces) {
    Sequence sequence = model.runner().sequence();
    std::vector<float> all;
    std::span<const std::int32_t> rest = tokens;
    for (const std::size_t n : pieces) {
      score(model.runner(), sequence, rest.first(n), [&](std::int64_t position, std::span<const float> logits) {
        EXPECT_EQ(position * std::ssize(logits), std::ssize(all));
        all.insert(all.end(), logits.begin(), logits.end());
      });
      rest = rest.subspan(n);
    }
    return all;
  };
  EXPECT_EQ(scored({1, 2, 3, 0, 5, 31, 17, 41}), scored({100}));
}

TEST_P(ComparisonOf, AModelWithItselfIsExactlyNothing) {
  const auto tokens = random_tokens(40, GetParam().spec.vocab_size, 4);
  Comparer comparer(model.runner(), model.runner());
  comparer.add(tokens);
  const Comparison c = comparer.result();
  EXPECT_EQ(c.kl, 0);
  EXPECT_EQ(c.kl_max, 0);
  EXPECT_EQ(c.kl_standard_error, 0);
  EXPECT_EQ(c.top1_agreement, 1);
  EXPECT_EQ(c.model_nats, c.reference_nats);
  EXPECT_EQ(c.difference_standard_error, 0);
}

TEST(Comparison, OfNothingIsZero) {
  const TestModel folder(tiny_specs().front().spec);
  Engine engine(folder.path());
  Comparer comparer(engine.runner(), engine.runner());
  comparer.add(std::vector<std::int32_t>{1}, 1);
  EXPECT_EQ(comparer.result().n_tokens, 0);
  EXPECT_EQ(comparer.result().kl, 0);
}

TEST(Comparison, RefusesOtherVocabulariesAndForeignIds) {
  Spec spec = tiny_specs().front().spec;
  const TestModel folder(spec);
  spec.vocab_size += 1;
  const TestModel other(spec);
  Engine engine(folder.path()), larger(other.path());
  EXPECT_THROW(Comparer(engine.runner(), larger.runner()), InputError);
  Comparer comparer(engine.runner(), engine.runner());
  EXPECT_THROW(comparer.add(std::vector<std::int32_t>{1, -1}), InputError);
  EXPECT_THROW(comparer.add(std::vector<std::int32_t>{static_cast<std::int32_t>(spec.vocab_size) - 1}), InputError);
  EXPECT_EQ(comparer.result().n_tokens, 0);
}

}  // namespace
}  // namespace photon
