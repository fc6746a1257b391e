#include "engine/rows.h"

namespace photon {

void RowPlan::assign(std::span<const Row> all, KvCache* Row::*cache_of) {
  rows = all;
  together.clear(), segments.clear(), positions.clear(), visible.clear();
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
    const std::int64_t position = rows[r].position;
    const bool output = rows[r].output;
    const KvCache* const cache = rows[r].*cache_of;
    const Row* before = r == 0 ? nullptr : &rows[r - 1];
    const bool same_cache = before != nullptr && before->*cache_of == cache;
    if (!same_cache) segments.push_back(std::ssize(together));
    if (same_cache && position == before->position + 1 && output >= before->output &&
        position <= cache->last_together(rows[together.back().first].position))
      ++together.back().n;
    else
      together.push_back({.first = r, .n = 1});
    together.back().silent += !output;
    positions.push_back(position);
    visible.push_back(cache->visible(position));
  }
  segments.push_back(std::ssize(together));
}

}  // namespace photon
