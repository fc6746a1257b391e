// For tests of exported files: a GGUF reader that checks the layout as it goes.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "base/file.h"
#include "weights/gguf.h"

namespace photon::testing_support {

struct ReadTensor {
  std::vector<std::uint64_t> dimensions;  // fastest first
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
  std::vector<float> values;
};
struct ReadGguf {
  std::uint32_t version = 0;
  std::vector<std::string> keys;  // in the order of the file
  std::map<std::string, GgufValue> metadata;
  std::vector<std::string> names;
  std::map<std::string, ReadTensor> tensors;
};

class GgufReader {
 public:
  explicit GgufReader(const std::filesystem::path& path) : bytes_(read_text(path)) {}

  ReadGguf read() {
    ReadGguf file;
    EXPECT_EQ(take(4), "GGUF");
    file.version = number<std::uint32_t>();
    const auto n_tensors = number<std::uint64_t>(), n_keys = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < n_keys; ++i) {
      file.keys.push_back(string());
      file.metadata[file.keys.back()] = value();
    }
    for (std::uint64_t i = 0; i < n_tensors; ++i) {
      file.names.push_back(string());
      ReadTensor& tensor = file.tensors[file.names.back()];
      for (auto n = number<std::uint32_t>(); n > 0; --n) tensor.dimensions.push_back(number<std::uint64_t>());
      tensor.type = number<std::uint32_t>();
      tensor.offset = number<std::uint64_t>();
    }
    align();
    const std::size_t data = at_;
    for (const std::string& name : file.names) {
      ReadTensor& tensor = file.tensors[name];
      EXPECT_EQ(tensor.offset % 32, 0u) << name;
      EXPECT_EQ(tensor.offset, at_ - data) << name << " does not begin where the tensor before ends";
      std::uint64_t n = 1;
      for (const auto dimension : tensor.dimensions) n *= dimension;
      for (std::uint64_t i = 0; i < n; ++i)
        tensor.values.push_back(tensor.type == 30 ? to_float(number<bf16>()) : number<float>());
      align();
    }
    EXPECT_EQ(at_, bytes_.size());
    return file;
  }

 private:
  std::string take(std::size_t n) {
    EXPECT_LE(at_ + n, bytes_.size());
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string string() { return take(number<std::uint64_t>()); }
  void align() {
    while (at_ % 32 != 0) EXPECT_EQ(take(1), std::string(1, '\0'));
  }
  GgufValue value() {
    switch (const auto type = number<std::uint32_t>()) {
      case 4:
        return number<std::uint32_t>();
      case 6:
        return number<float>();
      case 7:
        return number<std::uint8_t>() != 0;
      case 8:
        return string();
      case 9:
        return array(number<std::uint32_t>());
      default:
        ADD_FAILURE() << "unexpected value type " << type;
        return false;
    }
  }
  GgufValue array(std::uint32_t type) {
    std::vector<std::int32_t> integers;
    std::vector<float> floats;
    std::vector<std::string> strings;
    for (auto n = number<std::uint64_t>(); n > 0; --n) {
      if (type == 5) integers.push_back(number<std::int32_t>());
      if (type == 6) floats.push_back(number<float>());
      if (type == 8) strings.push_back(string());
    }
    if (type == 5) return integers;
    if (type == 6) return floats;
    return strings;
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

inline ReadGguf read_gguf(const std::filesystem::path& path) { return GgufReader(path).read(); }

}  // namespace photon::testing_support
