// For the tests of kernels/: every table of kernels that was built, and random rows.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <ostream>
#include <span>
#include <vector>

#include "base/random.h"
#include "kernels/kernels.h"

namespace photon {

inline void PrintTo(const Kernels& table, std::ostream* out) { *out << table.name; }

namespace testing_support {

inline constexpr float NaN = std::numeric_limits<float>::quiet_NaN();

inline std::vector<float> random_floats(std::int64_t n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}

/// Also where both are the same NaN.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A test for each table, skipped where the CPU cannot run it.
class EveryIsa : public testing::TestWithParam<Kernels> {
 protected:
  void SetUp() override {
    if (!table().runs_here()) GTEST_SKIP() << "this CPU lacks " << table().name;
  }
  static const Kernels& table() { return GetParam(); }
};

}  // namespace testing_support
}  // namespace photon
