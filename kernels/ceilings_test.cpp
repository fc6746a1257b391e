#include "kernels/ceilings.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace photon {
namespace {

class PeakOn : public testing_support::EveryIsa {};

TEST_P(PeakOn, LoopsReadEveryWordOfEveryBlock) {
  std::vector<std::uint64_t> words(3 * peak_block_bytes / sizeof(std::uint64_t));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = i * i + 1;
  for (std::size_t i = 0; i < words.size() * 2 / 3; ++i) sum += words[i];
  for (const bool ahead : {false, true}) EXPECT_EQ(table().peak.read(words.data(), 2, ahead), sum);
}

// The products are powers of two and their sums exact, so the result says how many there were: in one lane that is
// every step once.
TEST_P(PeakOn, LoopsMultiplyAndAddInEveryStep) {
  for (const PeakKernels::Loop* loop : {&table().peak.f32, &table().peak.bf16, &table().peak.int8}) {
    EXPECT_GT(loop->operations, 0);
    EXPECT_EQ(loop->run(0), 0);
    EXPECT_NE(loop->run(1), 0);
    EXPECT_FLOAT_EQ(loop->run(1000), 1000 * loop->run(1));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, PeakOn, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& table) { return std::string(table.param.name); });

TEST(ReadProbe, TellsASpeedForEverySizeUpToItsOwn) {
  const ReadProbe probe(4 << 20);  // fits a cache: no figure to expect
  for (const std::int64_t bytes : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 20, std::int64_t{1} << 40}) {
    EXPECT_GT(probe.gb_s(bytes), 1e-6);
    EXPECT_LT(probe.gb_s(bytes), 1e6);
  }
}

TEST(Peak, IsMeasuredForEveryArithmetic) {
  for (const Arithmetic arithmetic : {Arithmetic::f32, Arithmetic::bf16, Arithmetic::int8}) {
    EXPECT_GT(measure_peak_gop_s(arithmetic), 1e-3);
    EXPECT_LT(measure_peak_gop_s(arithmetic), 1e9);
  }
}

}  // namespace
}  // namespace photon
