#include "engine/kv_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "base/bf16.h"
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

void write(KvCache& cache, std::int64_t position) {
  cache.reserve(position);
  for (std::int64_t layer = 0; layer < 2; ++layer)
    for (std::int64_t head = 0; head < 2; ++head)
      cache.write(layer, head, position, mark(layer, head, position, 1), mark(layer, head, position, -1));
}

// Component i of the value at a slot: values lie row by row behind the keys.
float value_at(DType type, const KvRun& run, std::int64_t slot, std::int64_t i) {
  const std::int64_t element = run.slots * 3 + slot * 3 + i;
  if (type == DType::f32) return reinterpret_cast<const float*>(run.head)[element];
  return to_float(reinterpret_cast<const bf16*>(run.head)[element]);
}

// The cache shows exactly the positions first … last, oldest first, with what was written there.
void expect_sees(const KvCache& cache, std::int64_t first, std::int64_t last) {
  EXPECT_EQ(cache.visible(last), last - first + 1);
  std::vector<KvRun> runs;
  for (std::int64_t layer = 0; layer < 2; ++layer)
    for (std::int64_t head = 0; head < 2; ++head) {
      cache.see(layer, head, last, runs);
      ASSERT_LE(std::ssize(runs), cache.max_runs());
      std::int64_t position = first;
      for (const KvRun& run : runs)
        for (std::int64_t slot = run.first; slot < run.first + run.n; ++slot, ++position)
          for (std::int64_t i = 0; i < 3; ++i)
            ASSERT_EQ(value_at(cache.type(), run, slot, i),
                      mark(layer, head, position, -1)[static_cast<std::size_t>(i)]);
      ASSERT_EQ(position, last + 1);
    }
}

TEST(KvCache, GlobalSeesEverythingAndGrowsByPages) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::global, 0});
  KvCache cache(pool, s, 0, DType::f32);
  EXPECT_EQ(cache.bytes(), 0);
  for (std::int64_t p = 0; p < 70; ++p) {
    write(cache, p);
    expect_sees(cache, 0, p);
    EXPECT_EQ(cache.bytes(), (p / kv_page_units + 1) * kv_page_units * kv_bytes_per_position(s, DType::f32));
  }
}

TEST(KvCache, WindowAndStreamAreRings) {
  for (const auto kind : {Span::Kind::window, Span::Kind::stream})
    for (const std::int64_t w : {1, 2, 5}) {
      KvPool pool;
      const StackSpec s = stack({kind, w});
      KvCache cache(pool, s, 0, DType::bf16);
      for (std::int64_t p = 0; p < 3 * w + 2; ++p) {
        write(cache, p);
        expect_sees(cache, std::max<std::int64_t>(0, p - w + 1), p);
      }
      EXPECT_EQ(cache.bytes(), w * kv_bytes_per_position(s, DType::bf16));
    }
}

TEST(KvCache, ARestartedRingSeesNothingBefore) {
  KvPool pool;
  KvCache cache(pool, stack({Span::Kind::stream, 4}), 0, DType::f32);
  for (std::int64_t p = 0; p < 6; ++p) write(cache, p);
  cache.restart(101);
  for (std::int64_t p = 101; p < 110; ++p) {
    write(cache, p);
    expect_sees(cache, std::max<std::int64_t>(101, p - 3), p);
  }
}

TEST(KvCache, BlocksSeeTheirOwnUnitsOnly) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::block, 3});
  KvCache cache(pool, s, 0, DType::f32);
  for (std::int64_t p = 0; p < 11; ++p) {
    write(cache, p);
    expect_sees(cache, p / 3 * 3, p);
  }
  EXPECT_EQ(cache.bytes(), 3 * kv_bytes_per_position(s, DType::f32));
}

TEST(KvCache, ChunksBeginAgainAtZero) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::chunk, 0});
  KvCache cache(pool, s, 7, DType::f32);
  for (int group = 0; group < 3; ++group)
    for (std::int64_t p = 0; p < 7; ++p) {
      write(cache, p);
      expect_sees(cache, 0, p);
    }
  EXPECT_EQ(cache.bytes(), 7 * kv_bytes_per_position(s, DType::f32));
}

TEST(KvCache, CountsWhatARowReadsAndWrites) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::window, 4});
  KvCache cache(pool, s, 0, DType::f32);
  for (std::int64_t p = 0; p < 6; ++p) cache.count(p, 2);
  EXPECT_EQ(cache.traffic().bytes_read, (1 + 2 + 3 + 4 + 4 + 4) * kv_bytes_per_position(s, DType::f32));
  EXPECT_EQ(cache.traffic().bytes_written, 6 * kv_bytes_per_position(s, DType::f32));
  cache.count(6, 1);  // one of the two layers attends, both are written
  EXPECT_EQ(cache.traffic().bytes_read, (18 * 2 + 4) * kv_bytes_per_position(s, DType::f32) / 2);
  EXPECT_EQ(cache.traffic().bytes_written, 7 * kv_bytes_per_position(s, DType::f32));
}

TEST(KvCache, RowsThatGoTogetherLoseNothingAndBeginAlike) {
  for (const Span span : {Span{Span::Kind::global, 0}, Span{Span::Kind::window, 5}, Span{Span::Kind::stream, 5},
                          Span{Span::Kind::block, 5}, Span{Span::Kind::chunk, 0}}) {
    KvPool pool;
    KvCache cache(pool, stack(span), 5, DType::f32);
    for (std::int64_t p = 0; p < (span.kind == Span::Kind::chunk ? 5 : 23); ++p) {
      const std::int64_t last = std::min<std::int64_t>(cache.last_together(p), 30);
      ASSERT_GE(last, p);
      EXPECT_EQ(cache.visible(last) - cache.visible(p), last - p);
      if (!cache.grows()) {
        EXPECT_LE(cache.visible(last), 5);
      }
    }
  }
}

TEST(KvCache, AForkSharesPagesUntilOneWrites) {
  KvPool pool;
  const StackSpec s = stack({Span::Kind::global, 0});
  const std::int64_t page = kv_page_units * kv_bytes_per_position(s, DType::bf16);
  KvCache cache(pool, s, 0, DType::bf16);
  for (std::int64_t p = 0; p < 40; ++p) write(cache, p);
  KvCache fork = cache.fork();
  EXPECT_EQ(fork.traffic().bytes_written, 0);
  EXPECT_EQ(pool.bytes_in_use(), 3 * page);
  expect_sees(fork, 0, 39);
  write(fork, 40);  // into the third page, which both hold
  EXPECT_EQ(pool.bytes_in_use(), 4 * page);
  cache.reserve(40);
  for (std::int64_t layer = 0; layer < 2; ++layer)
    for (std::int64_t head = 0; head < 2; ++head)
      cache.write(layer, head, 40, std::array<float, 3>{1, 2, 3}, std::array<float, 3>{4, 5, 6});
  EXPECT_EQ(pool.bytes_in_use(), 4 * page);  // its own again
  expect_sees(fork, 0, 40);
  fork.unshare();
  EXPECT_EQ(pool.bytes_in_use(), 6 * page);
  cache.release();
  expect_sees(fork, 0, 40);
  EXPECT_EQ(pool.bytes_in_use(), 3 * page);
}

TEST(KvCache, AForkOfARingIsACopy) {
  KvPool pool;
  KvCache cache(pool, stack({Span::Kind::window, 4}), 0, DType::f32);
  for (std::int64_t p = 0; p < 6; ++p) write(cache, p);
  KvCache fork = cache.fork();
  EXPECT_EQ(pool.bytes_in_use(), 2 * cache.bytes());
  for (std::int64_t p = 6; p < 9; ++p) write(cache, p);
  expect_sees(fork, 2, 5);
  expect_sees(cache, 5, 8);
}

TEST(KvPool, PagesComeBackAndAreUsedAgain) {
  KvPool pool;
  const std::byte* first = nullptr;
  {
    const auto a = pool.allocate(640), b = pool.allocate(128);
    first = a->data();
    EXPECT_EQ(pool.bytes_in_use(), 768);
  }
  EXPECT_EQ(pool.bytes_in_use(), 0);
  EXPECT_EQ(pool.peak_bytes(), 768);
  const auto again = pool.allocate(640);
  EXPECT_EQ(again->data(), first);
  pool.reset_peak();
  EXPECT_EQ(pool.peak_bytes(), 640);
}

TEST(KvPool, AReleasedCacheReturnsItsPages) {
  KvPool pool;
  KvCache cache(pool, stack({Span::Kind::global, 0}), 0, DType::f32);
  cache.reserve(40);
  EXPECT_EQ(pool.bytes_in_use(), cache.bytes());
  cache.release();
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

// Bytes of physical memory that this process has.
std::int64_t resident() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0, pages = 0;
  file >> all >> pages;
  return pages * ::sysconf(_SC_PAGESIZE);
}

TEST(KvPool, PagesOfOneSizeGiveTheirMemoryBackForThoseOfAnother) {
  KvPool pool;
  const std::int64_t total = std::int64_t{24} << 20;
  const auto take = [&](std::int64_t bytes) {
    std::vector<std::shared_ptr<KvPool::Page>> pages;
    for (std::int64_t taken = 0; taken < total; taken += bytes) {
      pages.push_back(pool.allocate(bytes));
      std::memset(pages.back()->data(), 1, static_cast<std::size_t>(bytes));
    }
    return pages;
  };
  const std::int64_t before = resident();
  take(std::int64_t{1} << 18);
  take(std::int64_t{1} << 20);  // what the first ones had
  for (const auto& page : take(std::int64_t{1} << 18)) EXPECT_EQ(page->data()[0], std::byte{1});
  EXPECT_LT(resident() - before, total * 3 / 2);
  EXPECT_EQ(pool.bytes_in_use(), 0);
}

}  // namespace
}  // namespace photon
