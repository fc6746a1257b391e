// The safetensors format: u64 header length, JSON header, one buffer that the tensors cover without holes.
#include "weights/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/bf16.h"

namespace photon {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");

constexpr std::uint64_t max_header_bytes = 100'000'000;  // limit of the format
constexpr std::string_view metadata_name = "__metadata__";
constexpr std::size_t max_rank = 32;  // ours: no tensor needs more, and a consumer may recurse

struct DTypeInfo {
  StoredType dtype;
  std::string_view name;
  std::int64_t size;
};
constexpr std::array dtypes = {
    DTypeInfo{StoredType::f32, "F32", 4},      DTypeInfo{StoredType::bf16, "BF16", 2},
    DTypeInfo{StoredType::f16, "F16", 2},      DTypeInfo{StoredType::f64, "F64", 8},
    DTypeInfo{StoredType::i8, "I8", 1},        DTypeInfo{StoredType::u8, "U8", 1},
    DTypeInfo{StoredType::i16, "I16", 2},      DTypeInfo{StoredType::u16, "U16", 2},
    DTypeInfo{StoredType::i32, "I32", 4},      DTypeInfo{StoredType::u32, "U32", 4},
    DTypeInfo{StoredType::i64, "I64", 8},      DTypeInfo{StoredType::u64, "U64", 8},
    DTypeInfo{StoredType::boolean, "BOOL", 1},
};

const DTypeInfo& info(StoredType dtype) {
  return *std::find_if(dtypes.begin(), dtypes.end(), [&](const DTypeInfo& d) { return d.dtype == dtype; });
}

std::optional<StoredType> find_dtype(std::string_view name) {
  const auto found = std::find_if(dtypes.begin(), dtypes.end(), [&](const DTypeInfo& d) { return d.name == name; });
  return found == dtypes.end() ? std::nullopt : std::optional(found->dtype);
}

bool exists_in_the_format(std::string_view dtype) {  // 4-, 6- and 8-bit floats and complex numbers
  return dtype.starts_with("F8_") || dtype.starts_with("F6_") || dtype == "F4" || dtype == "C64";
}

// Bytes of a tensor, nullopt where they exceed int64.  Zero dimensions do not excuse the others: whoever multiplies
// only some of them (a row length, a stride) must be safe, too.
std::optional<std::int64_t> byte_count(std::span<const std::int64_t> shape, StoredType dtype) {
  std::int64_t bytes = size_of(dtype);
  bool empty = false;
  for (const std::int64_t dimension : shape) {
    if (dimension == 0)
      empty = true;
    else if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes))
      return std::nullopt;
  }
  return empty ? 0 : bytes;
}

// nlohmann's SAX callbacks for the header.  Whatever does not belong is refused where it begins, so that neither depth
// nor duplicates nor wrong types cost memory; only checked tensors are kept.
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, std::span<const std::byte> buffer,
               std::map<std::string, TensorView>& tensors, std::map<std::string, std::string>& metadata)
      : path_(path), buffer_(buffer), tensors_(tensors), metadata_(metadata) {}

  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a boolean"); }
  bool number_integer(std::int64_t) { unexpected("a negative number"); }
  bool number_float(double, const std::string&) { unexpected("a number that is no integer below 2^64"); }
  bool binary(nlohmann::json::binary_t&) { unexpected("binary data"); }

  bool number_unsigned(std::uint64_t value) {
    if (where_ == Where::shape) {
      if (value > static_cast<std::uint64_t>(INT64_MAX)) fail("shape", fmt::format("dimension {} is too large", value));
      if (tensor_.shape.size() == max_rank) fail("shape", fmt::format("more than {} dimensions", max_rank));
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (where_ == Where::offsets) {
      if (n_offsets_ == 2) fail("data_offsets", "more than two numbers");
      offsets_[n_offsets_++] = value;
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(std::string& text) {
    if (where_ == Where::metadata) {
      metadata_[key_] = std::move(text);
    } else if (where_ == Where::entry && key_ == "dtype") {
      const auto dtype = find_dtype(text);
      if (!dtype)
        fail("dtype", exists_in_the_format(text) ? fmt::format("{} is not supported; convert it to F32 or BF16", text)
                                                 : fmt::format("{} is unknown", quoted_name(text)));
      tensor_.dtype = *dtype;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(std::size_t) {
    if (where_ == Where::outside) {
      where_ = Where::header;
    } else if (where_ == Where::header && name_ == metadata_name) {
      where_ = Where::metadata;
    } else if (where_ == Where::header) {
      where_ = Where::entry;
      tensor_ = {};
      seen_ = {};
      n_offsets_ = 0;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() {
    if (where_ == Where::entry) add_tensor();
    where_ = where_ == Where::header ? Where::outside : Where::header;
    return true;
  }

  bool start_array(std::size_t) {
    if (where_ == Where::entry && key_ == "shape")
      where_ = Where::shape;
    else if (where_ == Where::entry && key_ == "data_offsets")
      where_ = Where::offsets;
    else
      unexpected("an array");
    return true;
  }

  bool end_array() {
    if (where_ == Where::offsets && n_offsets_ != 2) fail("data_offsets", "fewer than two numbers");
    where_ = Where::entry;
    return true;
  }

  bool key(std::string& text) {
    if (where_ == Where::header) {
      const bool repeated = text == metadata_name ? std::exchange(has_metadata_, true) : tensors_.contains(text);
      if (repeated) fail(fmt::format("header: {} occurs twice", quoted_name(text)));
      name_ = std::move(text);
    } else if (where_ == Where::metadata) {
      if (!metadata_.emplace(text, "").second)
        fail(fmt::format("header: {}: key {} occurs twice", metadata_name, quoted_name(text)));
      key_ = std::move(text);
    } else {  // entry
      const auto field = std::find(fields.begin(), fields.end(), text);
      if (field == fields.end()) fail(fmt::format("{}: unknown key {}", quoted_name(name_), quoted_name(text)));
      bool& seen = seen_[static_cast<std::size_t>(field - fields.begin())];
      if (std::exchange(seen, true)) fail(fmt::format("{}: key '{}' occurs twice", quoted_name(name_), text));
      key_ = std::move(text);
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    fail(fmt::format("header: no valid UTF-8 JSON at its byte {}", position));
  }

 private:
  enum class Where { outside, header, metadata, entry, shape, offsets };
  static constexpr std::array<std::string_view, 3> fields = {"dtype", "shape", "data_offsets"};

  [[noreturn]] void fail(const std::string& problem) const {
    throw WeightsError(fmt::format("{}: {}", path_.string(), problem));
  }
  [[noreturn]] void fail(std::string_view field, const std::string& problem) const {
    fail(fmt::format("{}: {}: {}", quoted_name(name_), field, problem));
  }
  [[noreturn]] void unexpected(std::string_view what) const {
    switch (where_) {
      case Where::outside:
        fail(fmt::format("header: {} where an object is wanted", what));
      case Where::header:
        fail(fmt::format("{}: {} where an object is wanted", quoted_name(name_), what));
      case Where::metadata:
        fail(fmt::format("header: {}: {}: {} where a string is wanted", metadata_name, quoted_name(key_), what));
      case Where::entry:
        fail(key_, fmt::format("{} where {} is wanted", what, key_ == "dtype" ? "a string" : "an array"));
      case Where::shape:
      case Where::offsets:
        break;
    }
    fail(key_, fmt::format("{} where a non-negative integer is wanted", what));
  }

  void add_tensor() {
    for (std::size_t i = 0; i < fields.size(); ++i)
      if (!seen_[i]) fail(fields[i], "is missing");
    const auto [begin, end] = offsets_;
    const auto range = fmt::format("[{}, {}]", begin, end);
    if (begin > end) fail("data_offsets", fmt::format("{} end before they begin", range));
    if (end > buffer_.size())
      fail("data_offsets",
           fmt::format("{} exceed the {} data bytes of the file; is it truncated?", range, buffer_.size()));
    const auto wanted = byte_count(tensor_.shape, tensor_.dtype);
    if (!wanted) fail("shape", fmt::format("{} has too many elements", to_string(tensor_.shape)));
    if (static_cast<std::uint64_t>(*wanted) != end - begin)
      fail("data_offsets", fmt::format("{} hold {} bytes, {} {} needs {}", range, end - begin, to_string(tensor_.dtype),
                                       to_string(tensor_.shape), *wanted));
    tensor_.bytes = buffer_.subspan(begin, end - begin);
    tensors_.emplace(std::move(name_), std::move(tensor_));
  }

  const std::filesystem::path& path_;
  std::span<const std::byte> buffer_;
  std::map<std::string, TensorView>& tensors_;
  std::map<std::string, std::string>& metadata_;
  Where where_ = Where::outside;
  bool has_metadata_ = false;
  std::string name_, key_;      // of the entry; of the field or metadata item
  TensorView tensor_;           // the entry so far
  std::array<bool, 3> seen_{};  // which of `fields` it has
  std::array<std::uint64_t, 2> offsets_{};
  std::size_t n_offsets_ = 0;
};

// Each tensor begins where the one before ends, and the last ends with the file.
void check_coverage(const std::filesystem::path& path, std::span<const std::byte> buffer,
                    const std::map<std::string, TensorView>& tensors) {
  using Item = std::map<std::string, TensorView>::value_type;
  const auto begin = [&](const Item& item) { return item.second.bytes.data() - buffer.data(); };
  std::vector<const Item*> items;
  items.reserve(tensors.size());
  for (const Item& item : tensors) items.push_back(&item);
  std::sort(items.begin(), items.end(), [&](const Item* a, const Item* b) {
    return std::pair(begin(*a), a->second.bytes.size()) < std::pair(begin(*b), b->second.bytes.size());
  });
  std::ptrdiff_t covered = 0;
  for (const Item* item : items) {
    if (begin(*item) != covered)
      throw WeightsError(fmt::format("{}: {}: data_offsets begin at {}, but the data before ends at {} ({})",
                                     path.string(), quoted_name(item->first), begin(*item), covered,
                                     begin(*item) > covered ? "a hole" : "an overlap"));
    covered += static_cast<std::ptrdiff_t>(item->second.bytes.size());
  }
  if (static_cast<std::size_t>(covered) != buffer.size())
    throw WeightsError(fmt::format("{}: {} bytes after the last tensor belong to none", path.string(),
                                   buffer.size() - static_cast<std::size_t>(covered)));
}

// Index of the first element whose exponent bits are all set (infinity or NaN), or -1.
template <class Bits>
std::int64_t first_not_finite(std::span<const std::byte> bytes, Bits exponent) {
  const std::size_t n = bytes.size() / sizeof(Bits);
  for (std::size_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + i * sizeof(Bits), sizeof(Bits));
    if ((bits & exponent) == exponent) return static_cast<std::int64_t>(i);
  }
  return -1;
}

std::int64_t first_not_finite(const TensorView& tensor) {
  switch (tensor.dtype) {
    case StoredType::f32:
      return first_not_finite<std::uint32_t>(tensor.bytes, 0x7f800000u);
    case StoredType::bf16:
      return first_not_finite<std::uint16_t>(tensor.bytes, 0x7f80u);
    case StoredType::f16:
      return first_not_finite<std::uint16_t>(tensor.bytes, 0x7c00u);
    case StoredType::f64:
      return first_not_finite<std::uint64_t>(tensor.bytes, 0x7ff0000000000000u);
    default:
      return -1;
  }
}

// The position of a flat index, row-major.
std::vector<std::int64_t> unravel(std::int64_t flat, std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    index[i] = flat % shape[i];
    flat /= shape[i];
  }
  return index;
}

}  // namespace

std::int64_t size_of(StoredType dtype) { return info(dtype).size; }
std::string_view to_string(StoredType dtype) { return info(dtype).name; }
std::string to_string(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::string quoted_name(std::string_view name) {
  constexpr std::size_t longest = 120;
  std::size_t length = std::min(name.size(), longest);
  if (length < name.size())  // not inside a UTF-8 character
    while (length > 0 && (static_cast<unsigned char>(name[length]) & 0xc0u) == 0x80u) --length;
  std::string text = "'";
  for (const char c : name.substr(0, length)) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f)
      text += fmt::format("\\x{:02x}", code);
    else
      text += c;
  }
  return text + (length < name.size() ? "…'" : "'");
}

std::int64_t TensorView::elements() const { return static_cast<std::int64_t>(bytes.size()) / size_of(dtype); }

bool TensorView::is_aligned() const {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % static_cast<std::uintptr_t>(size_of(dtype)) == 0;
}

std::vector<float> to_floats(const TensorView& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  if (tensor.dtype == StoredType::f32) {
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  } else if (tensor.dtype == StoredType::bf16) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      bf16 value;
      std::memcpy(&value, tensor.bytes.data() + i * sizeof value, sizeof value);
      values[i] = to_float(value);
    }
  } else {
    throw WeightsError(
        fmt::format("a tensor of dtype {} cannot be read as float32: F32 or BF16 is wanted", to_string(tensor.dtype)));
  }
  return values;
}

SafeTensors::SafeTensors(const std::filesystem::path& path) : file_(path) {
  const auto fail = [&](const std::string& problem) {
    throw WeightsError(fmt::format("{}: {}", path.string(), problem));
  };
  const auto bytes = file_.bytes();
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes)
    fail(fmt::format("{} bytes are no safetensors file: the header length alone takes 8", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const auto rest = bytes.subspan(sizeof header_bytes);
  if (header_bytes > max_header_bytes)
    fail(fmt::format("header length {} exceeds the format's limit of {}; is it a safetensors file?", header_bytes,
                     max_header_bytes));
  if (header_bytes > rest.size())
    fail(fmt::format("header length {} exceeds the {} bytes that follow; is the file truncated?", header_bytes,
                     rest.size()));

  const std::string_view header(reinterpret_cast<const char*>(rest.data()), header_bytes);
  if (!header.starts_with('{')) fail("header: does not begin with '{'");
  // The parser takes NUL for the end of the text; what follows it would pass unread.
  if (header.find('\0') != header.npos) fail("header: contains a NUL byte");
  if (header[header.find_last_not_of(' ')] != '}') fail("header: does not end with '}' and spaces");
  const auto buffer = rest.subspan(header_bytes);
  HeaderReader reader(path, buffer, tensors_, metadata_);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  check_coverage(path, buffer, tensors_);
}

const TensorView& SafeTensors::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw WeightsError(fmt::format("{}: no tensor {}", path().string(), quoted_name(name)));
  return found->second;
}

void SafeTensors::check_finite() const {
  for (const auto& [name, tensor] : tensors_) {
    const std::int64_t i = first_not_finite(tensor);
    if (i >= 0)
      throw WeightsError(fmt::format("{}: {} holds a NaN or an infinity at index {}", path().string(),
                                     quoted_name(name), to_string(unravel(i, tensor.shape))));
  }
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const auto fail = [&](const std::string& problem) {
    throw WeightsError(fmt::format("{}: {}", path.string(), problem));
  };
  const auto json = [&](const auto& value) {
    try {
      return nlohmann::json(value).dump();
    } catch (const nlohmann::json::type_error&) {
      throw WeightsError(fmt::format("{}: a tensor name or metadata is no UTF-8 text", path.string()));
    }
  };
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return std::pair(-size_of(a.dtype), std::string_view(a.name)) <
           std::pair(-size_of(b.dtype), std::string_view(b.name));
  });

  std::string header = "{";
  const auto add = [&](const std::string& key, const std::string& value) {
    header += fmt::format("{}{}:{}", header.size() > 1 ? "," : "", key, value);
  };
  if (!metadata.empty()) add(json(metadata_name), json(metadata));
  std::set<std::string_view> names = {metadata_name};
  const auto fail_with = [&](const TensorToWrite& tensor, std::size_t bytes) {
    fail(fmt::format("{}: {} bytes are no {} {}", quoted_name(tensor.name), bytes, to_string(tensor.dtype),
                     to_string(tensor.shape)));
  };
  std::uint64_t end = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (!names.insert(tensor.name).second) fail(fmt::format("{}: the name is taken", quoted_name(tensor.name)));
    const auto bytes = byte_count(tensor.shape, tensor.dtype);
    if (!bytes || (!tensor.make && static_cast<std::size_t>(*bytes) != tensor.bytes.size()))
      fail_with(tensor, tensor.bytes.size());
    const std::uint64_t begin = std::exchange(end, end + static_cast<std::uint64_t>(*bytes));
    add(json(tensor.name), fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", to_string(tensor.dtype),
                                       to_string(tensor.shape), begin, end));
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // data begin at a multiple of 8, too
  if (header.size() > max_header_bytes) fail("the header exceeds the format's limit; too many tensors");

  write_atomically(path, [&](FileWriter& out) {
    const std::uint64_t header_bytes = header.size();
    out.write(std::as_bytes(std::span(&header_bytes, 1)));
    out.write(header);
    for (const TensorToWrite& tensor : tensors) {
      if (!tensor.make) {
        out.write(tensor.bytes);
        continue;
      }
      const std::vector<std::byte> made = tensor.make();
      if (static_cast<std::size_t>(*byte_count(tensor.shape, tensor.dtype)) != made.size())
        fail_with(tensor, made.size());
      out.write(made);
    }
  });
}

}  // namespace photon
