// Products of activations with packed weights: y = x wᵀ for any number of rows, split over the threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "kernels/weights.h"

namespace photon {

/// What a product reads in place of float32 activations.  Which one a weight type wants depends on the instruction set.
enum class InputForm {
  f32,   // k padded with a zero to a multiple of 2
  bf16,  // rounded to nearest even, k padded likewise
  int8,  // Int8Groups, the last one padded with zeros
};
/// For the kernels in use: f32 for f32; bf16 or f32 for bf16; int8 for int8 and int4.
InputForm input_form(DType type);

/// 32 inputs under one scale: q = round(x / scale) in [-127, 127], scale the largest magnitude / 127.  A group that
/// holds NaN or infinity makes every product with it NaN or infinite; one below 1e-36 becomes zeros.
struct Int8Group {
  std::int8_t q[quant_group];
  float scale;
  std::int32_t start;  // -128 Σ q, where a sum of products with weights stored as q + 128 has to start
};

/// Rows of activations in the form in which products read them: made once for all products that share them.
struct InputView {
  InputForm form = InputForm::f32;
  std::int64_t rows = 0, k = 0;
  const std::byte* data = nullptr;  // [rows, stride bytes], 64-byte aligned
  std::int64_t stride = 0;          // in bytes, an odd multiple of 64: rows must not crowd into few sets of a cache
};
class Inputs {
 public:
  /// x [n, k] in `form`.
  void assign(MatView<const float> x, InputForm form);
  /// RMSNorm(x) in `form`, row by row, so that the normed row is still in the first-level cache when it is converted.
  void assign_normed(MatView<const float> x, std::span<const float> weight, float eps, InputForm form);
  const InputView& view() const { return view_; }

 private:
  template <class FloatRow>
  void fill(std::int64_t n, std::int64_t k, InputForm form, FloatRow row);

  InputView view_;
  Matrix<std::byte> data_;
};

/// What becomes of the sums.
enum class Epilogue {
  set,     // y = x wᵀ
  add,     // y += x wᵀ: the residual stream
  swiglu,  // y = silu(x gateᵀ) ∘ (x upᵀ) of a gated pair (only of one): y has half as many columns as w outputs
};

/// y [n, o] from x [n, k] and w [o, k], split over threads() OpenMP threads by panels (on the calling thread alone
/// where that is a parallel region's, or the product is small).  An output depends on its row of x and its row of w
/// alone: neither on the batch, nor on where the row stands in it, nor on the thread count, bit for bit.
void matmul(const InputView& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue = Epilogue::set);

/// Panels [first, last) of a weight.
struct PanelRange {
  std::int64_t first = 0, last = 0;
};
/// The same columns of y, of some panels alone; the others stay as they are.  Not for gated pairs.
void matmul(const InputView& x, const PackedWeight& w, std::span<const PanelRange> panels, MatView<float> y);

}  // namespace photon
