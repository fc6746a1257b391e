// What the writers of shards share: ids as the file holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace photon {

/// Ids as the file holds them.  @throws InputError for an id outside the vocabulary.
std::vector<std::byte> pack(std::span<const std::int32_t> tokens, std::int64_t vocab_size);
/// The shard of packed ids, written atomically.  @param tokenizer_hash  SHA-256 in hex; empty: unknown
void write_packed(const std::filesystem::path& output, std::span<const std::byte> ids, std::int64_t vocab_size,
                  const std::string& tokenizer_hash, std::int64_t text_bytes);

}  // namespace photon
