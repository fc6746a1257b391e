#include "weights/quantized.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

namespace photon {
namespace {

// Where a flat index of a two-dimensional tensor lies.
std::string place(std::int64_t flat, const TensorView& tensor) {
  return fmt::format("[{}, {}]", flat / tensor.shape[1], flat % tensor.shape[1]);
}

}  // namespace

std::optional<DType> quantized_dtype(std::string_view weight_type) {
  for (const DType dtype : {DType::int8, DType::int4})
    if (weight_type == to_string(dtype)) return dtype;
  return std::nullopt;
}

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return StoredType::f32;
    case DType::bf16:
      return StoredType::bf16;
    case DType::int8:
      return StoredType::i8;
    case DType::int4:
      return StoredType::u8;
  }
  return StoredType::f32;
}

std::optional<DType> matrix_dtype(StoredType type) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::int8, DType::int4})
    if (stored_type(dtype) == type) return dtype;
  return std::nullopt;
}

std::string scale_name(std::string_view matrix_name) { return fmt::format("{}_scale", matrix_name); }

std::vector<std::int64_t> values_shape(DType dtype, std::span<const std::int64_t> matrix_shape) {
  assert(matrix_shape.size() == 2);
  return {matrix_shape[0], dtype == DType::int4 ? (matrix_shape[1] + 1) / 2 : matrix_shape[1]};
}

std::vector<std::int64_t> scales_shape(std::span<const std::int64_t> matrix_shape) {
  assert(matrix_shape.size() == 2);
  return {matrix_shape[0], quant_groups(matrix_shape[1])};
}

std::int64_t MatrixView::values_row_bytes() const {
  return dtype == DType::int4 ? (cols + 1) / 2 : cols * size_of(stored_type(dtype));
}

std::span<const std::byte> MatrixView::values_row(std::int64_t r) const {
  assert(0 <= r && r < rows);
  return values.subspan(static_cast<std::size_t>(r * values_row_bytes()), static_cast<std::size_t>(values_row_bytes()));
}

std::span<const bf16> MatrixView::scales_row(std::int64_t r) const {
  assert(is_quantized() && 0 <= r && r < rows);
  const auto groups = static_cast<std::size_t>(quant_groups(cols));
  return scales.subspan(static_cast<std::size_t>(r) * groups, groups);
}

void MatrixView::read_row(std::int64_t r, std::span<float> out) const {
  assert(std::ssize(out) == cols);
  if (is_quantized()) return dequantize_row(dtype, quantized_row(r), out);
  const std::span<const std::byte> row = values_row(r);
  if (dtype == DType::f32) {
    std::memcpy(out.data(), row.data(), row.size());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    bf16 value;
    std::memcpy(&value, row.data() + i * sizeof value, sizeof value);
    out[i] = to_float(value);
  }
}

std::string scale_problem(DType dtype, const TensorView& scales) {
  constexpr std::uint16_t sign = 0x8000, infinity = 0x7f80;
  for (std::size_t i = 0; i < scales.bytes.size() / sizeof(bf16); ++i) {
    bf16 scale;
    std::memcpy(&scale, scales.bytes.data() + i * sizeof scale, sizeof scale);
    if ((scale.bits & ~sign) >= infinity || (dtype == DType::int8 && scale.bits > sign))
      return fmt::format("holds {:g} at {}; scales are finite{}", to_float(scale),
                         place(static_cast<std::int64_t>(i), scales), dtype == DType::int8 ? " and not negative" : "");
  }
  return "";
}

std::string value_problem(const TensorView& values) {
  const auto found = std::find(values.bytes.begin(), values.bytes.end(), std::byte{0x80});
  if (found == values.bytes.end()) return "";
  return fmt::format("holds -128 at {}; int8 values are -127 to 127", place(found - values.bytes.begin(), values));
}

}  // namespace photon
