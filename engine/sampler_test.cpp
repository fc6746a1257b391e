#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "engine/test_models.h"

namespace photon {
namespace {

const std::vector<float> logits{1.0f, 3.0f, -2.0f, 3.0f, 0.5f, 2.0f};

std::map<std::int32_t, double> frequencies(const SamplerOptions& options, std::span<const std::int32_t> recent = {},
                                           std::int64_t draws = 20000) {
  Sampler sampler(options);
  std::map<std::int32_t, double> counts;
  for (std::int64_t p = 0; p < draws; ++p)
    counts[sampler.sample(logits, recent, 0, p)] += 1.0 / static_cast<double>(draws);
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
  Sampler sampler({.repetition_penalty = 4, .temperature = 0});
  EXPECT_EQ(sampler.sample(logits, recent, 0, 0), 3);
  std::vector<std::int32_t> old(static_cast<std::size_t>(repetition_window) + 1, 4);
  old.front() = 1;
  EXPECT_EQ(sampler.sample(logits, old, 0, 0), 1);  // left the window
  const auto plain = frequencies({.temperature = 1}),
             penalised = frequencies({.repetition_penalty = 3, .temperature = 1}, recent);
  EXPECT_LT(penalised.at(1), 0.5 * plain.at(1));
  EXPECT_LE(penalised.contains(2) ? penalised.at(2) : 0, plain.at(2));  // a negative logit is multiplied
}

TEST(Sampler, ATokenDependsOnSeedSequenceAndPositionAlone) {
  Sampler a({.temperature = 2, .seed = 9}), b({.temperature = 2, .seed = 9}), c({.temperature = 2, .seed = 10});
  int same_seed = 0, same_sequence = 0;
  for (std::int64_t p = 0; p < 200; ++p) {
    const std::int32_t token = a.sample(logits, {}, 4, p);
    EXPECT_EQ(token, b.sample(logits, {}, 4, p));
    same_seed += token == c.sample(logits, {}, 4, p);
    same_sequence += token == b.sample(logits, {}, 5, p);
  }
  for (std::int64_t p = 199; p >= 0; --p) EXPECT_EQ(a.sample(logits, {}, 4, p), b.sample(logits, {}, 4, p));
  EXPECT_LT(same_seed, 100);
  EXPECT_LT(same_sequence, 100);
}

TEST(Sampler, ExtremeButAllowedOptionsStillGiveAToken) {
  for (const double temperature : {1e-300, 1e-45, 1e9, 1e300})
    for (const double p : {1e-12, 1.0}) {
      Sampler sampler({.temperature = temperature, .top_k = 3, .top_p = p, .min_p = 1.0});
      const std::int32_t token = sampler.sample(logits, {}, 0, 0);
      EXPECT_TRUE(token == 1 || token == 3 || token == 5);
    }
}

TEST(Sampler, RefusesOptionsOutOfRangeByTheirFlag) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<SamplerOptions, std::string>> wrong{
      {{.temperature = -1}, "--temperature"},
      {{.temperature = nan}, "--temperature"},
      {{.temperature = inf}, "--temperature"},
      {{.top_k = -1}, "--top-k"},
      {{.top_p = 0}, "--top-p"},
      {{.top_p = 1.01}, "--top-p"},
      {{.top_p = nan}, "--top-p"},
      {{.min_p = -0.1}, "--min-p"},
      {{.min_p = 2}, "--min-p"},
      {{.repetition_penalty = 0}, "--repetition-penalty"},
      {{.repetition_penalty = nan}, "--repetition-penalty"},
      {{.repetition_penalty = inf}, "--repetition-penalty"}};
  for (const auto& [options, flag] : wrong) {
    try {
      check(options);
      ADD_FAILURE() << flag << " was accepted";
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(flag), std::string::npos) << e.what();
    }
  }
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  Sampler sampler({});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto broken = logits;
    broken[2] = bad;
    EXPECT_THROW(sampler.sample(broken, {}, 0, 0), Error);
  }
}

}  // namespace
}  // namespace photon
