// Properties of the safetensors reader and writer: what is written reads back, what is damaged is refused by name, and
// no claim of a file costs memory.
#include "weights/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>
#include <string>

#include "base/bf16.h"
#include "base/folder_testing.h"

namespace {
std::size_t live_bytes = 0, peak_bytes = 0;  // of operator new
}

[[gnu::noinline]] void* operator new(std::size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  live_bytes += ::malloc_usable_size(memory);
  peak_bytes = std::max(peak_bytes, live_bytes);
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  live_bytes -= ::malloc_usable_size(memory);
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace photon {
namespace {

namespace fs = std::filesystem;

std::string with_length(std::uint64_t header_bytes, const std::string& rest) {
  std::string file(sizeof header_bytes, '\0');
  std::memcpy(file.data(), &header_bytes, sizeof header_bytes);
  return file + rest;
}
std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  return with_length(header.size(), header + std::string(data_bytes, '\1'));
}

// One tensor 'w' with these fields, in a file with data_bytes bytes of data.
std::string file_with(const std::string& dtype, const std::string& shape, const std::string& offsets,
                      std::size_t data_bytes) {
  return file_of(fmt::format(R"({{"w":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets),
                 data_bytes);
}

class SafeTensorsFile : public ::testing::Test {
 protected:
  void write(const std::string& bytes) const {  // without waiting for the disk
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
  }
  SafeTensors open(const std::string& bytes) const {
    write(bytes);
    return SafeTensors(path);
  }
  std::string refusal(const std::string& bytes) const {
    try {
      open(bytes);
    } catch (const WeightsError& e) {
      return e.what();
    }
    return "accepted";
  }
  void expect_refused(const std::string& what, const std::string& bytes, const std::string& names) const {
    const std::string message = refusal(bytes);
    EXPECT_NE(message.find(path.string() + ": "), message.npos) << what << ": " << message;
    EXPECT_NE(message.find(names), message.npos) << what << ": " << message;
    EXPECT_LT(message.size(), path.string().size() + 600) << what;
  }

  testing_support::TemporaryFolder folder;
  fs::path path = folder / "model.safetensors";
};

// Three tensors of different widths, one of them scalar, one empty.
struct Sample {
  std::vector<double> wide = {1.5, -2, 0x1p-1074};
  std::vector<bf16> half = {to_bf16(1), to_bf16(-3.25f)};
  float scalar = 42;
  std::vector<TensorToWrite> tensors() const {
    return {{"half", StoredType::bf16, {2, 1}, std::as_bytes(std::span(half))},
            {"empty", StoredType::i8, {3, 0, 2}, {}},
            {"wide", StoredType::f64, {3}, std::as_bytes(std::span(wide))},
            {"scalar", StoredType::f32, {}, std::as_bytes(std::span(&scalar, 1))}};
  }
};

TEST_F(SafeTensorsFile, EveryDTypeReadsBackAsWritten) {
  constexpr std::array all = {StoredType::f32, StoredType::bf16, StoredType::f16,    StoredType::f64, StoredType::i8,
                              StoredType::u8,  StoredType::i16,  StoredType::u16,    StoredType::i32, StoredType::u32,
                              StoredType::i64, StoredType::u64,  StoredType::boolean};
  std::vector<std::string> contents;
  for (std::size_t i = 0; i < all.size(); ++i)
    contents.emplace_back(static_cast<std::size_t>(size_of(all[i])) * 6, static_cast<char>(i + 1));
  std::vector<TensorToWrite> tensors;
  for (std::size_t i = 0; i < all.size(); ++i)
    tensors.push_back({std::string(to_string(all[i])), all[i], {2, 3}, std::as_bytes(std::span(contents[i]))});
  write_safetensors(path, tensors, {{"note", "quote \" and ümlaut"}});

  const SafeTensors file(path);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"note", "quote \" and ümlaut"}}));
  ASSERT_EQ(file.tensors().size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const TensorView& tensor = file.at(std::string(to_string(all[i])));
    EXPECT_EQ(tensor.dtype, all[i]);
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(tensor.elements(), 6);
    EXPECT_TRUE(tensor.is_aligned());
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()), contents[i]);
  }
}

TEST_F(SafeTensorsFile, IsOrderedByAlignmentThenNameAndPaddedToEightBytes) {
  const Sample sample;
  write_safetensors(path, sample.tensors());
  const std::string text = read_text(path);
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data(), sizeof header_bytes);
  EXPECT_EQ(header_bytes % 8, 0u);
  const std::string header = text.substr(8, header_bytes);
  EXPECT_EQ(header.substr(0, header.find_last_not_of(' ') + 1),
            R"({"wide":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},)"
            R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[24,28]},)"
            R"("half":{"dtype":"BF16","shape":[2, 1],"data_offsets":[28,32]},)"
            R"("empty":{"dtype":"I8","shape":[3, 0, 2],"data_offsets":[32,32]}})");
  EXPECT_EQ(text.size(), 8 + header_bytes + 32);
}

TEST_F(SafeTensorsFile, OfOtherWritersReads) {
  // The example of the format's own documentation: the header is not padded.
  const auto example = open(file_of(R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})", 16));
  EXPECT_EQ(example.at("test").elements(), 4);
  // Any order, whitespace within, trailing spaces, escapes, empty file, empty tensor between others.
  const auto loose =
      open(file_of("{ \"__metadata__\" : {},\n \"b\\u00e9\":{\"data_offsets\":[2,4],\"shape\":[2],"
                   "\"dtype\":\"U8\"},\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                   "\"e\":{\"dtype\":\"F32\",\"shape\":[7,0],\"data_offsets\":[2,2]}}   ",
                   4));
  EXPECT_EQ(loose.at("bé").bytes.data() - loose.at("a").bytes.data(), 2);
  EXPECT_EQ(loose.at("e").elements(), 0);
  EXPECT_TRUE(open(file_of("{}")).tensors().empty());
}

TEST_F(SafeTensorsFile, MisalignedFloatsAreReportedAndCopied) {
  const std::vector<float> values = {1, -2.5f};
  std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  while (header.size() % 4 != 1) header += ' ';
  const auto file = open(file_of(header) + std::string(reinterpret_cast<const char*>(values.data()), 8));
  EXPECT_FALSE(file.at("w").is_aligned());
  EXPECT_EQ(to_floats(file.at("w")), values);
  file.check_finite();
}

TEST_F(SafeTensorsFile, ReadsAsFloatsFromF32AndBF16Only) {
  const Sample sample;
  write_safetensors(path, sample.tensors());
  const SafeTensors file(path);
  EXPECT_EQ(to_floats(file.at("half")), (std::vector<float>{1, -3.25f}));
  EXPECT_EQ(to_floats(file.at("scalar")), (std::vector<float>{42}));
  EXPECT_THROW(to_floats(file.at("wide")), WeightsError);
  EXPECT_THROW(file.at("absent"), WeightsError);
}

TEST_F(SafeTensorsFile, NamesTheFirstValueThatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> w = {0, -0.0f, 1e-42f, std::numeric_limits<float>::max(), 5, 6};
  std::vector<bf16> b(4);
  std::vector<std::uint16_t> h = {0x7bff, 0x8001};
  std::vector<double> d = {1e308};
  const std::vector<TensorToWrite> tensors = {{"w", StoredType::f32, {2, 3}, std::as_bytes(std::span(w))},
                                              {"b", StoredType::bf16, {4}, std::as_bytes(std::span(b))},
                                              {"h", StoredType::f16, {2}, std::as_bytes(std::span(h))},
                                              {"d", StoredType::f64, {}, std::as_bytes(std::span(d))}};
  const auto complaint = [&] {
    write_safetensors(path, tensors);
    try {
      SafeTensors(path).check_finite();
    } catch (const WeightsError& e) {
      return std::string(e.what()).substr(path.string().size());
    }
    return std::string("finite");
  };
  EXPECT_EQ(complaint(), "finite");
  w[4] = nan;
  EXPECT_EQ(complaint(), ": 'w' holds a NaN or an infinity at index [1, 1]");
  h[1] = 0xfc00;
  EXPECT_EQ(complaint(), ": 'h' holds a NaN or an infinity at index [1]");
  d[0] = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(complaint(), ": 'd' holds a NaN or an infinity at index []");
  b[3] = to_bf16(nan);
  EXPECT_EQ(complaint(), ": 'b' holds a NaN or an infinity at index [3]");
}

TEST_F(SafeTensorsFile, WriterRefusesWhatNoReaderWouldTake) {
  const std::vector<float> w(4);
  const auto bytes = std::as_bytes(std::span(w));
  const auto refused = [&](std::vector<TensorToWrite> tensors, std::map<std::string, std::string> metadata = {}) {
    EXPECT_THROW(write_safetensors(path, std::move(tensors), metadata), WeightsError);
    EXPECT_TRUE(fs::is_empty(folder.path()));
  };
  refused({{"w", StoredType::f32, {4}, bytes}, {"w", StoredType::f32, {4}, bytes}});
  refused({{"w", StoredType::f32, {4}, bytes}, {"w", StoredType::i64, {2}, bytes}});
  refused({{"__metadata__", StoredType::f32, {4}, bytes}});
  refused({{"w", StoredType::f32, {3}, bytes}});
  refused({{"w", StoredType::f32, {-1, -4}, bytes}});
  refused({{"w", StoredType::u8, {16, std::int64_t{1} << 62, 4}, bytes}});
  refused({{"\xff", StoredType::f32, {4}, bytes}});
  refused({}, {{"key", "\xc3("}});
  refused({{"w", StoredType::f32, {4}, {}, [] { return std::vector<std::byte>(15); }}});
  refused({{"w", StoredType::u8, {16, std::int64_t{1} << 62, 4}, {}, [] { return std::vector<std::byte>(); }}});
}

TEST_F(SafeTensorsFile, TensorsMadeWhileWritingGiveTheSameFileOneAtATime) {
  const Sample sample;
  write_safetensors(path, sample.tensors());
  const std::string want = read_text(path);
  auto tensors = sample.tensors();
  std::vector<std::string> made;
  for (TensorToWrite& tensor : tensors)
    if (tensor.name != "scalar")
      tensor.make = [name = tensor.name, bytes = std::exchange(tensor.bytes, {}), &made] {
        made.push_back(name);
        return std::vector<std::byte>(bytes.begin(), bytes.end());
      };
  write_safetensors(path, tensors);
  EXPECT_EQ(read_text(path), want);
  EXPECT_EQ(made, (std::vector<std::string>{"wide", "half", "empty"}));  // in the file's order
}

TEST_F(SafeTensorsFile, HeaderLengthIsCheckedBeforeAnythingElse) {
  for (const std::size_t size : {0, 1, 7}) expect_refused("short file", std::string(size, '\0'), "safetensors file");
  expect_refused("no header", with_length(0, ""), "header");
  expect_refused("N = 0", with_length(0, "{}"), "header");
  expect_refused("N = 1", with_length(1, "{}"), "header");
  expect_refused("N = 1e8 + 1", with_length(100'000'001, "{}"), "header length 100000001 exceeds the format's limit");
  expect_refused("N > file", with_length(3, "{}"), "header length 3");
  expect_refused("N = file", with_length(10, "{}"), "header length 10");
  expect_refused("N = 2^63", with_length(std::uint64_t{1} << 63, "{}"), "header length 9223372036854775808");
  expect_refused("N = 2^64 - 1", with_length(~std::uint64_t{0}, "{}"), "header length 18446744073709551615");
  expect_refused("N = 2^64 - 8", with_length(~std::uint64_t{7}, "{}"), "header length");
  expect_refused("trailing byte", with_length(2, "{}x"), "1 bytes after the last tensor");
}

TEST_F(SafeTensorsFile, HeaderMustBeOneStrictJsonObject) {
  const std::string good = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  open(file_of(good, 1));
  const std::pair<const char*, std::string> bad[] = {
      {"no JSON", "{hello}"},
      {"empty", ""},
      {"spaces only", "   "},
      {"array", "[]"},
      {"null", "null"},
      {"string", "\"{}\""},
      {"leading space", " " + good},
      {"BOM", "\xef\xbb\xbf" + good},
      {"trailing NUL", good + std::string(1, '\0')},
      {"NUL and more", good + std::string(1, '\0') + "}"},
      {"trailing newline", good + "\n"},
      {"second object", good + "{}"},
      {"missing end", good.substr(0, good.size() - 1)},
      {"trailing comma", good.substr(0, good.size() - 1) + ",}"},
      {"comment", "{/* */" + good.substr(1)},
      {"invalid UTF-8 in a name", "{\"\xff\":" + good.substr(5)},
      {"overlong UTF-8 in a name", "{\"\xc0\x80\":" + good.substr(5)},
      {"UTF-8 surrogate in a name", "{\"\xed\xa0\x80\":" + good.substr(5)},
      {"lone surrogate escape", "{\"\\ud800\":" + good.substr(5)},
      {"raw control character in a name", "{\"\n\":" + good.substr(5)},
      {"infinite number", R"({"w":1e999})"},
  };
  for (const auto& [what, header] : bad) expect_refused(what, file_of(header, 1), "header");
}

TEST_F(SafeTensorsFile, EntriesHaveExactlyTheirThreeFields) {
  const std::string dtype = R"("dtype":"U8")", shape = R"("shape":[1])", offsets = R"("data_offsets":[0,1])";
  const auto entry = [&](const std::string& fields) { return file_of("{\"w\":{" + fields + "}}", 1); };
  open(entry(offsets + "," + dtype + "," + shape));
  expect_refused("no dtype", entry(shape + "," + offsets), "'w': dtype");
  expect_refused("no shape", entry(dtype + "," + offsets), "'w': shape");
  expect_refused("no offsets", entry(dtype + "," + shape), "'w': data_offsets");
  expect_refused("nothing", entry(""), "'w': dtype");
  expect_refused("dtype twice", entry(dtype + "," + dtype + "," + shape + "," + offsets), "'dtype' occurs twice");
  expect_refused("unknown key", entry(dtype + "," + shape + "," + offsets + R"(,"stride":[1])"),
                 "unknown key 'stride'");
  expect_refused("entry is a number", file_of(R"({"w":1})", 1), "'w'");
  expect_refused("entry is null", file_of(R"({"w":null})", 1), "'w'");
  expect_refused("entry is an array", file_of(R"({"w":[]})", 1), "'w'");
  expect_refused("tensor name twice",
                 file_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                         2),
                 "'w' occurs twice");
}

TEST_F(SafeTensorsFile, MetadataMapsStringsToStringsOnce) {
  EXPECT_EQ(open(file_of(R"({"__metadata__":{"k":"v"}})")).metadata().at("k"), "v");
  for (const char* value : {"1", "-1", "1.5", "true", "null", "[]", "{}"})
    expect_refused(value, file_of(fmt::format(R"({{"__metadata__":{{"k":{}}}}})", value)), "__metadata__: 'k'");
  expect_refused("no object", file_of(R"({"__metadata__":"x"})"), "'__metadata__'");
  expect_refused("twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "'__metadata__' occurs twice");
  expect_refused("key twice", file_of(R"({"__metadata__":{"k":"v","k":"v"}})"), "key 'k' occurs twice");
}

TEST_F(SafeTensorsFile, DTypesOutsideTheListAreRefusedByName) {
  for (const char* dtype : {"F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F6_E2M3", "F4", "C64"})
    expect_refused(dtype, file_with(fmt::format("\"{}\"", dtype), "[1]", "[0,1]", 1),
                   fmt::format("'w': dtype: {} is not supported", dtype));
  for (const char* dtype : {"", "f32", "F32 ", "FLOAT"})
    expect_refused(dtype, file_with(fmt::format("\"{}\"", dtype), "[1]", "[0,1]", 1),
                   fmt::format("'w': dtype: '{}' is unknown", dtype));
  for (const char* dtype : {"32", "null", "[\"F32\"]", "{}", "true"})
    expect_refused(dtype, file_with(dtype, "[1]", "[0,1]", 1), "'w': dtype");
}

TEST_F(SafeTensorsFile, ShapesAreListsOfNonNegativeIntegersWhoseProductFits) {
  std::string many = "[1";
  for (int i = 1; i < 10'000; ++i) many += ",1";
  const std::string bad[] = {"[-1]",
                             "[-0]",
                             "[1.5]",
                             "[1.0]",
                             "[1e0]",
                             "[1e30]",
                             "[9223372036854775808]",
                             "[18446744073709551616]",
                             "[4294967296,4294967296]",
                             "[4294967296,4294967297]",
                             "[9223372036854775807,2]",
                             "[0,9223372036854775807,2]",
                             "[\"1\"]",
                             "[[1]]",
                             "[null]",
                             "[true]",
                             "[{}]",
                             "1",
                             "\"[1]\"",
                             "null",
                             "{}",
                             many + "]"};
  for (const std::string& shape : bad)
    expect_refused(shape.substr(0, 40), file_with("\"U8\"", shape, "[0,1]", 1), "'w': shape");
  expect_refused("2^63", file_with("\"U8\"", "[9223372036854775808]", "[0,1]", 1),
                 "'w': shape: dimension 9223372036854775808 is too large");
  open(file_with("\"U8\"", "[]", "[0,1]", 1));
  open(file_with("\"U8\"", "[1,1,1,1,1,1,1,1]", "[0,1]", 1));
  open(file_with("\"U8\"", "[0]", "[0,0]", 0));
}

TEST_F(SafeTensorsFile, OffsetsCoverTheDataExactly) {
  const std::pair<const char*, std::size_t> bad[] = {
      {"[8,4]", 8},                     // reversed
      {"[0,8]", 4},                     // beyond the end
      {"[0,3]", 4},                     // end != begin + size
      {"[0,5]", 5},                     // likewise
      {"[1,5]", 5},                     // hole before
      {"[0,18446744073709551615]", 4},  // 2^64 - 1
      {"[18446744073709551612,18446744073709551615]", 4},
      {"[0,18446744073709551616]", 4},  // no 64-bit integer
      {"[0,-4]", 4},
      {"[0,4.0]", 4},
      {"[0]", 4},
      {"[]", 4},
      {"[0,4,4]", 4},
      {"[\"0\",4]", 4},
      {"[[0,4]]", 4},
      {"4", 4},
      {"null", 4},
  };
  open(file_with("\"F32\"", "[1]", "[0,4]", 4));
  for (const auto& [offsets, data_bytes] : bad)
    expect_refused(offsets, file_with("\"F32\"", "[1]", offsets, data_bytes), "'w': data_offsets");
  for (const char* offsets : {"[]", "[0]", "[0,0,0]"})
    expect_refused(offsets, file_with("\"F32\"", "[0]", offsets, 0), "'w': data_offsets");
  expect_refused("reversed", file_with("\"F32\"", "[1]", "[4,0]", 4), "[4, 0] end before they begin");
  expect_refused("trailing data", file_with("\"F32\"", "[1]", "[0,4]", 5), "1 bytes after the last tensor");

  const auto pair = [](int a_begin, int a_end, int b_begin, int b_end) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                       R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       a_end - a_begin, a_begin, a_end, b_end - b_begin, b_begin, b_end);
  };
  open(file_of(pair(0, 2, 2, 6), 6));
  open(file_of(pair(2, 6, 0, 2), 6));
  expect_refused("overlap", file_of(pair(0, 4, 2, 6), 6), "'b': data_offsets begin at 2");
  expect_refused("same place", file_of(pair(0, 6, 0, 6), 6), "data_offsets begin at 0");
  expect_refused("nested", file_of(pair(0, 6, 2, 4), 6), "'b': data_offsets begin at 2");
  expect_refused("hole", file_of(pair(0, 2, 4, 6), 6), "'b': data_offsets begin at 4");
  expect_refused("empty tensor in a hole", file_of(pair(0, 2, 4, 4), 2), "'b': data_offsets");
  expect_refused("empty tensor inside another", file_of(pair(0, 4, 2, 2), 4), "data_offsets begin at 2");
}

TEST_F(SafeTensorsFile, MessagesShowForeignNamesHarmless) {
  const std::string name(5000, 'x');
  expect_refused("long name", file_of("{\"" + name + "\":1}"), "xxx…'");
  const std::string message = refusal(file_of("{\"\\u001b[31m\\n\":1}"));
  EXPECT_NE(message.find("'\\x1b[31m\\x0a'"), message.npos) << message;
  EXPECT_EQ(message.find('\n'), message.npos);
  EXPECT_EQ(quoted_name(std::string(119, 'x') + "é"), "'" + std::string(119, 'x') + "…'");
}

TEST_F(SafeTensorsFile, EveryTruncationIsRefused) {
  const std::vector<float> w(1000, 1.0f);
  const Sample sample;
  auto tensors = sample.tensors();
  tensors.push_back({"w", StoredType::f32, {10, 100}, std::as_bytes(std::span(w))});
  write_safetensors(path, tensors);
  const std::string whole = read_text(path);
  for (std::size_t i = 0; i < 200; ++i) expect_refused("cut", whole.substr(0, whole.size() * i / 200), "");
  for (std::size_t size = 0; size < 400; ++size) expect_refused("cut", whole.substr(0, size), "");
  expect_refused("one byte short", whole.substr(0, whole.size() - 1), "truncated");
  expect_refused("one byte long", whole + '\0', "1 bytes after");
  open(whole);
}

TEST_F(SafeTensorsFile, FlippedHeaderBytesAreRefusedOrLeaveAConsistentFile) {
  const Sample sample;
  write_safetensors(path, sample.tensors(), {{"seed", "1"}});
  const std::string whole = read_text(path);
  const std::size_t header_end = whole.size() - 32;
  int refused = 0, accepted = 0;
  for (std::size_t i = 0; i < header_end; ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      try {
        const SafeTensors file = open(damaged);
        ++accepted;
        std::size_t bytes = 0;
        for (const auto& [name, tensor] : file.tensors()) {
          std::int64_t elements = 1;
          for (const std::int64_t dimension : tensor.shape) elements *= dimension;
          EXPECT_EQ(tensor.elements(), elements);
          EXPECT_EQ(static_cast<std::size_t>(elements * size_of(tensor.dtype)), tensor.bytes.size());
          bytes += tensor.bytes.size();
        }
        EXPECT_EQ(bytes, 32u);
        EXPECT_EQ(file.tensors().size(), 4u);
      } catch (const WeightsError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 0);
  EXPECT_GT(accepted, 0);  // letters of names and metadata
}

TEST_F(SafeTensorsFile, ClaimsCostNoMemory) {
  const auto cost = [&](const std::string& bytes) {
    write(bytes);
    const std::size_t before = peak_bytes = live_bytes;
    try {
      const SafeTensors file(path);
    } catch (const WeightsError&) {
    }
    return peak_bytes - before;
  };
  constexpr std::size_t little = 4 << 10;                                   // the message
  EXPECT_LT(cost(with_length(100'000'000, std::string(35, '{'))), little);  // 43 bytes
  EXPECT_LT(cost(with_length(std::uint64_t{1} << 62, std::string(35, '{'))), little);
  EXPECT_LT(cost(file_with("\"F64\"", "[1000000000000]", "[0,8000000000000]", 8)), little);
  EXPECT_LT(cost(file_with("\"U8\"", "[4294967296,4294967296,4294967296]", "[0,0]", 0)), little);

  constexpr std::size_t megabyte = 1 << 20;
  EXPECT_LT(cost(file_of("{\"w\":" + std::string(megabyte, '[') + "}")), little);
  EXPECT_LT(cost(file_of("{\"w\":{\"shape\":[" + std::string(megabyte, '[') + "}")), little);
  std::string deep = "{";
  while (deep.size() < megabyte) deep += "\"a\":{";
  EXPECT_LT(cost(file_of(deep + "}")), little);
  std::string long_shape = "{\"w\":{\"shape\":[1";
  while (long_shape.size() < megabyte) long_shape += ",1";
  EXPECT_LT(cost(file_of(long_shape + "]}}")), little);
  EXPECT_LT(cost(file_of("{\"w\":{\"shape\":[" + std::string(megabyte, '1') + "]}}")), 12 * megabyte);
  EXPECT_LT(cost(file_of("{\"" + std::string(megabyte, 'x') + "\":1}")), 12 * megabyte);

  std::string many = "{";
  for (int i = 0; many.size() < megabyte; ++i)
    many += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", i == 0 ? "" : ",", i);
  EXPECT_LT(cost(file_of(many + "}")), 12 * megabyte);
}

TEST_F(SafeTensorsFile, OnlyRegularFilesOpen) {
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  fs::create_symlink(folder / "loop", folder / "loop");
  for (const fs::path& bad :
       {folder.path(), folder / "fifo", folder / "loop", folder / "missing", fs::path("/dev/zero")})
    EXPECT_THROW(SafeTensors{bad}, InputError) << bad;
}

}  // namespace
}  // namespace photon
