// The prefix cache at work: what is reused, that it changes nothing, and that it gives way.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "engine/requests_testing.h"

namespace photon {
namespace {

class EveryPrefixCache : public EveryScheduler {};
INSTANTIATE_TEST_SUITE_P(Specs, EveryPrefixCache, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

SchedulerOptions caching() { return {.kv_budget_bytes = some_budget}; }

Recorder ask(RecordedScheduler& scheduler, const Request& request) {
  Recorder recorder;
  scheduler.submit(request, recorder);
  run(scheduler);
  EXPECT_EQ(recorder.stats.cached_tokens, recorder.cached);
  return recorder;
}

TEST_P(EveryPrefixCache, AConversationReusesEveryTurnBeforeIt) {
  Runner runner(load_model(folder.path()));
  RecordedScheduler scheduler(runner, caching());
  std::vector<std::int32_t> talk;
  std::int64_t consumed = 0;
  for (std::uint64_t turn = 0; turn < 6; ++turn) {
    const auto question = random_tokens(20 + 7 * static_cast<std::int64_t>(turn), spec().vocab_size, turn);
    talk.insert(talk.end(), question.begin(), question.end());
    const Request request{.prompt = talk,
                          .n_tokens = 15,
                          .sampler = {.temperature = 1, .seed = turn},
                          .ignore_eos = true,
                          .n_top_logprobs = 1};
    const Recorder got = ask(scheduler, request);
    EXPECT_EQ(got.cached, consumed >= 32 ? consumed : 0) << "turn " << turn;
    Recorder want = alone(runner, request);
    expect_same(got, want, "turn " + std::to_string(turn));
    talk.insert(talk.end(), got.tokens.at(0).begin(), got.tokens.at(0).end());
    consumed = std::ssize(talk) - 1;  // the last token was not consumed
  }
  // The other protocol goes on from the same states.
  Request request{.prompt = talk, .n_tokens = 2 * group() + 1, .protocol = protocols().back()};
  request.sampler = {.temperature = 1, .seed = 3};
  const Recorder got = ask(scheduler, request);
  EXPECT_EQ(got.cached, consumed);
  expect_same(got, alone(runner, request), "recgen");
  // Exactly what was consumed, but whose logits were asked for: its last boundary serves instead.
  request.prompt.pop_back();
  const Recorder again = ask(scheduler, request);
  EXPECT_LE(again.cached, consumed);
  expect_same(again, alone(runner, request), "again");
}

// The prompt's last boundary comes soon after an answer, whose decoders have begun: its state needs them.
TEST_P(EveryPrefixCache, AShortQuestionAfterAnAnswerIsFoundAgain) {
  Runner runner(load_model(folder.path()));
  Request request{.prompt = random_tokens(2 * group() + 40, spec().vocab_size, 1),
                  .n_tokens = group() + 3,
                  .sampler = {.temperature = 1},
                  .ignore_eos = true};
  for (std::int64_t n = 1; n <= group() + 1; n += 1 + group() / 8) {
    RecordedScheduler scheduler(runner, caching());
    const Recorder answer = ask(scheduler, request);
    Request next = request;
    next.prompt.insert(next.prompt.end(), answer.tokens.at(0).begin(), answer.tokens.at(0).end());
    next.prompt.resize(next.prompt.size() + static_cast<std::size_t>(n), 3);
    next.protocol = protocols().back();
    next.n_continuations = 2;
    const Recorder want = alone(runner, next);
    for (int i = 0; i < 2; ++i) expect_same(ask(scheduler, next), want, "question of " + std::to_string(n));
  }
}

TEST_P(EveryPrefixCache, TheSamePromptAgainIsFoundUpToItsLastBoundary) {
  Runner runner(load_model(folder.path()));
  for (const std::int64_t n : {10 * group() + 40, 10 * group() + 40 + group() - 1}) {
    RecordedScheduler scheduler(runner, caching());
    for (const Protocol protocol : protocols()) {
      const Request request{.prompt = random_tokens(n, spec().vocab_size, 1),
                            .n_tokens = group() + 2,
                            .n_continuations = 2,
                            .protocol = protocol,
                            .sampler = {.temperature = 1}};
      const Recorder first = ask(scheduler, request), second = ask(scheduler, request);
      EXPECT_EQ(second.cached, n / group() * group());
      expect_same(second, first, "second");
      expect_same(second, alone(runner, request), "alone");
    }
  }
}

TEST_F(TinyScheduler, WhatTwoPromptsShareTheThirdReuses) {
  RecordedScheduler scheduler(runner, caching());
  const auto shared = random_tokens(211, model.spec.vocab_size, 1);
  std::vector<std::int64_t> cached;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Request r = request(100, 3, 10 + i);
    r.prompt.front() = static_cast<std::int32_t>(i);  // they part here
    r.prompt.insert(r.prompt.begin(), shared.begin(), shared.end());
    const Recorder got = ask(scheduler, r);
    expect_same(got, alone(runner, r), "prompt " + std::to_string(i));
    cached.push_back(got.cached);
  }
  EXPECT_EQ(cached, (std::vector<std::int64_t>{0, 128, 208, 208}));
  const Scheduler::Status status = scheduler.status();
  EXPECT_EQ(status.prefix_queries, 4);
  EXPECT_EQ(status.prefix_hits, 3);
  EXPECT_EQ(status.prefix_tokens_reused, 128 + 208 + 208);
  Request scored = request(211, 1);
  scored.prompt = shared;
  scored.score_prompt = true;
  EXPECT_EQ(ask(scheduler, scored).cached, 0);
  EXPECT_EQ(ask(scheduler, scored).prompt_logprobs.size(), 211u);
  EXPECT_EQ(scheduler.status().prefix_queries, 4);
}

TEST_F(TinyScheduler, TheCacheGivesWayToRequestsAndTheBudgetHolds) {
  SchedulerOptions options = caching();
  options.kv_budget_bytes = 6 * at_most(200, 50);
  options.prefill_tokens_per_step = 100;
  RecordedScheduler scheduler(runner, options);
  Random random(3);
  std::deque<Recorder> recorders;
  std::vector<Request> requests;
  std::int64_t most = 0;
  const auto step = [&] {
    const bool any = scheduler.step();
    const Scheduler::Status s = scheduler.status();
    const std::int64_t used = s.kv_bytes_growing + s.kv_bytes_constant + s.kv_bytes_prefix_cache;
    EXPECT_GE(s.kv_bytes_growing, 0);
    EXPECT_LE(used, options.kv_budget_bytes);
    most = std::max(most, used);
    return any;
  };
  for (int i = 0; i < 60; ++i) {
    Request r = request(100 + random.below(100), random.below(50), 1 + static_cast<std::uint64_t>(random.below(5)));
    r.n_continuations = 1 + random.below(3);
    if (random.below(2) == 0) r.protocol = Protocol::recgen;
    requests.push_back(r);
    scheduler.submit(r, recorders.emplace_back());
    for (std::int64_t n = random.below(20); n > 0; --n) step();
  }
  while (step()) {
  }
  for (std::size_t i = 0; i < requests.size(); ++i)
    expect_same(recorders[i], alone(runner, requests[i]), "request " + std::to_string(i));
  EXPECT_GT(most, options.kv_budget_bytes * 8 / 10);  // it was full
  EXPECT_GT(scheduler.status().prefix_hits, 10);

  // One request that needs everything.
  Request all = request(400, 1, 99);
  while (at_most(std::ssize(all.prompt) + 16, 1) <= options.kv_budget_bytes) all.prompt.resize(all.prompt.size() + 16);
  EXPECT_EQ(ask(scheduler, all).error, "");
  EXPECT_EQ(ask(scheduler, all).error, "");
  const Scheduler::Status status = scheduler.status();
  EXPECT_EQ(status.kv_bytes_growing + status.kv_bytes_constant + status.kv_bytes_reserved, 0);
}

TEST_F(TinyScheduler, ACachedBeginningIsReservedOnce) {
  SchedulerOptions options = caching();
  const std::int64_t n = 16 * 16 * 8, each = at_most(n + 20, 10);  // eight full pages of the top level
  options.kv_budget_bytes = 2 * each;
  RecordedScheduler scheduler(runner, options);
  Request r = request(n, 10);
  ask(scheduler, r);
  std::deque<Recorder> recorders(8);
  for (std::size_t i = 0; i < recorders.size(); ++i) {
    r.prompt.resize(static_cast<std::size_t>(n));
    for (int k = 0; k < 20; ++k) r.prompt.push_back(static_cast<std::int32_t>(i));
    scheduler.submit(r, recorders[i]);
  }
  scheduler.step();
  const Scheduler::Status s = scheduler.status();
  EXPECT_EQ(s.prefilling + s.decoding, 8);
  run(scheduler);
  for (const Recorder& recorder : recorders) EXPECT_EQ(recorder.cached, n);
}

}  // namespace
}  // namespace photon
