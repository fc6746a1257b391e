#include "kernels/ceilings.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/peak.h"

namespace photon {
namespace {

struct NamedLoops {
  const char* isa;
  const PeakLoops* loops;
};

// Those of the instruction sets that run here.
std::vector<NamedLoops> all_loops() {
  std::vector<NamedLoops> all;
  for (const Kernels* table : all_kernels()) {
    if (!table->runs_here()) continue;
    const std::string_view name = table->name;
#ifdef PHOTON_X86
    if (name == "avx512_bf16") all.push_back({table->name, &avx512_peak});
    if (name == "avx2") all.push_back({table->name, &avx2_peak});
#endif
    if (name == "scalar") all.push_back({table->name, &scalar_peak});
  }
  return all;
}

TEST(PeakLoops, ReadEveryWordOfEveryBlock) {
  std::vector<std::uint64_t> words(3 * peak_block_bytes / sizeof(std::uint64_t));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = i * i + 1;
  for (std::size_t i = 0; i < words.size() * 2 / 3; ++i) sum += words[i];
  for (const auto& [isa, loops] : all_loops())
    for (const bool ahead : {false, true}) EXPECT_EQ(loops->read(words.data(), 2, ahead), sum) << isa;
}

// The products are powers of two and their sums exact, so the result says how many there were: in one lane that is
// every step once.
TEST(PeakLoops, MultiplyAndAddInEveryStep) {
  for (const auto& [isa, loops] : all_loops())
    for (const PeakLoops::Loop* loop : {&loops->f32, &loops->bf16, &loops->int8}) {
      EXPECT_GT(loop->operations, 0) << isa;
      EXPECT_EQ(loop->run(0), 0) << isa;
      EXPECT_NE(loop->run(1), 0) << isa;
      EXPECT_FLOAT_EQ(loop->run(1000), 1000 * loop->run(1)) << isa;
    }
}

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
