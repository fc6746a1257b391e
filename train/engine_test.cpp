// Two implementations of one model: what the engine scores is what LibTorch trains.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/generate.h"
#include "engine/runner_testing.h"
#include "kernels/kernels.h"
#include "train/export.h"
#include "train/specs_testing.h"

namespace photon {
namespace {

// Absolute, in float32: the two sum in different orders.
constexpr double largest_difference = 2e-4;

class EngineOf : public testing::TestWithParam<NamedSpec> {
 protected:
  void SetUp() override { set_threads(1); }  // matrices this small only lose by sharing

  TestModel folder{GetParam().spec, /*seed=*/5};
  const Spec& spec() const { return GetParam().spec; }
  int64_t group_tokens() const { return spec().group_tokens(); }

  // The largest |engine - LibTorch| over all logits of a sequence.
  double distance(Photon& trained, Runner& runner, int64_t T) const {
    torch::NoGradGuard no_grad;
    const auto tokens = random_tokens(T, spec().vocab_size, 11 + static_cast<uint64_t>(T));
    const auto ids = torch::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
    const torch::Tensor logits_of_training = trained.forward(ids).logits[0].contiguous();  // [T, V]
    const auto want = logits_of_training.accessor<float, 2>();
    Sequence sequence = runner.sequence();
    double largest = 0;
    int64_t visited = 0;
    score(runner, sequence, tokens, [&](int64_t position, std::span<const float> logits) {
      EXPECT_EQ(position, visited++);
      for (int64_t i = 0; i < want.size(1); ++i) {
        const double d = std::abs(double(logits[static_cast<size_t>(i)]) - double(want[position][i]));
        largest = d <= largest ? largest : d;  // a NaN stays
      }
    });
    EXPECT_EQ(visited, T);
    return largest;
  }
};

INSTANTIATE_TEST_SUITE_P(Zoo, EngineOf, testing::ValuesIn(spec_zoo()), testing::PrintToStringParamName());

TEST_P(EngineOf, EngineLogitsEqualTheTrainingModels) {
  const auto trained = load_model_folder(folder.path());
  Runner runner(load_model(folder.path()));
  for (const bool fused : {true, false}) {
    ops::set_fused(fused);
    for (const int64_t T : {int64_t{1}, group_tokens(), group_tokens() + 1, 3 * group_tokens() + 2, int64_t{90}})
      EXPECT_LE(distance(*trained, runner, T), largest_difference) << "T " << T << (fused ? ", fused" : ", plain");
  }
  ops::set_fused(true);
}

TEST_P(EngineOf, EngineLogProbabilitiesAreTheLoss) {
  torch::NoGradGuard no_grad;
  const auto trained = load_model_folder(folder.path());
  const auto tokens = random_tokens(45, spec().vocab_size, 3);
  const auto score = Engine(folder.path()).score(tokens);
  double nats = 0;
  for (const float logprob : score.logprobs) nats -= logprob;
  const auto ids = torch::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
  EXPECT_NEAR(nats / 45, trained->loss(ids).token.item<double>(), largest_difference);
}

TEST_P(EngineOf, EngineLoadsWhatTrainingSaves) {
  const Photon trained(spec(), {.seed = 5, .shake = true});
  save_model_folder(trained, folder.path(),
                    DType::f32);  // over the folder of TestModel, whose weights are the same
  const auto tokens = random_tokens(20, spec().vocab_size, 3);
  const auto first = TestModel(spec(), 5);
  EXPECT_EQ(Engine(folder.path()).score(tokens).logprobs, Engine(first.path()).score(tokens).logprobs);
}

}  // namespace
}  // namespace photon
