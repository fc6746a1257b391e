// Attention of every instruction set that runs here against float64 softmax over what the cache holds; rotation.
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "kernels/isa.h"
#include "kernels/kernels_testing.h"

namespace photon {
namespace {

using testing_support::NaN, testing_support::random_floats, testing_support::same_bits;

constexpr DType kv_types[]{DType::f32, DType::bf16, DType::int8};
const std::vector<std::int64_t> head_dims{1, 2, 3, 4, 5, 8, 16, 20, 52, 64, 80, 128};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// One head's positions in pages of S slots, from slot `begin` of the first page on; a ring is one page that wraps.
/// All other slots hold a byte pattern, 0xff being NaN of any type.
class Cache {
 public:
  Cache(DType cache_type, std::int64_t head_dim, std::int64_t slots, std::int64_t begin, bool ring = false,
        int pattern = 0xff)
      : type_(cache_type), h_(head_dim), slots_(slots), begin_(begin), ring_(ring), pattern_(pattern) {}

  void append(std::span<const float> k, std::span<const float> v) {
    if (page_of(n_) == std::ssize(pages_))
      pages_.emplace_back(at(slots_ * kv_position_bytes(type_, h_)), static_cast<std::byte>(pattern_));
    kv_store(type_, pages_[at(page_of(n_))].data(), slots_, slot_of(n_), k, v);
    ++n_;
  }
  /// Random positions; keys of the given size.
  void append_random(std::int64_t n, std::uint64_t seed, double size = 1) {
    const auto k = random_floats(n * h_, seed, size), v = random_floats(n * h_, seed + 1);
    for (std::int64_t p = 0; p < n; ++p)
      append(std::span(k).subspan(at(p * h_), at(h_)), std::span(v).subspan(at(p * h_), at(h_)));
  }
  std::vector<KvRun> first(std::int64_t n) const {
    std::vector<KvRun> runs;
    for (std::int64_t p = 0; p < n; ++p) {
      if (p == 0 || slot_of(p) == 0) runs.push_back({pages_[at(page_of(p))].data(), slots_, slot_of(p), 0});
      ++runs.back().n;
    }
    return runs;
  }
  std::int64_t size() const { return n_; }

  // Read as the header describes the layout.
  double key(std::int64_t p, std::int64_t i) const {
    const std::int64_t slot = slot_of(p);
    switch (type_) {
      case DType::f32:
        return read<float>(p, 4 * (i * slots_ + slot));
      case DType::bf16:
        return i < h_ / 2 * 2 ? number(read<bf16>(p, (i / 2 * slots_ + slot) * 4 + i % 2 * 2))
                              : number(read<bf16>(p, 2 * ((h_ - 1) * slots_ + slot)));
      case DType::int8: {
        const std::int64_t whole = h_ / 4 * 4;
        const int q = i < whole ? read<std::uint8_t>(p, (i / 4 * slots_ + slot) * 4 + i % 4)
                                : read<std::uint8_t>(p, whole * slots_ + slot * (h_ - whole) + i - whole);
        return (q - 128) * number(read<bf16>(p, 2 * slots_ * h_ + 2 * slot));
      }
      case DType::int4:
        break;
    }
    return 0;
  }
  double value(std::int64_t p, std::int64_t i) const {
    const std::int64_t slot = slot_of(p), index = (slots_ + slot) * h_ + i;
    switch (type_) {
      case DType::f32:
        return read<float>(p, 4 * index);
      case DType::bf16:
        return number(read<bf16>(p, 2 * index));
      case DType::int8:
        return read<std::int8_t>(p, index) * number(read<bf16>(p, 2 * slots_ * h_ + 2 * (slots_ + slot)));
      case DType::int4:
        break;
    }
    return 0;
  }

 private:
  std::int64_t page_of(std::int64_t p) const { return ring_ ? 0 : (begin_ + p) / slots_; }
  std::int64_t slot_of(std::int64_t p) const { return (begin_ + p) % slots_; }
  static double number(bf16 x) { return static_cast<double>(to_float(x)); }
  template <class T>
  T read(std::int64_t p, std::int64_t byte) const {
    T x;
    std::memcpy(&x, pages_[at(page_of(p))].data() + byte, sizeof x);
    return x;
  }

  DType type_;
  std::int64_t h_, slots_, begin_;
  bool ring_;
  int pattern_;
  std::int64_t n_ = 0;
  std::vector<std::vector<std::byte>> pages_;
};

// Rows whose gaps hold NaN and must keep it.
struct Rows {
  Rows(std::int64_t n_rows, std::int64_t n_cols, std::int64_t gap)
      : rows(n_rows), cols(n_cols), stride(n_cols + gap), all(at(n_rows * stride), NaN) {}
  void fill(std::uint64_t seed, double size = 1) {
    const auto values = random_floats(rows * cols, seed, size);
    for (std::int64_t r = 0; r < rows; ++r) std::copy_n(values.begin() + r * cols, cols, all.begin() + r * stride);
  }
  MatView<float> view() { return {all.data(), rows, cols, stride}; }
  std::span<const float> row(std::int64_t r) const { return std::span(all).subspan(at(r * stride), at(cols)); }
  bool gaps_untouched() const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = cols; c < stride; ++c)
        if (!std::isnan(all[at(r * stride + c)])) return false;
    return true;
  }
  std::int64_t rows, cols, stride;
  std::vector<float> all;
};

void attend_by(const Kernels& table, DType type, std::int64_t h, MatView<const float> q,
               std::span<const std::int64_t> visible, std::span<const KvRun> runs, MatView<float> out) {
  table.attention.attend({.type = type,
                          .head_dim = h,
                          .q = q,
                          .visible = visible.data(),
                          .runs = runs.data(),
                          .n_runs = std::ssize(runs),
                          .out = out});
}

class AttentionOn : public testing_support::EveryIsa {
 protected:
  // Heads too large for the buffers of an instruction set are left to the scalar code, which rounds nothing.
  static bool rounds(std::int64_t h) { return h <= table().attention.largest_rounded_head; }

  // A query as the kernels read it, divided by sqrt(h).
  static std::vector<double> as_read(DType type, std::span<const float> q) {
    const auto root = std::sqrt(static_cast<float>(q.size()));
    std::vector<double> read(q.begin(), q.end());
    if (type == DType::bf16 && rounds(std::ssize(q))) {
      const float scale = std::numbers::log2e_v<float> / root;
      for (double& x : read)
        x = static_cast<double>(to_float(to_bf16(static_cast<float>(x) * scale))) * std::numbers::ln2;
      return read;
    }
    if (type == DType::int8 && rounds(std::ssize(q))) {
      float largest = 0;
      for (const float x : q) largest = std::max(largest, std::abs(x));
      for (double& x : read)
        x = std::nearbyint(static_cast<float>(x) * (127 / largest)) * static_cast<double>(largest) / 127;
    }
    for (double& x : read) x /= static_cast<double>(root);
    return read;
  }

  // |out - softmax(q Kᵀ) V| against what rounding may cause.
  static void expect_attention(DType type, const Cache& cache, std::span<const float> q, std::int64_t visible,
                               std::span<const float> out) {
    const std::int64_t h = std::ssize(q);
    const std::vector<double> query = as_read(type, q);
    std::vector<double> weights(at(visible));
    double top = -1e300, largest_score = 0;
    for (std::int64_t p = 0; p < visible; ++p) {
      double score = 0, size = 0;
      for (std::int64_t i = 0; i < h; ++i) {
        const double term = query[at(i)] * cache.key(p, i);
        score += term, size += std::abs(term);
      }
      weights[at(p)] = score;
      top = std::max(top, score), largest_score = std::max(largest_score, size);
    }
    double sum = 0;
    for (double& w : weights) w = std::exp(w - top), sum += w;
    // float32 sums of the scores; bfloat16: weights rounded to 8 bits; int8: to 15 bits of a block's largest, values
    // with them.
    const double of_scores = 2e-7 * (4 + largest_score + static_cast<double>(h) / 16 * largest_score);
    const double of_weights = type == DType::bf16 && table().attention.rounds_weights && rounds(h) ? 0x1p-8 : 0;
    const double of_block = type == DType::int8 && rounds(h) ? 0.51 / 32767 : 0;
    double largest = 0;
    for (std::int64_t p = 0; of_block > 0 && p < visible; ++p)
      for (std::int64_t i = 0; i < h; ++i) largest = std::max(largest, std::abs(cache.value(p, i)));
    largest /= sum;  // the largest weight is 1 / sum
    for (std::int64_t i = 0; i < h; ++i) {
      double want = 0, size = 0;
      for (std::int64_t p = 0; p < visible; ++p) {
        const double term = weights[at(p)] / sum * cache.value(p, i);
        want += term, size += std::abs(term);
      }
      const double tolerance =
          (2 * of_scores + of_weights) * size + of_block * static_cast<double>(visible) * largest + 1e-30;
      ASSERT_NEAR(static_cast<double>(out[at(i)]), want, tolerance)
          << to_string(type) << ", head of " << h << ", " << visible << " positions, element " << i;
    }
  }

  // n causal rows, the last of which sees all of the cache.
  static void expect_rows(DType type, std::int64_t h, const Cache& cache, std::int64_t n, std::int64_t heads,
                          std::int64_t gap) {
    Rows q(n, heads * h, gap), out(n, heads * h, gap);
    q.fill(static_cast<std::uint64_t>(n + h));
    std::vector<std::int64_t> visible(at(n));
    std::iota(visible.begin(), visible.end(), cache.size() - n + 1);
    attend_by(table(), type, h, q.view(), visible, cache.first(cache.size()), out.view());
    EXPECT_TRUE(out.gaps_untouched());
    const std::int64_t every = n > 8 ? 7 : 1;  // of many rows the reference checks some, the last among them
    for (std::int64_t r = (n - 1) % every; r < n; r += every)
      for (std::int64_t head = 0; head < heads; ++head) {
        const auto part = [&](std::span<const float> row) { return row.subspan(at(head * h), at(h)); };
        expect_attention(type, cache, part(q.row(r)), visible[at(r)], part(out.row(r)));
        if (HasFatalFailure()) return;
      }
  }
};

TEST_P(AttentionOn, AttentionIsSoftmaxOverTheStoredPositions) {
  std::uint64_t seed = 0;
  for (const DType type : kv_types)
    for (const std::int64_t h : head_dims)
      for (const std::int64_t slots : {1, 4, 7, 16, 64})
        for (const std::int64_t heads : {1, 2, 3, 4}) {
          SCOPED_TRACE(testing::Message() << slots << " slots, " << heads << " heads, seed " << seed);
          // Sizes on both sides of vectors, pages and blocks; over the whole loop each meets each.
          constexpr std::int64_t sizes[]{1, 3, 7, 16, 17, 33, 64, 65, 80, 129, 200}, rows[]{1, 2, 5, 40, 70};
          const std::int64_t size = sizes[seed % std::size(sizes)];
          const std::int64_t n = std::min(rows[seed / 2 % std::size(rows)], size);
          Cache cache(type, h, slots, /*begin=*/seed % 3 == 0 ? slots / 2 : 0);
          cache.append_random(size, ++seed);
          expect_rows(type, h, cache, n, heads, /*gap=*/static_cast<std::int64_t>(seed % 2) * 5);
          if (HasFatalFailure()) return;
        }
}

TEST_P(AttentionOn, AttentionOverWrappedRings) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {5, 52, 64})
      for (const std::int64_t slots : {4, 7, 16, 64, 100})
        for (const std::int64_t begin : {std::int64_t{1}, slots / 2, slots - 1}) {
          Cache cache(type, h, slots, begin, /*ring=*/true);
          cache.append_random(slots, static_cast<std::uint64_t>(slots + begin));
          expect_rows(type, h, cache, /*n=*/1, /*heads=*/2, 0);
          if (HasFatalFailure()) return;
        }
}

TEST_P(AttentionOn, RowsHaveTheSameBitsAloneAndInCompany) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {1, 3, 8, 52, 64, 80, 128, 300})
      for (const std::int64_t heads : {1, 3}) {
        const std::int64_t size = 150, n = 110;  // more queries than a tile, positions of three blocks
        Cache cache(type, h, 16, 0);
        cache.append_random(size, 1, /*size=*/3);
        Rows q(n, heads * h, 0), together(n, heads * h, 0);
        q.fill(5);
        std::vector<std::int64_t> visible(at(n));
        for (std::int64_t r = 0; r < n; ++r) visible[at(r)] = r < 20 ? 1 + r / 10 : size - n + r + 1;
        const auto runs = cache.first(size);
        attend_by(table(), type, h, q.view(), visible, runs, together.view());
        for (std::int64_t r = 0; r < n; ++r) {
          Rows alone(1, heads * h, 0);
          attend_by(table(), type, h, MatView<const float>(q.view()).slice(r, 1), std::span(visible).subspan(at(r), 1),
                    cache.first(visible[at(r)]), alone.view());
          ASSERT_TRUE(same_bits(alone.row(0), together.row(r)))
              << to_string(type) << ", head of " << h << ", row " << r << " that sees " << visible[at(r)];
        }
        for (const std::int64_t few : {2, 5, 9}) {  // other tiles
          Rows some(few, heads * h, 3);
          attend_by(table(), type, h, MatView<const float>(q.view()).slice(40, few),
                    std::span(visible).subspan(40, at(few)), runs, some.view());
          for (std::int64_t r = 0; r < few; ++r) ASSERT_TRUE(same_bits(some.row(r), together.row(40 + r)));
        }
      }
}

TEST_P(AttentionOn, WherePagesEndChangesNoBit) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {3, 8, 52}) {
      const std::int64_t size = 90;
      std::vector<float> first;
      for (const std::int64_t slots : {16, 1, 4, 7, 64, 100}) {
        Cache cache(type, h, slots, slots / 3);
        cache.append_random(size, 7);
        Rows q(12, h, 0), out(12, h, 0);
        q.fill(3);
        std::vector<std::int64_t> visible(12);
        std::iota(visible.begin(), visible.end(), size - 11);
        auto runs = cache.first(size);
        runs.insert(runs.begin(), {runs[0].head, slots, 0, 0});  // a run may be empty
        attend_by(table(), type, h, q.view(), visible, runs, out.view());
        if (first.empty()) first = out.all;
        EXPECT_TRUE(same_bits(out.all, first)) << to_string(type) << ", head of " << h << ", " << slots << " slots";
      }
    }
}

TEST_P(AttentionOn, SlotsThatARowDoesNotSeeChangeNoBit) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {1, 3, 7, 52, 64})
      for (const std::int64_t slots : {7, 16, 64})
        for (const std::int64_t size : {1, 5, 18, 66}) {
          std::vector<float> first;
          for (const int pattern : {0x00, 0xff, 0x7f, 0x5a}) {
            Cache cache(type, h, slots, slots / 2, false, pattern);
            cache.append_random(size, 9);
            Rows q(1, 2 * h, 0), out(1, 2 * h, 0);
            q.fill(3);
            attend_by(table(), type, h, q.view(), std::vector{size}, cache.first(size), out.view());
            if (first.empty()) first = out.all;
            ASSERT_TRUE(same_bits(out.all, first))
                << to_string(type) << ", head of " << h << ", " << slots << " slots, " << size << " positions";
          }
        }
}

TEST_P(AttentionOn, LargeScoresStayFinite) {
  for (const DType type : kv_types)
    for (const double size : {9.0, 1e3, 1e6})  // scores of ±80 and far beyond
      for (const std::int64_t rows : {1, 30}) {
        Cache cache(type, 52, 16, 0);
        cache.append_random(100, 1, size);
        Rows q(rows, 52, 0), out(rows, 52, 0);
        q.fill(2, 9);
        attend_by(table(), type, 52, q.view(), std::vector<std::int64_t>(at(rows), 100), cache.first(100), out.view());
        for (const float x : out.all) ASSERT_TRUE(std::isfinite(x)) << to_string(type);
        if (size > 9) continue;
        for (std::int64_t r = 0; r < rows; ++r) expect_attention(type, cache, q.row(r), 100, out.row(r));
      }
}

TEST_P(AttentionOn, NothingButZeros) {
  for (const DType type : kv_types) {
    Cache cache(type, 20, 16, 0);
    const std::vector<float> zeros(20), ones(20, 1.0f);
    for (std::int64_t p = 0; p < 70; ++p) cache.append(zeros, p % 2 == 0 ? zeros : ones);
    Rows q(1, 20, 0), out(1, 20, 0);
    std::ranges::fill(q.all, 0.0f);
    attend_by(table(), type, 20, q.view(), std::vector<std::int64_t>{70}, cache.first(70), out.view());
    for (const float x : out.all) EXPECT_NEAR(x, 0.5f, 1e-4f) << to_string(type);
    attend_by(table(), type, 20, q.view(), std::vector<std::int64_t>{1}, cache.first(1), out.view());
    for (const float x : out.all) EXPECT_EQ(x, 0.0f) << to_string(type);
  }
}

TEST_P(AttentionOn, HeadsOfAnySizeAreRight) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {129, 256, 511, 512, 513, 1000}) {
      Cache cache(type, h, 16, 0);
      cache.append_random(70, 4);
      expect_rows(type, h, cache, /*n=*/9, /*heads=*/2, 0);
      if (HasFatalFailure()) return;
    }
}

TEST_P(AttentionOn, RotationTurnsPairsByTheirAngles) {
  for (const std::int64_t h : {1, 2, 3, 8, 33, 52, 64, 128}) {
    const std::vector<std::int64_t> positions{0, 1, 7, 1000, 1'000'003};
    const std::int64_t heads = 3, half = h / 2, n = std::ssize(positions);
    Rows cos_sin(n, 2 * half, 1), x(n, heads * h, 2);
    x.fill(1);
    const Rows before = x;
    rope_table(positions, 10000.0, h, cos_sin.view());
    table().attention.rotate(cos_sin.view(), h, x.view());
    EXPECT_TRUE(x.gaps_untouched() && cos_sin.gaps_untouched());
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t head = 0; head < heads; ++head) {
        const auto was = before.row(r).subspan(at(head * h), at(h)), is = x.row(r).subspan(at(head * h), at(h));
        for (std::int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(positions[at(r)]) *
                               std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(h));
          const double a = was[at(i)], b = was[at(i + h - half)], size = std::abs(a) + std::abs(b);
          ASSERT_NEAR(is[at(i)], a * std::cos(angle) - b * std::sin(angle), 2e-7 * size);
          ASSERT_NEAR(is[at(i + h - half)], b * std::cos(angle) + a * std::sin(angle), 2e-7 * size);
        }
        ASSERT_TRUE(h % 2 == 0 || is[at(half)] == was[at(half)]);
      }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionOn, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(KvStore, HoldsWhatItWasGivenUpToTheTypesRounding) {
  for (const DType type : kv_types)
    for (const std::int64_t h : head_dims)
      for (const std::int64_t slots : {1, 7, 16}) {
        Cache cache(type, h, slots, 0);
        const std::int64_t n = 2 * slots;
        const auto k = random_floats(n * h, 1, 10), v = random_floats(n * h, 2);
        const auto part = [&](const auto& all, std::int64_t p) { return std::span(all).subspan(at(p * h), at(h)); };
        for (std::int64_t p = 0; p < n; ++p) cache.append(part(k, p), part(v, p));
        const auto expect_close = [&](double got, std::span<const float> vector, std::int64_t i) {
          double largest = 0;
          for (const float x : vector) largest = std::max(largest, std::abs(static_cast<double>(x)));
          const double want = vector[at(i)];
          // int8: half a step of a scale that is rounded to 8 bits itself
          const double tolerance = type == DType::f32    ? 0
                                   : type == DType::bf16 ? std::abs(want) * 0x1p-8
                                                         : largest / 127 * 0.5 * (1 + 0x1p-7);
          ASSERT_NEAR(got, want, tolerance) << to_string(type) << ", head of " << h << ", " << slots << " slots";
        };
        for (std::int64_t p = 0; p < n; ++p)
          for (std::int64_t i = 0; i < h; ++i) {
            expect_close(cache.key(p, i), part(k, p), i);
            expect_close(cache.value(p, i), part(v, p), i);
          }
      }
}

TEST(KvStore, WritesItsSlotAloneAndEveryByteOfIt) {
  for (const DType type : kv_types)
    for (const std::int64_t h : {1, 2, 3, 5, 52})
      for (const std::int64_t slots : {1, 4, 7, 16}) {
        const auto k = random_floats(h, 1), v = random_floats(h, 2);
        std::vector<int> writers(at(slots * kv_position_bytes(type, h)));
        for (std::int64_t slot = 0; slot < slots; ++slot) {
          std::vector<bool> written(writers.size());
          for (const int pattern : {0x00, 0xff}) {  // a byte that equals one pattern differs from the other
            std::vector<std::byte> page(writers.size(), static_cast<std::byte>(pattern));
            kv_store(type, page.data(), slots, slot, k, v);
            for (std::size_t i = 0; i < page.size(); ++i)
              if (page[i] != static_cast<std::byte>(pattern)) written[i] = true;
          }
          for (std::size_t i = 0; i < written.size(); ++i) writers[i] += written[i];
        }
        for (const int n : writers) ASSERT_EQ(n, 1) << to_string(type) << ", head of " << h << ", " << slots;
      }
}

TEST(KvStore, TinyAndHugeVectorsKeepFiniteScales) {
  for (const float size : {0.0f, 1e-44f, 1e-38f, 1e-30f, 1e30f}) {
    const std::vector<float> k{size, -size, size / 3, 0}, v{-size, size, 0, size / 2};
    Cache cache(DType::int8, 4, 1, 0);
    cache.append(k, v);
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(cache.key(0, i), static_cast<double>(k[at(i)]), static_cast<double>(size) / 250 + 1e-36);
      EXPECT_NEAR(cache.value(0, i), static_cast<double>(v[at(i)]), static_cast<double>(size) / 250 + 1e-36);
    }
  }
}

TEST(Attend, IsTheChosenInstructionSetsAttention) {
  Cache cache(DType::bf16, 52, 16, 0);
  cache.append_random(40, 1);
  Rows q(3, 104, 0), out(3, 104, 0), want(3, 104, 0);
  q.fill(1);
  const std::vector<std::int64_t> visible{38, 39, 40};
  attend(DType::bf16, 52, q.view(), visible, cache.first(40), out.view());
  attend_by(kernels(), DType::bf16, 52, q.view(), visible, cache.first(40), want.view());
  EXPECT_TRUE(same_bits(out.all, want.all));
}

TEST(Rotate, ScoresDependOnDistancesAlone) {
  const std::int64_t h = 52;
  const auto score = [&](std::int64_t from, std::int64_t to) {
    const std::vector<std::int64_t> positions{from, to};
    Rows cos_sin(2, h, 0), x(2, h, 0);
    x.fill(1);
    rope_table(positions, 10000.0, h, cos_sin.view());
    rotate(cos_sin.view(), h, x.view());
    return std::inner_product(x.row(0).begin(), x.row(0).end(), x.row(1).begin(), 0.0);
  };
  EXPECT_NEAR(score(5, 3), score(100'005, 100'003), 1e-4);
  EXPECT_GT(std::abs(score(5, 3) - score(5, 2)), 1e-2);
}

}  // namespace
}  // namespace photon
