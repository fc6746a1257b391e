#include "weights/quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "spec/tensor_names.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t small_tensor = 1 << 16;  // rounded before threads would have begun

void round_row(DType dtype, std::span<const float> w, std::span<std::byte> values, std::span<bf16> scales,
               std::span<float> rounded) {
  if (is_quantized(dtype)) {
    quantize_row(dtype, w, values, scales);
    dequantize_row(dtype, {values.data(), scales.data()}, rounded);
  } else if (dtype == DType::bf16) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      const bf16 value = to_bf16(w[i]);
      std::memcpy(values.data() + i * sizeof value, &value, sizeof value);
      rounded[i] = to_float(value);
    }
  } else {
    std::memcpy(values.data(), w.data(), w.size_bytes());
    std::copy(w.begin(), w.end(), rounded.begin());
  }
}

}  // namespace

std::vector<TensorToWrite> Rounder::tensors() {
  std::vector<TensorToWrite> result;
  for (const TensorSpec& tensor : photon::tensors(spec_)) {
    const auto make = [this, tensor](DType dtype) { return [=, this] { return values(tensor, dtype); }; };
    if (!is_quantized(dtype_)) {
      result.push_back({tensor.name, stored_type(dtype_), tensor.shape, {}, make(dtype_)});
    } else if (tensor.shape.size() == 2) {
      result.push_back({tensor.name, stored_type(dtype_), values_shape(dtype_, tensor.shape), {}, make(dtype_)});
      result.push_back({scale_name(tensor.name), StoredType::bf16, scales_shape(tensor.shape), {}, [=, this] {
                          return scales(tensor);
                        }});
    } else if (const auto stored = source_.stored(tensor)) {
      result.push_back({tensor.name, stored_type(stored->dtype), tensor.shape, stored->values});
    } else {
      result.push_back({tensor.name, StoredType::f32, tensor.shape, {}, make(DType::f32)});
    }
  }
  return result;
}

Rounder::Rounded Rounder::round(const TensorSpec& tensor, DType dtype) const {
  const ReadRow read = source_.rows(tensor);
  const MatrixView out{.dtype = dtype, .rows = row_count(tensor), .cols = column_count(tensor)};
  Rounded r;
  r.values.resize(static_cast<std::size_t>(out.rows * out.values_row_bytes()));
  const auto groups = static_cast<std::size_t>(out.is_quantized() ? quant_groups(out.cols) : 0);
  r.scales.resize(static_cast<std::size_t>(out.rows) * groups);
  std::vector<double> squares(static_cast<std::size_t>(out.rows)), errors(squares.size());
  const int threads = out.rows * out.cols > small_tensor ? static_cast<int>(threads_) : 1;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> w(static_cast<std::size_t>(out.cols)), rounded(w.size());
#pragma omp for
    for (std::int64_t row = 0; row < out.rows; ++row) {
      const auto at = static_cast<std::size_t>(row), row_bytes = static_cast<std::size_t>(out.values_row_bytes());
      read(row, w);
      round_row(dtype, w, std::span(r.values).subspan(at * row_bytes, row_bytes),
                std::span(r.scales).subspan(at * groups, groups), rounded);
      for (std::size_t i = 0; i < w.size(); ++i) {
        squares[at] += static_cast<double>(w[i]) * w[i];
        errors[at] += std::pow(static_cast<double>(rounded[i]) - w[i], 2);
      }
    }
  }
  for (const double x : squares) r.squares += x;  // in order, whatever the threads
  for (const double x : errors) r.squared_error += x;
  return r;
}

std::vector<std::byte> Rounder::values(const TensorSpec& tensor, DType dtype) {
  Rounded r = round(tensor, dtype);
  if (!std::isfinite(r.squared_error))
    throw WeightsError(
        fmt::format("{}: '{}' holds a value beyond the range of {}", source_.name(), tensor.name, to_string(dtype)));
  if (dtype != dtype_) return std::move(r.values);
  const double loss = r.squares > 0 ? std::sqrt(r.squared_error / r.squares) : 0;
  RoundingLoss& of_kind = losses_[std::string(names::place_of(tensor.name).kind)];
  of_kind.tensors += 1;
  of_kind.parameters += row_count(tensor) * column_count(tensor);
  of_kind.sum += loss;
  of_kind.largest = std::max(of_kind.largest, loss);
  return std::move(r.values);
}

// Scales stand before the values in the file: rounding once for each holds one matrix in memory, not all.
std::vector<std::byte> Rounder::scales(const TensorSpec& tensor) const {
  const Rounded r = round(tensor, dtype_);
  const auto bytes = std::as_bytes(std::span(r.scales));
  return {bytes.begin(), bytes.end()};
}

QuantizeReport quantize(const fs::path& in, const fs::path& out, DType type, std::int64_t threads) {
  const ModelFolder folder = open_model_folder(in, /*check_finite=*/true);
  if (folder.is_quantized())
    throw InputError(fmt::format("{}: is {} already; quantise the model that it was made from", in.string(),
                                 to_string(folder.dtype)));
  create_model_folder(out);
  const FolderSource source(folder);
  Rounder rounder(folder.spec, source, type, threads);
  auto metadata = folder.weights.metadata();
  if (is_quantized(type)) metadata[weight_type_key] = to_string(type);
  write_safetensors(out / weights_file, rounder.tensors(), metadata);
  if (folder.tokenizer) {
    const MappedFile tokenizer(*folder.tokenizer);
    write_atomically(out / tokenizer_file, [&](FileWriter& file) { file.write(tokenizer.bytes()); });
  }
  write_atomically(out / config_file, read_text(folder.path / config_file));  // last: now the folder is complete
  const auto size = [](const fs::path& path) { return static_cast<std::int64_t>(fs::file_size(path)); };
  return {size(folder.path / weights_file), size(out / weights_file), rounder.losses()};
}

}  // namespace photon
