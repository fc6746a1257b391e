// Continuous batching: what comes out does not depend on company, cuts or cache hits; memory and failures stay with
// their request.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "engine/generate.h"
#include "engine/test_models.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// Writes down all that it hears, and holds the scheduler to the order.
struct Recorder : RequestListener {
  std::map<std::size_t, std::vector<std::int32_t>> tokens;
  std::map<std::size_t, std::vector<TokenLogprob>> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;
  std::map<std::size_t, std::int32_t> eos;
  std::map<std::size_t, FinishReason> finished;
  std::int64_t starts = 0, cached = 0, dones = 0;
  RequestStats stats;
  std::string error;
  std::function<bool(std::size_t, std::int32_t)> answer;  // of on_token

  void on_start(std::int64_t cached_tokens) override { ++starts, cached = cached_tokens; }
  void on_prompt_logprobs(std::span<const TokenLogprob> more) override {
    EXPECT_TRUE(tokens.empty());
    prompt_logprobs.insert(prompt_logprobs.end(), more.begin(), more.end());
  }
  bool on_token(std::size_t i, std::int32_t token, const TokenLogprob* logprob) override {
    EXPECT_EQ(starts, 1);
    EXPECT_EQ(dones, 0);
    EXPECT_FALSE(finished.contains(i));
    tokens[i].push_back(token);
    if (logprob != nullptr) logprobs[i].push_back(*logprob);
    return !answer || answer(i, token);
  }
  void on_eos(std::size_t i, std::int32_t token, const TokenLogprob* logprob) override {
    EXPECT_FALSE(finished.contains(i));
    EXPECT_TRUE(eos.emplace(i, token).second);
    if (logprob != nullptr) logprobs[i].push_back(*logprob);
  }
  void on_finish(std::size_t i, FinishReason reason) override {
    EXPECT_EQ(eos.contains(i), reason == FinishReason::eos);
    EXPECT_FALSE(finished.contains(i));
    EXPECT_EQ(dones, 0);
    finished[i] = reason;
  }
  void on_done(const RequestStats& s, const std::string* e) override {
    ++dones;
    stats = s;
    if (e != nullptr) error = *e;
  }
};

void expect_same(const Recorder& got, const Recorder& want, const std::string& what) {
  EXPECT_EQ(got.tokens, want.tokens) << what;
  EXPECT_EQ(got.eos, want.eos) << what;
  EXPECT_TRUE(got.logprobs == want.logprobs) << what;
  EXPECT_TRUE(got.prompt_logprobs == want.prompt_logprobs) << what;
  EXPECT_TRUE(got.finished == want.finished) << what;
  EXPECT_EQ(got.error, want.error) << what;
  EXPECT_EQ(got.dones, 1) << what;
  EXPECT_EQ(got.stats.generated_tokens, want.stats.generated_tokens) << what;
  EXPECT_EQ(got.stats.kv_bytes_growing, want.stats.kv_bytes_growing) << what;
  EXPECT_EQ(got.stats.kv_bytes_constant, want.stats.kv_bytes_constant) << what;
}

constexpr std::int64_t some_budget = std::int64_t{1} << 28;
SchedulerOptions plain() { return {.kv_budget_bytes = some_budget, .prefix_cache = false}; }

void run(Scheduler& scheduler) {
  while (scheduler.step()) {
  }
}

// A request in a scheduler of its own.
Recorder alone(const Model& model, const Request& request) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 1 << 20;
  Recorder recorder;
  Scheduler scheduler(model, options);
  scheduler.submit(request, recorder);
  run(scheduler);
  return recorder;
}

// Requests of every kind; their prompts have beginnings in common.
Request random_request(const Spec& spec, Random& random, std::int64_t longest_prompt) {
  const std::int64_t V = spec.vocab_size, group = spec.chunk_tokens(spec.n_levels());
  Request r{.prompt = random_tokens(random.below(longest_prompt + 1), V, 1)};
  if (!r.prompt.empty() && random.below(3) > 0)
    r.prompt[static_cast<std::size_t>(random.below(std::ssize(r.prompt)))] = static_cast<std::int32_t>(random.below(V));
  r.n_tokens = random.below(2 * group + 4);
  r.n_continuations = 1 + random.below(3);
  if (spec.n_levels() > 0 && random.below(2) == 0) r.protocol = Protocol::recgen;
  r.sampler = {.temperature = 1.2, .seed = random.next()};
  if (random.below(3) == 0) r.sampler.temperature = 0;
  if (random.below(3) == 0) r.sampler.repetition_penalty = 1.3;
  if (random.below(3) == 0) r.sampler.frequency_penalty = 0.4, r.sampler.presence_penalty = -0.2;
  if (random.below(3) == 0) r.sampler.logit_bias = {{3, 1.5}, {5, -100.0}};
  r.ignore_eos = random.below(2) == 0;
  r.one_by_one = random.below(4) == 0;
  r.score_prompt = random.below(4) == 0;
  if (random.below(2) == 0) r.n_top_logprobs = random.below(4);
  return r;
}

class EveryScheduler : public testing::TestWithParam<NamedSpec> {
 protected:
  EveryScheduler() { set_threads(1); }
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group() const { return spec().chunk_tokens(spec().n_levels()); }
  std::vector<Protocol> protocols() const {
    return spec().n_levels() == 0 ? std::vector{Protocol::hiergen} : std::vector{Protocol::hiergen, Protocol::recgen};
  }
  TestModel folder{GetParam().spec};
};
INSTANTIATE_TEST_SUITE_P(Specs, EveryScheduler, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(EveryScheduler, ARequestIsTheSameAloneAndInABatchOfManyWhateverTheSliceAndTheCache) {
  for (const auto& [weights, kv] :
       {std::pair{WeightType::f32, KvType::f32}, {WeightType::int8, KvType::bf16}, {WeightType::int4, KvType::int8}}) {
    const Model model = load_model(folder.path(), {.weights = weights, .kv = kv});
    Random random(7);
    std::vector<Request> requests;
    std::vector<Recorder> want;
    for (int i = 0; i < 10; ++i) {
      requests.push_back(random_request(spec(), random, 2 * group() + 40));
      want.push_back(alone(model, requests.back()));
      ASSERT_EQ(want.back().error, "");
    }
    for (const bool prefix_cache : {false, true})
      for (const std::int64_t slice : {weights == WeightType::f32 ? 2 : 7, 100}) {
        SchedulerOptions options = plain();
        options.prefix_cache = prefix_cache;
        options.prefill_tokens_per_step = slice;
        Scheduler scheduler(model, options);
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
      const Recorder got = alone(engine.model(), request);
      ASSERT_EQ(got.error, "");
      GenerateOptions options{.n_tokens = request.n_tokens, .protocol = protocol, .sampler = drawn, .ignore_eos = true};
      EXPECT_EQ(got.tokens.at(0), engine.generate(request.prompt, options).tokens());

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
  const Model model = load_model(folder.path());
  for (const Protocol protocol : protocols())
    for (const std::int64_t n_continuations : {1, 3})
      for (const std::int64_t n_prompt : {std::int64_t{0}, group() - 1, 17 * group(), 20 * group() + 1})
        for (const std::int64_t n_tokens : {std::int64_t{0}, std::int64_t{1}, 20 * group()}) {
          Scheduler scheduler(model, plain());
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

class TinyScheduler : public testing::Test {
 protected:
  TinyScheduler() { set_threads(1); }
  Request request(std::int64_t n_prompt, std::int64_t n_tokens, std::uint64_t seed = 1) const {
    return {.prompt = random_tokens(n_prompt, model.spec.vocab_size, seed),
            .n_tokens = n_tokens,
            .sampler = {.temperature = 1, .seed = seed},
            .ignore_eos = true};
  }
  std::int64_t at_most(std::int64_t n_prompt, std::int64_t n_tokens) const {
    return kv_bytes_at_most(model.spec, Protocol::hiergen, n_prompt, n_tokens, 1, model.kv);
  }
  TestModel folder{tiny_spec("paper")};
  const Model model = load_model(folder.path());
};

TEST_F(TinyScheduler, ALongPromptStallsNobody) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 32;
  Recorder running, long_prompt, short_prompt;
  Scheduler scheduler(model, options);
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
  Scheduler scheduler(model, options);
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
  Scheduler scheduler(model, options);
  for (Recorder& recorder : recorders) scheduler.submit(request(4, 2), recorder);
  scheduler.step();
  for (const Recorder& recorder : recorders) EXPECT_EQ(recorder.tokens.at(0).size(), 1u);

  options.prefill_tokens_per_step = 1;
  std::deque<Recorder> more(8);
  Scheduler slow(model, options);
  for (Recorder& recorder : more) slow.submit(request(5, 1), recorder);
  for (int i = 0; i < 40; ++i) slow.step();
  for (const Recorder& recorder : more) EXPECT_EQ(recorder.dones, 1);
}

// ---- admission ----

TEST_F(TinyScheduler, RefusesWhatCanNeverRunWithBothNumbers) {
  SchedulerOptions options = plain();
  options.kv_budget_bytes = at_most(100, 100);
  options.max_context = 1000;
  options.max_sequences = 4;
  options.max_queue = 2;
  Recorder recorder, second, third;
  Scheduler scheduler(model, options);
  const auto refused = [&](Request r, const std::string& why) {
    try {
      scheduler.submit(std::move(r), recorder);
      ADD_FAILURE() << "not refused: " << why;
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(why), std::string::npos) << e.what();
    }
  };
  refused(request(900, 101), "900 tokens of prompt and 101 to be generated are more than the longest context, 1000");
  refused(request(1, std::numeric_limits<std::int64_t>::max()), "longest context, 1000");
  refused(request(200, 200), "can take 0.");
  refused(request(200, 200), "budget is 0.");
  Request r = request(1, 1);
  r.n_continuations = 5;
  refused(r, "5 continuations are asked for, at most 4 sequences");
  r.n_continuations = std::numeric_limits<std::int64_t>::max();
  refused(r, "at most 4");
  r.n_continuations = 0;
  refused(r, "0 continuations");
  r = request(1, -1);
  refused(r, "-1 tokens");
  r = request(3, 1);
  r.prompt[2] = 37;
  refused(r, "token 3 of the input is 37");
  r = request(3, 1);
  r.sampler.temperature = -1;
  refused(r, "temperature");
  r.sampler = {.logit_bias = {{37, 1.0}}};
  refused(r, "bias names token 37");
  r = request(3, 1);
  r.n_top_logprobs = 38;
  refused(r, "log-probabilities of 38 tokens");
  EXPECT_EQ(recorder.dones, 0);
  EXPECT_EQ(scheduler.status().queued, 0);
  EXPECT_FALSE(scheduler.step());

  scheduler.submit(request(100, 100), recorder);
  scheduler.submit(request(1, 1), second);
  EXPECT_THROW(scheduler.submit(request(1, 1), third), QueueFull);
  scheduler.step();
  EXPECT_NO_THROW(scheduler.submit(request(1, 1), third));
  run(scheduler);
  for (const Recorder* each : {&recorder, &second, &third}) {
    EXPECT_EQ(each->dones, 1);
    EXPECT_EQ(each->error, "");
  }
}

TEST_F(TinyScheduler, RefusesOptionsOutOfRange) {
  for (const auto& change : std::vector<std::function<void(SchedulerOptions&)>>{
           [](SchedulerOptions& o) { o.kv_budget_bytes = -1; }, [](SchedulerOptions& o) { o.max_sequences = 0; },
           [](SchedulerOptions& o) { o.max_queue = 0; }, [](SchedulerOptions& o) { o.max_context = -1; },
           [](SchedulerOptions& o) { o.prefill_tokens_per_step = 0; }}) {
    SchedulerOptions options = plain();
    change(options);
    EXPECT_THROW(Scheduler(model, options), InputError);
  }
}

TEST_F(TinyScheduler, FirstComeFirstServedWithoutStarvingTheLargeOne) {
  SchedulerOptions options = plain();
  options.kv_budget_bytes = 4 * at_most(20, 20);
  Scheduler scheduler(model, options);
  std::vector<int> order;
  std::deque<Recorder> recorders(40);
  const std::int64_t large = 400;  // nearly the whole budget
  ASSERT_LE(at_most(large, 20), options.kv_budget_bytes);
  ASSERT_GT(at_most(large, 20), 3 * at_most(20, 20));
  for (int i = 0; i < 40; ++i) {
    Recorder& recorder = recorders[static_cast<std::size_t>(i)];
    recorder.answer = [&order, i, first = true](std::size_t, std::int32_t) mutable {
      if (std::exchange(first, false)) order.push_back(i);
      return true;
    };
    scheduler.submit(request(i == 5 ? large : 20, 20), recorder);
  }
  while (scheduler.step()) {
    const Scheduler::Status s = scheduler.status();
    EXPECT_LE(s.kv_bytes_growing + s.kv_bytes_constant + s.kv_bytes_prefix_cache, options.kv_budget_bytes);
    EXPECT_LE(s.decoding + s.prefilling, 4);
  }
  ASSERT_EQ(order.size(), 40u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST_F(TinyScheduler, NoMoreSequencesRunThanAllowed) {
  SchedulerOptions options = plain();
  options.max_sequences = 5;
  Scheduler scheduler(model, options);
  std::deque<Recorder> recorders(9);
  for (Recorder& recorder : recorders) {
    Request r = request(10, 20);
    r.n_continuations = 2;
    scheduler.submit(r, recorder);
  }
  std::int64_t most = 0;
  while (scheduler.step()) most = std::max(most, scheduler.status().sequences);
  EXPECT_EQ(most, 4);
  for (const Recorder& recorder : recorders) EXPECT_EQ(recorder.dones, 1);
}

// The KV geometry of a model, with everything else as small as it gets.
Spec thin(Spec spec) {
  const auto shrink = [](StackSpec& stack) { stack.d_model = stack.d_ff = 16; };
  spec.vocab_size = 32;
  spec.d_embed = spec.trunk ? 16 : 4;
  if (spec.trunk) shrink(*spec.trunk);
  for (LevelSpec& level : spec.levels) shrink(level.encoder), shrink(level.decoder);
  return spec;
}

// Requests of 8,192 tokens that 2 GiB admit, of 64 that ask.
std::int64_t admitted(const std::string& config, KvType kv) {
  const Spec spec = thin(load_spec(PHOTON_SOURCE_DIR "/configs/" + config + ".json"));
  const Model model = random_model(spec, {.weights = WeightType::int8, .kv = kv}, 1);
  std::deque<Recorder> recorders(64);
  Scheduler scheduler(model, {.kv_budget_bytes = std::int64_t{2} << 30, .prefill_tokens_per_step = 64});
  for (Recorder& recorder : recorders)
    scheduler.submit({.prompt = random_tokens(8064, spec.vocab_size, 1), .n_tokens = 128}, recorder);
  scheduler.step();
  return scheduler.status().prefilling;
}

TEST(Admission, SixtyFourStreamsOfTheBoundedModelFitWhereTheTransformerHasAHandful) {
  set_threads(1);
  EXPECT_EQ(admitted("photon-600m-block", KvType::bf16), 64);
  EXPECT_EQ(admitted("photon-600m-block", KvType::int8), 64);
  EXPECT_EQ(admitted("vanilla-600m", KvType::bf16), 2);
  EXPECT_EQ(admitted("vanilla-600m", KvType::int8), 4);
}

// ---- the prefix cache ----

SchedulerOptions caching() { return {.kv_budget_bytes = some_budget}; }

Recorder ask(Scheduler& scheduler, const Request& request) {
  Recorder recorder;
  scheduler.submit(request, recorder);
  run(scheduler);
  EXPECT_EQ(recorder.stats.cached_tokens, recorder.cached);
  return recorder;
}

TEST_P(EveryScheduler, AConversationReusesEveryTurnBeforeIt) {
  const Model model = load_model(folder.path());
  Scheduler scheduler(model, caching());
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
    Recorder want = alone(model, request);
    expect_same(got, want, "turn " + std::to_string(turn));
    talk.insert(talk.end(), got.tokens.at(0).begin(), got.tokens.at(0).end());
    consumed = std::ssize(talk) - 1;  // the last token was not consumed
  }
  // The other protocol goes on from the same states.
  Request request{.prompt = talk, .n_tokens = 2 * group() + 1, .protocol = protocols().back()};
  request.sampler = {.temperature = 1, .seed = 3};
  const Recorder got = ask(scheduler, request);
  EXPECT_EQ(got.cached, consumed);
  expect_same(got, alone(model, request), "recgen");
  // Exactly what was consumed, but whose logits were asked for: its last boundary serves instead.
  request.prompt.pop_back();
  const Recorder again = ask(scheduler, request);
  EXPECT_LE(again.cached, consumed);
  expect_same(again, alone(model, request), "again");
}

TEST_P(EveryScheduler, TheSamePromptAgainIsFoundUpToItsLastBoundary) {
  const Model model = load_model(folder.path());
  for (const std::int64_t n : {10 * group() + 40, 10 * group() + 40 + group() - 1}) {
    Scheduler scheduler(model, caching());
    for (const Protocol protocol : protocols()) {
      const Request request{.prompt = random_tokens(n, spec().vocab_size, 1),
                            .n_tokens = group() + 2,
                            .n_continuations = 2,
                            .protocol = protocol,
                            .sampler = {.temperature = 1}};
      const Recorder first = ask(scheduler, request), second = ask(scheduler, request);
      EXPECT_EQ(second.cached, n / group() * group());
      expect_same(second, first, "second");
      expect_same(second, alone(model, request), "alone");
    }
  }
}

TEST_F(TinyScheduler, WhatTwoPromptsShareTheThirdReuses) {
  Scheduler scheduler(model, caching());
  const auto shared = random_tokens(211, model.spec.vocab_size, 1);
  std::vector<std::int64_t> cached;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Request r = request(100, 3, 10 + i);
    r.prompt.front() = static_cast<std::int32_t>(i);  // they part here
    r.prompt.insert(r.prompt.begin(), shared.begin(), shared.end());
    const Recorder got = ask(scheduler, r);
    expect_same(got, alone(model, r), "prompt " + std::to_string(i));
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
  Scheduler scheduler(model, options);
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
    expect_same(recorders[i], alone(model, requests[i]), "request " + std::to_string(i));
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
  Scheduler scheduler(model, options);
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

// ---- cancellation and failure ----

TEST_F(TinyScheduler, CancellingInTheQueueInPrefillAndInDecodeFreesTheMemoryAtOnce) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 16;
  options.max_sequences = 2;
  Recorder decoding, prefilling, queued;
  Scheduler scheduler(model, options);
  const auto a = scheduler.submit(request(5, 100), decoding);
  scheduler.step();
  const auto b = scheduler.submit(request(500, 100), prefilling);
  const auto c = scheduler.submit(request(5, 100), queued);
  scheduler.step();
  EXPECT_EQ(scheduler.status().queued, 1);
  EXPECT_EQ(scheduler.status().prefilling, 1);
  EXPECT_EQ(scheduler.status().decoding, 1);
  for (const auto& [id, recorder, starts] :
       {std::tuple{c, &queued, 0}, std::tuple{b, &prefilling, 1}, std::tuple{a, &decoding, 1}}) {
    const auto before = scheduler.status();
    scheduler.cancel(id);
    scheduler.cancel(id);  // again: ignored
    const auto after = scheduler.status();
    EXPECT_EQ(recorder->dones, 1);
    EXPECT_EQ(recorder->error, "");
    EXPECT_EQ(recorder->starts, starts);
    EXPECT_EQ(recorder->finished.at(0), FinishReason::cancelled);
    if (starts == 1) {
      EXPECT_LT(after.kv_bytes_growing + after.kv_bytes_constant, before.kv_bytes_growing + before.kv_bytes_constant);
      EXPECT_LT(after.kv_bytes_reserved, before.kv_bytes_reserved);
    }
  }
  EXPECT_EQ(scheduler.status().kv_bytes_reserved, 0);
  EXPECT_FALSE(scheduler.step());
  scheduler.cancel(12345);
}

TEST_F(TinyScheduler, AThousandCancellationsLeaveSurvivorsAndMemoryAsTheyWere) {
  Random random(5);
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 24;
  options.max_sequences = 12;
  Scheduler scheduler(model, options);
  std::vector<Request> kinds;
  std::vector<Recorder> want;
  for (int i = 0; i < 6; ++i) {
    kinds.push_back(random_request(model.spec, random, 60));
    want.push_back(alone(model, kinds.back()));
  }
  struct Survivor {
    std::size_t kind = 0;
    Recorder recorder{};
  };
  std::deque<Survivor> survivors;
  std::deque<Recorder> victims;
  std::vector<Scheduler::RequestId> ids;
  int cancelled = 0;
  while (cancelled < 1000) {
    victims.emplace_back();
    ids.push_back(scheduler.submit(random_request(model.spec, random, 60), victims.back()));
    if (random.below(10) == 0) {
      Survivor& survivor =
          survivors.emplace_back(Survivor{.kind = static_cast<std::size_t>(random.below(std::ssize(kinds)))});
      scheduler.submit(kinds[survivor.kind], survivor.recorder);
    }
    for (std::int64_t steps = random.below(2); steps > 0; --steps) scheduler.step();
    if (random.below(3) > 0 || ids.size() > 20) {
      const auto victim = random.below(std::ssize(ids));
      scheduler.cancel(ids[static_cast<std::size_t>(victim)]);
      ids.erase(ids.begin() + victim);
      ++cancelled;
    }
  }
  for (const auto id : ids) scheduler.cancel(id);
  run(scheduler);
  for (const Survivor& s : survivors) expect_same(s.recorder, want[s.kind], "kind " + std::to_string(s.kind));
  for (const Recorder& victim : victims) EXPECT_EQ(victim.dones, 1);
  const Scheduler::Status status = scheduler.status();
  EXPECT_EQ(status.kv_bytes_growing + status.kv_bytes_constant + status.kv_bytes_reserved, 0);
  EXPECT_EQ(status.queued + status.prefilling + status.decoding + status.sequences, 0);
}

TEST_F(TinyScheduler, AListenerThatThrowsFailsOnlyItsOwnRequest) {
  const Request good = request(20, 10, 4);
  const Recorder want = alone(model, good);
  for (const int when : {0, 1, 2, 3, 4}) {
    struct Thrower : Recorder {
      int when = 0;
      void maybe(int now) const {
        if (now == when) throw std::runtime_error("no more");
      }
      void on_start(std::int64_t n) override { Recorder::on_start(n), maybe(0); }
      void on_prompt_logprobs(std::span<const TokenLogprob> l) override { Recorder::on_prompt_logprobs(l), maybe(1); }
      bool on_token(std::size_t i, std::int32_t token, const TokenLogprob* l) override {
        const bool more = Recorder::on_token(i, token, l);
        if (tokens[i].size() == 3) maybe(2);
        return more;
      }
      void on_finish(std::size_t i, FinishReason r) override { Recorder::on_finish(i, r), maybe(3); }
      void on_done(const RequestStats& s, const std::string* e) override { Recorder::on_done(s, e), maybe(4); }
    };
    Scheduler scheduler(model, plain());
    Recorder before, after;
    Thrower thrower;
    thrower.when = when;
    scheduler.submit(good, before);
    Request bad = request(20, 10, 5);
    bad.n_continuations = 2;
    bad.score_prompt = true;
    scheduler.submit(bad, thrower);
    scheduler.submit(good, after);
    run(scheduler);
    expect_same(before, want, "before");
    expect_same(after, want, "after");
    EXPECT_EQ(thrower.dones, 1);
    EXPECT_EQ(thrower.error, when == 4 ? "" : "no more") << when;
    EXPECT_EQ(scheduler.status().kv_bytes_reserved, 0);
  }
}

TEST_F(TinyScheduler, LogitsThatAreNotFiniteFailOnlyTheirRequestAndPoisonNoMemory) {
  Model damaged = load_model(folder.path());
  const auto width = static_cast<std::size_t>(model.spec.d_embed);
  std::vector<float> embed(static_cast<std::size_t>(model.spec.vocab_size) * width);
  for (std::size_t token = 0; token < embed.size() / width; ++token)
    model.embedding(static_cast<std::int64_t>(token), std::span(embed).subspan(token * width, width));
  std::ranges::fill(std::span(embed).subspan(9 * width, width), std::numeric_limits<float>::quiet_NaN());
  damaged.embed.values = std::as_bytes(std::span(embed));

  Request good = request(40, 30, 4), bad = request(60, 10, 5);
  for (auto& token : good.prompt) token = token == 9 ? 8 : token;
  good.sampler.logit_bias = {{9, -1000.0}};
  bad.prompt[20] = 9;
  const Recorder want = alone(model, good);
  for (const bool prefix_cache : {false, true})
    for (const bool score_prompt : {false, true})
      for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
        SchedulerOptions options = plain();
        options.prefix_cache = prefix_cache;
        Scheduler scheduler(damaged, options);
        bad.score_prompt = score_prompt;
        bad.protocol = protocol;
        for (int round = 0; round < 2; ++round) {
          Recorder together, victim, later;
          scheduler.submit(good, together);
          scheduler.submit(bad, victim);
          run(scheduler);
          scheduler.submit(good, later);  // in pages that the other one had
          run(scheduler);
          expect_same(together, want, "together");
          expect_same(later, want, "later");
          EXPECT_NE(victim.error.find("not finite"), std::string::npos) << victim.error;
          EXPECT_EQ(victim.dones, 1);
          EXPECT_TRUE(victim.tokens.empty());
        }
      }
}

TEST_F(TinyScheduler, AListenerMaySubmitAndCancelWhileItIsTold) {
  Scheduler scheduler(model, plain());
  Recorder victim, next;
  Scheduler::RequestId victim_id = 0;
  struct Meddler : Recorder {
    std::function<void()> at_done;
    void on_done(const RequestStats& s, const std::string* e) override { Recorder::on_done(s, e), at_done(); }
  } meddler;
  Scheduler::RequestId own = 0;
  meddler.answer = [&](std::size_t, std::int32_t) {
    if (meddler.tokens[0].size() == 2) scheduler.cancel(victim_id);
    if (meddler.tokens[0].size() == 4) scheduler.cancel(own);
    return true;
  };
  meddler.at_done = [&] { scheduler.submit(request(3, 2), next); };
  own = scheduler.submit(request(5, 50), meddler);
  victim_id = scheduler.submit(request(5, 50), victim);
  run(scheduler);
  EXPECT_EQ(meddler.tokens[0].size(), 4u);
  EXPECT_EQ(meddler.finished.at(0), FinishReason::cancelled);
  EXPECT_EQ(victim.finished.at(0), FinishReason::cancelled);
  EXPECT_LE(victim.tokens[0].size(), 2u);
  EXPECT_EQ(next.tokens[0].size(), 2u);
}

TEST_F(TinyScheduler, EveryContinuationSaysWhyItEnded) {
  Request r = request(10, 40);
  r.n_continuations = 3;
  r.ignore_eos = false;
  r.n_top_logprobs = 0;
  r.sampler = {.logit_bias = {{static_cast<std::int32_t>(model.spec.eos_token_id), 2.0}}, .temperature = 2, .seed = 3};
  Recorder recorder;
  recorder.answer = [&](std::size_t i, std::int32_t) { return i != 1 || recorder.tokens[i].size() < 3; };
  Scheduler scheduler(model, plain());
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

TEST_F(TinyScheduler, WhatStillRunsAtTheEndIsCancelled) {
  Recorder running, queued;
  {
    SchedulerOptions options = plain();
    options.max_sequences = 1;
    Scheduler scheduler(model, options);
    scheduler.submit(request(5, 50), running);
    scheduler.submit(request(5, 50), queued);
    scheduler.step();
  }
  EXPECT_EQ(running.finished.at(0), FinishReason::cancelled);
  EXPECT_EQ(running.dones, 1);
  EXPECT_EQ(queued.dones, 1);
}

}  // namespace
}  // namespace photon
