// Cancellation and logits that are not finite: they stay with their request.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "engine/requests_testing.h"

namespace photon {
namespace {

TEST_F(TinyScheduler, CancellingInTheQueueInPrefillAndInDecodeFreesTheMemoryAtOnce) {
  SchedulerOptions options = plain();
  options.prefill_tokens_per_step = 16;
  options.max_sequences = 2;
  Recorder decoding, prefilling, queued;
  RecordedScheduler scheduler(runner, options);
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
  RecordedScheduler scheduler(runner, options);
  std::vector<Request> kinds;
  std::vector<Recorder> want;
  for (int i = 0; i < 6; ++i) {
    kinds.push_back(random_request(model.spec, random, 60));
    want.push_back(alone(runner, kinds.back()));
  }
  struct Survivor {
    std::size_t kind = 0;
    Recorder recorder{};
  };
  std::deque<Survivor> survivors;
  std::deque<Recorder> victims;
  std::vector<RequestId> ids;
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

TEST_F(TinyScheduler, LogitsThatAreNotFiniteFailOnlyTheirRequestAndPoisonNoMemory) {
  Model damaged = load_model(folder.path());
  const auto width = static_cast<std::size_t>(model.spec.d_embed);
  std::vector<float> embed(static_cast<std::size_t>(model.spec.vocab_size) * width);
  for (std::size_t token = 0; token < embed.size() / width; ++token)
    model.embedding(static_cast<std::int64_t>(token), std::span(embed).subspan(token * width, width));
  std::ranges::fill(std::span(embed).subspan(9 * width, width), std::numeric_limits<float>::quiet_NaN());
  damaged.embed.values = std::as_bytes(std::span(embed));
  Runner damaged_runner(std::move(damaged));

  Request good = request(40, 30, 4), bad = request(60, 10, 5);
  for (auto& token : good.prompt) token = token == 9 ? 8 : token;
  good.sampler.logit_bias = {{9, -1000.0}};
  bad.prompt[20] = 9;
  const Recorder want = alone(runner, good);
  for (const bool prefix_cache : {false, true})
    for (const bool score_prompt : {false, true})
      for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
        SchedulerOptions options = plain();
        options.prefix_cache = prefix_cache;
        RecordedScheduler scheduler(damaged_runner, options);
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

TEST_F(TinyScheduler, WhoHearsOfATokenMaySubmitAndCancel) {
  RecordedScheduler scheduler(runner, plain());
  Recorder victim, next, meddler;
  RequestId victim_id = 0;
  RequestId own = 0;
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

}  // namespace
}  // namespace photon
