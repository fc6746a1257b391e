// Training shards: token ids in a memory-mapped file with a self-describing header.  docs/data-format.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace photon {

/// A checked, mapped shard.  Ids are stored as uint16 (vocabulary up to 65536) or uint32.
class Shard {
 public:
  /// Checks magic, version, dtype, exact length, checksum, and that every id is below the vocabulary.
  /// @throws InputError naming file and field.
  explicit Shard(const std::filesystem::path& path);

  std::int64_t size() const { return n_tokens_; }
  std::int64_t vocab_size() const { return vocab_size_; }
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }  // SHA-256 hex of tokenizer.model
  const std::string& checksum() const { return checksum_; }              // SHA-256 hex of the token bytes
  std::int64_t text_bytes() const {
    return text_bytes_;
  }  // UTF-8 bytes that the tokens stand for: bits per byte need it
  std::int32_t operator[](std::int64_t i) const;
  void copy(std::int64_t first, std::span<std::int64_t> out) const;  // out[j] = token first + j
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::int64_t n_tokens_ = 0, vocab_size_ = 0, text_bytes_ = 0, bytes_per_token_ = 2;
  const std::byte* tokens_ = nullptr;
  std::string tokenizer_hash_, checksum_;
};

struct ShardOptions {
  std::vector<std::filesystem::path> inputs;  // UTF-8 text; documents end with a line "<|endoftext|>" or with the file
  std::filesystem::path output;
  std::filesystem::path tokenizer;
  std::int64_t max_tokens = 0;  // 0 = all; otherwise stop after the document that reaches it
};
struct ShardReport {
  std::int64_t documents = 0, tokens = 0, text_bytes = 0;
};
/// Tokenises documents as [bos, tokens…, eos] and writes the shard atomically.
ShardReport write_shard(const ShardOptions& options);
/// The same from ids in memory (tests, foreign pipelines).  @throws InputError for ids >= vocab_size.
void write_shard(const std::filesystem::path& output, std::span<const std::int32_t> tokens, std::int64_t vocab_size,
                 const std::string& tokenizer_hash, std::int64_t text_bytes);

}  // namespace photon
