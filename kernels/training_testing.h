// For the tests of training's fused operations: rows of either element type, and comparison with float64.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/bf16.h"
#include "kernels/kernels_testing.h"
#include "kernels/training.h"

namespace photon::testing_support {

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
inline double wide(float x) { return static_cast<double>(x); }

/// Rows of float32 or bfloat16; NaN where nobody wrote, also in the gaps between rows.
class ElementRows {
 public:
  ElementRows(std::int64_t n, std::int64_t width, bool is_bf16, std::int64_t gap = 3)
      : n_(n),
        width_(width),
        stride_(width + gap),
        is_bf16_(is_bf16),
        f32_(at(n * stride_), NaN),
        bf16_(f32_.size(), photon::to_bf16(NaN)) {}
  static ElementRows random(std::int64_t n, std::int64_t width, bool is_bf16, std::uint64_t seed, double scale = 1) {
    ElementRows rows(n, width, is_bf16);
    const auto values = random_floats(n * width, seed, scale);
    for (std::int64_t i = 0; i < n * width; ++i) rows.set(i / width, i % width, values[at(i)]);
    return rows;
  }

  bool is_bf16() const { return is_bf16_; }
  void set(std::int64_t row, std::int64_t i, float x) {
    f32_[place(row, i)] = x, bf16_[place(row, i)] = photon::to_bf16(x);
  }
  double get(std::int64_t row, std::int64_t i) const {
    return wide(is_bf16_ ? photon::to_float(bf16_[place(row, i)]) : f32_[place(row, i)]);
  }
  std::vector<double> all() const { return columns(0, width_); }
  std::vector<double> columns(std::int64_t first, std::int64_t n) const {
    std::vector<double> values;
    for (std::int64_t row = 0; row < n_; ++row)
      for (std::int64_t i = first; i < first + n; ++i) values.push_back(get(row, i));
    return values;
  }
  bool gaps_untouched() const {
    for (std::int64_t row = 0; row < n_; ++row)
      for (std::int64_t i = width_; i < stride_; ++i)
        if (!std::isnan(get(row, i))) return false;
    return true;
  }

  /// From column `first` on.
  training::InRows in(std::int64_t first = 0) const {
    if (is_bf16_) return {bf16_.data() + first, stride_, true};
    return {f32_.data() + first, stride_, false};
  }
  training::OutRows out(std::int64_t first = 0) {
    if (is_bf16_) return {bf16_.data() + first, stride_, true};
    return {f32_.data() + first, stride_, false};
  }

 private:
  std::size_t place(std::int64_t row, std::int64_t i) const { return at(row * stride_ + i); }

  std::int64_t n_, width_, stride_;
  bool is_bf16_;
  std::vector<float> f32_;
  std::vector<bf16> bf16_;
};

/// |got - want| <= tolerance · (largest |want| + |want|); NaN fails.
inline void expect_close(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                         const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double largest = 0;
  for (const double x : want) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_LE(std::abs(got[i] - want[i]), tolerance * (largest + std::abs(want[i])))
        << what << ", element " << i << ": " << got[i] << ", want " << want[i];
}
inline void expect_rows(const ElementRows& got, const std::vector<double>& want, double tolerance_f32,
                        const char* what) {
  EXPECT_TRUE(got.gaps_untouched()) << what;
  expect_close(got.all(), want, got.is_bf16() ? 8e-3 : tolerance_f32, what);
}

class TrainingOn : public EveryIsa {
 protected:
  static const TrainingKernels& ops() { return table().training; }
};

}  // namespace photon::testing_support
