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
  void on_finish(std::size_t i, FinishReason reason) override {
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
  Scheduler scheduler(model, options);
  Recorder recorder;
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
  for (const auto& [weights, kv] : {std::pair{WeightType::f32, KvType::f32},
                                    {WeightType::int8, KvType::bf16},
                                    {WeightType::bf16, KvType::int8},
                                    {WeightType::int4, KvType::f32}}) {
    const Model model = load_model(folder.path(), {.weights = weights, .kv = kv});
    Random random(7);
    std::vector<Request> requests;
    std::vector<Recorder> want;
    for (int i = 0; i < 12; ++i) {
      requests.push_back(random_request(spec(), random, 3 * group() + 40));
      want.push_back(alone(model, requests.back()));
      ASSERT_EQ(want.back().error, "");
    }
    for (const bool prefix_cache : {false, true})
      for (const std::int64_t slice : {1, 7, 64, 100000}) {
        if (slice == 1 && weights != WeightType::f32) continue;
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

}  // namespace
}  // namespace photon
