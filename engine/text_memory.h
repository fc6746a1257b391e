// The text of one sequence as a memory reads it: token ids, in pages that sequences of one prompt share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "spec/spec.h"

namespace photon {

/// Grows by pages of text_page_tokens ids, of 2 bytes where the vocabulary has at most 2¹⁶, else of 4.  Move-only; for
/// one thread.
class TextMemory {
 public:
  TextMemory(KvPool& pool, const Spec& spec);
  TextMemory(TextMemory&&) = default;
  TextMemory& operator=(TextMemory&&) = default;

  /// The same text; its pages are shared, the last one is copied when either goes on.
  TextMemory fork() const { return TextMemory(*this); }
  void unshare();

  void append(std::span<const std::int32_t> tokens);
  void take_back_to(std::int64_t n);

  std::int64_t n_tokens() const { return n_tokens_; }
  std::int64_t id_bytes() const { return id_bytes_; }
  std::span<const std::shared_ptr<KvPool::Page>> pages() const { return pages_; }
  /// A bit for each id of the vocabulary: those that occur, and perhaps some that were taken back.
  std::span<const std::uint64_t> occurring() const { return occurring_; }

  std::int64_t bytes() const { return std::ssize(pages_) * page_bytes(); }
  /// Bytes that going on to `end` tokens will allocate, with the last page if it must be copied first.
  std::int64_t bytes_to_come(std::int64_t end) const;

  /// Counts the reading of so many ids.
  void count_read(std::int64_t n) { traffic_.bytes_read += n * id_bytes_; }
  const KvTraffic& traffic() const { return traffic_; }

 private:
  TextMemory(const TextMemory& other);

  std::int64_t page_bytes() const;
  void own(std::shared_ptr<KvPool::Page>& page);

  KvPool* pool_;
  std::int64_t id_bytes_, n_tokens_ = 0;
  std::vector<std::shared_ptr<KvPool::Page>> pages_;
  std::vector<std::uint64_t> occurring_;
  KvTraffic traffic_;
};

}  // namespace photon
