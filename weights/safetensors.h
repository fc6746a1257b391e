// safetensors files: a strict memory-mapped reader and an atomic writer.  docs/model-format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace photon {

enum class StoredType { f32, bf16, f16, f64, i8, u8, i16, u16, i32, u32, i64, u64, boolean };
std::int64_t size_of(StoredType dtype);        // bytes
std::string_view to_string(StoredType dtype);  // "F32", "BF16", … as in the file

/// A tensor inside a SafeTensors file: row-major little-endian bytes that live as long as the file object.
struct TensorView {
  StoredType dtype = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // elements() · size_of(dtype); may start anywhere, see is_aligned()
  std::int64_t elements() const;
  /// Whether `bytes` may be read through a pointer to the element type.  Files of this writer and of current
  /// safetensors libraries are aligned, foreign ones need not be; open_model_folder() refuses what is not.
  bool is_aligned() const;
};

/// A copy as float32, whatever the alignment.  @throws WeightsError unless F32 or BF16.
std::vector<float> to_floats(const TensorView& tensor);

/// A fully checked file: header length, JSON, names, dtypes, shapes, offsets without holes or overlaps, exact file
/// size.
class SafeTensors {
 public:
  /// @throws WeightsError naming file and field (InputError if it is no readable file).  Memory stays within a small
  /// multiple of the header that the file really holds, whatever sizes it claims.
  explicit SafeTensors(const std::filesystem::path& path);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  const TensorView& at(const std::string& name) const;  ///< @throws WeightsError if absent
  /// @throws WeightsError naming the first F32/BF16/F16/F64 tensor that holds a NaN or an infinity.
  void check_finite() const;

 private:
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// What to write: the bytes are borrowed and must stay valid during the call; or they are made when their turn comes,
/// so that memory holds those of one tensor at a time.
struct TensorToWrite {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::function<std::vector<std::byte>()> make{};  // instead of bytes; called once
};
/// Writes atomically, tensors ordered by alignment then name, header padded to 8 bytes.
/// @throws WeightsError on duplicate names or byte counts that contradict shape and dtype.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// For messages: in single quotes, control characters escaped, shortened where it is long.
std::string quoted_name(std::string_view name);
std::string to_string(std::span<const std::int64_t> shape);  // "[1664, 6656]"

}  // namespace photon
