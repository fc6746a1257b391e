// Continuous batching: what comes out does not depend on company or cuts, and nobody is stalled.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "engine/generate.h"
#include "engine/requests_testing.h"

namespace photon {
namespace {

INSTANTIATE_TEST_SUITE_P(Specs, EveryScheduler, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(EveryScheduler, ARequestIsTheSameAloneAndInABatchOfManyWhateverTheSliceAndTheCache) {
  for (const auto& [weights, kv] :
       {std::pair{DType::f32, DType::f32}, {DType::int8, DType::bf16}, {DType::int4, DType::int8}}) {
    Runner runner(load_model(folder.path(), {.weights = weights, .kv = kv}));
    Random random(7);
    std::vector<Request> requests;
    std::vector<Recorder> want;
    for (int i = 0; i < 10; ++i) {
      requests.push_back(random_request(spec(), random, 2 * group() + 40));
      want.push_back(alone(runner, requests.back()));
      ASSERT_EQ(want.back().error, "");
    }
    for (const bool prefix_cache : {false, true})
      for (const std::int64_t slice : {weights == DType::f32 ? 2 : 7, 100}) {
        SchedulerOptions options = plain();
        options.prefix_cache = prefix_cache;
        options.prefill_tokens_per_step = slice;
        RecordedScheduler scheduler(runner, options);
        std::deque<Recorder> got(32);
        std::vector<std::size_t> which;
        for (Recorder& recorder : got) {
          which.push_back(static_cast<std::size_t>(random.below(std::ssize(requests))));
          scheduler.submit(requests[which.back()], recorder);
          if (random.below(2) == 0) scheduler.step();
        }
        run(scheduler);
        for (std::size_t i = 0; i < got.size(); ++i)
          expect_same(got[i], want[which[i]],
                      "request " + std::to_string(which[i]) + ", slice " + std::to_string(slice));
        if (!prefix_cache) {
          EXPECT_EQ(scheduler.status().prefix_queries, 0);
        }
      }
  }
}

TEST_P(EveryScheduler, TokensAndLogprobsAreThoseOfTheEngine) {
  Engine engine(folder.path());
  const SamplerOptions drawn{.repetition_penalty = 1.2, .temperature = 1.0, .top_p = 0.95, .seed = 11};
  for (const Protocol protocol : protocols())
    for (const std::int64_t n_prompt : {std::int64_t{0}, group() - 1, group(), 2 * group() + 1}) {
      const Request request{.prompt = random_tokens(n_prompt, spec().vocab_size, 2),
                            .n_tokens = 2 * group() + 1,
                            .protocol = protocol,
                            .sampler = drawn,
                            .ignore_eos = true,
                            .score_prompt = true,
                            .n_top_logprobs = 2};
      const Recorder got = alone(engine.runner(), request);
      ASSERT_EQ(got.error, "");
      EXPECT_EQ(got.tokens.at(0), engine.generate(request).tokens());

      auto all = request.prompt;
      all.insert(all.end(), got.tokens.at(0).begin(), got.tokens.at(0).end());
      const Score score = engine.score(all);
      auto logprobs = got.prompt_logprobs;
      ASSERT_EQ(std::ssize(logprobs), n_prompt);
      // recgen's own tokens have other probabilities, except in its first group.
      const std::int64_t exact = (n_prompt + group() - 1) / group() * group();
      for (const TokenLogprob& logprob : got.logprobs.at(0)) logprobs.push_back(logprob);
      for (std::size_t i = 0; i < logprobs.size(); ++i) {
        if (protocol == Protocol::recgen && static_cast<std::int64_t>(i) >= exact) break;
        EXPECT_EQ(logprobs[i].logprob, score.logprobs[i]) << "position " << i;
        ASSERT_EQ(logprobs[i].top.size(), 2u);
        EXPECT_EQ(logprobs[i].top[0].first, score.argmax[i]);
        EXPECT_GE(logprobs[i].top[0].second, logprobs[i].top[1].second);
        EXPECT_GE(logprobs[i].top[0].second, logprobs[i].logprob);
        if (score.argmax[i] == all[i]) {
          EXPECT_EQ(logprobs[i].top[0].second, logprobs[i].logprob);
        }
      }
    }
}

TEST_P(EveryScheduler, WhatIsReservedIsEnoughAndWhatIsTakenComesBack) {
  Runner runner(load_model(folder.path()));
  const Model& model = runner.model();
  for (const Protocol protocol : protocols())
    for (const std::int64_t n_continuations : {1, 3})
      for (const std::int64_t n_prompt : {std::int64_t{0}, group() - 1, 17 * group(), 20 * group() + 1})
        for (const std::int64_t n_tokens : {std::int64_t{0}, std::int64_t{1}, 20 * group()}) {
          RecordedScheduler scheduler(runner, plain());
          Recorder recorder;
          scheduler.submit({.prompt = random_tokens(n_prompt, spec().vocab_size, 3),
                            .n_tokens = n_tokens,
                            .n_continuations = n_continuations,
                            .protocol = protocol,
                            .sampler = {.temperature = 1},
                            .ignore_eos = true},
                           recorder);
          const std::int64_t most = kv_bytes_at_most(spec(), protocol, n_prompt, n_tokens, n_continuations, model.kv);
          std::int64_t least_reserved = most, most_used = 0;
          while (scheduler.step()) {
            const Scheduler::Status status = scheduler.status();
            if (status.prefilling + status.decoding == 0) break;
            const std::int64_t used = status.kv_bytes_growing + status.kv_bytes_constant;
            EXPECT_LE(used, least_reserved);
            least_reserved = std::min(least_reserved, std::max(used, status.kv_bytes_reserved));
            most_used = std::max(most_used, used);
          }
          EXPECT_EQ(recorder.dones, 1);
          // hiergen does not consume its last token, and a step that ends the request is not seen above.
          if (protocol == Protocol::hiergen && n_tokens > group()) {
            EXPECT_GE(most_used, kv_bytes_at_most(spec(), protocol, n_prompt, n_tokens - 2, n_continuations, model.kv));
          }
          const Scheduler::Status after = scheduler.status();
          EXPECT_EQ(after.kv_bytes_growing + after.kv_bytes_constant + after.kv_bytes_reserved, 0);
        }
}

// ---- fairness ----

TEST_F(TinyScheduler, ALongPromptStallsNobody) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 32;
  Recorder running, long_prompt, short_prompt;
  RecordedScheduler scheduler(runner, options);
  scheduler.submit(request(4, 1000), running);
  scheduler.step();
  scheduler.submit(request(3200, 5, 2), long_prompt);
  scheduler.submit(request(40, 5, 3), short_prompt);
  for (int i = 0; i < 20; ++i) {
    const std::size_t before = running.tokens[0].size();
    scheduler.step();
    EXPECT_EQ(running.tokens[0].size(), before + 1);  // a token every step
  }
  EXPECT_EQ(short_prompt.dones, 1);  // had half of the tokens of a step
  EXPECT_TRUE(long_prompt.tokens.empty());
  for (int i = 0; i < 82; ++i) scheduler.step();  // and then all: (20 · 32 + 82 · 32 - 40) ≥ 3200
  EXPECT_FALSE(long_prompt.tokens.empty());
}

TEST_F(TinyScheduler, LongPromptsShareAStepEqually) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 32;
  Recorder longest, long_one, late;
  RecordedScheduler scheduler(runner, options);
  Request scored = request(1200, 1);
  scored.score_prompt = true;  // so that it tells how far it is
  scheduler.submit(scored, longest);
  scored.prompt.resize(1000);
  scheduler.submit(scored, long_one);
  for (int i = 0; i < 10; ++i) scheduler.step();
  EXPECT_EQ(longest.prompt_logprobs.size(), 160u);
  EXPECT_EQ(long_one.prompt_logprobs.size(), 160u);
  scored.prompt.resize(24);
  scheduler.submit(scored, late);
  for (int i = 0; i < 3; ++i) scheduler.step();
  EXPECT_EQ(late.prompt_logprobs.size(), 24u);
  EXPECT_EQ(longest.prompt_logprobs.size() + long_one.prompt_logprobs.size(), 320u + 3u * 32 - 24);
}

TEST_F(TinyScheduler, ShortPromptsProceedTogetherAndEvenOneTokenAStepReachesAll) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 64;
  std::deque<Recorder> recorders(16);
  RecordedScheduler scheduler(runner, options);
  for (Recorder& recorder : recorders) scheduler.submit(request(4, 2), recorder);
  scheduler.step();
  for (const Recorder& recorder : recorders) EXPECT_EQ(recorder.tokens.at(0).size(), 1u);

  options.prefill_tokens_per_step = 1;
  std::deque<Recorder> more(8);
  RecordedScheduler slow(runner, options);
  for (Recorder& recorder : more) slow.submit(request(5, 1), recorder);
  for (int i = 0; i < 40; ++i) slow.step();
  for (const Recorder& recorder : more) EXPECT_EQ(recorder.dones, 1);
}

TEST_F(TinyScheduler, EveryContinuationSaysWhyItEnded) {
  Request r = request(10, 40);
  r.n_continuations = 3;
  r.ignore_eos = false;
  r.n_top_logprobs = 0;
  r.sampler = {.logit_bias = {{static_cast<std::int32_t>(model.spec.eos_token_id), 2.0}}, .temperature = 2, .seed = 3};
  Recorder recorder;
  recorder.answer = [&](std::size_t i, std::int32_t) { return i != 1 || recorder.tokens[i].size() < 3; };
  RecordedScheduler scheduler(runner, plain());
  scheduler.submit(r, recorder);
  run(scheduler);
  ASSERT_EQ(recorder.finished.size(), 3u);
  EXPECT_EQ(recorder.finished.at(1), FinishReason::stopped);
  const auto eos = static_cast<std::int32_t>(model.spec.eos_token_id);
  EXPECT_FALSE(recorder.eos.empty());
  for (const auto& [i, tokens] : recorder.tokens) {
    EXPECT_EQ(std::ranges::count(tokens, eos), 0);
    EXPECT_EQ(recorder.logprobs.at(i).size(), tokens.size() + recorder.eos.count(i));  // one more for the eos
    if (i != 1) {
      EXPECT_EQ(recorder.finished.at(i), tokens.size() == 40u ? FinishReason::length : FinishReason::eos);
    }
  }
  Recorder nothing;
  r.n_tokens = 0;
  scheduler.submit(r, nothing);
  run(scheduler);
  EXPECT_TRUE(nothing.tokens.empty());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(nothing.finished.at(i), FinishReason::length);
  EXPECT_EQ(nothing.dones, 1);
}

TEST_F(TinyScheduler, ItsEndFreesWhatStillRuns) {
  Recorder running, queued;
  {
    SchedulerOptions options = plain();
    options.max_sequences = 1;
    RecordedScheduler scheduler(runner, options);
    scheduler.submit(request(5, 50), running);
    scheduler.submit(request(5, 50), queued);
    scheduler.step();
    EXPECT_GT(runner.pool().bytes_in_use(), 0);
  }
  EXPECT_EQ(runner.pool().bytes_in_use(), 0);
}

}  // namespace
}  // namespace photon
