// Requests for tests of the scheduler: every kind of them, a listener that writes down what it hears, and fixtures.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "engine/models_testing.h"
#include "engine/scheduler.h"
#include "kernels/kernels.h"

namespace photon {

// Writes down all that it hears, and holds the scheduler to the order.
struct Recorder {
  std::map<std::size_t, std::vector<std::int32_t>> tokens;
  std::map<std::size_t, std::vector<TokenLogprob>> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;
  std::map<std::size_t, std::int32_t> eos;
  std::map<std::size_t, FinishReason> finished;
  std::int64_t starts = 0, cached = 0, consumed = 0, dones = 0;
  RequestStats stats;
  std::string error;
  std::function<bool(std::size_t, std::int32_t)> answer;  // to a token: false stops its continuation there
  std::function<void()> at_done;

  void hear(const Started& e) { ++starts, cached = consumed = e.cached_tokens; }
  void hear(const PromptConsumed& e) {
    EXPECT_GT(e.n_tokens, consumed);
    consumed = e.n_tokens;
  }
  void hear(const PromptScored& e) {
    EXPECT_TRUE(tokens.empty());
    prompt_logprobs.insert(prompt_logprobs.end(), e.logprobs.begin(), e.logprobs.end());
  }
  void hear(const TokenChosen& e) {
    EXPECT_EQ(starts, 1);
    EXPECT_EQ(dones, 0);
    EXPECT_FALSE(finished.contains(e.continuation));
    if (e.is_eos)
      EXPECT_TRUE(eos.emplace(e.continuation, e.token).second);
    else
      tokens[e.continuation].push_back(e.token);
    if (e.logprob) logprobs[e.continuation].push_back(*e.logprob);
  }
  void hear(const Finished& e) {
    EXPECT_EQ(eos.contains(e.continuation), e.reason == FinishReason::eos);
    EXPECT_TRUE(finished.emplace(e.continuation, e.reason).second);
    EXPECT_EQ(dones, 0);
  }
  void hear(const Done& e) {
    ++dones;
    stats = e.stats;
    if (e.failure != nullptr) try {
        std::rethrow_exception(e.failure);
      } catch (const std::exception& why) {
        error = why.what();
      }
    if (at_done) at_done();
  }
};

// A scheduler whose events reach recorders: a step, and then what has ended.
class RecordedScheduler {
 public:
  RecordedScheduler(Runner& runner, const SchedulerOptions& options) : scheduler_(runner, options) {}

  RequestId submit(Request request, Recorder& recorder) {
    const RequestId id = scheduler_.submit(std::move(request));
    recorders_[id] = &recorder;
    return id;
  }
  void cancel(RequestId id) {
    scheduler_.cancel(id);
    if (!telling_) tell(scheduler_.settle());
  }
  // false: nothing is left to do
  bool step() {
    if (scheduler_.idle()) return false;
    tell(scheduler_.step());
    tell(scheduler_.settle());
    return true;
  }
  Scheduler::Status status() const { return scheduler_.status(); }

 private:
  void tell(std::span<const Event> told) {
    telling_ = true;
    const std::vector<Event> events(told.begin(), told.end());  // who hears of them may submit and cancel
    for (const Event& event : events) {
      Recorder& recorder = *recorders_.at(event.request);
      const auto* chosen = std::get_if<TokenChosen>(&event.what);
      if (chosen != nullptr && stopped_.contains({event.request, chosen->continuation})) continue;
      std::visit([&](const auto& what) { recorder.hear(what); }, event.what);
      if (chosen == nullptr || chosen->is_eos || !recorder.answer) continue;
      if (recorder.answer(chosen->continuation, chosen->token)) continue;
      stopped_.emplace(event.request, chosen->continuation);
      scheduler_.stop(event.request, chosen->continuation, std::ssize(recorder.tokens[chosen->continuation]));
    }
    telling_ = false;
  }

  Scheduler scheduler_;
  std::map<RequestId, Recorder*> recorders_;
  std::set<std::pair<RequestId, std::size_t>> stopped_;
  bool telling_ = false;
};

inline void expect_same(const Recorder& got, const Recorder& want, const std::string& what) {
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

inline constexpr std::int64_t some_budget = std::int64_t{1} << 28;
inline SchedulerOptions plain() { return {.kv_budget_bytes = some_budget, .prefix_cache = false}; }

inline void run(RecordedScheduler& scheduler) {
  while (scheduler.step()) {
  }
}

// A request in a scheduler of its own.
inline Recorder alone(Runner& runner, const Request& request) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 1 << 20;
  Recorder recorder;
  RecordedScheduler scheduler(runner, options);
  scheduler.submit(request, recorder);
  run(scheduler);
  return recorder;
}

// Requests of every kind; their prompts have beginnings in common.
inline Request random_request(const Spec& spec, Random& random, std::int64_t longest_prompt) {
  const std::int64_t V = spec.vocab_size, group = spec.group_tokens();
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
  std::int64_t group() const { return spec().group_tokens(); }
  std::vector<Protocol> protocols() const {
    return spec().n_levels() == 0 ? std::vector{Protocol::hiergen} : std::vector{Protocol::hiergen, Protocol::recgen};
  }
  TestModel folder{GetParam().spec};
};

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
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
};

}  // namespace photon
