// The GGUF format: magic, version, counts, typed metadata, tensor headers, then the tensors at multiples of 32 bytes.
#include "weights/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <span>
#include <string_view>

#include "base/bf16.h"
#include "base/file.h"

namespace photon {
namespace {

constexpr std::uint32_t version = 3;
constexpr std::uint64_t alignment = 32;  // general.alignment's default
constexpr std::size_t longest_tensor_name = 64;

enum ValueType : std::uint32_t { u32 = 4, i32 = 5, f32 = 6, boolean = 7, string = 8, array = 9 };
enum TensorType : std::uint32_t { tensor_f32 = 0, tensor_bf16 = 30 };

std::uint64_t padded(std::uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// The header grows in memory: it holds the vocabulary at most.
class Header {
 public:
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void add(T value) { text_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void add(std::string_view value) {
    add(std::uint64_t{value.size()});
    text_ += value;
  }
  void add(const std::string& value) { add(std::string_view(value)); }
  template <class T>
  void add_array(ValueType type, const std::vector<T>& values) {
    add(array);
    add(type);
    add(std::uint64_t{values.size()});
    for (const T& value : values) add(value);
  }

  void add_value(bool value) { add(boolean), add(static_cast<std::uint8_t>(value)); }
  void add_value(std::uint32_t value) { add(u32), add(value); }
  void add_value(float value) { add(f32), add(value); }
  void add_value(const std::string& value) { add(string), add(value); }
  void add_value(const std::vector<std::int32_t>& values) { add_array(i32, values); }
  void add_value(const std::vector<float>& values) { add_array(f32, values); }
  void add_value(const std::vector<std::string>& values) { add_array(string, values); }

  void pad() { text_.resize(padded(text_.size()), '\0'); }
  const std::string& text() const { return text_; }

 private:
  std::string text_ = "GGUF";
};

std::uint64_t bytes_in_file(const GgufTensor& tensor) {
  return static_cast<std::uint64_t>(tensor.source.elements() * size_of(stored_type(tensor.dtype)));
}

// What keeps a tensor from being written; empty if nothing does.
std::string problem(const GgufTensor& tensor) {
  const auto is_float = [](StoredType dtype) { return dtype == StoredType::f32 || dtype == StoredType::bf16; };
  const auto& shape = tensor.source.shape;
  if (tensor.name.size() >= longest_tensor_name)
    return fmt::format("the name is longer than {} bytes", longest_tensor_name - 1);
  if (!is_float(stored_type(tensor.dtype)) || !is_float(tensor.source.dtype)) return "F32 or BF16 is wanted";
  if (shape.empty() || shape.size() > 2) return fmt::format("{} is neither a vector nor a matrix", to_string(shape));
  if (tensor.row_order.empty()) return {};
  std::vector<std::int64_t> rows(static_cast<std::size_t>(shape[0])), order = tensor.row_order;
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(order.begin(), order.end());
  return order == rows ? std::string() : fmt::format("row_order is no permutation of {} rows", shape[0]);
}

// source in the dtype of the file.
std::vector<std::byte> converted(const TensorView& source, DType dtype) {
  const std::vector<float> values = to_floats(source);
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(stored_type(dtype))));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bf16 rounded = to_bf16(values[i]);
    if (dtype == DType::bf16)
      std::memcpy(bytes.data() + i * sizeof rounded, &rounded, sizeof rounded);
    else
      std::memcpy(bytes.data() + i * sizeof values[i], &values[i], sizeof values[i]);
  }
  return bytes;
}

void write_tensor(FileWriter& out, const GgufTensor& tensor) {
  const TensorView& source = tensor.source;
  const auto write = [&](const TensorView& part) {
    if (part.dtype == stored_type(tensor.dtype))
      out.write(part.bytes);
    else
      out.write(converted(part, tensor.dtype));
  };
  if (tensor.row_order.empty() && source.dtype == stored_type(tensor.dtype)) {
    write(source);
  } else {
    const std::int64_t rows = source.shape.size() == 2 ? source.shape[0] : 1;
    const std::size_t row_bytes = source.bytes.size() / static_cast<std::size_t>(std::max<std::int64_t>(rows, 1));
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t row = tensor.row_order.empty() ? i : tensor.row_order[static_cast<std::size_t>(i)];
      write({source.dtype,
             {source.shape.back()},
             source.bytes.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes)});
    }
  }
  out.write(std::string(padded(bytes_in_file(tensor)) - bytes_in_file(tensor), '\0'));
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensor>& tensors) {
  std::set<std::string_view> keys, names;
  for (const auto& [key, value] : metadata)
    if (!keys.insert(key).second)
      throw WeightsError(fmt::format("{}: key {} occurs twice", path.string(), quoted_name(key)));
  for (const GgufTensor& tensor : tensors) {
    const auto found = names.insert(tensor.name).second ? problem(tensor) : "the name is taken";
    if (!found.empty()) throw WeightsError(fmt::format("{}: {}: {}", path.string(), quoted_name(tensor.name), found));
  }

  Header header;
  header.add(version);
  header.add(std::uint64_t{tensors.size()});
  header.add(std::uint64_t{metadata.size()});
  for (const auto& [key, value] : metadata) {
    header.add(key);
    std::visit([&](const auto& v) { header.add_value(v); }, value);
  }
  std::uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    const auto& shape = tensor.source.shape;
    header.add(tensor.name);
    header.add(static_cast<std::uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) header.add(*size);  // GGUF: fastest first
    header.add(tensor.dtype == DType::f32 ? tensor_f32 : tensor_bf16);
    header.add(offset);
    offset += padded(bytes_in_file(tensor));
  }
  header.pad();

  write_atomically(path, [&](FileWriter& out) {
    out.write(header.text());
    for (const GgufTensor& tensor : tensors) write_tensor(out, tensor);
  });
}

}  // namespace photon
