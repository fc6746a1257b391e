// Shards: the header, its checks, and writing ids in memory.  docs/data-format.md.
#include "text/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "text/packed_ids.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using Digest = std::array<std::byte, 32>;  // SHA-256

static_assert(std::endian::native == std::endian::little, "shards are little-endian and mapped as they are");

constexpr std::array<char, 8> shard_magic = {'P', 'H', 'T', 'S', 'H', 'A', 'R', 'D'};
constexpr std::uint32_t shard_version = 1;
constexpr std::int64_t largest_vocabulary = std::int64_t{1} << 31;  // ids are int32
constexpr std::int64_t most_uint16_ids = 1 << 16;

struct Header {
  std::array<char, 8> magic = shard_magic;
  std::uint32_t version = shard_version;
  std::uint32_t header_bytes = sizeof(Header);
  std::uint32_t bytes_per_token = 2;
  std::uint32_t reserved = 0;
  std::uint64_t vocab_size = 0;
  std::uint64_t n_tokens = 0;
  std::uint64_t text_bytes = 0;
  std::array<std::byte, 16> padding{};
  Digest tokenizer_sha256{};  // all zero: unknown
  Digest tokens_sha256{};
  Digest header_sha256{};  // of the header up to here
  std::array<std::byte, 32> end_padding{};
};
static_assert(sizeof(Header) == 192 && sizeof(Header) % 64 == 0 && offsetof(Header, header_sha256) == 128);

std::string to_hex(const Digest& digest) {
  std::string hex;
  for (const std::byte byte : digest) hex += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return hex;
}

Digest from_hex(std::string_view hex) {
  const auto digit = [&](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    throw InputError(fmt::format("'{}' is no SHA-256 in lower-case hex", hex));
  };
  Digest digest{};
  if (hex.size() != 2 * digest.size()) throw InputError(fmt::format("'{}' is no SHA-256: 64 hex digits", hex));
  for (std::size_t i = 0; i < digest.size(); ++i)
    digest[i] = static_cast<std::byte>(16 * digit(hex[2 * i]) + digit(hex[2 * i + 1]));
  return digest;
}

Digest header_digest(const Header& header) {
  return from_hex(sha256(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_sha256))));
}

template <class Id>
std::uint32_t largest_id(const std::byte* tokens, std::int64_t n) {
  const Id* ids = reinterpret_cast<const Id*>(tokens);
  Id largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, ids[i]);
  return largest;
}

template <class Id>
void copy_ids(const std::byte* tokens, std::int64_t first, std::span<std::int64_t> out) {
  const Id* ids = reinterpret_cast<const Id*>(tokens) + first;
  for (std::size_t j = 0; j < out.size(); ++j) out[j] = ids[j];
}

std::int64_t bytes_per_id(std::int64_t vocab_size) { return vocab_size <= most_uint16_ids ? 2 : 4; }

}  // namespace

Shard::Shard(const fs::path& path) : file_(path) {
  const auto bytes = file_.bytes();
  const auto fail = [&](const std::string& what) { throw InputError(fmt::format("{}: {}", path.string(), what)); };
  const auto want = [&](const char* field, std::uint64_t got, std::uint64_t wanted) {
    if (got != wanted) fail(fmt::format("{} is {}, want {}", field, got, wanted));
  };
  Header header;
  if (bytes.size() < sizeof header)
    fail(fmt::format("no shard: {} bytes, a header has {}", bytes.size(), sizeof header));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != shard_magic) fail("no shard: magic is not \"PHTSHARD\"; make one with `photon shard`");
  want("version", header.version, shard_version);
  want("header_bytes", header.header_bytes, sizeof header);
  want("reserved", header.reserved, 0);
  if (header.padding != decltype(header.padding){} || header.end_padding != decltype(header.end_padding){})
    fail("padding of the header is not zero");
  if (header.vocab_size < 1 || header.vocab_size > static_cast<std::uint64_t>(largest_vocabulary))
    fail(fmt::format("vocab_size is {}, want 1 to {}", header.vocab_size, largest_vocabulary));
  vocab_size_ = static_cast<std::int64_t>(header.vocab_size);
  bytes_per_token_ = bytes_per_id(vocab_size_);
  if (header.bytes_per_token != static_cast<std::uint32_t>(bytes_per_token_))
    fail(fmt::format("bytes_per_token is {}, a vocabulary of {} has {}", header.bytes_per_token, vocab_size_,
                     bytes_per_token_));
  const std::uint64_t token_bytes = bytes.size() - sizeof header;
  if (header.n_tokens < 1 || header.n_tokens > token_bytes / header.bytes_per_token ||
      header.n_tokens * header.bytes_per_token != token_bytes)
    fail(fmt::format("n_tokens is {} of {} bytes each, but {} bytes follow the header", header.n_tokens,
                     header.bytes_per_token, token_bytes));
  if (header.header_sha256 != header_digest(header)) fail("header_sha256 does not match the header: it was changed");
  n_tokens_ = static_cast<std::int64_t>(header.n_tokens);
  text_bytes_ = static_cast<std::int64_t>(header.text_bytes);
  if (text_bytes_ < 0) fail(fmt::format("text_bytes is {}", header.text_bytes));
  tokenizer_hash_ = header.tokenizer_sha256 == Digest{} ? "" : to_hex(header.tokenizer_sha256);
  checksum_ = to_hex(header.tokens_sha256);
  tokens_ = bytes.data() + sizeof header;
  if (sha256(bytes.subspan(sizeof header)) != checksum_) fail("tokens_sha256 does not match the tokens: damaged");
  const std::int64_t largest = bytes_per_token_ == 2 ? largest_id<std::uint16_t>(tokens_, n_tokens_)
                                                     : largest_id<std::uint32_t>(tokens_, n_tokens_);
  if (largest >= vocab_size_) fail(fmt::format("token id {} is outside vocab_size {}", largest, vocab_size_));
}

std::int32_t Shard::operator[](std::int64_t i) const {
  std::int64_t token = 0;
  copy(i, {&token, 1});
  return static_cast<std::int32_t>(token);
}

void Shard::copy(std::int64_t first, std::span<std::int64_t> out) const {
  assert(0 <= first && first + static_cast<std::int64_t>(out.size()) <= n_tokens_);
  if (bytes_per_token_ == 2) return copy_ids<std::uint16_t>(tokens_, first, out);
  copy_ids<std::uint32_t>(tokens_, first, out);
}

std::vector<std::byte> pack(std::span<const std::int32_t> tokens, std::int64_t vocab_size) {
  const auto width = static_cast<std::size_t>(bytes_per_id(vocab_size));
  std::vector<std::byte> bytes(tokens.size() * width);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size)
      throw InputError(fmt::format("token {} is id {}, outside the vocabulary of {}", i, tokens[i], vocab_size));
    std::memcpy(bytes.data() + i * width, &tokens[i], width);  // little-endian: the low bytes come first
  }
  return bytes;
}

void write_packed(const fs::path& output, std::span<const std::byte> ids, std::int64_t vocab_size,
                  const std::string& tokenizer_hash, std::int64_t text_bytes) {
  if (ids.empty()) throw InputError(fmt::format("{}: not written, there are no tokens", output.string()));
  Header header;
  header.bytes_per_token = static_cast<std::uint32_t>(bytes_per_id(vocab_size));
  header.vocab_size = static_cast<std::uint64_t>(vocab_size);
  header.n_tokens = ids.size() / header.bytes_per_token;
  header.text_bytes = static_cast<std::uint64_t>(text_bytes);
  header.tokenizer_sha256 = tokenizer_hash.empty() ? Digest{} : from_hex(tokenizer_hash);
  header.tokens_sha256 = from_hex(sha256(ids));
  header.header_sha256 = header_digest(header);
  write_atomically(output, [&](FileWriter& out) {
    out.write(std::as_bytes(std::span(&header, 1)));
    out.write(ids);
  });
}

void write_shard(const fs::path& output, std::span<const std::int32_t> tokens, std::int64_t vocab_size,
                 const std::string& tokenizer_hash, std::int64_t text_bytes) {
  if (vocab_size < 1 || vocab_size > largest_vocabulary || text_bytes < 0)
    throw InputError(fmt::format("{}: not written, vocab_size {} or text_bytes {} is out of range", output.string(),
                                 vocab_size, text_bytes));
  write_packed(output, pack(tokens, vocab_size), vocab_size, tokenizer_hash, text_bytes);
}

}  // namespace photon
