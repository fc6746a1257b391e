#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "spec/accounting.h"

namespace photon {
namespace {

StackSpec stack(Span span) {
  return {.d_model = 8, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 3, .d_ff = 8, .span = span};
}

// What the tests write at a position: distinct for every layer, head and component, and exact in bfloat16.
std::array<float, 3> mark(std::int64_t layer, std::int64_t head, std::int64_t position, float sign) {
  std::array<float, 3> values{};
  for (std::size_t i = 0; i < 3; ++i)
    values[i] = sign * static_cast<float>(position % 16 * 16 + layer * 8 + head * 4 + static_cast<std::int64_t>(i));
  return values;
}

template <class T>
void write(KvCache& cache, std::int64_t position) {
  cache.reserve(position);
  for (std::int64_t layer = 0; layer < 2; ++layer)
    for (std::int64_t head = 0; head < 2; ++head)
      cache.write<T>(layer, head, position, mark(layer, head, position, 1), mark(layer, head, position, -1));
}

float value(float x) { return x; }
float value(bf16 x) { return to_float(x); }

// The cache shows exactly the positions first … last, oldest first, with what was written there.
template <class T>
void expect_sees(const KvCache& cache, std::int64_t first, std::int64_t last) {
  EXPECT_EQ(cache.visible(last), last - first + 1);
  std::vector<KvRun<T>> runs;
  for (std::int64_t layer = 0; layer < 2; ++layer)
    for (std::int64_t head = 0; head < 2; ++head) {
      cache.see<T>(layer, head, last, runs);
      ASSERT_LE(std::ssize(runs), cache.max_runs());
      std::int64_t position = first;
      for (const KvRun<T>& run : runs)
        for (std::int64_t r = 0; r < run.n; ++r, ++position)
          for (std::size_t i = 0; i < 3; ++i) {
            ASSERT_EQ(value(run.k[r * run.stride + static_cast<std::int64_t>(i)]), mark(layer, head, position, 1)[i]);
            ASSERT_EQ(value(run.v[r * run.stride + static_cast<std::int64_t>(i)]), mark(layer, head, position, -1)[i]);
          }
      ASSERT_EQ(position, last + 1);
    }
}

TEST(KvCache, GlobalSeesEverythingAndGrowsByPages) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::global, 0});
  KvCache cache(pool, s, 0, Weight::Type::f32);
  EXPECT_EQ(cache.bytes(), 0);
  for (std::int64_t p = 0; p < 70; ++p) {
    write<float>(cache, p);
    expect_sees<float>(cache, 0, p);
    EXPECT_EQ(cache.bytes(), (p / kv_page_units + 1) * kv_page_units * kv_bytes_per_position(s, 4));
  }
}

TEST(KvCache, WindowAndStreamAreRings) {
  for (const auto kind : {Span::Kind::window, Span::Kind::stream})
    for (const std::int64_t w : {1, 2, 5}) {
      KvPool pool;
      const StackSpec s = stack({kind, w});
      KvCache cache(pool, s, 0, Weight::Type::bf16);
      for (std::int64_t p = 0; p < 3 * w + 2; ++p) {
        write<bf16>(cache, p);
        expect_sees<bf16>(cache, std::max<std::int64_t>(0, p - w + 1), p);
      }
      EXPECT_EQ(cache.bytes(), w * kv_bytes_per_position(s, 2));
    }
}

TEST(KvCache, ARestartedRingSeesNothingBefore) {
  KvPool pool;
  KvCache cache(pool, stack({Span::Kind::stream, 4}), 0, Weight::Type::f32);
  for (std::int64_t p = 0; p < 6; ++p) write<float>(cache, p);
  cache.restart(101);
  for (std::int64_t p = 101; p < 110; ++p) {
    write<float>(cache, p);
    expect_sees<float>(cache, std::max<std::int64_t>(101, p - 3), p);
  }
}

TEST(KvCache, BlocksSeeTheirOwnUnitsOnly) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::block, 3});
  KvCache cache(pool, s, 0, Weight::Type::f32);
  for (std::int64_t p = 0; p < 11; ++p) {
    write<float>(cache, p);
    expect_sees<float>(cache, p / 3 * 3, p);
  }
  EXPECT_EQ(cache.bytes(), 3 * kv_bytes_per_position(s, 4));
}

TEST(KvCache, ChunksBeginAgainAtZero) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::chunk, 0});
  KvCache cache(pool, s, 7, Weight::Type::f32);
  for (int group = 0; group < 3; ++group)
    for (std::int64_t p = 0; p < 7; ++p) {
      write<float>(cache, p);
      expect_sees<float>(cache, 0, p);
    }
  EXPECT_EQ(cache.bytes(), 7 * kv_bytes_per_position(s, 4));
}

TEST(KvCache, CountsWhatARowReadsAndWrites) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::window, 4});
  KvCache cache(pool, s, 0, Weight::Type::f32);
  for (std::int64_t p = 0; p < 6; ++p) cache.count(p);
  EXPECT_EQ(cache.traffic().bytes_read, (1 + 2 + 3 + 4 + 4 + 4) * kv_bytes_per_position(s, 4));
  EXPECT_EQ(cache.traffic().bytes_written, 6 * kv_bytes_per_position(s, 4));
}

TEST(KvPool, PagesComeBackAndAreUsedAgain) {
  KvPool pool;
  const std::byte* first = nullptr;
  {
    const KvPool::Page a = pool.allocate(640), b = pool.allocate(128);
    first = a.data();
    EXPECT_EQ(pool.bytes_in_use(), 768);
  }
  EXPECT_EQ(pool.bytes_in_use(), 0);
  EXPECT_EQ(pool.peak_bytes(), 768);
  const KvPool::Page again = pool.allocate(640);
  EXPECT_EQ(again.data(), first);
  pool.reset_peak();
  EXPECT_EQ(pool.peak_bytes(), 640);
}

TEST(KvPool, AReleasedCacheReturnsItsPages) {
  KvPool pool;
  KvCache cache(pool, stack({Span::Kind::global, 0}), 0, Weight::Type::f32);
  cache.reserve(40);
  EXPECT_EQ(pool.bytes_in_use(), cache.bytes());
  cache.release();
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

}  // namespace
}  // namespace photon
