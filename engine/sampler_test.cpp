#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "engine/models_testing.h"

namespace photon {
namespace {

const std::vector<float> logits{1.0f, 3.0f, -2.0f, 3.0f, 0.5f, 2.0f};

std::map<std::int32_t, double> frequencies(const SamplerOptions& options, std::span<const std::int32_t> recent = {},
                                           std::int64_t draws = 20000) {
  Sampler sampler;
  std::map<std::int32_t, double> counts;
  for (std::int64_t p = 0; p < draws; ++p)
    counts[sampler.sample(options, logits, {.prompt = recent}, 0, p)] += 1.0 / static_cast<double>(draws);
  return counts;
}

TEST(Sampler, TemperatureZeroTakesTheLargestAndTheLowestIdOfEquals) {
  const auto got = frequencies({.temperature = 0}, {}, 50);
  EXPECT_EQ(got.size(), 1u);
  EXPECT_TRUE(got.contains(1));
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto got = frequencies({.temperature = temperature, .seed = 5});
    double total = 0;
    for (const float x : logits) total += std::exp(static_cast<double>(x) / temperature);
    for (std::int32_t token = 0; token < std::ssize(logits); ++token) {
      const double want = std::exp(static_cast<double>(logits[static_cast<std::size_t>(token)]) / temperature) / total;
      EXPECT_NEAR(got.contains(token) ? got.at(token) : 0, want, 0.015) << "token " << token << " at " << temperature;
    }
  }
}

TEST(Sampler, TopKKeepsTheLargest) {
  for (const auto& [token, share] : frequencies({.temperature = 3, .top_k = 3}))
    EXPECT_TRUE(token == 1 || token == 3 || token == 5) << token;
  EXPECT_EQ(frequencies({.temperature = 3, .top_k = 1}).size(), 1u);
  EXPECT_EQ(frequencies({.temperature = 3, .top_k = 100}).size(), logits.size());
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  // softmax: 1 and 3 have 0.38 each, 5 has 0.14, 0 has 0.05, 4 has 0.03
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 0.1}).size(), 1u);
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 0.7}).size(), 2u);
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 0.8}).size(), 3u);
  EXPECT_EQ(frequencies({.temperature = 1, .top_p = 1.0}).size(), logits.size());
}

TEST(Sampler, MinPIsRelativeToTheLargest) {
  EXPECT_EQ(frequencies({.temperature = 1, .min_p = 0.99}).size(), 2u);
  EXPECT_EQ(frequencies({.temperature = 1, .min_p = 0.36}).size(), 3u);  // e^-1 = 0.368
  EXPECT_EQ(frequencies({.temperature = 1, .min_p = 0.1}).size(), 4u);   // e^-2 = 0.135
}

TEST(Sampler, RepetitionPenaltyWeakensRecentTokensOnly) {
  const std::vector<std::int32_t> recent{1, 1, 2};
  const SamplerOptions options{.repetition_penalty = 4, .temperature = 0};
  Sampler sampler;
  EXPECT_EQ(sampler.sample(options, logits, {.prompt = recent}, 0, 0), 3);
  std::vector<std::int32_t> old(static_cast<std::size_t>(repetition_window) + 1, 4);
  old.front() = 1;
  EXPECT_EQ(sampler.sample(options, logits, {.prompt = old}, 0, 0), 1);  // left the window
  const auto plain = frequencies({.temperature = 1}),
             penalised = frequencies({.repetition_penalty = 3, .temperature = 1}, recent);
  EXPECT_LT(penalised.at(1), 0.5 * plain.at(1));
  EXPECT_LE(penalised.contains(2) ? penalised.at(2) : 0, plain.at(2));  // a negative logit is multiplied
}

// The token that greedy sampling takes, for each adjustment that decides alone.
std::int32_t greedy(SamplerOptions options, const TextSoFar& text) {
  options.temperature = 0;
  return Sampler().sample(options, logits, text, 0, 0);
}

TEST(Sampler, FrequencyAndPresencePenaltiesCountGeneratedTokensOnly) {
  const std::vector<std::int32_t> ones{1, 1}, both{1, 3, 1, 3};
  EXPECT_EQ(greedy({.frequency_penalty = 0.4}, {.prompt = ones}), 1);     // a prompt does not count
  EXPECT_EQ(greedy({.frequency_penalty = 0.1}, {.generated = ones}), 3);  // 2.8 against 3
  EXPECT_EQ(greedy({.frequency_penalty = 0.4}, {.generated = both}), 1);  // both 2.2
  EXPECT_EQ(greedy({.frequency_penalty = 0.6}, {.generated = both}), 5);  // both 1.8, 5 has 2
  EXPECT_EQ(greedy({.presence_penalty = 0.9}, {.generated = both}), 1);   // once, however often: 2.1
  EXPECT_EQ(greedy({.presence_penalty = 1.1}, {.generated = both}), 5);
  EXPECT_EQ(greedy({.frequency_penalty = -0.1}, {.generated = std::vector{3}}), 3);
  EXPECT_EQ(greedy({.frequency_penalty = 0.3}, {.generated = std::vector{1, 3}, .chunk = std::vector{1}}), 3);
  EXPECT_EQ(greedy({.presence_penalty = 0.5}, {.generated = std::vector{1}, .chunk = std::vector{3, 5}}), 1);
  Sampler again;  // counts do not stay behind
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(again.sample({.frequency_penalty = 0.4, .temperature = 0}, logits, {.generated = both}, 0, 0), 1);
}

TEST(Sampler, BiasIsAddedAfterThePenalties) {
  EXPECT_EQ(greedy({.logit_bias = {{2, 6.0}}}, {}), 2);
  EXPECT_EQ(greedy({.logit_bias = {{1, -100.0}, {3, -100.0}}}, {}), 5);
  EXPECT_EQ(greedy({.logit_bias = {{5, 0.7}, {5, 0.7}}}, {}), 5);
  // -2 · 2 + 7.5 = 3.5; biased first it would be (-2 + 7.5) / 2
  EXPECT_EQ(greedy({.repetition_penalty = 2, .logit_bias = {{2, 7.5}}}, {.prompt = std::vector{2}}), 2);
  const auto got = frequencies({.logit_bias = {{1, -100.0}}, .temperature = 1});
  EXPECT_FALSE(got.contains(1));
}

TEST(Sampler, ThePenaltiesOfDifferentPartsOfATextAreThoseOfTheWhole) {
  const auto text = random_tokens(100, std::ssize(logits), 3);
  const std::span all(text);
  const SamplerOptions options{.repetition_penalty = 1.7, .temperature = 1.5, .seed = 4};
  for (const std::size_t cut : {0u, 30u, 36u, 37u, 99u, 100u})
    for (std::int64_t p = 0; p < 50; ++p)
      EXPECT_EQ(Sampler().sample(options, logits, {.prompt = all.first(cut), .generated = all.subspan(cut)}, 0, p),
                Sampler().sample(options, logits, {.prompt = all}, 0, p));
}

TEST(Sampler, ATokenDependsOnSeedSequenceAndPositionAlone) {
  const SamplerOptions nine{.temperature = 2, .seed = 9}, ten{.temperature = 2, .seed = 10};
  Sampler a, b;
  int same_seed = 0, same_sequence = 0;
  for (std::int64_t p = 0; p < 200; ++p) {
    const std::int32_t token = a.sample(nine, logits, {}, 4, p);
    EXPECT_EQ(token, b.sample(nine, logits, {}, 4, p));
    same_seed += token == b.sample(ten, logits, {}, 4, p);
    same_sequence += token == b.sample(nine, logits, {}, 5, p);
  }
  for (std::int64_t p = 199; p >= 0; --p) EXPECT_EQ(a.sample(nine, logits, {}, 4, p), b.sample(nine, logits, {}, 4, p));
  EXPECT_LT(same_seed, 100);
  EXPECT_LT(same_sequence, 100);
}

TEST(Sampler, ExtremeButAllowedOptionsStillGiveAToken) {
  for (const double temperature : {1e-300, 1e-45, 1e9, 1e300})
    for (const double p : {1e-12, 1.0}) {
      const std::int32_t token =
          Sampler().sample({.temperature = temperature, .top_k = 3, .top_p = p, .min_p = 1.0}, logits, {}, 0, 0);
      EXPECT_TRUE(token == 1 || token == 3 || token == 5);
    }
}

TEST(Sampler, RefusesOptionsOutOfRangeByTheirName) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<SamplerOptions, std::string>> wrong{
      {{.temperature = -1}, "temperature"},
      {{.temperature = nan}, "temperature"},
      {{.temperature = inf}, "temperature"},
      {{.top_k = -1}, "top_k"},
      {{.top_p = 0}, "top_p"},
      {{.top_p = 1.01}, "top_p"},
      {{.top_p = nan}, "top_p"},
      {{.min_p = -0.1}, "min_p"},
      {{.min_p = 2}, "min_p"},
      {{.repetition_penalty = 0}, "repetition_penalty"},
      {{.repetition_penalty = nan}, "repetition_penalty"},
      {{.repetition_penalty = inf}, "repetition_penalty"},
      {{.frequency_penalty = nan}, "frequency_penalty"},
      {{.presence_penalty = -inf}, "presence_penalty"},
      {{.logit_bias = {{3, 1.0}, {-1, 1.0}}}, "logit_bias names token -1"},
      {{.logit_bias = {{3, inf}}}, "logit_bias of token 3 is inf"}};
  for (const auto& [options, named] : wrong) {
    try {
      check(options);
      ADD_FAILURE() << named << " was accepted";
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(named), std::string::npos) << e.what();
    }
  }
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto broken = logits;
    broken[2] = bad;
    EXPECT_THROW(Sampler().sample({}, broken, {}, 0, 0), Error);
  }
}

}  // namespace
}  // namespace photon
