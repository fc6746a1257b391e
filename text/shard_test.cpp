// Properties of text/shard.h: what is written is read, and whatever is wrong is refused by file and field.
#include "text/shard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/random.h"
#include "text/tokenizer.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::some_text;
using testing_support::TemporaryFolder;
using testing_support::tokenizer_path;

// Offsets in the header, docs/data-format.md.
constexpr std::size_t version_at = 8, bytes_per_token_at = 16, vocab_size_at = 24, n_tokens_at = 32,
                      tokens_sha256_at = 96, header_sha256_at = 128, header_bytes = 192;
const std::string some_hash(64, '7');

class ShardFile : public ::testing::Test {
 protected:
  std::string bytes_of(std::span<const std::int32_t> tokens, std::int64_t vocab_size) {
    write_shard(folder / "made", tokens, vocab_size, some_hash, 10);
    return read_text(folder / "made");
  }
  std::string message(const std::string& bytes) {
    const auto path = folder.write("x.shard", bytes);
    try {
      Shard{path};
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  }
  void expect_refused(const std::string& bytes, const std::string& field) {
    const std::string text = message(bytes);
    EXPECT_TRUE(text.find("x.shard") != std::string::npos && text.find(field) != std::string::npos) << text;
  }
  template <class T>
  static std::string with(std::string bytes, std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  }
  // With both checksums made right again: what then is refused is refused for its own sake.
  static std::string sealed(std::string bytes) {
    put_sha256(bytes, tokens_sha256_at, std::string_view(bytes).substr(header_bytes));
    put_sha256(bytes, header_sha256_at, std::string_view(bytes).substr(0, header_sha256_at));
    return bytes;
  }
  static void put_sha256(std::string& bytes, std::size_t at, std::string_view of) {
    const std::string hex = sha256(std::as_bytes(std::span(of)));
    for (std::size_t i = 0; i < 32; ++i)
      bytes[at + i] = static_cast<char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }

  TemporaryFolder folder;
};

TEST_F(ShardFile, ReadsWhatWasWrittenInBothWidths) {
  for (const std::int64_t vocab_size : {1, 300, 65536, 65537, 1 << 20}) {
    std::vector<std::int32_t> tokens(1001);
    Random random(static_cast<std::uint64_t>(vocab_size));
    for (auto& token : tokens) token = static_cast<std::int32_t>(random.below(vocab_size));
    tokens.back() = static_cast<std::int32_t>(vocab_size - 1);
    write_shard(folder / "s", tokens, vocab_size, some_hash, 12345);
    EXPECT_EQ(std::filesystem::file_size(folder / "s"), header_bytes + 1001u * (vocab_size <= 65536 ? 2 : 4));

    const Shard shard(folder / "s");
    ASSERT_EQ(shard.size(), 1001);
    EXPECT_EQ(shard.vocab_size(), vocab_size);
    EXPECT_EQ(shard.text_bytes(), 12345);
    EXPECT_EQ(shard.tokenizer_hash(), some_hash);
    EXPECT_EQ(shard.checksum(), sha256(MappedFile(folder / "s").bytes().subspan(header_bytes)));
    for (std::int64_t i = 0; i < shard.size(); ++i) ASSERT_EQ(shard[i], tokens[static_cast<std::size_t>(i)]);
    std::vector<std::int64_t> some(501);
    shard.copy(500, some);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), tokens.begin() + 500));
  }
}

TEST_F(ShardFile, AnUnknownTokenizerIsAnEmptyHash) {
  write_shard(folder / "s", std::vector<std::int32_t>{1, 2}, 3, "", 0);
  EXPECT_EQ(Shard(folder / "s").tokenizer_hash(), "");
}

TEST_F(ShardFile, WhatCannotBeAShardIsNotWritten) {
  const std::vector<std::int32_t> good = {0, 1}, high = {0, 5}, negative = {-1}, none;
  EXPECT_THROW(write_shard(folder / "s", high, 5, some_hash, 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", negative, 5, some_hash, 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", none, 5, some_hash, 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", good, 0, some_hash, 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", good, 5, "not a hash", 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", good, 5, std::string(64, 'x'), 0), InputError);
  EXPECT_THROW(write_shard(folder / "s", good, 5, some_hash, -1), InputError);
  EXPECT_THROW(write_shard(folder / "none" / "s", good, 5, some_hash, 0), InputError);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST_F(ShardFile, EachWrongFieldIsNamed) {
  const std::string good = bytes_of(std::vector<std::int32_t>{0, 1, 2, 3}, 300);
  ASSERT_EQ(message(good), "accepted");
  expect_refused(with(good, 0, 'X'), "magic");
  expect_refused(with(good, version_at, 2u), "version is 2, want 1");
  expect_refused(with(good, version_at + 4, 64u), "header_bytes");
  expect_refused(with(good, bytes_per_token_at, 4u), "bytes_per_token is 4, a vocabulary of 300 has 2");
  expect_refused(with(good, vocab_size_at, std::uint64_t{0}), "vocab_size");
  expect_refused(with(good, vocab_size_at, ~std::uint64_t{0}), "vocab_size");
  expect_refused(with(good, n_tokens_at, std::uint64_t{0}), "n_tokens");
  expect_refused(with(good, n_tokens_at, (std::uint64_t{1} << 63) + 4),
                 "n_tokens");  // times two wraps to the right length
  expect_refused(with(good, vocab_size_at, std::uint64_t{301}), "header_sha256");
  expect_refused(with(good, header_bytes, '\x01'), "tokens_sha256");
}

TEST_F(ShardFile, SealedButWrongShardsAreRefused) {
  const std::string good = bytes_of(std::vector<std::int32_t>{0, 1, 2, 299}, 300);
  EXPECT_EQ(message(sealed(good)), "accepted");
  // A foreign, smaller vocabulary; an id that grew; the ids taken for uint32, and uint32 taken for uint16.
  expect_refused(sealed(with(good, vocab_size_at, std::uint64_t{299})), "token id 299 is outside vocab_size 299");
  expect_refused(sealed(with(good, header_bytes, std::uint16_t{300})), "token id 300");
  expect_refused(sealed(with(with(good, vocab_size_at, std::uint64_t{70000}), bytes_per_token_at, 4u)), "n_tokens");
  const std::string wide = bytes_of(std::vector<std::int32_t>{0, 1, 2, 69999}, 70000);
  expect_refused(sealed(with(wide, bytes_per_token_at, 2u)), "bytes_per_token");
  expect_refused(sealed(with(with(wide, bytes_per_token_at, 2u), vocab_size_at, std::uint64_t{300})), "n_tokens");
  expect_refused(sealed(with(wide, header_bytes, 0xFFFFFFFFu)), "token id 4294967295");
}

TEST_F(ShardFile, EveryTruncationIsRefused) {
  std::vector<std::int32_t> tokens(200);
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::string good = bytes_of(tokens, 300);
  for (std::size_t length = 0; length < good.size(); length += length < header_bytes ? 1 : 3)
    expect_refused(good.substr(0, length), length < header_bytes ? "no shard" : "n_tokens");
  expect_refused(good + '\0', "n_tokens");
  expect_refused(good + std::string(2, '\0'), "n_tokens");
}

TEST_F(ShardFile, EveryFlippedBitIsRefused) {
  const std::string good = bytes_of(std::vector<std::int32_t>{0, 1, 2, 3}, 300);
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit)
      expect_refused(with(good, at, static_cast<char>(good[at] ^ (1 << bit))), at < 8 ? "magic" : "");
}

TEST_F(ShardFile, OtherThingsThanFilesAreRefused) {
  EXPECT_THROW(Shard{folder / "missing"}, InputError);
  EXPECT_THROW(Shard{folder.path()}, InputError);
}

TEST_F(ShardFile, HoldsEveryDocumentBetweenBosAndEos) {
  const Tokenizer tokenizer(tokenizer_path());
  const std::string one = "ka lo\n\nmi the", two = "ren 7 \xE2\x82\xAC", three = some_text(9, 400);
  const auto a = folder.write("a", "\n" + one + "\n<|endoftext|>\n\n<|endoftext|>\n" + two + "\n<|endoftext|>\n");
  const auto b = folder.write("b", three + "\n\n");  // no end line
  const ShardReport report =
      write_shard({.inputs = {a, b}, .output = folder / "s", .tokenizer = tokenizer_path(), .max_tokens = 0});

  std::vector<std::int32_t> expected;
  for (const std::string& text : {one, two, three.substr(0, three.size() - 1)}) {
    const auto ids = tokenizer.encode(text);
    expected.push_back(1);
    expected.insert(expected.end(), ids.begin(), ids.end());
    expected.push_back(2);
  }
  const Shard shard(folder / "s");
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(shard.size()));
  shard.copy(0, tokens);
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.begin(), expected.end()));
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.tokens, shard.size());
  EXPECT_EQ(report.text_bytes, static_cast<std::int64_t>(one.size() + two.size() + three.size() - 1));
  EXPECT_EQ(shard.text_bytes(), report.text_bytes);
  EXPECT_EQ(shard.vocab_size(), 400);
  EXPECT_EQ(shard.tokenizer_hash(), tokenizer.hash());
}

TEST_F(ShardFile, MaxTokensStopsAfterTheDocumentThatReachesIt) {
  const auto text = folder.write("text", "ka\n<|endoftext|>\nlo\n<|endoftext|>\nmi\n");
  const auto written = [&](std::int64_t max_tokens) {
    return write_shard(
        {.inputs = {text, text}, .output = folder / "s", .tokenizer = tokenizer_path(), .max_tokens = max_tokens});
  };
  const std::int64_t first = written(1).tokens;
  EXPECT_EQ(written(1).documents, 1);
  EXPECT_EQ(written(first).documents, 1);
  EXPECT_EQ(written(first + 1).documents, 2);
  EXPECT_EQ(written(0).documents, 6);
  EXPECT_EQ(written(1'000'000).documents, 6);
}

TEST_F(ShardFile, AFailedWriteKeepsTheOldShardAndLeavesNothingBehind) {
  const auto good = folder.write("good", "ka lo"), bad = folder.write("bad", "mi \xFF"),
             empty = folder.write("empty", "\n");
  const auto attempt = [&](const std::vector<std::filesystem::path>& inputs) {
    write_shard({.inputs = inputs, .output = folder / "s", .tokenizer = tokenizer_path(), .max_tokens = 0});
  };
  attempt({good});
  const std::string before = read_text(folder / "s");
  EXPECT_THROW(attempt({good, bad}), InputError);
  EXPECT_THROW(attempt({empty}), InputError);
  EXPECT_THROW(attempt({good, folder / "missing"}), InputError);
  EXPECT_THROW(attempt({}), InputError);
  EXPECT_EQ(read_text(folder / "s"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 4);  // good, bad, empty, s
}

}  // namespace
}  // namespace photon
