// Rows, the engine's unit of work: one position of one sequence's stream each.  Prefill, decoding, parallel chunks and
// batches of sequences are all rows of one call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/text_memory.h"

namespace photon {

/// What a row of the stack that predicts tokens may ask of the past, if that stack has a memory.
struct Past {
  TextMemory* text = nullptr;  // null, as units: no memory of that kind
  KvCache* units = nullptr;    // of top-level units, one layer
  std::int64_t n_tokens = 0;   // before the row's top-level group (L = 0: before what it predicts)
  std::int64_t n_units = 0;    // likewise
  std::int64_t predicted = 0;  // the token that distances count to
};

/// Rows that share a cache are neighbours and come in the order in which their positions are to be written; a `chunk`
/// cache may see several groups one after another, each from position 0.
struct Row {
  KvCache* cache = nullptr;
  std::int64_t position = 0;
  bool output = true;  // false: only its key and value are wanted, so the last layer leaves out the rest
  Past past{};
  KvCache* global_cache = nullptr;  // of the blocks that see everything, where the stack has such beside others
};

/// What the blocks of a stack that share a kind of cache have to know of their rows, found once for all of them.
/// Borrows the rows.
struct RowPlan {
  struct Together {  // rows [first, first + n) of one cache that may all be written before they attend
    std::int64_t first = 0, n = 0;
    std::int64_t silent = 0;  // the first of them without output
  };
  std::span<const Row> rows;
  std::vector<std::int64_t> positions, visible;  // [n]
  std::vector<Together> together;
  std::vector<std::int64_t>
      segments;  // of each neighbourhood of rows that share a cache, its first `together`; the end

  /// @param cache_of  which of a row's caches: &Row::cache or &Row::global_cache
  void assign(std::span<const Row> rows, KvCache* Row::*cache_of);
};

}  // namespace photon
