// The GGUF format: magic, version, counts, typed metadata, tensor headers, then the tensors at multiples of 32 bytes.
#include "weights/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <string_view>

#include "base/bf16.h"
#include "base/file.h"
#include "weights/safetensors.h"

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

std::int64_t n_rows(const GgufTensor& tensor) { return tensor.shape.size() == 1 ? 1 : tensor.shape.front(); }
std::int64_t row_bytes(const GgufTensor& tensor) { return tensor.shape.back() * size_of(stored_type(tensor.dtype)); }
std::uint64_t bytes_in_file(const GgufTensor& tensor) {
  return static_cast<std::uint64_t>(n_rows(tensor) * row_bytes(tensor));
}

// What keeps a tensor from being written; empty if nothing does.
std::string problem(const GgufTensor& tensor) {
  if (tensor.name.size() >= longest_tensor_name)
    return fmt::format("the name is longer than {} bytes", longest_tensor_name - 1);
  if (tensor.dtype != DType::f32 && tensor.dtype != DType::bf16) return "F32 or BF16 is wanted";
  if (tensor.shape.empty() || tensor.shape.size() > 2)
    return fmt::format("{} is neither a vector nor a matrix", to_string(tensor.shape));
  return {};
}

void write_tensor(FileWriter& out, const GgufTensor& tensor) {
  std::vector<float> row(static_cast<std::size_t>(tensor.shape.back()));
  std::vector<bf16> rounded(row.size());
  for (std::int64_t r = 0; r < n_rows(tensor); ++r) {
    tensor.rows(r, row);
    std::transform(row.begin(), row.end(), rounded.begin(), to_bf16);
    out.write(tensor.dtype == DType::bf16 ? std::as_bytes(std::span(rounded)) : std::as_bytes(std::span(row)));
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
    const auto& shape = tensor.shape;
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
