// The prefix cache by itself: what it finds, what it forgets, and what it says that it holds.
#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include "engine/models_testing.h"
#include "engine/runner_testing.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

class Cache : public testing::Test {
 protected:
  Cache() { set_threads(1); }

  // The state after a text.
  Sequence consumed(std::span<const std::int32_t> beginning) {
    Sequence sequence(model, pool);
    prefill(runner, sequence, beginning);
    return sequence;
  }
  static PrefixCache::Text text(std::span<const std::int32_t> of) {
    return std::make_shared<const std::vector<std::int32_t>>(of.begin(), of.end());
  }
  void keep(std::span<const std::int32_t> of, std::size_t n, bool predicted = false) {
    Sequence state = consumed(of.first(n));
    Sequence* const batch[] = {&state};
    if (predicted) next_logits(runner, batch);
    cache.keep(text(of), std::move(state));
  }
  std::int64_t found(std::span<const std::int32_t> prompt) {
    const PrefixCache::Match match = cache.find(prompt);
    EXPECT_EQ(match.state != nullptr, match.n_tokens > 0);
    if (match.state != nullptr) {
      EXPECT_EQ(match.state->n_tokens, match.n_tokens);
    }
    return match.n_tokens;
  }

  TestModel folder{tiny_spec("paper")};
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
  KvPool& pool = runner.pool();
  PrefixCache cache;
  const std::vector<std::int32_t> tokens = random_tokens(600, model.spec.vocab_size, 1);
  const std::span<const std::int32_t> all{tokens};
};

TEST_F(Cache, TheLongestBeginningWins) {
  EXPECT_EQ(found(all), 0);
  keep(all, 64);
  keep(all, 128);
  keep(all, 32);
  EXPECT_EQ(found(all), 128);
  EXPECT_EQ(found(all.first(128)), 128);
  EXPECT_EQ(found(all.first(127)), 64);
  EXPECT_EQ(found(all.first(63)), 32);
  EXPECT_EQ(found(all.first(31)), 0);
  EXPECT_EQ(found({}), 0);
}

TEST_F(Cache, EveryTokenIsCompared) {
  keep(all, 128);
  for (const std::size_t i : {0u, 1u, 63u, 126u, 127u}) {
    auto other = tokens;
    other[i] = (other[i] + 1) % static_cast<std::int32_t>(model.spec.vocab_size);
    EXPECT_EQ(found(other), 0) << i;
    EXPECT_EQ(cache.find(other).n_common, static_cast<std::int64_t>(i));
  }
  auto other = tokens;
  other[128] += 1;
  EXPECT_EQ(found(other), 128);
}

TEST_F(Cache, WhatIsCommonReachesBeyondStates) {
  keep(all.first(300), 64);
  EXPECT_EQ(cache.find(all).n_common, 300);
  EXPECT_EQ(cache.find(all.first(200)).n_common, 200);
}

TEST_F(Cache, AStateWhoseLogitsWereAskedForServesLongerPromptsOnly) {
  keep(all, 100, /*predicted=*/true);
  EXPECT_EQ(found(all.first(101)), 100);
  EXPECT_EQ(found(all.first(100)), 0);
  EXPECT_FALSE(cache.touch(all.first(100)));
  keep(all, 96);
  EXPECT_EQ(found(all.first(100)), 96);
  EXPECT_TRUE(cache.touch(all.first(96)));
  EXPECT_FALSE(cache.touch(all.first(95)));
}

TEST_F(Cache, TheStateNotUsedForLongestGoesFirst) {
  keep(all, 32), keep(all, 48), keep(all, 64);
  EXPECT_EQ(found(all.first(40)), 32);  // used
  EXPECT_TRUE(cache.touch(all.first(48)));
  EXPECT_TRUE(cache.drop_oldest());  // 64
  EXPECT_EQ(found(all), 48);
  EXPECT_TRUE(cache.drop_oldest());  // 32
  EXPECT_EQ(found(all.first(40)), 0);
  EXPECT_TRUE(cache.drop_oldest());
  EXPECT_FALSE(cache.drop_oldest());
  EXPECT_TRUE(cache.empty());
}

TEST_F(Cache, TheSameTokensAreKeptOnce) {
  keep(all, 64);
  const std::int64_t bytes = cache.bytes();
  keep(all, 64);
  keep(all.first(64), 64, /*predicted=*/true);
  EXPECT_EQ(cache.n_states(), 1);
  EXPECT_EQ(cache.bytes(), bytes);
}

TEST_F(Cache, CountsPagesOnceAndKnowsWhichWouldBeFree) {
  const std::int64_t page_tokens = kv_page_units * 4;  // of level 1
  Sequence running = consumed(all.first(static_cast<std::size_t>(2 * page_tokens)));
  const std::int64_t alone = pool.bytes_in_use();
  EXPECT_EQ(cache.bytes(), 0);
  cache.keep(text(all), running.fork());
  const std::int64_t constant = running.kv_bytes_constant();
  EXPECT_EQ(cache.bytes(), alone);  // the growing pages are shared, the rest was copied
  EXPECT_EQ(cache.bytes_alone(), constant);
  EXPECT_EQ(pool.bytes_in_use(), alone + constant);

  prefill(runner, running, all.subspan(static_cast<std::size_t>(2 * page_tokens), 64));
  cache.keep(text(all), running.fork());
  const std::int64_t growing = running.kv_bytes_growing();
  const std::int64_t pages = cache.bytes() - 2 * constant;
  EXPECT_GE(pages, growing);  // and the first state's pages that were not full
  { const Sequence last = std::move(running); }
  EXPECT_EQ(cache.bytes_alone(), cache.bytes());
  EXPECT_EQ(cache.bytes(), pool.bytes_in_use());
  cache.drop_oldest();
  EXPECT_EQ(cache.bytes(), growing + constant);
  EXPECT_EQ(cache.bytes(), pool.bytes_in_use());
  cache.drop_oldest();
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST_F(Cache, HoldsOnlySoManyStates) {
  const Sequence empty = consumed(all.first(1));
  std::vector<std::int32_t> one{0, 0};
  for (std::size_t i = 0; i < PrefixCache::max_states + 10; ++i) {
    one = {static_cast<std::int32_t>(i), 0};
    cache.keep(text(one), empty.fork());
  }
  EXPECT_EQ(cache.n_states(), static_cast<std::int64_t>(PrefixCache::max_states));
  EXPECT_EQ(found(one), 1);
  one.front() = 9;
  EXPECT_EQ(found(one), 0);
  one.front() = 10;
  EXPECT_EQ(found(one), 1);
}

TEST_F(Cache, AForkOfAKeptPromptPredictsWhatThePromptDoes) {
  for (const NamedSpec& named : tiny_specs()) {
    const TestModel files(named.spec);
    Runner any(load_model(files.path()));
    const auto prompt = random_tokens(3 * any.spec().group_tokens(), any.spec().vocab_size, 2);
    Sequence sequence = any.sequence();
    prefill(any, sequence, prompt);
    const Sequence kept = sequence.fork_to_keep();
    EXPECT_LE(kept.kv_bytes_constant(), sequence.kv_bytes_constant());
    Sequence fork = kept.fork();
    EXPECT_EQ(fork.kv_bytes_constant(), sequence.kv_bytes_constant());
    Sequence* const first[] = {&sequence};
    Sequence* const second[] = {&fork};
    const auto want = next_logits(any, first), got = next_logits(any, second);
    EXPECT_TRUE(std::ranges::equal(got.row(0), want.row(0))) << named.name;
  }
}

}  // namespace
}  // namespace photon
