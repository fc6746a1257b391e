// Norms, conversions and sums of every instruction set that runs here, against float64 references; the dispatch.
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "kernels/kernels_testing.h"

namespace photon {
namespace {

using testing_support::NaN, testing_support::random_floats, testing_support::same_bits;

constexpr float inf = std::numeric_limits<float>::infinity();
// Below, at and above a vector; photon-600m's head, embedding and width.
const std::vector<std::int64_t> widths{1, 2, 15, 16, 17, 31, 33, 52, 416, 1664};

double as_double(float x) { return static_cast<double>(x); }

class RowsOn : public testing_support::EveryIsa {};

TEST_P(RowsOn, RmsNorm) {
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

TEST_P(RowsOn, ToBf16RoundsToNearestEvenAndKeepsSpecialValues) {
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

TEST_P(RowsOn, LogSumExp) {
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

TEST_P(RowsOn, LogSumExpKeepsNaN) {
  for (const std::size_t at : {0, 7, 20, 39}) {
    auto x = random_floats(40, 7);
    x[at] = NaN;
    EXPECT_TRUE(std::isnan(table().log_sum_exp(x))) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, RowsOn, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& table) { return std::string(table.param.name); });

TEST(Dispatch, EndsWithScalarAndItRunsEverywhere) {
  ASSERT_FALSE(all_kernels().empty());
  EXPECT_STREQ(all_kernels().back().name, "scalar");
  EXPECT_TRUE(all_kernels().back().runs_here());
}

TEST(Dispatch, NamesTheTablesThatProductsAreTestedOn) {  // kernels/CMakeLists.txt
  std::string names;
  for (const Kernels& table : all_kernels()) names = table.name + (names.empty() ? "" : " " + names);
  EXPECT_EQ(names, PHOTON_TESTED_TABLES);
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
      std::find_if(all_kernels().begin(), all_kernels().end(), [](const Kernels& table) { return table.runs_here(); });
  EXPECT_EXIT(choose(nullptr), testing::ExitedWithCode(0), std::string("chose ") + best->name);
}

TEST_F(DispatchDeathTest, ObeysPhotonIsa) {
  for (const Kernels& table : all_kernels()) {
    if (table.runs_here()) {
      EXPECT_EXIT(choose(table.name), testing::ExitedWithCode(0), std::string("chose ") + table.name);
    } else {
      EXPECT_EXIT(choose(table.name), testing::ExitedWithCode(1), "cannot run it; it runs: .*scalar");
    }
  }
}

TEST_F(DispatchDeathTest, RefusesAnUnknownPhotonIsaAndNamesTheChoice) {
  EXPECT_EXIT(choose("avx9"), testing::ExitedWithCode(1),
              "PHOTON_ISA=avx9: no such instruction set; this CPU runs: .*scalar");
}

}  // namespace
}  // namespace photon
