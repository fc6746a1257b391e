// Keys and values of one stack and one sequence: growing by pages for a global span, bounded for every other. Sequences
// that come from one prompt share its pages until one of them writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/memory.h"
#include "kernels/attention.h"
#include "spec/spec.h"

namespace photon {

/// Where pages come from and go back to; counts what is in use, a shared page once.  Free pages of one size give their
/// memory back to the system where another size takes more, so that no more is held than was in use at once.
/// Outlives its pages; for one thread.
class KvPool {
 public:
  /// Memory that returns to its pool when the last cache that holds it goes.
  class Page {
   public:
    Page(KvPool& pool, std::byte* data, std::int64_t bytes);
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
    ~Page();
    std::byte* data() const { return data_; }
    std::int64_t bytes() const { return bytes_; }

   private:
    KvPool* pool_;
    std::byte* data_;
    std::int64_t bytes_;
  };

  KvPool() = default;
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  std::shared_ptr<Page> allocate(std::int64_t bytes);
  std::int64_t bytes_in_use() const { return bytes_in_use_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }
  void reset_peak() { peak_bytes_ = bytes_in_use_; }

 private:
  struct SizeClass {
    std::vector<std::byte*> free;  // capacity for all: returning a page cannot fail
    std::size_t n_empty = 0;       // the first of them have no memory behind them
    std::size_t n_pages = 0;
  };
  void shrink();

  std::map<std::int64_t, SizeClass> classes_;  // by bytes
  Arena arena_;
  std::int64_t bytes_in_use_ = 0, peak_bytes_ = 0, most_bytes_ = 0;  // most: ever, peak: since reset_peak()
  std::int64_t resident_bytes_ = 0;                                  // of pages with memory behind them
};

/// Bytes of keys and values that attention read and that new positions wrote: counted, not estimated.
struct KvTraffic {
  std::int64_t bytes_read = 0, bytes_written = 0;
  KvTraffic& operator+=(const KvTraffic& other) {
    bytes_read += other.bytes_read, bytes_written += other.bytes_written;
    return *this;
  }
  friend KvTraffic operator-(const KvTraffic& a, const KvTraffic& b) {
    return {a.bytes_read - b.bytes_read, a.bytes_written - b.bytes_written};
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
/// With n spare positions a ring has w + n (b + n) slots, so that the last n positions may be taken back and written
/// anew: what their successors see is still there.  A page holds [layer][kv head][what kernels/attention.h makes of
/// keys and values].  Positions are written in order; a position may be written once the later ones that it overwrites
/// are no longer needed: last_together() says how many may be written before the first of them attends.
class KvCache {
 public:
  /// @param chunk_positions  R + C - 1 for the span `chunk`, not used otherwise
  /// @param spare            positions of window, stream and block beside those that a row sees
  KvCache(KvPool& pool, const StackSpec& stack, std::int64_t chunk_positions, DType type, std::int64_t spare = 0);
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;

  /// The same positions.  A cache that grows shares its pages: one is copied when either writes into it; a bounded
  /// cache is copied at once.  The fork's traffic begins at 0.
  KvCache fork() const;
  /// Copies every page that is shared.
  void unshare();

  /// Makes room for a position, in a page that is ours alone: the only call that allocates.
  void reserve(std::int64_t position);
  /// The ring begins anew: positions before this one do not exist.
  void restart(std::int64_t position) { first_ = position, furthest_ = position - 1; }
  /// Whether all that a position sees is still there, whatever was written after it.
  bool holds_what_sees(std::int64_t position) const {
    return grows() || furthest_ - position <= page_positions_ - span_size_;
  }
  /// Positions from this one on will be written anew: pages that hold nothing else are given back.
  void take_back_to(std::int64_t position);
  /// Gives all memory back; the cache cannot be used afterwards.
  void release() { pages_.clear(); }

  /// Writes one head's key and value at a reserved position of a layer.  k, v [head_dim] float32.
  void write(std::int64_t layer, std::int64_t head, std::int64_t position, std::span<const float> k,
             std::span<const float> v) const;
  /// What one head sees from a position, oldest first; `runs` is overwritten (at most max_runs() entries).
  void see(std::int64_t layer, std::int64_t head, std::int64_t position, std::vector<KvRun>& runs) const;

  std::int64_t visible(std::int64_t position) const { return position - first_visible(position) + 1; }
  /// The last position that may be written before `position` attends, and sees from the same first position on.
  std::int64_t last_together(std::int64_t position) const;
  std::int64_t max_runs() const { return static_cast<std::int64_t>(pages_.size()) + 1; }
  /// Counts one row's reads and writes over all layers; `layers_attended` is fewer where the last one is cut short.
  void count(std::int64_t position, std::int64_t layers_attended);

  /// Counts the reading of so many positions of a layer.
  void count_read(std::int64_t positions) { traffic_.bytes_read += positions * layer_bytes_; }

  /// Bytes that going on from position `next` to `end` will allocate, with the page that must be copied first because
  /// it is shared.
  std::int64_t bytes_to_come(std::int64_t next, std::int64_t end) const;
  std::span<const std::shared_ptr<KvPool::Page>> pages() const { return pages_; }

  bool grows() const { return kind_ == Span::Kind::global; }
  std::int64_t bytes() const {
    return static_cast<std::int64_t>(pages_.size()) * page_positions_ * n_layers_ * layer_bytes_;
  }
  const KvTraffic& traffic() const { return traffic_; }
  DType type() const { return type_; }

 private:
  KvCache(const KvCache& other);

  std::int64_t page_bytes() const { return page_positions_ * n_layers_ * layer_bytes_; }
  std::int64_t first_visible(std::int64_t position) const;
  std::size_t page_of(std::int64_t position) const {
    return grows() ? static_cast<std::size_t>(position / page_positions_) : 0;
  }
  std::byte* head_of(std::int64_t layer, std::int64_t head, std::int64_t position) const;
  void own(std::shared_ptr<KvPool::Page>& page);

  KvPool* pool_;
  Span::Kind kind_;
  DType type_;
  std::int64_t n_layers_, n_kv_heads_, head_dim_;
  std::int64_t span_size_;                  // positions of window, stream, block that a row sees at most
  std::int64_t page_positions_;             // slots of a page
  std::int64_t layer_bytes_;                // of one position
  std::int64_t first_ = 0, furthest_ = -1;  // that exists, that was written
  std::vector<std::shared_ptr<KvPool::Page>> pages_;
  KvTraffic traffic_;
};

}  // namespace photon
