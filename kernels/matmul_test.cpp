// Products of every weight type against float64, and what else matmul.h promises, with the kernels in use; ctest runs
// the program once for every instruction set (PHOTON_ISA).
#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/random.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace photon {
namespace {

using testing_support::NaN;

constexpr std::array weight_types{DType::f32, DType::bf16, DType::int8, DType::int4};
// Below, at and above a pair, a vector and a group; photon-600m's head, embedding and width.
const std::vector<std::int64_t> inner_sizes{1, 2, 15, 31, 32, 33, 52, 416, 1664};

Matrix<float> random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Random random(seed);
  Matrix<float> made(rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) made.data()[i] = static_cast<float>(random.normal());
  return made;
}

// A packed matrix beside the values that it stands for.
struct Packed {
  Packed(DType type, std::int64_t outputs, std::int64_t k, std::uint64_t seed, bool gated = false)
      : values(random_matrix(outputs, k, seed)) {
    view = {.type = type, .outputs = outputs, .k = k, .gated = gated};
    bytes.resize(view.n_panels(), panel_bytes(type, k));
    view.panels = bytes.data();
    for (std::int64_t p = 0; p < view.n_panels(); ++p) {
      // Panels alternate between the two matrices of a gated pair, which stand one after the other in `values`.
      const std::int64_t first = gated ? p / 2 * panel_outputs + p % 2 * outputs / 2 : p * panel_outputs;
      const std::int64_t end = gated && p % 2 == 0 ? outputs / 2 : outputs;
      pack(type, first, std::min(panel_outputs, end - first), bytes.row(p).data());
    }
  }
  void pack(DType type, std::int64_t first, std::int64_t n, std::byte* panel) {
    std::array<const float*, panel_outputs> floats{};
    std::array<QuantizedRow, panel_outputs> rows{};
    std::vector<std::vector<std::byte>> q(panel_outputs);
    std::vector<std::vector<bf16>> scales(panel_outputs);
    const bool quantized = type == DType::int8 || type == DType::int4;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto o = static_cast<std::size_t>(i);
      const auto row = values.row(first + i);
      floats[o] = row.data();
      if (type == DType::bf16)
        for (float& value : row) value = to_float(to_bf16(value));
      if (!quantized) continue;
      q[o].resize(static_cast<std::size_t>(quantized_row_bytes(type, std::ssize(row))));
      scales[o].resize(static_cast<std::size_t>(quant_groups(std::ssize(row))));
      quantize_row(type, row, q[o], scales[o]);
      rows[o] = {q[o].data(), scales[o].data()};
      dequantize_row(type, rows[o], row);
    }
    if (quantized)
      pack_panel(type, rows, values.cols(), panel);
    else
      pack_panel(type, floats, values.cols(), panel);
  }
  Matrix<float> values;  // [outputs, k]
  Matrix<std::byte> bytes;
  PackedWeight view;
};

// Input i of a row as products read it.
double input_at(const InputView& x, std::int64_t row, std::int64_t i) {
  const std::byte* data = x.data + row * x.stride;
  switch (x.form) {
    case InputForm::f32:
      return static_cast<double>(reinterpret_cast<const float*>(data)[i]);
    case InputForm::bf16:
      return static_cast<double>(to_float(reinterpret_cast<const bf16*>(data)[i]));
    case InputForm::int8: {
      const auto& group = reinterpret_cast<const Int8Group*>(data)[i / quant_group];
      return static_cast<double>(group.scale) * group.q[i % quant_group];
    }
  }
  return 0;
}

struct Product {
  double value = 0, size = 0;  // size: of the terms together
};
Product product(const InputView& x, std::int64_t row, std::span<const float> weights) {
  Product made;
  for (std::int64_t i = 0; i < x.k; ++i) {
    const double term = input_at(x, row, i) * static_cast<double>(weights[static_cast<std::size_t>(i)]);
    made.value += term;
    made.size += std::abs(term);
  }
  return made;
}

// An output whose rows lie apart, NaN everywhere: where something is missing, and in the gaps.
struct Output {
  Output(std::int64_t rows, std::int64_t cols, float fill = NaN) : all(rows, cols + gap) {
    std::fill_n(all.data(), rows * (cols + gap), NaN);
    view = {all.data(), rows, cols, cols + gap};
    for (std::int64_t r = 0; r < rows; ++r) std::fill_n(view.row(r).data(), cols, fill);
  }
  bool gaps_untouched() const {
    for (std::int64_t r = 0; r < view.rows; ++r)
      for (std::int64_t c = view.cols; c < view.stride; ++c)
        if (!std::isnan(all.row(r)[static_cast<std::size_t>(c)])) return false;
    return true;
  }
  static constexpr std::int64_t gap = 3;
  Matrix<float> all;
  MatView<float> view;
};

Inputs inputs(MatView<const float> x, DType type) {
  Inputs made;
  made.assign(x, input_form(type));
  return made;
}

void expect_product(DType type, std::int64_t rows, std::int64_t outputs, std::int64_t k) {
  const Packed w(type, outputs, k, 1);
  const auto x = inputs(random_matrix(rows, k, 2), type);
  Output set(rows, outputs), add(rows, outputs, 0.5f);
  matmul(x.view(), w.view, set.view);
  matmul(x.view(), w.view, add.view, Epilogue::add);
  EXPECT_TRUE(set.gaps_untouched() && add.gaps_untouched());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < outputs; ++o) {
      const Product want = product(x.view(), r, w.values.row(o));
      const double bound = 1e-6 * want.size + 1e-30;
      ASSERT_NEAR(set.view.row(r)[static_cast<std::size_t>(o)], want.value, bound)
          << to_string(type) << " " << rows << " rows " << outputs << " outputs " << k << " inputs at " << r << " "
          << o;
      ASSERT_NEAR(add.view.row(r)[static_cast<std::size_t>(o)], want.value + 0.5, bound + 1e-7) << to_string(type);
    }
}

TEST(Matmul, EqualsFloat64ForEveryTypeAndSize) {
  for (const auto type : weight_types) {
    for (const auto k : inner_sizes) expect_product(type, 5, 33, k);
    for (const std::int64_t outputs : {1, 3, 15, 16, 17, 33, 100}) expect_product(type, 3, outputs, 52);
    for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 24, 25, 64})
      for (const std::int64_t outputs : {16, 49, 100}) expect_product(type, rows, outputs, 63);
  }
}

TEST(Matmul, EqualsFloat64OverManyBlocksOfRows) {
  for (const auto type : weight_types) expect_product(type, 301, 20, 1664);
}

TEST(Matmul, SwigluOfAGatedPairEqualsFloat64) {
  for (const auto type : weight_types)
    for (const std::int64_t rows : {1, 4, 5, 13})
      for (const std::int64_t d_ff : {1, 15, 16, 20, 33, 64}) {  // also where the gate's last panel is not full
        const std::int64_t k = 63;
        const Packed w(type, 2 * d_ff, k, 1, /*gated=*/true);
        const auto x = inputs(random_matrix(rows, k, 2), type);
        Output y(rows, d_ff);
        matmul(x.view(), w.view, y.view, Epilogue::swiglu);
        EXPECT_TRUE(y.gaps_untouched());
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t o = 0; o < d_ff; ++o) {
            const Product gate = product(x.view(), r, w.values.row(o));
            const Product up = product(x.view(), r, w.values.row(d_ff + o));
            const double silu = gate.value / (1 + std::exp(-gate.value));
            // silu's slope is at most 1.1
            const double bound = 1e-6 * (1.1 * gate.size * (1 + std::abs(up.value)) + up.size * (1 + std::abs(silu)));
            ASSERT_NEAR(y.view.row(r)[static_cast<std::size_t>(o)], silu * up.value, bound)
                << to_string(type) << " " << rows << " rows, d_ff " << d_ff << " at " << r << " " << o;
          }
      }
}

TEST(Matmul, SwigluOfHugeGatesIsZeroOrTheProduct) {
  for (const auto type : weight_types) {
    Packed w(type, 2, 1, 1, /*gated=*/true);
    w.values.data()[0] = 1, w.values.data()[1] = 1;
    w.pack(type, 0, 1, w.bytes.row(0).data());
    w.pack(type, 1, 1, w.bytes.row(1).data());
    for (const float gate : {-1000.0f, 1000.0f}) {
      Matrix<float> x(1, 1);
      x.data()[0] = gate;
      const auto in = inputs(x, type);
      Output y(1, 1);
      matmul(in.view(), w.view, y.view, Epilogue::swiglu);
      EXPECT_NEAR(y.view.row(0)[0], gate < 0 ? 0 : 1e6f, 1e4f) << to_string(type);
    }
  }
}

// The bits of every row alone, and of all rows together.
void expect_same_bits_alone(DType type, MatView<const float> x, const PackedWeight& w, Epilogue epilogue) {
  const std::int64_t columns = w.gated ? w.outputs / 2 : w.outputs;
  const auto all = inputs(x, type);
  Output together(x.rows, columns, 0.25f);
  matmul(all.view(), w, together.view, epilogue);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const auto one = inputs(x.slice(r, 1), type);
    Output alone(1, columns, 0.25f);
    matmul(one.view(), w, alone.view, epilogue);
    ASSERT_EQ(std::memcmp(alone.view.data, together.view.row(r).data(), static_cast<std::size_t>(columns) * 4), 0)
        << to_string(type) << " row " << r << " of " << x.rows;
  }
}

TEST(Matmul, ARowDependsNeitherOnItsBatchNorOnItsPlace) {
  for (const auto type : weight_types) {
    const Packed plain(type, 7 * 16 + 5, 100, 1), gated(type, 2 * 56, 100, 2, /*gated=*/true);
    for (const std::int64_t rows : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 29}) {
      const auto x = random_matrix(rows, 100, 3);
      expect_same_bits_alone(type, x, plain.view, Epilogue::set);
      expect_same_bits_alone(type, x, plain.view, Epilogue::add);
      expect_same_bits_alone(type, x, gated.view, Epilogue::swiglu);
    }
  }
}

TEST(Matmul, TheNumberOfThreadsChangesNoBit) {
  const std::int64_t before = threads();
  for (const auto type : weight_types) {
    const Packed w(type, 800, 416, 1);
    for (const std::int64_t rows : {1, 7, 32}) {
      const auto x = random_matrix(rows, 416, 2);
      std::vector<Output> results;
      for (const std::int64_t n : {1, 2, 3, 5}) {
        set_threads(n);
        const auto in = inputs(x, type);
        results.emplace_back(rows, 800);
        matmul(in.view(), w.view, results.back().view);
        ASSERT_EQ(std::memcmp(results[0].all.data(), results.back().all.data(),
                              static_cast<std::size_t>(rows * results[0].all.cols()) * 4),
                  0)
            << to_string(type) << " " << n << " threads";
      }
    }
  }
  set_threads(before);
}

TEST(Matmul, RowsOfSeveralMatricesMayStandOneAfterAnother) {
  for (const auto type : weight_types) {
    const Packed both(type, 64, 100, 1);
    const auto x = inputs(random_matrix(3, 100, 2), type);
    Output all(3, 64), part(3, 32);
    matmul(x.view(), both.view, all.view);
    PackedWeight second = both.view;
    second.outputs = 32, second.panels += 2 * panel_bytes(type, 100);
    matmul(x.view(), second, part.view);
    for (std::int64_t r = 0; r < 3; ++r)
      EXPECT_TRUE(std::equal(part.view.row(r).begin(), part.view.row(r).end(), all.view.row(r).begin() + 32));
  }
}

TEST(Matmul, WhatMemoryHeldBeforeDoesNotLeakThroughThePadding) {
  for (const auto type : weight_types)
    for (const std::int64_t k : {1, 31, 33, 63}) {
      const Packed w(type, 20, k, 1);
      Matrix<float> wide(5, 200);
      std::fill_n(wide.data(), 5 * 200, NaN);
      Inputs x = inputs(wide, type);
      x.assign(random_matrix(5, k, 2), input_form(type));
      Output y(5, 20);
      matmul(x.view(), w.view, y.view);
      for (std::int64_t r = 0; r < 5; ++r)
        for (const float value : y.view.row(r)) ASSERT_TRUE(std::isfinite(value)) << to_string(type) << " " << k;
    }
}

TEST(Matmul, NothingIsReadOrWrittenWithoutRows) {
  for (const auto type : weight_types) {
    const Packed w(type, 16, 32, 1);
    const auto x = inputs(Matrix<float>(0, 32), type);
    matmul(x.view(), w.view, {nullptr, 0, 16, 16});
  }
}

TEST(Matmul, NaNAndInfinityInARowStayVisibleAndInTheirRow) {
  for (const auto type : weight_types)
    for (const float bad : {NaN, std::numeric_limits<float>::infinity()}) {
      const Packed w(type, 40, 70, 1);
      auto x = random_matrix(3, 70, 2);
      x.row(1)[33] = bad;
      const auto in = inputs(x, type);
      Output y(3, 40);
      matmul(in.view(), w.view, y.view);
      for (std::int64_t r = 0; r < 3; ++r)
        for (const float value : y.view.row(r))
          ASSERT_EQ(std::isfinite(value), r != 1) << to_string(type) << " " << bad;
    }
}

// ---- inputs ----

TEST(Inputs, EveryFormHoldsTheRowsRoundedAsItSays) {
  for (const auto form : {InputForm::f32, InputForm::bf16, InputForm::int8})
    for (const auto k : inner_sizes) {
      auto x = random_matrix(40, k, 1);
      for (const std::int64_t rows : {40, 3}) {  // the second time in used memory
        Inputs made;
        made.assign(random_matrix(50, 2 * k, 2), form);
        made.assign(x.view().slice(0, rows), form);
        const InputView& view = made.view();
        ASSERT_EQ(view.rows, rows);
        ASSERT_EQ(view.k, k);
        ASSERT_EQ(view.stride % 128, 64);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t i = 0; i < k; ++i) {
            const float want = x.row(r)[static_cast<std::size_t>(i)];
            const auto got = input_at(view, r, i);
            if (form == InputForm::f32) {
              ASSERT_EQ(got, want);
            }
            if (form == InputForm::bf16) {
              ASSERT_EQ(got, to_float(to_bf16(want)));
            }
            if (form == InputForm::int8) {
              const auto& group = reinterpret_cast<const Int8Group*>(view.data + r * view.stride)[i / quant_group];
              ASSERT_NEAR(got, want, 0.5001 * group.scale);
            }
          }
      }
    }
}

TEST(Inputs, AnInt8GroupHasItsLargestMagnitudeAt127AndStartsAtMinus128TimesItsSum) {
  auto x = random_matrix(1, 70, 1);
  x.row(0)[40] = -9;
  Inputs made;
  made.assign(random_matrix(1, 128, 2), InputForm::int8);
  made.assign(x, InputForm::int8);
  const auto* groups = reinterpret_cast<const Int8Group*>(made.view().data);
  EXPECT_FLOAT_EQ(groups[1].scale, 9.0f / 127);
  EXPECT_EQ(groups[1].q[8], -127);
  for (int g = 0; g < 3; ++g) {
    int sum = 0, largest = 0;
    for (const int q : groups[g].q) sum += q, largest = std::max(largest, std::abs(q));
    EXPECT_EQ(groups[g].start, -128 * sum);
    EXPECT_EQ(largest, 127);
  }
  for (int i = 6; i < 32; ++i) EXPECT_EQ(groups[2].q[i], 0) << "beyond k";
}

TEST(Inputs, TinyGroupsBecomeZeros) {
  Matrix<float> x(1, 64);
  for (std::int64_t i = 0; i < 64; ++i) x.data()[i] = i < 32 ? 1e-37f : 1e-35f;
  Inputs made;
  made.assign(x, InputForm::int8);
  EXPECT_EQ(input_at(made.view(), 0, 3), 0);
  EXPECT_NEAR(input_at(made.view(), 0, 40), 1e-35, 1e-37);
}

TEST(Inputs, NormedRowsAreTheNormsOfTheRows) {
  for (const auto form : {InputForm::f32, InputForm::bf16, InputForm::int8}) {
    const auto x = random_matrix(40, 1664, 1), weight = random_matrix(1, 1664, 2);
    Matrix<float> normed(40, 1664);
    for (std::int64_t r = 0; r < 40; ++r) kernels().rms_norm(x.row(r), weight.row(0), 1e-5f, normed.row(r));
    Inputs at_once, after;
    at_once.assign_normed(x, weight.row(0), 1e-5f, form);
    after.assign(normed, form);
    ASSERT_EQ(at_once.view().stride, after.view().stride);
    for (std::int64_t r = 0; r < 40; ++r)
      for (std::int64_t i = 0; i < 1664; ++i) ASSERT_EQ(input_at(at_once.view(), r, i), input_at(after.view(), r, i));
  }
}

}  // namespace
}  // namespace photon
