#include "weights/tensor_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/random.h"
#include "base/threads.h"
#include "spec/tensor_names.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// values[i] += std · N(0, 1).  Every block of elements has its own generator, so threads do not change the values.
void add_normal(std::span<float> values, double std, std::uint64_t seed, std::uint64_t stream) {
  constexpr std::int64_t block = 1 << 16;
  const auto n = static_cast<std::int64_t>(values.size());
  const int threads = n > block ? static_cast<int>(usable_cpus()) : 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (std::int64_t first = 0; first < n; first += block) {
    Random random(seed, stream + static_cast<std::uint64_t>(first / block));
    for (std::int64_t i = first; i < std::min(first + block, n); ++i)
      values[static_cast<std::size_t>(i)] += static_cast<float>(std * random.normal());
  }
}

[[noreturn]] void refuse(const TensorSource& source, const TensorSpec& wanted, const std::string& why) {
  throw WeightsError(
      fmt::format("{}: {} {} {}", source.name(), quoted_name(wanted.name), to_string(wanted.shape), why));
}

}  // namespace

std::int64_t row_count(const TensorSpec& tensor) { return tensor.shape.size() == 1 ? 1 : tensor.shape.front(); }
std::int64_t column_count(const TensorSpec& tensor) { return tensor.shape.back(); }

std::optional<MatrixView> TensorSource::stored(const TensorSpec&) const { return std::nullopt; }

std::vector<float> TensorSource::values(const TensorSpec& tensor) const {
  const ReadRow read = rows(tensor);
  const std::int64_t n = row_count(tensor), cols = column_count(tensor);
  std::vector<float> all(static_cast<std::size_t>(n * cols));
  for (std::int64_t r = 0; r < n; ++r)
    read(r, std::span(all).subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols)));
  return all;
}

// ---- a folder ----

std::optional<MatrixView> FolderSource::stored(const TensorSpec& tensor) const {
  MatrixView view;
  if (tensor.shape.size() == 2) {
    view = folder_.matrix(tensor.name);
  } else {
    const TensorView& vector = folder_.weights.at(tensor.name);
    if (vector.shape.size() != 1) refuse(*this, tensor, "is no vector there");
    view = {.dtype = *matrix_dtype(vector.dtype), .rows = 1, .cols = vector.elements(), .values = vector.bytes};
  }
  if (view.rows != row_count(tensor) || view.cols != column_count(tensor))
    refuse(*this, tensor, fmt::format("is [{}, {}] there", view.rows, view.cols));
  return view;
}

ReadRow FolderSource::rows(const TensorSpec& tensor) const {
  return [view = *stored(tensor)](std::int64_t r, std::span<float> out) { view.read_row(r, out); };
}

std::string FolderSource::name() const { return folder_.weights.path().string(); }

// ---- random weights ----

std::vector<float> initial_values(const TensorSpec& tensor, const Spec& spec, const InitOptions& options) {
  std::int64_t elements = 1;
  for (const std::int64_t dimension : tensor.shape) elements *= dimension;
  const bool norm = names::is_norm(tensor.name);
  std::vector<float> values(static_cast<std::size_t>(elements), norm ? 1.0f : 0.0f);

  const std::uint64_t stream = fnv1a(tensor.name);
  if (names::is_memory_scalar(tensor.name)) {
    if (tensor.name.ends_with(".offset.weight")) std::ranges::fill(values, static_cast<float>(options.memory_offset));
  } else if (!norm && !names::is_bias(tensor.name)) {
    const names::Place place = names::place_of(tensor.name);
    double std = 0.02;
    if (options.scale_residual && names::is_residual_output(place))
      std /= std::sqrt(2.0 * static_cast<double>(names::stack_of(place, spec)->n_layers));
    add_normal(values, std, options.seed, stream);
  }
  if (options.shake) {
    const auto fan_in = static_cast<double>(tensor.shape.back());
    add_normal(values, norm ? 0.2 : std::max(0.05, 0.7 / std::sqrt(fan_in)), options.seed, ~stream);
  }
  return values;
}

std::vector<float> InitialSource::values(const TensorSpec& tensor) const {
  return initial_values(tensor, spec_, options_);
}

ReadRow InitialSource::rows(const TensorSpec& tensor) const {
  const auto all = std::make_shared<const std::vector<float>>(values(tensor));
  return [all, cols = column_count(tensor)](std::int64_t r, std::span<float> out) {
    std::copy_n(all->begin() + r * cols, cols, out.begin());
  };
}

ReadRow UniformSource::rows(const TensorSpec& tensor) const {
  if (tensor.shape.size() == 1)
    return [value = names::is_norm(tensor.name) ? 1.0f : 0.02f](std::int64_t, std::span<float> out) {
      std::fill(out.begin(), out.end(), value);
    };
  std::uint64_t stream = 0;
  for (const char c : tensor.name) stream = (stream ^ static_cast<unsigned char>(c)) * 0x100000001b3u;  // FNV-1a
  return [seed = seed_, stream](std::int64_t r, std::span<float> out) {
    Random random(seed, stream + static_cast<std::uint64_t>(r));
    const double width = 0.02 * std::sqrt(12.0);  // of a uniform distribution of that standard deviation
    for (float& x : out) x = static_cast<float>(width * (random.uniform() - 0.5));
  };
}

// ---- other names ----

MappedSource::MappedSource(const TensorSource& other, Map map, const TensorSource* rest)
    : other_(other), map_(std::move(map)), rest_(rest) {}

ReadRow MappedSource::rows(const TensorSpec& tensor) const {
  const std::optional<Origin> origin = map_(tensor);
  if (!origin && rest_ != nullptr) return rest_->rows(tensor);
  if (!origin) refuse(*this, tensor, "has no origin there");
  const std::int64_t n = row_count(origin->tensor);
  if (column_count(origin->tensor) != column_count(tensor) ||
      (origin->rows.empty() ? n : std::ssize(origin->rows)) != row_count(tensor))
    refuse(*this, tensor,
           fmt::format("cannot be made of {} {}", quoted_name(origin->tensor.name), to_string(origin->tensor.shape)));
  for (const std::int64_t row : origin->rows)
    if (row < 0 || row >= n)
      refuse(*this, tensor, fmt::format("wants row {} of the {} of {}", row, n, quoted_name(origin->tensor.name)));
  ReadRow read = other_.rows(origin->tensor);
  if (origin->rows.empty()) return read;
  return [read = std::move(read), order = origin->rows](std::int64_t r, std::span<float> out) {
    read(order[static_cast<std::size_t>(r)], out);
  };
}

std::optional<MatrixView> MappedSource::stored(const TensorSpec& tensor) const {
  const std::optional<Origin> origin = map_(tensor);
  if (!origin) return rest_ != nullptr ? rest_->stored(tensor) : std::nullopt;
  return origin->rows.empty() && origin->tensor.shape == tensor.shape ? other_.stored(origin->tensor) : std::nullopt;
}

}  // namespace photon
