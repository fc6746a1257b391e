// The public API: what comes out, when it ends, what it counts, and what it refuses.
#include "engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "base/error.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "engine/runner_testing.h"
#include "kernels/kernels.h"
#include "spec/accounting.h"

namespace photon {
namespace {

Generation generate(Engine& engine, const std::vector<std::int32_t>& prompt, Request request,
                    const Engine::OnToken& on_token = {}, std::int64_t kv_budget_bytes = 0) {
  request.prompt = prompt;
  return engine.generate(request, on_token, kv_budget_bytes);
}

SamplerOptions greedy() { return {.temperature = 0}; }
SamplerOptions drawn() { return {.repetition_penalty = 1.2, .temperature = 1.0, .top_p = 0.95, .seed = 11}; }

class EveryEngine : public testing::TestWithParam<NamedSpec> {
 protected:
  EveryEngine() { set_threads(1); }
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group_tokens() const { return spec().group_tokens(); }
  std::vector<Protocol> protocols() const {
    return spec().n_levels() == 0 ? std::vector{Protocol::hiergen} : std::vector{Protocol::hiergen, Protocol::recgen};
  }
  TestModel folder{GetParam().spec};
  Engine engine{folder.path()};
};
INSTANTIATE_TEST_SUITE_P(Specs, EveryEngine, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(EveryEngine, GreedyHiergenTakesTheLikeliestTokenOfTheForwardPass) {
  const auto prompt = random_tokens(group_tokens() + 1, spec().vocab_size, 1);
  const Generation g = generate(engine, prompt, {.n_tokens = 20, .sampler = greedy(), .ignore_eos = true});
  auto all = prompt;
  all.insert(all.end(), g.tokens().begin(), g.tokens().end());
  ASSERT_EQ(std::ssize(g.tokens()), 20);
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
        const Generation g = generate(engine, random_tokens(n_prompt, spec().vocab_size, 2),
                                      {.n_tokens = n, .protocol = protocol, .sampler = drawn(), .ignore_eos = true},
                                      [&](std::size_t, std::int32_t token) { return streamed.push_back(token), true; });
        EXPECT_EQ(std::ssize(g.tokens()), n);
        EXPECT_EQ(streamed, g.tokens());
        EXPECT_EQ(g.stats.generated_tokens, n);
        EXPECT_EQ(g.stats.prompt_tokens, n_prompt);
        EXPECT_FALSE(g.continuations.front().stopped_at_eos);
      }
}

TEST_P(EveryEngine, ParallelAndOneByOneChunksGiveTheSameTokens) {
  if (spec().n_levels() == 0) return;
  for (const SamplerOptions& sampler : {greedy(), drawn()}) {
    Request options{.n_tokens = 3 * group_tokens() + 2, .protocol = Protocol::recgen, .sampler = sampler};
    options.ignore_eos = true;
    const auto prompt = random_tokens(3, spec().vocab_size, 3);
    const auto parallel = generate(engine, prompt, options).tokens();
    options.one_by_one = true;
    EXPECT_EQ(generate(engine, prompt, options).tokens(), parallel);
  }
}

TEST_P(EveryEngine, RecgenOfOneLevelIsHiergen) {
  if (spec().n_levels() != 1) return;
  for (const SamplerOptions& sampler : {greedy(), drawn()})
    for (const std::int64_t n_prompt : {0, 1, 4, 7}) {
      const auto prompt = random_tokens(n_prompt, spec().vocab_size, 4);
      Request options{.n_tokens = 30, .sampler = sampler, .ignore_eos = true};
      const auto exact = generate(engine, prompt, options).tokens();
      options.protocol = Protocol::recgen;
      EXPECT_EQ(generate(engine, prompt, options).tokens(), exact) << "prompt of " << n_prompt;
    }
}

TEST_P(EveryEngine, StatsEqualTheAccounting) {
  for (const Protocol protocol : protocols()) {
    const auto prompt = random_tokens(group_tokens() + 2, spec().vocab_size, 5);
    const Generation g = generate(
        engine, prompt, {.n_tokens = 4 * group_tokens(), .protocol = protocol, .sampler = drawn(), .ignore_eos = true});
    const RequestStats& s = g.stats;
    EXPECT_EQ(s.kv_bytes_growing + s.kv_bytes_constant,
              kv_bytes_allocated(spec(), protocol, s.context_tokens, DType::f32));
    EXPECT_EQ(s.kv_bytes_constant, kv_bytes_constant(spec(), protocol, DType::f32));
    EXPECT_GE(g.kv_bytes_peak, s.kv_bytes_growing + s.kv_bytes_constant);
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

// Sizes that fill whole panels, so that nothing is padded.
Spec whole_panels() {
  const StackSpec stack{.d_model = 32, .n_layers = 2, .n_heads = 2, .n_kv_heads = 2, .head_dim = 16, .d_ff = 64};
  StackSpec decoder = stack;
  decoder.span = {Span::Kind::chunk, 0};
  const LevelSpec first{4, 4, Chunker::concat, stack, decoder}, second{4, 2, Chunker::linear, stack, decoder};
  return {.vocab_size = 64, .d_embed = 8, .levels = {first, second}, .trunk = std::nullopt};
}

TEST(Engine, WeightBytesReadPerTokenAreThoseOfTheAccounting) {
  const TestModel folder(whole_panels());
  for (const auto& [type, bytes] : {std::pair{DType::f32, 4.0}, {DType::bf16, 2.0}}) {
    Engine engine(folder.path(), {.weights = type});
    for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
      const Request options{.n_tokens = 320, .protocol = protocol, .sampler = greedy(), .ignore_eos = true};
      const RequestStats s = generate(engine, random_tokens(16, 64, 6), options).stats;
      const double got = static_cast<double>(s.decode_weight_bytes_read) / static_cast<double>(s.decode_tokens);
      // The accounting counts norms, but the projection of level-1 content as a look-up; hiergen's first token falls
      // into the prefill.
      EXPECT_NEAR(got, bytes * weights_read_per_token(engine.spec(), protocol), 0.03 * got) << to_string(protocol);
    }
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
  Request options{.n_tokens = 400, .sampler = {.temperature = 2.0, .seed = 3}, .ignore_eos = true};
  const auto eos = static_cast<std::int32_t>(engine.spec().eos_token_id);
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
    options.protocol = protocol;
    options.ignore_eos = true;
    auto all = generate(engine, {}, options).tokens();
    const auto first = std::ranges::find(all, eos);
    ASSERT_NE(first, all.end());
    options.ignore_eos = false;
    const Generation g = generate(engine, {}, options);
    EXPECT_TRUE(g.continuations.front().stopped_at_eos);
    EXPECT_EQ(g.tokens(), std::vector(all.begin(), first));
  }
}

TEST_F(TinyEngine, EndsWhenTheCallerHasEnough) {
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
    int calls = 0;
    const Generation g = generate(engine, {}, {.n_tokens = 50, .protocol = protocol, .ignore_eos = true},
                                  [&](std::size_t, std::int32_t) { return ++calls < 7; });
    EXPECT_EQ(calls, 7);
    EXPECT_EQ(std::ssize(g.tokens()), 7);
  }
}

TEST_F(TinyEngine, TheSeedDecides) {
  const auto with_seed = [&](std::uint64_t seed) {
    return generate(engine, {}, {.n_tokens = 30, .sampler = {.temperature = 1, .seed = seed}, .ignore_eos = true})
        .tokens();
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
  expect_refused([&] { generate(engine, beyond, {}); }, "37");
  expect_refused([&] { engine.score(negative); }, "-1");
  expect_refused([&] { generate(engine, {}, {.n_tokens = -1}); }, "n_tokens is -1");
  expect_refused([&] { generate(engine, {}, {.sampler = {.temperature = -1}}); }, "temperature is -1");
  const TestModel vanilla(tiny_spec("vanilla"));
  Engine other(vanilla.path());
  expect_refused([&] { generate(other, {}, {.protocol = Protocol::recgen}); }, "recgen");
}

// Weights in the order of the panels, widened.
std::vector<float> packed(const PackedWeight& w) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < w.bytes() / (w.type == DType::f32 ? 4 : 2); ++i)
    values.push_back(w.type == DType::f32 ? reinterpret_cast<const float*>(w.panels)[i]
                                          : to_float(reinterpret_cast<const bf16*>(w.panels)[i]));
  return values;
}

TEST(LoadModel, ConvertsOnRequestAndNeverUnasked) {
  const TestModel f32(tiny_spec("block"), 1, DType::f32), b16(tiny_spec("block"), 1, DType::bf16);
  EXPECT_EQ(load_model(f32.path()).dtype, DType::f32);
  EXPECT_EQ(load_model(f32.path()).kv, DType::f32);
  const Model rounded = load_model(f32.path(), {.weights = DType::bf16}), stored = load_model(b16.path());
  EXPECT_EQ(stored.dtype, DType::bf16);
  EXPECT_EQ(stored.kv, DType::bf16);
  EXPECT_EQ(load_model(b16.path(), {.kv = DType::int8}).kv, DType::int8);
  EXPECT_EQ(packed(rounded.lm_head), packed(stored.lm_head));
  EXPECT_NE(packed(load_model(f32.path()).level(1).decoder.layers[0].gate_up),
            packed(load_model(b16.path(), {.weights = DType::f32}).level(1).decoder.layers[0].gate_up));
  std::vector<float> a(static_cast<std::size_t>(stored.spec.d_embed)), b = a;
  for (std::int64_t token = 0; token < stored.spec.vocab_size; ++token) {
    rounded.embedding(token, a), stored.embedding(token, b);
    EXPECT_EQ(a, b);
  }
}

// Logits of a sequence, one row after another.
std::vector<float> all_logits(Runner& runner, std::span<const std::int32_t> tokens) {
  std::vector<float> logits;
  Sequence sequence = runner.sequence();
  score(runner, sequence, tokens,
        [&](std::int64_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return logits;
}
std::vector<float> all_logits(Model model, std::span<const std::int32_t> tokens) {
  Runner runner(std::move(model));
  return all_logits(runner, tokens);
}

double relative_distance(std::span<const float> a, std::span<const float> b) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    error += std::pow(double(a[i]) - double(b[i]), 2), size += std::pow(b[i], 2);
  return std::sqrt(error / size);
}

TEST_P(EveryEngine, QuantisedWeightsAndCachesStayNear) {
  const auto tokens = random_tokens(2 * group_tokens() + 5, spec().vocab_size, 8);
  const auto exact = all_logits(engine.runner(), tokens);
  const auto distance = [&](const Precision& precision) {
    return relative_distance(all_logits(load_model(folder.path(), precision), tokens), exact);
  };
  EXPECT_LE(distance({.kv = DType::bf16}), 0.02);
  EXPECT_LE(distance({.kv = DType::int8}), 0.05);
  EXPECT_LE(distance({.weights = DType::bf16}), 0.05);
  EXPECT_LE(distance({.weights = DType::int8}), 0.1);
  EXPECT_LE(distance({.weights = DType::int4}), 0.9);
  EXPECT_GT(distance({.weights = DType::int4}), distance({.weights = DType::int8}));
}

TEST_P(EveryEngine, AContinuationIsTheSameWhateverTheirNumber) {
  for (const Protocol protocol : protocols())
    for (const std::int64_t n_prompt : {std::int64_t{0}, group_tokens() - 1, group_tokens() + 1}) {
      const auto prompt = random_tokens(n_prompt, spec().vocab_size, 9);
      Request options{.n_tokens = 2 * group_tokens() + 3, .protocol = protocol, .sampler = drawn()};
      options.ignore_eos = false;
      options.n_continuations = 4;
      std::vector<std::vector<std::int32_t>> streamed(4);
      const Generation four = generate(engine, prompt, options, [&](std::size_t i, std::int32_t token) {
        return streamed[i].push_back(token), true;
      });
      ASSERT_EQ(four.continuations.size(), 4u);
      for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(streamed[i], four.continuations[i].tokens);
      EXPECT_NE(streamed[0], streamed[1]);
      options.n_continuations = 2;
      const Generation two = generate(engine, prompt, options);
      EXPECT_EQ(two.continuations[0].tokens, streamed[0]);
      EXPECT_EQ(two.continuations[1].tokens, streamed[1]);
    }
}

TEST_P(EveryEngine, ContinuationsShareThePagesOfTheirPrompt) {
  const std::int64_t n = 40 * group_tokens();
  Request options{.n_tokens = 1, .sampler = drawn(), .ignore_eos = true};
  options.n_continuations = 3;
  const RequestStats s = generate(engine, random_tokens(n, spec().vocab_size, 10), options).stats;
  EXPECT_EQ(s.kv_bytes_constant, 3 * kv_bytes_constant(spec(), Protocol::hiergen, DType::f32));
  EXPECT_EQ(s.kv_bytes_growing, kv_bytes_allocated(spec(), Protocol::hiergen, n, DType::f32) -
                                    kv_bytes_constant(spec(), Protocol::hiergen, DType::f32));
}

TEST_F(TinyEngine, RefusesWhatDoesNotFitWithBothNumbers) {
  Request options{.n_tokens = 100'000};
  const std::int64_t budget = 1'000'000;
  expect_refused([&] { generate(engine, {}, options, {}, budget); }, "0.001 GB");
  options.n_tokens = 10;
  EXPECT_NO_THROW(generate(engine, {}, options, {}, budget));
  options.n_continuations = 1'000'000;
  expect_refused([&] { generate(engine, {}, options, {}, budget); }, "1000000 continuations");
  options.n_continuations = 0;
  expect_refused([&] { generate(engine, {}, options); }, "n_continuations");
  expect_refused([&] { generate(engine, {}, {.n_tokens = max_context + 1}); }, "longest context");
}

TEST_P(EveryEngine, DamagedWeightsAreAnErrorUnderEveryProtocol) {
  std::fstream file(folder.path() / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  std::uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), sizeof header);
  const auto payload = static_cast<std::streamoff>(sizeof header + header);
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(folder.path() / "model.safetensors"));
  file.seekp(payload);
  file << std::string(static_cast<std::size_t>(size - payload), '\xff');  // NaNs
  file.close();
  Engine damaged(folder.path());
  for (const Protocol protocol : protocols())
    for (const std::int64_t n_prompt : {std::int64_t{0}, group_tokens() + 1}) try {
        generate(damaged, random_tokens(n_prompt, spec().vocab_size, 1), {.n_tokens = 3, .protocol = protocol});
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("not finite"), std::string::npos) << error.what();
      }
}

TEST(RandomModel, IsAFunctionOfItsSeed) {
  const Spec spec = tiny_spec("paper");
  const auto tokens = random_tokens(9, spec.vocab_size, 1);
  const auto one = all_logits(random_model(spec, {.weights = DType::int8}, 1), tokens);
  EXPECT_EQ(all_logits(random_model(spec, {.weights = DType::int8}, 1), tokens), one);
  EXPECT_NE(all_logits(random_model(spec, {.weights = DType::int8}, 2), tokens), one);
  for (const float x : one) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace photon
