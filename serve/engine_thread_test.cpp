// Properties of serve/engine_thread.h: jobs run, all or none are taken, and every listener hears the end.
#include "serve/engine_thread.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "engine/models_testing.h"

namespace photon {
namespace {

constexpr std::chrono::seconds patience{60};

Runner& runner() {  // one engine at a time
  static const TestModel folder(tiny_spec("window_stream"));
  static Runner loaded(load_model(folder.path()));
  return loaded;
}

// Hears all, and lets a test wait for some of it.
class Listener : public RequestListener {
 public:
  bool hear(const Event& event) override {
    const std::lock_guard lock(mutex_);
    if (const auto* finished = std::get_if<Finished>(&event.what)) reason_ = finished->reason;
    n_tokens_ += std::holds_alternative<TokenChosen>(event.what);
    if (const auto* done = std::get_if<Done>(&event.what)) {
      EXPECT_EQ(done->failure, nullptr);
      ++n_done_;
    }
    changed_.notify_all();
    return true;
  }
  bool wait_done() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return n_done_ == 1; });
  }
  bool wait_tokens(int n) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return n_tokens_ >= n; });
  }
  int n_tokens() {
    const std::lock_guard lock(mutex_);
    return n_tokens_;
  }
  int n_done() {
    const std::lock_guard lock(mutex_);
    return n_done_;
  }
  std::optional<FinishReason> reason() {
    const std::lock_guard lock(mutex_);
    return reason_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_tokens_ = 0, n_done_ = 0;
  std::optional<FinishReason> reason_;
};

Request request(std::int64_t n_tokens, std::int32_t token = 3) {
  return {.prompt = {1, token}, .n_tokens = n_tokens, .ignore_eos = true};
}

const auto accepted = [](std::exception_ptr refusal) { EXPECT_EQ(refusal, nullptr); };

TEST(EngineThread, RunsWhatItIsHandedAndSleepsBetween) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24});
  for (int i = 0; i < 3; ++i) {
    const auto a = std::make_shared<Listener>(), b = std::make_shared<Listener>();
    engine.submit({{request(5), a}, {request(9), b}}, accepted);
    ASSERT_TRUE(a->wait_done() && b->wait_done());
    EXPECT_EQ(a->n_tokens(), 5);
    EXPECT_EQ(b->n_tokens(), 9);
  }
  EXPECT_GT(engine.status().steps, 0);
}

TEST(EngineThread, TakesAllJobsOfATicketOrNone) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24, .max_context = 100});
  const auto good = std::make_shared<Listener>(), bad = std::make_shared<Listener>();
  std::promise<std::exception_ptr> refusal;
  engine.submit({{request(50), good}, {request(1000), bad}},
                [&](std::exception_ptr why) { refusal.set_value(std::move(why)); });
  EXPECT_THROW(std::rethrow_exception(refusal.get_future().get()), InputError);
  ASSERT_TRUE(good->wait_done());
  EXPECT_EQ(good->n_tokens(), 0);
  EXPECT_EQ(bad->n_done(), 0);  // it was never queued
}

TEST(EngineThread, RefusesWhatDoesNotFitIntoTheQueue) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24, .max_sequences = 1, .max_queue = 2});
  std::vector<std::pair<Request, EngineThread::Listener>> requests;
  for (int i = 0; i < 3; ++i) requests.emplace_back(request(50), std::make_shared<Listener>());
  std::promise<std::exception_ptr> refusal;
  engine.submit(std::move(requests), [&](std::exception_ptr why) { refusal.set_value(std::move(why)); });
  EXPECT_THROW(std::rethrow_exception(refusal.get_future().get()), QueueFull);
  const auto next = std::make_shared<Listener>();
  engine.submit({{request(2), next}}, accepted);  // nothing of the refused ones is in its way
  EXPECT_TRUE(next->wait_done());
}

TEST(EngineThread, CancelsEverythingOfATicketAndNothingElse) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24});
  const auto a = std::make_shared<Listener>(), b = std::make_shared<Listener>(), c = std::make_shared<Listener>();
  const auto ticket = engine.submit({{request(100'000), a}, {request(100'000, 4), b}}, accepted);
  engine.submit({{request(300), c}}, accepted);
  ASSERT_TRUE(a->wait_tokens(1));
  engine.cancel(ticket);
  ASSERT_TRUE(a->wait_done() && b->wait_done() && c->wait_done());
  EXPECT_EQ(a->reason(), FinishReason::cancelled);
  EXPECT_EQ(b->reason(), FinishReason::cancelled);
  EXPECT_EQ(c->reason(), FinishReason::length);
  EXPECT_EQ(c->n_tokens(), 300);
  engine.cancel(ticket);      // has ended
  engine.cancel(ticket + 9);  // was never given
}

TEST(EngineThread, ACancellationBeforeTheFirstStepCounts) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24});
  for (int i = 0; i < 50; ++i) {
    const auto listener = std::make_shared<Listener>();
    engine.cancel(engine.submit({{request(100'000), listener}}, accepted));
    ASSERT_TRUE(listener->wait_done());
    EXPECT_EQ(listener->reason(), FinishReason::cancelled);
  }
  EXPECT_EQ(engine.status().sequences, 0);
}

TEST(EngineThread, CancelsAllThatWasHandedOverAndGoesOn) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24, .max_sequences = 1});
  const auto a = std::make_shared<Listener>(), b = std::make_shared<Listener>(), later = std::make_shared<Listener>();
  engine.submit({{request(100'000), a}}, accepted);
  engine.submit({{request(100'000), b}}, accepted);
  ASSERT_TRUE(a->wait_tokens(1));
  engine.cancel_all();
  ASSERT_TRUE(a->wait_done() && b->wait_done());
  EXPECT_EQ(a->reason(), FinishReason::cancelled);
  EXPECT_EQ(b->reason(), FinishReason::cancelled);
  engine.submit({{request(3), later}}, accepted);
  ASSERT_TRUE(later->wait_done());
  EXPECT_EQ(later->n_tokens(), 3);
}

TEST(EngineThread, EveryListenerHearsTheEndOfTheServer) {
  const auto a = std::make_shared<Listener>(), b = std::make_shared<Listener>();
  {
    EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24, .max_sequences = 1});
    engine.submit({{request(100'000), a}, {request(100'000), b}}, accepted);
    ASSERT_TRUE(a->wait_tokens(1));
  }
  EXPECT_EQ(a->n_done(), 1);
  EXPECT_EQ(b->n_done(), 1);
  EXPECT_EQ(b->n_tokens(), 0);
  EXPECT_EQ(a.use_count(), 1);  // nobody holds it any more
}

// Throws at one kind of event, and hears why its request ended.
class Thrower : public RequestListener {
 public:
  explicit Thrower(std::size_t when) : when_(when) {}
  bool hear(const Event& event) override {
    if (const auto* done = std::get_if<Done>(&event.what)) failure_.set_value(done->failure);
    if (event.what.index() == when_) throw std::runtime_error("no more");
    return true;
  }
  std::exception_ptr failure() { return failure_.get_future().get(); }

 private:
  std::size_t when_;
  std::promise<std::exception_ptr> failure_;
};

TEST(EngineThread, AListenerThatThrowsFailsOnlyItsOwnRequest) {
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24});
  for (std::size_t when = 0; when < std::variant_size_v<decltype(Event::what)>; ++when) {
    const bool at_done = when + 1 == std::variant_size_v<decltype(Event::what)>;
    const auto before = std::make_shared<Listener>(), after = std::make_shared<Listener>();
    const auto thrower = std::make_shared<Thrower>(when);
    Request bad = request(10);
    bad.n_continuations = 2;
    bad.score_prompt = true;
    engine.submit({{request(10), before}}, accepted);
    engine.submit({{bad, thrower}}, accepted);
    engine.submit({{request(10), after}}, accepted);
    ASSERT_TRUE(before->wait_done() && after->wait_done());
    EXPECT_EQ(before->n_tokens(), 10);
    EXPECT_EQ(after->n_tokens(), 10);
    const std::exception_ptr failure = thrower->failure();
    EXPECT_EQ(failure == nullptr, at_done) << when;
    if (!at_done) {
      EXPECT_THROW(std::rethrow_exception(failure), std::runtime_error);
    }
  }
}

// Stops where it has heard enough: tokens that were chosen beyond reach nobody, and are not counted.
TEST(EngineThread, AContinuationEndsWhereItsListenerSays) {
  class Enough : public Listener {
   public:
    bool hear(const Event& event) override {
      if (const auto* done = std::get_if<Done>(&event.what)) stats = done->stats;
      Listener::hear(event);
      return n_tokens() < 3;
    }
    RequestStats stats;
  };
  EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24});
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen}) {
    const auto listener = std::make_shared<Enough>();
    Request asked = request(50);
    asked.protocol = protocol;
    engine.submit({{asked, listener}}, accepted);
    ASSERT_TRUE(listener->wait_done());
    EXPECT_EQ(listener->n_tokens(), 3);
    EXPECT_EQ(listener->reason(), FinishReason::stopped);
    EXPECT_EQ(listener->stats.generated_tokens, 3);
  }
}

TEST(EngineThread, ReportsItsStateAfterEachStep) {
  std::mutex mutex;
  std::int64_t most = 0;
  const auto listener = std::make_shared<Listener>();
  {
    EngineThread engine(runner(), {.kv_budget_bytes = 1 << 24}, [&](const Scheduler::Status& status) {
      const std::lock_guard lock(mutex);
      most = std::max(most, status.sequences);
    });
    engine.submit({{request(20), listener}}, accepted);
    ASSERT_TRUE(listener->wait_done());
  }
  EXPECT_EQ(most, 1);
}

}  // namespace
}  // namespace photon
