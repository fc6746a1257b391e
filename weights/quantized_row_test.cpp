// Rounding of rows: how far off, by which scale, in which bytes.
#include "weights/quantized_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace photon {
namespace {

std::vector<float> random_floats(std::int64_t n, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}

const std::vector<std::int64_t> row_sizes{1, 2, 15, 31, 32, 33, 52, 416};
constexpr std::array quantized{DType::int8, DType::int4};

struct Row {
  Row(DType t, const std::vector<float>& x)
      : type(t),
        k(std::ssize(x)),
        values(static_cast<std::size_t>(quantized_row_bytes(t, k)), std::byte{0x5a}),
        scales(static_cast<std::size_t>(quant_groups(k)), to_bf16(NAN)) {
    quantize_row(type, x, values, scales);
  }
  std::vector<float> back() const {
    std::vector<float> out(static_cast<std::size_t>(k), NAN);
    dequantize_row(type, {values.data(), scales.data()}, out);
    return out;
  }
  DType type;
  std::int64_t k;
  std::vector<std::byte> values;
  std::vector<bf16> scales;
};

double square_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
  return sum;
}

TEST(QuantizeRow, Int8ErrorIsAtMostHalfAStep) {
  for (const auto k : row_sizes) {
    const auto x = random_floats(k, 1, 0.02);
    const Row row(DType::int8, x);
    const auto back = row.back();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float scale = to_float(row.scales[i / quant_group]);
      ASSERT_LE(std::abs(x[i] - back[i]), 0.5001f * scale) << k << " " << i;
      ASSERT_NE(row.values[i], std::byte{0x80}) << "-128";
    }
  }
}

// The simple rule: the largest magnitude becomes -8 or 8, clamped to 7.
double simple_int4_error(const std::vector<float>& x) {
  double sum = 0;
  for (std::size_t first = 0; first < x.size(); first += quant_group) {
    const std::size_t end = std::min(x.size(), first + quant_group);
    float extreme = 0;
    for (std::size_t i = first; i < end; ++i)
      if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
    const float scale = to_float(to_bf16(extreme / -8));
    for (std::size_t i = first; i < end; ++i) {
      const double error = x[i] - std::clamp(std::nearbyint(x[i] / scale), -8.0f, 7.0f) * scale;
      sum += error * error;
    }
  }
  return sum;
}

TEST(QuantizeRow, Int4LeavesLessErrorThanTheSimpleRule) {
  const auto x = random_floats(1664, 2, 0.02);
  EXPECT_LT(square_error(x, Row(DType::int4, x).back()), 0.97 * simple_int4_error(x));
}

TEST(QuantizeRow, ValuesOnTheGridComeBackExactly) {
  std::vector<float> x;
  for (int i = 0; i < 32; ++i) x.push_back(static_cast<float>(i % 16 - 8) * 0.25f);  // -8 … 7
  EXPECT_EQ(Row(DType::int4, x).back(), x);
  for (float& value : x) value = -value;  // 8 … -7: a negative scale
  EXPECT_EQ(Row(DType::int4, x).back(), x);
  x.clear();
  for (int i = 0; i < 255; ++i) x.push_back(static_cast<float>(i % 32 == 0 ? 127 : i - 127) * 0.5f);
  EXPECT_EQ(Row(DType::int8, x).back(), x);
}

TEST(QuantizeRow, ZerosAndTheSmallestNumbersStayFinite) {
  for (const auto type : quantized)
    for (const float size : {0.0f, 1e-45f, 1e-39f, 1e-30f, 1e30f}) {
      const std::vector<float> x{size, -size, 0, size / 3};
      const auto back = Row(type, x).back();
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i], std::max(size * 0.08f, 1e-38f)) << size;
    }
}

TEST(QuantizeRow, AGroupIsRoundedByItself) {
  for (const auto type : quantized) {
    auto x = random_floats(96, 3);
    const Row before(type, x);
    for (std::size_t i = 32; i < 64; ++i) x[i] *= 1000;
    const Row after(type, x);
    for (const std::size_t g : {std::size_t{0}, std::size_t{2}}) EXPECT_EQ(before.scales[g], after.scales[g]);
    const auto a = before.back(), b = after.back();
    EXPECT_TRUE(std::equal(a.begin(), a.begin() + 32, b.begin()));
    EXPECT_TRUE(std::equal(a.begin() + 64, a.end(), b.begin() + 64));
  }
}

TEST(QuantizeRow, Int4HoldsTwoInputsAByteTheFirstInTheLowHalf) {
  const Row row(DType::int4, {-8, 7, 3});
  ASSERT_EQ(row.values.size(), 2u);
  EXPECT_EQ(to_float(row.scales[0]), 1);
  EXPECT_EQ(row.values[0], std::byte{0xf0});
  EXPECT_EQ(row.values[1], std::byte{0x8b});  // 8 = 0 beyond k
}

}  // namespace
}  // namespace photon
