// Matrices in a model file, quantised or not: names, dtypes and shapes.  docs/model-format.md, "Quantised weights".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bf16.h"
#include "base/dtype.h"
#include "weights/quantized_row.h"
#include "weights/safetensors.h"

namespace photon {

/// Key of the safetensors metadata whose value, "int8" or "int4", says how all matrices of the file are stored.  Files
/// of F32 and BF16 matrices do not have it.
inline constexpr const char* weight_type_key = "weight_type";
/// int8 or int4, nullopt for any other word.
std::optional<DType> quantized_dtype(std::string_view weight_type);
/// How a matrix's values stand in the file: F32, BF16, I8 (int8) or U8 (int4: two inputs a byte, q + 8, the first one
/// low).
StoredType stored_type(DType dtype);
/// The reverse; nullopt for a type that no matrix has.
std::optional<DType> matrix_dtype(StoredType type);

/// "embed.weight_scale" for "embed.weight".
std::string scale_name(std::string_view matrix_name);
/// Shapes in the file of a matrix [o, k]: its values, [o, ⌈k/2⌉] for U8 and [o, k] otherwise, and its scales [o,
/// ⌈k/32⌉].
std::vector<std::int64_t> values_shape(DType dtype, std::span<const std::int64_t> matrix_shape);
std::vector<std::int64_t> scales_shape(std::span<const std::int64_t> matrix_shape);

/// A matrix [rows, cols] as the file holds it; borrows from the mapped file.
struct MatrixView {
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0;      // of the matrix, whatever the packing
  std::span<const std::byte> values{};  // [rows, values_row_bytes()]
  std::span<const bf16> scales{};       // [rows, ⌈cols/32⌉]; empty for F32 and BF16

  bool is_quantized() const { return photon::is_quantized(dtype); }
  std::int64_t values_row_bytes() const;
  std::span<const std::byte> values_row(std::int64_t r) const;
  std::span<const bf16> scales_row(std::int64_t r) const;
  QuantizedRow quantized_row(std::int64_t r) const { return {values_row(r).data(), scales_row(r).data()}; }
  /// Row r as float32, out [cols].
  void read_row(std::int64_t r, std::span<float> out) const;
};

/// First problem of a BF16 tensor as the scales of a matrix: "holds -0.5 at [3, 0]; …"; empty if all are finite and,
/// for int8, not negative.  int4 has one value more below zero than above, so the sign of its scale says something.
std::string scale_problem(DType dtype, const TensorView& scales);
/// First problem of an I8 tensor as int8 values: -128, which is no value of the format.
std::string value_problem(const TensorView& values);

}  // namespace photon
