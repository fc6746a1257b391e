// Every instruction set that runs here against float64 references; what holds for matmul(), rope() and the dispatch.
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"

namespace photon {

void PrintTo(const Kernels* table, std::ostream* out) { *out << table->name; }

namespace {

constexpr float NaN = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();
// Below, at and above a vector; photon-600m's head, embedding and width.
const std::vector<std::int64_t> widths{1, 2, 15, 16, 17, 31, 33, 52, 416, 1664};

std::vector<float> random_floats(std::int64_t n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}

template <class T>
T from_float(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return to_bf16(x);
}
double as_double(float x) { return static_cast<double>(x); }
double as_double(bf16 x) { return static_cast<double>(to_float(x)); }

// A matrix whose rows lie `gap` elements apart; the gaps hold NaN (bf16: NaN too), and must keep it.
template <class T>
struct Strided {
  Strided(std::int64_t n_rows, std::int64_t n_cols, std::int64_t gap)
      : rows(n_rows),
        cols(n_cols),
        stride(n_cols + gap),
        all(static_cast<std::size_t>(n_rows * stride), from_float<T>(NaN)) {}
  static Strided random(std::int64_t n_rows, std::int64_t n_cols, std::int64_t gap, std::uint64_t seed) {
    Strided made(n_rows, n_cols, gap);
    const auto values = random_floats(n_rows * n_cols, seed);
    for (std::int64_t r = 0; r < n_rows; ++r)
      for (std::int64_t c = 0; c < n_cols; ++c)
        made.at(r, c) = from_float<T>(values[static_cast<std::size_t>(r * n_cols + c)]);
    return made;
  }
  T& at(std::int64_t r, std::int64_t c) { return all[static_cast<std::size_t>(r * stride + c)]; }
  const T& at(std::int64_t r, std::int64_t c) const { return all[static_cast<std::size_t>(r * stride + c)]; }
  MatView<T> view() { return {all.data(), rows, cols, stride}; }
  MatView<const T> view() const { return {all.data(), rows, cols, stride}; }
  bool gaps_untouched() const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = cols; c < stride; ++c)
        if (!std::isnan(as_double(at(r, c)))) return false;
    return true;
  }
  std::int64_t rows, cols, stride;
  std::vector<T> all;
};

Weight weight_of(const Strided<float>& w) { return {.type = Weight::Type::f32, .f32 = w.view()}; }
Weight weight_of(const Strided<bf16>& w) { return {.type = Weight::Type::bf16, .b16 = w.view()}; }

// Also where both are the same NaN.
bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

void call_matmul(const Kernels& table, MatView<const float> x, MatView<const float> w, MatView<float> y, bool add) {
  table.matmul_f32(x, w, y, add);
}
void call_matmul(const Kernels& table, MatView<const float> x, MatView<const bf16> w, MatView<float> y, bool add) {
  table.matmul_bf16(x, w, y, add);
}

// |got - Σ x w| <= k-independent multiple of float32 rounding of Σ |x w|.
template <class W>
void expect_product(const Strided<float>& x, const Strided<W>& w, bool x_is_rounded, const Strided<float>* before,
                    const Strided<float>& y) {
  for (std::int64_t r = 0; r < x.rows; ++r) {
    std::vector<double> inputs;
    for (const float value : x.view().row(r))
      inputs.push_back(as_double(x_is_rounded ? to_float(to_bf16(value)) : value));
    for (std::int64_t o = 0; o < w.rows; ++o) {
      double want = before ? as_double(before->at(r, o)) : 0, size = std::abs(want);
      const W* weights = w.view().row(o).data();
      for (const double input : inputs) {
        const double term = input * as_double(*weights++);
        want += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(as_double(y.at(r, o)), want, 1e-6 * size)
          << x.rows << " rows, " << w.rows << " outputs, width " << x.cols << ", at " << r << ", " << o;
    }
  }
}

class EveryIsa : public testing::TestWithParam<const Kernels*> {
 protected:
  void SetUp() override {
    if (!table().runs_here()) GTEST_SKIP() << "this CPU lacks " << table().name;
  }
  static const Kernels& table() { return *GetParam(); }

  template <class W>
  static void expect_matmul(std::int64_t n, std::int64_t outputs, std::int64_t width, std::int64_t gap) {
    const auto x = Strided<float>::random(n, width, gap, 1);
    const auto w = Strided<W>::random(outputs, width, gap, 2);
    const bool rounds = std::is_same_v<W, bf16> && table().bf16_rounds_x;
    Strided<float> y(n, outputs, gap);
    call_matmul(table(), x.view(), w.view(), y.view(), false);
    expect_product(x, w, rounds, nullptr, y);
    EXPECT_TRUE(y.gaps_untouched());
    auto sum = Strided<float>::random(n, outputs, gap, 3);
    const auto before = sum;
    call_matmul(table(), x.view(), w.view(), sum.view(), true);
    expect_product(x, w, rounds, &before, sum);
    EXPECT_TRUE(sum.gaps_untouched());
  }
  template <class W>
  static void expect_matmul_of_every_shape() {
    for (const std::int64_t width : widths)
      for (const std::int64_t outputs : {1, 3, 4, 5, 16, 17, 100})
        for (const std::int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64}) {
          if (width * outputs * n > 200'000) continue;  // nothing new, and the reference is slow
          expect_matmul<W>(n, outputs, width, /*gap=*/outputs % 2 == 0 ? 0 : 5);
          if (HasFatalFailure()) return;
        }
  }
  template <class W>
  static void expect_rows_independent(std::int64_t width, std::int64_t outputs) {
    const auto x = Strided<float>::random(70, width, 3, 1);
    const auto w = Strided<W>::random(outputs, width, 1, 2);
    Strided<float> alone(x.rows, w.rows, 0);
    for (std::int64_t r = 0; r < x.rows; ++r)
      call_matmul(table(), x.view().slice(r, 1), w.view(), alone.view().slice(r, 1), false);
    for (const std::int64_t n : {2, 3, 4, 5, 7, 8, 16, 33, 70}) {
      Strided<float> together(n, w.rows, 0);
      call_matmul(table(), x.view().slice(70 - n, n), w.view(), together.view(), false);
      for (std::int64_t r = 0; r < n; ++r)
        ASSERT_TRUE(same_bits(together.view().row(r), alone.view().row(70 - n + r))) << n << " rows, row " << r;
    }
  }
};

TEST_P(EveryIsa, MatmulF32) { expect_matmul_of_every_shape<float>(); }
TEST_P(EveryIsa, MatmulBf16) { expect_matmul_of_every_shape<bf16>(); }

TEST_P(EveryIsa, MatmulHandlesRowsTooLongForAnyBuffer) {
  expect_matmul<bf16>(5, 2, 20000, 1);  // the AVX-512 kernel's buffer holds three such rows
  expect_matmul<bf16>(2, 1, 70001, 0);  // and none of these
  expect_matmul<float>(5, 2, 20000, 1);
}

TEST_P(EveryIsa, MatmulRowIsBitIdenticalAloneAndInAnyBatch) {
  expect_rows_independent<float>(416, 13);
  expect_rows_independent<float>(53, 37);
  expect_rows_independent<bf16>(416, 13);
  expect_rows_independent<bf16>(53, 37);
  expect_rows_independent<bf16>(3000, 7);  // the AVX-512 kernel rounds 21 such rows together
}

TEST_P(EveryIsa, MatmulOutputIsBitIdenticalInAnySplitOfOutputs) {
  const auto x = Strided<float>::random(6, 333, 0, 1);
  const auto w = Strided<bf16>::random(41, 333, 0, 2);
  Strided<float> whole(6, 41, 0), split(6, 41, 0);
  table().matmul_bf16(x.view(), w.view(), whole.view(), false);
  for (std::int64_t first = 0, n = 1; first < 41; first += n, n = std::min(n + 3, 41 - first))
    table().matmul_bf16(x.view(), w.view().slice(first, n), {split.all.data() + first, 6, n, 41}, false);
  EXPECT_TRUE(same_bits(whole.all, split.all));
}

TEST_P(EveryIsa, RmsNorm) {
  for (const std::int64_t width : widths)
    for (const double scale : {1e-3, 1.0, 1e4}) {
      const auto x = random_floats(width, 1, scale), w = random_floats(width, 2);
      double squares = 0;
      for (const float value : x) squares += as_double(value) * as_double(value);
      const double norm = 1 / std::sqrt(squares / static_cast<double>(width) + as_double(1e-5f));
      std::vector<float> y(x.size(), NaN), in_place = x;
      table().rms_norm(x, w, 1e-5f, y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = as_double(x[i]) * norm * as_double(w[i]);
        ASSERT_NEAR(as_double(y[i]), want, 1e-6 * std::abs(want)) << width;
      }
      table().rms_norm(in_place, w, 1e-5f, in_place);
      EXPECT_TRUE(same_bits(in_place, y));
    }
}

TEST_P(EveryIsa, SwigluIsAccurateOverTheWholeRange) {
  std::vector<float> gates{0.0f,   -0.0f,  1e-30f,  -1e-30f, 87.0f, -87.0f,
                           -88.8f, -95.0f, -103.0f, -110.0f, 1e30f, -1e30f};
  for (int i = -4000; i <= 4000; ++i) gates.push_back(static_cast<float>(i) * 0.025f);
  const auto up = random_floats(std::ssize(gates), 3);
  auto got = gates;
  table().swiglu(got, up);
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const double gate = as_double(gates[i]), want = gate / (1 + std::exp(-gate)) * as_double(up[i]);
    // Beyond -88 e^-gate overflows float32: silu is then 0 instead of at most 1e-36.
    ASSERT_NEAR(as_double(got[i]), want, 4e-7 * std::abs(want) + 1e-35) << "silu(" << gates[i] << ")";
  }
}

TEST_P(EveryIsa, SwigluOfEveryWidthLeavesNeighboursAlone) {
  for (const std::int64_t width : widths) {
    const auto gate = random_floats(width, 1, 3), up = random_floats(width, 2);
    auto got = gate;
    got.push_back(NaN);
    table().swiglu(std::span(got).first(gate.size()), up);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double want = as_double(gate[i]) / (1 + std::exp(-as_double(gate[i]))) * as_double(up[i]);
      ASSERT_NEAR(as_double(got[i]), want, 4e-7 * std::abs(want));
    }
    EXPECT_TRUE(std::isnan(got.back()));
  }
}

TEST_P(EveryIsa, SwigluKeepsNaN) {
  std::vector<float> gate(19, NaN);
  table().swiglu(gate, std::vector<float>(19, 1.0f));
  for (const float value : gate) EXPECT_TRUE(std::isnan(value));
}

TEST_P(EveryIsa, ToBf16RoundsToNearestEvenAndKeepsSpecialValues) {
  std::vector<float> x{
      0.0f, -0.0f, inf, -inf, NaN, std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu)};
  for (const std::uint32_t bits : {0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f807fffu, 0x7f7fffffu, 0x00000001u,
                                   0x00008000u, 0x00018000u, 0x007fffffu, 0x80018000u})
    x.push_back(std::bit_cast<float>(bits));
  for (const float value : random_floats(1000, 5, 100)) x.push_back(value);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // ties to even, down
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);  // and up
  for (const std::int64_t width :
       {std::int64_t{1}, std::int64_t{7}, std::int64_t{8}, std::int64_t{17}, std::ssize(x)}) {
    std::vector<bf16> y(static_cast<std::size_t>(width) + 1, bf16{0xabcd});
    table().to_bf16(std::span(x).first(static_cast<std::size_t>(width)),
                    std::span(y).first(static_cast<std::size_t>(width)));
    for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
      ASSERT_EQ(y[i].bits, to_bf16(x[i]).bits) << std::hex << std::bit_cast<std::uint32_t>(x[i]);
      ASSERT_EQ(std::isnan(to_float(y[i])), std::isnan(x[i]));
    }
    EXPECT_EQ(y.back().bits, 0xabcd);
  }
}

TEST_P(EveryIsa, LogSumExp) {
  for (std::int64_t width : {1, 2, 15, 16, 17, 33, 4096, 32000})
    for (const double shift : {0.0, 1e4, -1e4, 3e38}) {
      auto x = random_floats(width, 7, 3);
      for (float& value : x) value += static_cast<float>(shift);
      const double top = as_double(*std::max_element(x.begin(), x.end()));
      double sum = 0;
      for (const float value : x) sum += std::exp(as_double(value) - top);
      const double want = top + std::log(sum);
      ASSERT_NEAR(as_double(table().log_sum_exp(x)), want, 2e-6 + 1.2e-7 * std::abs(want)) << width;
    }
  EXPECT_EQ(table().log_sum_exp(std::vector<float>{-inf, 2.0f, -inf}), 2.0f);
  EXPECT_EQ(table().log_sum_exp(std::vector<float>(20, -inf)), -inf);
}

TEST_P(EveryIsa, LogSumExpKeepsNaN) {
  for (const std::size_t at : {0, 7, 20, 39}) {
    auto x = random_floats(40, 7);
    x[at] = NaN;
    EXPECT_TRUE(std::isnan(table().log_sum_exp(x))) << at;
  }
}

// Keys and values of `n` positions in runs of given lengths, each in its own memory.
template <class T>
struct Cache {
  Cache(const Strided<T>& k, const Strided<T>& v, const std::vector<std::int64_t>& lengths) {
    std::int64_t first = 0;
    for (const std::int64_t n : lengths) {
      Strided<T> run_k(n, k.cols, 3), run_v(n, v.cols, 3);
      for (std::int64_t p = 0; p < n; ++p)
        for (std::int64_t c = 0; c < k.cols; ++c) {
          run_k.at(p, c) = k.at(first + p, c);
          run_v.at(p, c) = v.at(first + p, c);
        }
      keys.push_back(std::move(run_k));
      values.push_back(std::move(run_v));
      first += n;
    }
    for (std::size_t i = 0; i < keys.size(); ++i)
      runs.push_back({keys[i].all.data(), values[i].all.data(), keys[i].rows, keys[i].stride});
  }
  std::vector<Strided<T>> keys, values;
  std::vector<OldKvRun<T>> runs;
};

void call_attend(const Kernels& table, const AttendShape& shape, std::span<const float> q,
                 std::span<const OldKvRun<float>> runs, std::span<float> out) {
  table.attend_f32(shape, q, runs, out);
}
void call_attend(const Kernels& table, const AttendShape& shape, std::span<const float> q,
                 std::span<const OldKvRun<bf16>> runs, std::span<float> out) {
  table.attend_bf16(shape, q, runs, out);
}

template <class T>
std::vector<double> attend_f64(const AttendShape& shape, std::span<const float> q, const Strided<T>& k,
                               const Strided<T>& v) {
  std::vector<double> out(q.size());
  const std::int64_t h = shape.head_dim;
  for (std::int64_t head = 0; head < shape.n_heads; ++head) {
    const std::int64_t kv = head / (shape.n_heads / shape.n_kv_heads);
    std::vector<double> scores;
    for (std::int64_t p = 0; p < k.rows; ++p) {
      double score = 0;
      for (std::int64_t i = 0; i < h; ++i)
        score += as_double(q[static_cast<std::size_t>(head * h + i)]) * as_double(k.at(p, kv * h + i));
      scores.push_back(score / std::sqrt(static_cast<double>(h)));
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - top);
    for (std::int64_t p = 0; p < k.rows; ++p)
      for (std::int64_t i = 0; i < h; ++i)
        out[static_cast<std::size_t>(head * h + i)] +=
            scores[static_cast<std::size_t>(p)] / sum * as_double(v.at(p, kv * h + i));
  }
  return out;
}

template <class T>
void expect_attend(const Kernels& table, const AttendShape& shape, std::int64_t positions, double score_scale) {
  const std::int64_t kv_width = shape.n_kv_heads * shape.head_dim;
  const auto q = random_floats(shape.n_heads * shape.head_dim, 1, score_scale);
  const auto k = Strided<T>::random(positions, kv_width, 0, 2), v = Strided<T>::random(positions, kv_width, 0, 3);
  const auto want = attend_f64(shape, q, k, v);
  const Cache<T> cache(k, v, {positions});
  std::vector<float> out(q.size() + 1, NaN);
  call_attend(table, shape, q, cache.runs, std::span(out).first(q.size()));
  for (std::size_t i = 0; i < q.size(); ++i)
    ASSERT_NEAR(as_double(out[i]), want[i], 2e-6 * score_scale)
        << shape.n_heads << "/" << shape.n_kv_heads << " heads of " << shape.head_dim << ", " << positions
        << " positions";
  EXPECT_TRUE(std::isnan(out.back()));
}

TEST_P(EveryIsa, AttendWithAnyHeadSizeHeadGroupAndLength) {
  for (const std::int64_t head_dim : {1, 2, 7, 8, 9, 15, 16, 17, 33, 52, 64, 128})
    for (const auto& [heads, kv_heads] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {4, 4}, {4, 2}, {6, 1}})
      for (const std::int64_t positions : {1, 2, 7, 8, 9, 16, 17, 40}) {
        expect_attend<float>(table(), {heads, kv_heads, head_dim}, positions, 1);
        expect_attend<bf16>(table(), {heads, kv_heads, head_dim}, positions, 1);
        if (HasFatalFailure()) return;
      }
}

TEST_P(EveryIsa, AttendWithMoreHeadsThanPassTogether) { expect_attend<bf16>(table(), {150, 75, 12}, 21, 1); }

TEST_P(EveryIsa, AttendOverThousandsOfPositionsWithPeakedScores) {
  expect_attend<float>(table(), {2, 1, 52}, 2001, 1);
  expect_attend<float>(table(), {2, 1, 52}, 2001, 10);  // scores up to ±40: the maximum keeps moving
  expect_attend<bf16>(table(), {2, 2, 52}, 2001, 10);
}

TEST_P(EveryIsa, AttendIsUnchangedWhereverRunsEnd) {
  const AttendShape shape{4, 2, 52};
  const auto q = random_floats(4 * 52, 1, 2);
  const auto k = Strided<float>::random(100, 2 * 52, 0, 2), v = Strided<float>::random(100, 2 * 52, 0, 3);
  std::vector<float> whole(q.size(), NaN);
  table().attend_f32(shape, q, Cache<float>(k, v, {100}).runs, whole);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{16, 16, 16, 16, 16, 16, 4}, {1, 99}, {99, 1}, {0, 50, 0, 0, 50, 0}, {37, 2, 61}}) {
    std::vector<float> out(q.size(), NaN);
    table().attend_f32(shape, q, Cache<float>(k, v, lengths).runs, out);
    for (std::size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(out[i], whole[i], 1e-6);
    EXPECT_TRUE(same_bits(out, whole));  // the engine's answer does not depend on how its cache is paged
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, EveryIsa, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& table) { return std::string(table.param->name); });

// Restores what a test of matmul() sets.
class Matmul : public testing::Test {
 protected:
  Matmul() : rows_(onednn_rows()), threads_(threads()) {}
  ~Matmul() override {
    set_onednn_rows(rows_);
    set_threads(threads_);
  }

 private:
  std::int64_t rows_, threads_;
};

template <class W>
void expect_threads_invariant() {
  const auto x = Strided<float>::random(9, 416, 2, 1);
  const auto w = Strided<W>::random(1003, 416, 2, 2);
  set_onednn_rows(std::numeric_limits<std::int64_t>::max());
  for (const std::int64_t n : {1, 4, 9}) {
    std::vector<Strided<float>> results;
    for (const std::int64_t n_threads : {1, 2, 3, 8}) {
      set_threads(n_threads);
      EXPECT_EQ(threads(), n_threads);
      auto y = Strided<float>(n, 1003, 0);
      matmul(x.view().slice(0, n), weight_of(w), y.view());
      results.push_back(std::move(y));
    }
    for (const auto& result : results) EXPECT_TRUE(same_bits(result.all, results[0].all));
    EXPECT_TRUE(
        std::none_of(results[0].all.begin(), results[0].all.end(), [](float value) { return std::isnan(value); }));
  }
}

TEST_F(Matmul, IsBitIdenticalForAnyThreadCount) {
  expect_threads_invariant<float>();
  expect_threads_invariant<bf16>();
}

template <class W>
void expect_onednn_equals_kernels() {
  for (const std::int64_t n : {1, 5, 64})
    for (const auto& [outputs, width] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {17, 33}, {100, 416}, {33, 1664}}) {
      const auto x = Strided<float>::random(n, width, 3, 1);
      const auto w = Strided<W>::random(outputs, width, 3, 2);
      for (const bool add : {false, true}) {
        const auto before = Strided<float>::random(n, outputs, 3, 3);
        auto own = before, library = before;
        set_onednn_rows(std::numeric_limits<std::int64_t>::max());
        matmul(x.view(), weight_of(w), own.view(), add);
        set_onednn_rows(0);
        matmul(x.view(), weight_of(w), library.view(), add);
        EXPECT_TRUE(library.gaps_untouched());
        // Without company a row is not rounded to bf16 on this table, so it must not be with company either.
        if (std::is_same_v<W, bf16> && !kernels().bf16_rounds_x) {
          EXPECT_TRUE(same_bits(library.all, own.all));
        }
        // Both sum the same rounded products in float32; only the order differs.
        const double bound = 1e-6 * static_cast<double>(width) + 1e-6;
        for (std::int64_t r = 0; r < n; ++r)
          for (std::int64_t o = 0; o < outputs; ++o)
            ASSERT_NEAR(library.at(r, o), own.at(r, o), bound) << n << " x " << outputs << " x " << width;
      }
    }
}

TEST_F(Matmul, OneDnnDiffersFromKernelsByRoundingOnly) {
  expect_onednn_equals_kernels<float>();
  expect_onednn_equals_kernels<bf16>();
}

TEST_F(Matmul, UsesOneDnnFromTheGivenRowCount) {
  set_onednn_rows(7);
  EXPECT_EQ(onednn_rows(), 7);
}

TEST_F(Matmul, OfNoRowsOrNoOutputsDoesNothing) {
  const auto x = Strided<float>::random(0, 16, 0, 1);
  const auto w = Strided<float>::random(4, 16, 0, 2);
  Strided<float> y(0, 4, 0);
  for (const std::int64_t rows : {0, 100}) {
    set_onednn_rows(rows);
    matmul(x.view(), weight_of(w), y.view());
  }
}

TEST(Rope, RotatesPairsByPositionTimesFrequency) {
  for (const std::int64_t head_dim : {1, 2, 3, 8, 51, 52})
    for (const std::int64_t n : {1, 5, 40}) {
      const std::int64_t heads = 3, pair = head_dim - head_dim / 2;
      auto x = Strided<float>::random(n, heads * head_dim, 2, 1);
      const auto before = x;
      std::vector<std::int64_t> positions;
      for (std::int64_t r = 0; r < n; ++r) positions.push_back(r * r * 77 % 131072);
      rope(positions, 10000.0, head_dim, x.view());
      for (std::int64_t r = 0; r < n; ++r)
        for (std::int64_t c = 0; c < heads * head_dim; ++c) {
          const std::int64_t i = c % head_dim, start = c - i;
          const std::int64_t lower = i >= pair ? i - pair : i;
          double want = as_double(before.at(r, c));
          if (lower < head_dim / 2) {
            const double angle = static_cast<double>(positions[static_cast<std::size_t>(r)]) *
                                 std::pow(10000.0, -2.0 * static_cast<double>(lower) / static_cast<double>(head_dim));
            const double a = as_double(before.at(r, start + lower)), b = as_double(before.at(r, start + lower + pair));
            want = i < pair ? a * std::cos(angle) - b * std::sin(angle) : b * std::cos(angle) + a * std::sin(angle);
          }
          ASSERT_NEAR(as_double(x.at(r, c)), want, 1e-6) << head_dim << ": " << r << ", " << c;
        }
      EXPECT_TRUE(x.gaps_untouched());
    }
}

TEST(Rope, RowIsBitIdenticalAloneAndInAnyBatch) {
  const auto before = Strided<float>::random(64, 104, 0, 1);
  auto together = before;
  std::vector<std::int64_t> positions(64);
  for (std::size_t r = 0; r < positions.size(); ++r) positions[r] = static_cast<std::int64_t>(r * 1000);
  rope(positions, 10000.0, 52, together.view());
  for (std::int64_t r = 0; r < 64; ++r) {
    auto alone = before;
    rope({&positions[static_cast<std::size_t>(r)], 1}, 10000.0, 52, alone.view().slice(r, 1));
    ASSERT_TRUE(same_bits(alone.view().row(r), together.view().row(r)));
  }
}

TEST(Rope, PositionZeroChangesNothing) {
  const auto before = Strided<float>::random(1, 52, 0, 1);
  auto x = before;
  const std::int64_t zero = 0;
  rope({&zero, 1}, 10000.0, 52, x.view());
  EXPECT_TRUE(same_bits(x.all, before.all));
}

TEST(Dispatch, EndsWithScalarAndItRunsEverywhere) {
  ASSERT_FALSE(all_kernels().empty());
  EXPECT_STREQ(all_kernels().back()->name, "scalar");
  EXPECT_TRUE(all_kernels().back()->runs_here());
}

// The choice is made once per process, so each of these asks a process of its own.
class DispatchDeathTest : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
  [[noreturn]] static void choose(const char* isa) {
    if (isa)
      setenv("PHOTON_ISA", isa, 1);
    else
      unsetenv("PHOTON_ISA");
    try {
      std::fprintf(stderr, "chose %s", kernels().name);
      std::_Exit(0);
    } catch (const InputError& error) {
      std::fprintf(stderr, "%s", error.what());
      std::_Exit(1);
    }
  }
};

TEST_F(DispatchDeathTest, TakesTheBestTableThatRunsHere) {
  const auto best =
      std::find_if(all_kernels().begin(), all_kernels().end(), [](const Kernels* table) { return table->runs_here(); });
  EXPECT_EXIT(choose(nullptr), testing::ExitedWithCode(0), std::string("chose ") + (*best)->name);
}

TEST_F(DispatchDeathTest, ObeysPhotonIsa) {
  for (const Kernels* table : all_kernels()) {
    if (table->runs_here()) {
      EXPECT_EXIT(choose(table->name), testing::ExitedWithCode(0), std::string("chose ") + table->name);
    } else {
      EXPECT_EXIT(choose(table->name), testing::ExitedWithCode(1), "cannot run it; it runs: .*scalar");
    }
  }
}

TEST_F(DispatchDeathTest, RefusesAnUnknownPhotonIsaAndNamesTheChoice) {
  EXPECT_EXIT(choose("avx9"), testing::ExitedWithCode(1),
              "PHOTON_ISA=avx9: no such instruction set; this CPU runs: .*scalar");
}

}  // namespace
}  // namespace photon
