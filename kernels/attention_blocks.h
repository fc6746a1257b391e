// The order of operations that the vector versions of attention share.  For those files alone: every function is
// internal to the file that includes it (see isa.h).
//
// Queries pass in tiles, positions in blocks of 64, counted from the first visible one: scores of a block, their
// maximum, weights exp(score - maximum), weighted values.  So neither the tile nor the ends of runs decide what is
// added to what in which order, and a row's result has the same bits alone and in company.
#pragma once

#include "kernels/isa.h"

namespace photon {
namespace {

using i64 = std::int64_t;

constexpr i64 group_positions = 16;  // whose scores fill a vector (AVX2: two)
constexpr i64 block_groups = 4;
constexpr i64 block_positions = block_groups * group_positions;
constexpr i64 most_queries = 32;
constexpr i64 tile_words = 4096;
constexpr i64 largest_head = 512;

constexpr i64 least(i64 a, i64 b) { return a < b ? a : b; }
constexpr i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

/// Queries that pass over the positions together.
struct Tile {
  i64 n = 0, head_dim = 0;
  i64 steps;                                                // 4-byte words of a query: float32, 2 bf16 or 4 int8
  i64 width;                                                // head_dim, rounded up to 32
  i64 seen[most_queries];                                   // positions of the current block
  alignas(64) std::uint32_t queries[tile_words];            // [n][steps], scaled by log2(e) / sqrt(h)
  alignas(64) float out[tile_words];                        // [n][width], in an order of the ISA's choice
  alignas(64) float scores[most_queries][block_positions];  // to the base 2
  alignas(64) std::uint32_t weights[most_queries][block_positions];  // float32, or int16 and bf16 in pairs
  alignas(64) float sum[most_queries][group_positions];              // of weights, a lane each
  alignas(64) float top[most_queries], keep[most_queries];
  // int8 queries and weights are integers times these; bias = -128 Σ q, for keys are stored as q + 128.
  float query_scale[most_queries], weight_scale[most_queries];
  std::int32_t bias[most_queries];
};

/// Up to 64 consecutive positions.
struct Block {
  i64 n = 0;
  const std::byte* keys[block_groups];  // [steps] of 16 · 4 bytes, key_step bytes apart
  i64 key_step[block_groups];
  const std::byte* values[block_positions + 1];  // [h]; an odd last one is its own partner
  const std::byte* ahead[block_groups];          // pages to fetch, or null
  alignas(64) float key_scale[block_positions], value_scale[block_positions];  // int8
};

/// Walks over the runs.  Groups that lie in one run are read where they are.
template <class Ops>
class Cursor {
 public:
  Cursor(const AttendCall& call, i64 steps)
      : run_(call.runs), end_(call.runs + call.n_runs), h_(call.head_dim), steps_(steps) {}

  void take(i64 n, Block& block) {
    block.n = n;
    for (i64 g = 0; g * group_positions < n; ++g) take_group(least(n - g * group_positions, group_positions), g, block);
    block.values[n] = block.values[n - 1];
    for (i64 g = 0; g < block_groups; ++g) {
      const KvRun* const next = run_ + g;
      block.ahead[g] = next < end_ && next->slots == group_positions ? next->head : nullptr;
    }
  }

 private:
  using Element = typename Ops::Element;
  static constexpr i64 together = Ops::together;

  void take_group(i64 n, i64 g, Block& block) {
    while (at_ == run_->n) ++run_, at_ = 0;
    const bool in_place = run_->n - at_ >= n && h_ % together == 0;
    if (in_place) {
      block.keys[g] = run_->head + (run_->first + at_) * 4;
      block.key_step[g] = run_->slots * 4;
    } else {
      block.keys[g] = reinterpret_cast<const std::byte*>(gathered_ + g * steps_ * group_positions);
      block.key_step[g] = group_positions * 4;
    }
    for (i64 taken = 0, m = 0; taken < n; taken += m) {
      while (at_ == run_->n) ++run_, at_ = 0;
      m = least(run_->n - at_, n - taken);
      const i64 slot = run_->first + at_, position = g * group_positions + taken;
      if (!in_place) gather(slot, m, gathered_ + g * steps_ * group_positions + taken);
      const std::byte* value = run_->head + (run_->slots + slot) * h_ * i64{sizeof(Element)};
      for (i64 p = 0; p < m; ++p) block.values[position + p] = value + p * h_ * i64{sizeof(Element)};
      if constexpr (Ops::scaled) {
        const bf16* scales = reinterpret_cast<const bf16*>(run_->head + 2 * run_->slots * h_) + slot;
        Ops::widen(scales, m, block.key_scale + position);
        Ops::widen(scales + run_->slots, m, block.value_scale + position);
      }
      at_ += m;
    }
  }

  // The keys of n slots as columns of [steps][16] words.
  void gather(i64 slot, i64 n, std::uint32_t* to) const {
    const i64 slots = run_->slots, whole = h_ / together, rest = h_ % together;
    for (i64 i = 0; i < whole; ++i) Ops::copy_words(run_->head + (i * slots + slot) * 4, n, to + i * group_positions);
    if (rest == 0) return;
    constexpr i64 size = sizeof(Element);
    const std::byte* from = run_->head + (whole * slots * together + slot * rest) * size;
    for (i64 p = 0; p < n; ++p, from += rest * size) {
      std::uint32_t word = 0;
      for (i64 b = 0; b < rest * size; ++b) word |= static_cast<std::uint32_t>(from[b]) << (8 * b);
      to[whole * group_positions + p] = word;
    }
  }

  const KvRun *run_, *end_;
  i64 at_ = 0;  // positions of *run_ already taken
  i64 h_, steps_;
  alignas(64) std::uint32_t gathered_[block_groups * group_positions * largest_head / together];
};

/// Runs `kernel.operator()<N>(query)` over queries [from, to), N at a time.
template <int N, class Kernel>
void in_tiles_of(i64 from, i64 to, const Kernel& kernel) {
  for (; from + N <= to; from += N) kernel.template operator()<N>(from);
  if constexpr (N > 1) in_tiles_of<(N > 4 ? 4 : N / 2)>(from, to, kernel);
}

/// The queries first … first + n - 1 of the call, counted row by row.
template <class Ops>
void attend_tile(const AttendCall& call, i64 first, i64 n) {
  const i64 h = call.head_dim, heads = call.q.cols / h;
  Tile t;
  t.n = n, t.head_dim = h, t.steps = (h + Ops::together - 1) / Ops::together, t.width = round_up(h, 32);
  i64 visible[most_queries];
  for (i64 i = 0, row = first / heads, head = first % heads; i < n; ++i) {
    visible[i] = call.visible[row];
    t.top[i] = -__builtin_inff();
    __builtin_memset(t.sum[i], 0, sizeof t.sum[i]);
    __builtin_memset(t.out + i * t.width, 0, static_cast<std::size_t>(t.width) * sizeof(float));
    Ops::prepare(call.q.data + row * call.q.stride + head * h, i, t);
    if (++head == heads) head = 0, ++row;
  }
  Cursor<Ops> cursor(call, t.steps);
  Block block;
  for (i64 position = 0, begin = 0; position < visible[n - 1]; position += block_positions) {
    while (visible[begin] <= position) ++begin;  // visible does not decrease
    for (i64 i = begin; i < n; ++i) t.seen[i] = least(visible[i] - position, block_positions);
    cursor.take(t.seen[n - 1], block);
    Ops::score(block, begin, t);
    Ops::weigh(block, begin, t);
    Ops::add_values(block, begin, t);
  }
  for (i64 i = 0, row = first / heads, head = first % heads; i < n; ++i) {
    Ops::finish(t, i, call.out.data + row * call.out.stride + head * h);
    if (++head == heads) head = 0, ++row;
  }
}

template <class Ops>
void attend_in_tiles(const AttendCall& call) {
  const i64 n = call.q.rows * (call.q.cols / call.head_dim);
  const i64 together = least(most_queries, tile_words / round_up(call.head_dim, 32));
  for (i64 first = 0; first < n; first += together) attend_tile<Ops>(call, first, least(together, n - first));
}

}  // namespace
}  // namespace photon
