// The public API: what comes out, when it ends, what it counts, and what it refuses.
#include "engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/reference.h"
#include "engine/test_models.h"

namespace photon {
namespace {

SamplerOptions greedy() { return {.temperature = 0}; }
SamplerOptions drawn() { return {.repetition_penalty = 1.2, .temperature = 1.0, .top_p = 0.95, .seed = 11}; }

class EveryEngine : public testing::TestWithParam<NamedSpec> {
 protected:
  EveryEngine() {
    set_onednn_rows(std::numeric_limits<std::int64_t>::max());
    set_threads(1);
  }
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group_tokens() const { return spec().chunk_tokens(spec().n_levels()); }
  std::vector<Protocol> protocols() const {
    return spec().n_levels() == 0 ? std::vector{Protocol::hiergen} : std::vector{Protocol::hiergen, Protocol::recgen};
  }
  TestModel folder{GetParam().spec};
  Engine engine{folder.path()};
};
INSTANTIATE_TEST_SUITE_P(Specs, EveryEngine, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(EveryEngine, GreedyHiergenTakesTheLikeliestTokenOfTheForwardPass) {
  const auto prompt = random_tokens(group_tokens() + 1, spec().vocab_size, 1);
  const Generation g = engine.generate(prompt, {.n_tokens = 20, .sampler = greedy(), .ignore_eos = true});
  auto all = prompt;
  all.insert(all.end(), g.tokens.begin(), g.tokens.end());
  ASSERT_EQ(std::ssize(g.tokens), 20);
  const auto logits = reference_logits(folder.path(), all);
  for (std::size_t i = prompt.size(); i < all.size(); ++i) {
    const double best = *std::ranges::max_element(logits[i]);
    EXPECT_NEAR(logits[i][static_cast<std::size_t>(all[i])], best, 1e-3) << "position " << i;
  }
}

TEST_P(EveryEngine, ExactlyAsManyTokensAsAskedForFromEveryPromptLength) {
  for (const Protocol protocol : protocols())
    for (std::int64_t n_prompt = 0; n_prompt <= group_tokens() + 1; ++n_prompt)
      for (const std::int64_t n : {std::int64_t{0}, std::int64_t{1}, group_tokens(), group_tokens() + 3}) {
        std::vector<std::int32_t> streamed;
        const Generation g =
            engine.generate(random_tokens(n_prompt, spec().vocab_size, 2),
                            {.n_tokens = n, .protocol = protocol, .sampler = drawn(), .ignore_eos = true},
                            [&](std::int32_t token) { return streamed.push_back(token), true; });
        EXPECT_EQ(std::ssize(g.tokens), n);
        EXPECT_EQ(streamed, g.tokens);
        EXPECT_EQ(g.stats.generated_tokens, n);
        EXPECT_EQ(g.stats.prompt_tokens, n_prompt);
        EXPECT_FALSE(g.stopped_at_eos);
      }
}

TEST_P(EveryEngine, ParallelAndOneByOneChunksGiveTheSameTokens) {
  if (spec().n_levels() == 0) return;
  for (const SamplerOptions& sampler : {greedy(), drawn()}) {
    GenerateOptions options{.n_tokens = 3 * group_tokens() + 2, .protocol = Protocol::recgen, .sampler = sampler};
    options.ignore_eos = true;
    const auto prompt = random_tokens(3, spec().vocab_size, 3);
    const auto parallel = engine.generate(prompt, options).tokens;
    options.one_by_one = true;
    EXPECT_EQ(engine.generate(prompt, options).tokens, parallel);
  }
}

TEST_P(EveryEngine, RecgenOfOneLevelIsHiergen) {
  if (spec().n_levels() != 1) return;
  for (const SamplerOptions& sampler : {greedy(), drawn()})
    for (const std::int64_t n_prompt : {0, 1, 4, 7}) {
      const auto prompt = random_tokens(n_prompt, spec().vocab_size, 4);
      GenerateOptions options{.n_tokens = 30, .sampler = sampler, .ignore_eos = true};
      const auto exact = engine.generate(prompt, options).tokens;
      options.protocol = Protocol::recgen;
      EXPECT_EQ(engine.generate(prompt, options).tokens, exact) << "prompt of " << n_prompt;
    }
}

TEST_P(EveryEngine, StatsEqualTheAccounting) {
  for (const Protocol protocol : protocols()) {
    const auto prompt = random_tokens(group_tokens() + 2, spec().vocab_size, 5);
    const GenerateStats s =
        engine
            .generate(prompt,
                      {.n_tokens = 4 * group_tokens(), .protocol = protocol, .sampler = drawn(), .ignore_eos = true})
            .stats;
    EXPECT_EQ(s.kv_bytes_growing + s.kv_bytes_constant, kv_bytes_allocated(spec(), protocol, s.context_tokens, 4));
    EXPECT_EQ(s.kv_bytes_constant, kv_bytes_constant(spec(), protocol, 4));
    EXPECT_GE(s.kv_bytes_peak, s.kv_bytes_growing + s.kv_bytes_constant);
    EXPECT_GT(s.decode_kv.bytes_read, 0);
    EXPECT_GT(s.decode_kv.bytes_written, 0);
    EXPECT_GT(s.decode_weight_bytes_read, 0);
    // The last token of hiergen is not consumed; recgen ends with whole groups.
    const std::int64_t total = s.prompt_tokens + s.generated_tokens;
    if (protocol == Protocol::hiergen)
      EXPECT_EQ(s.context_tokens, total - 1);
    else
      EXPECT_EQ(s.context_tokens, (total + group_tokens() - 1) / group_tokens() * group_tokens());
  }
}

TEST_P(EveryEngine, WeightBytesReadPerTokenAreNearTheAccounting) {
  for (const Protocol protocol : protocols()) {
    const GenerateStats s =
        engine
            .generate(random_tokens(group_tokens(), spec().vocab_size, 6),
                      {.n_tokens = 20 * group_tokens(), .protocol = protocol, .sampler = greedy(), .ignore_eos = true})
            .stats;
    const double got = static_cast<double>(s.decode_weight_bytes_read) / static_cast<double>(s.decode_tokens);
    // The accounting counts the projection of level-1 content as a look-up; hiergen's first token falls into the
    // prefill.
    EXPECT_NEAR(got, 4 * weights_read_per_token(spec(), protocol), 0.12 * got);
  }
}

TEST_P(EveryEngine, ScoreIsTheLogarithmOfTheSoftmax) {
  const auto tokens = random_tokens(2 * group_tokens() + 1, spec().vocab_size, 7);
  const auto logits = reference_logits(folder.path(), tokens);
  const Score score = engine.score(tokens);
  ASSERT_EQ(score.logprobs.size(), tokens.size());
  ASSERT_EQ(score.argmax.size(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    double total = 0;
    for (const double x : logits[i]) total += std::exp(x);
    EXPECT_NEAR(score.logprobs[i], logits[i][static_cast<std::size_t>(tokens[i])] - std::log(total), 2e-4);
    EXPECT_NEAR(logits[i][static_cast<std::size_t>(score.argmax[i])], *std::ranges::max_element(logits[i]), 1e-3);
  }
  EXPECT_TRUE(engine.score({}).logprobs.empty());
}

class TinyEngine : public testing::Test {
 protected:
  TestModel folder{tiny_spec("paper")};
  Engine engine{folder.path()};
};

TEST_F(TinyEngine, StopsAtEosAndLeavesItOut) {
  GenerateOptions options{.n_tokens = 400, .sampler = {.temperature = 2.0, .seed = 3}, .ignore_eos = true};
  const auto eos = static_cast<std::int32_t>(engine.spec().eos_token_id);
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
    options.protocol = protocol;
    options.ignore_eos = true;
    auto all = engine.generate({}, options).tokens;
    const auto first = std::ranges::find(all, eos);
    ASSERT_NE(first, all.end());
    options.ignore_eos = false;
    const Generation g = engine.generate({}, options);
    EXPECT_TRUE(g.stopped_at_eos);
    EXPECT_EQ(g.tokens, std::vector(all.begin(), first));
  }
}

TEST_F(TinyEngine, EndsWhenTheCallerHasEnough) {
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
    int calls = 0;
    const Generation g = engine.generate({}, {.n_tokens = 50, .protocol = protocol, .ignore_eos = true},
                                         [&](std::int32_t) { return ++calls < 7; });
    EXPECT_EQ(calls, 7);
    EXPECT_EQ(std::ssize(g.tokens), 7);
  }
}

TEST_F(TinyEngine, TheSeedDecides) {
  const auto with_seed = [&](std::uint64_t seed) {
    return engine.generate({}, {.n_tokens = 30, .sampler = {.temperature = 1, .seed = seed}, .ignore_eos = true})
        .tokens;
  };
  EXPECT_EQ(with_seed(1), with_seed(1));
  EXPECT_NE(with_seed(1), with_seed(2));
}

template <class Call>
void expect_refused(const Call& call, const std::string& named) {
  try {
    call();
    ADD_FAILURE() << "accepted, although " << named << " is wrong";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find(named), std::string::npos) << e.what();
  }
}

TEST_F(TinyEngine, RefusesWhatItCannotDoByName) {
  const std::vector<std::int32_t> beyond{1, 37}, negative{-1};
  expect_refused([&] { engine.generate(beyond, {}); }, "37");
  expect_refused([&] { engine.score(negative); }, "-1");
  expect_refused([&] { engine.generate({}, {.n_tokens = -1}); }, "-n");
  expect_refused([&] { engine.generate({}, {.sampler = {.temperature = -1}}); }, "--temperature");
  const TestModel vanilla(tiny_spec("vanilla"));
  Engine other(vanilla.path());
  expect_refused([&] { other.generate({}, {.protocol = Protocol::recgen}); }, "recgen");
}

TEST(LoadModel, ConvertsOnRequestAndNeverUnasked) {
  const TestModel f32(tiny_spec("block"), 1, DType::f32), b16(tiny_spec("block"), 1, DType::bf16);
  EXPECT_EQ(load_model(f32.path()).dtype, Weight::Type::f32);
  EXPECT_EQ(load_model(b16.path()).dtype, Weight::Type::bf16);
  const Model rounded = load_model(f32.path(), Weight::Type::bf16), stored = load_model(b16.path());
  const Model widened = load_model(b16.path(), Weight::Type::f32);
  for (std::int64_t r = 0; r < stored.lm_head.rows(); ++r)
    for (std::int64_t c = 0; c < stored.lm_head.cols(); ++c) {
      const auto i = static_cast<std::size_t>(c);
      EXPECT_EQ(rounded.lm_head.b16.row(r)[i], stored.lm_head.b16.row(r)[i]);
      EXPECT_EQ(widened.lm_head.f32.row(r)[i], to_float(stored.lm_head.b16.row(r)[i]));
    }
}

}  // namespace
}  // namespace photon
