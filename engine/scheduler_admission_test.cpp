// Who may run: what is refused, what waits, and how many fit into a budget.
#include "engine/scheduler.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/requests_testing.h"

namespace photon {
namespace {

TEST_F(TinyScheduler, RefusesWhatCanNeverRunWithBothNumbers) {
  SchedulerOptions options = plain();
  options.kv_budget_bytes = at_most(100, 100);
  options.max_context = 1000;
  options.max_sequences = 4;
  options.max_queue = 2;
  Recorder recorder, second, third;
  RecordedScheduler scheduler(runner, options);
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
  refused(request(200, 200), fmt::format("can take {} bytes", at_most(200, 200)));
  refused(request(200, 200), fmt::format("budget is {}", options.kv_budget_bytes));
  Request r = request(1, 1);
  r.n_continuations = 5;
  refused(r, "5 continuations are asked for, at most 4 sequences");
  r.n_continuations = std::numeric_limits<std::int64_t>::max();
  refused(r, "at most 4");
  r.n_continuations = 0;
  refused(r, "n_continuations is 0");
  r = request(1, -1);
  refused(r, "n_tokens is -1");
  r = request(3, 1);
  r.prompt[2] = 37;
  refused(r, "token 3 of the input is 37");
  r = request(3, 1);
  r.sampler.temperature = -1;
  refused(r, "temperature");
  r.sampler = {.logit_bias = {{37, 1.0}}};
  refused(r, "logit_bias names token 37");
  r = request(3, 1);
  r.n_top_logprobs = 38;
  refused(r, "n_top_logprobs is 38");
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
    EXPECT_THROW(Scheduler(runner, options), InputError);
  }
}

TEST_F(TinyScheduler, FirstComeFirstServedWithoutStarvingTheLargeOne) {
  SchedulerOptions options = plain();
  options.kv_budget_bytes = 4 * at_most(20, 20);
  RecordedScheduler scheduler(runner, options);
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
  RecordedScheduler scheduler(runner, options);
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
std::int64_t admitted(const std::string& config, DType kv) {
  const Spec spec = thin(load_spec(PHOTON_SOURCE_DIR "/configs/" + config + ".json"));
  Runner runner(random_model(spec, {.weights = DType::int8, .kv = kv}, 1));
  std::deque<Recorder> recorders(64);
  RecordedScheduler scheduler(runner, {.kv_budget_bytes = std::int64_t{2} << 30, .prefill_tokens_per_step = 64});
  for (Recorder& recorder : recorders)
    scheduler.submit({.prompt = random_tokens(8064, spec.vocab_size, 1), .n_tokens = 128}, recorder);
  scheduler.step();
  return scheduler.status().prefilling;
}

TEST(Admission, SixtyFourStreamsOfTheBoundedModelFitWhereTheTransformerHasAHandful) {
  set_threads(1);
  EXPECT_EQ(admitted("photon-600m-block", DType::bf16), 64);
  EXPECT_EQ(admitted("photon-600m-block", DType::int8), 64);
  EXPECT_EQ(admitted("vanilla-600m", DType::bf16), 2);
  EXPECT_EQ(admitted("vanilla-600m", DType::int8), 4);
}

}  // namespace
}  // namespace photon
