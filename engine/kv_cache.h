// Keys and values of one stack and one sequence: growing by pages for a global span, bounded for every other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "kernels/kernels.h"
#include "spec/spec.h"

namespace photon {

/// Where pages come from and go back to; counts what is in use.  Outlives its pages; for one thread.
class KvPool {
 public:
  /// A block of memory that returns to its pool when the last owner goes.
  class Page {
   public:
    Page(KvPool& pool, Matrix<std::byte> memory);
    Page(Page&& other) noexcept;
    Page& operator=(Page&&) = delete;
    ~Page();
    std::byte* data() { return memory_.data(); }
    const std::byte* data() const { return memory_.data(); }

   private:
    KvPool* pool_;
    Matrix<std::byte> memory_;
  };

  KvPool() = default;
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  Page allocate(std::int64_t bytes);
  std::int64_t bytes_in_use() const { return bytes_in_use_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }
  void reset_peak() { peak_bytes_ = bytes_in_use_; }

 private:
  struct SizeClass {
    std::vector<Matrix<std::byte>> free;  // capacity for all: returning a page cannot fail
    std::size_t n_pages = 0;
  };
  std::map<std::int64_t, SizeClass> classes_;  // by bytes
  std::int64_t bytes_in_use_ = 0, peak_bytes_ = 0;
};

/// Bytes of keys and values that attention read and that new positions wrote: counted, not estimated.
struct KvTraffic {
  std::int64_t bytes_read = 0, bytes_written = 0;
  KvTraffic& operator+=(const KvTraffic& other) {
    bytes_read += other.bytes_read, bytes_written += other.bytes_written;
    return *this;
  }
};

/// The cache is purely positional: a position decides its slot and what it sees, so nothing is ever reset or shifted.
///
///   global     position p in page p / 16                        sees 0 … p
///   window(w)  slot p mod w, the ring forgets p - w             sees p-w+1 … p
///   stream(w)  likewise, over the laid-out groups               sees p-w+1 … p
///   block(b)   slot p mod b, a new block overwrites the old     sees p - p mod b … p
///   chunk      p counts from 0 in each group, R + C - 1 slots   sees 0 … p
///
/// A page holds [layer][keys | values][kv head][slot][head_dim].  Positions are written in order; a position may be
/// written once the later ones that it overwrites are no longer needed, hence attention writes and reads row by row.
class KvCache {
 public:
  /// @param chunk_positions  R + C - 1 for the span `chunk`, not used otherwise.
  KvCache(KvPool& pool, const StackSpec& stack, std::int64_t chunk_positions, Weight::Type dtype);

  /// Makes room for a position: the only call that allocates.
  void reserve(std::int64_t position);
  /// The ring begins anew: positions before this one do not exist.
  void restart(std::int64_t position) { first_ = position; }
  /// Gives all memory back; the cache cannot be used afterwards.
  void release() { pages_.clear(); }

  /// Writes one head's key and value at a position of a layer.  k, v [head_dim] float32.
  template <class T>
  void write(std::int64_t layer, std::int64_t head, std::int64_t position, std::span<const float> k,
             std::span<const float> v);
  /// What one head sees from a position, oldest first; `runs` is overwritten (at most max_runs() entries).
  template <class T>
  void see(std::int64_t layer, std::int64_t head, std::int64_t position, std::vector<KvRun<T>>& runs) const;

  std::int64_t visible(std::int64_t position) const { return position - first_visible(position) + 1; }
  std::int64_t max_runs() const { return static_cast<std::int64_t>(pages_.size()) + 1; }
  /// Counts one row's reads and writes over all layers.
  void count(std::int64_t position) { traffic_ += {visible(position) * bytes_per_position_, bytes_per_position_}; }

  bool grows() const { return kind_ == Span::Kind::global; }
  std::int64_t bytes() const {
    return static_cast<std::int64_t>(pages_.size()) * page_positions_ * bytes_per_position_;
  }
  const KvTraffic& traffic() const { return traffic_; }

 private:
  std::int64_t first_visible(std::int64_t position) const;
  std::size_t page_of(std::int64_t position) const {
    return grows() ? static_cast<std::size_t>(position / page_positions_) : 0;
  }
  std::int64_t offset(std::int64_t layer, bool value, std::int64_t head, std::int64_t slot) const {  // in elements
    return (((layer * 2 + value) * n_kv_heads_ + head) * page_positions_ + slot) * head_dim_;
  }

  KvPool* pool_;
  Span::Kind kind_;
  std::int64_t n_kv_heads_, head_dim_, page_positions_, bytes_per_position_;
  std::int64_t first_ = 0;
  std::vector<KvPool::Page> pages_;
  KvTraffic traffic_;
};

}  // namespace photon
