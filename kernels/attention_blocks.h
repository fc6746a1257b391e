// The order of operations that the vector versions of attention share.  For those files alone: every function is
// internal to the file that includes it (see isa.h).
//
// Queries pass in tiles over blocks of 64 positions, counted from the first visible one.  Of each block: scores, their
// maximum, weights 2^(score - maximum), weighted values.  Neither the other queries of a tile nor the ends of runs
// decide what is added to what in which order, so a row has the same bits alone and in company.
#pragma once

#include "kernels/isa.h"

namespace photon {
namespace {

using i64 = std::int64_t;

constexpr i64 group_positions = 16;  // of a page: read as one or two vectors a word
constexpr i64 block_groups = 4;
constexpr i64 block_positions = block_groups * group_positions;
constexpr i64 largest_head = 512;
constexpr i64 most_queries = 32;  // of a tile
constexpr i64 tile_words = 4096;  // room for 32 queries of 128 dimensions, or 8 of 512

constexpr i64 least(i64 a, i64 b) { return a < b ? a : b; }
constexpr i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// A factor on scores: log2(e) / sqrt(h), so that weights are powers of 2.
inline float score_scale(i64 h) { return 1.44269504f / __builtin_sqrtf(static_cast<float>(h)); }

// Queries that pass over the positions together.  Words are 4 bytes: so many elements of a query or a key, or the
// weights of so many positions, as the cache type says.
struct Tile {
  i64 n, head_dim;
  i64 steps;                                      // words of a query
  i64 width;                                      // head_dim and what fills up its last vectors
  i64 seen[most_queries];                         // positions of the current block
  alignas(64) std::uint32_t queries[tile_words];  // [n][steps]
  alignas(64) float out[tile_words];              // [n][width], in an order of the type's choice
  alignas(64) float scores[most_queries][block_positions];
  alignas(64) std::uint32_t weights[most_queries][block_positions];  // [positions, or words]
  alignas(64) float sum[most_queries][group_positions];              // of weights so far, one a lane
  float top[most_queries];                                           // largest score so far
  float keep[most_queries], lift[most_queries];  // 2^(the top before, or the block's largest score, minus top)
  // int8: queries and weights are integers times these; bias = -128 Σ q, since keys are stored as q + 128
  float query_scale[most_queries], weight_scale[most_queries], weight_inverse[most_queries];
  std::int32_t bias[most_queries];
};

// Up to 64 consecutive positions.
struct Block {
  i64 n;
  bool first;                           // of the queries' blocks
  const std::byte* keys[block_groups];  // [steps] of 16 words, key_step bytes apart
  i64 key_step[block_groups];
  const std::byte* values[block_positions + 1];  // [h]; an odd last one is its own partner
  i64 n_ahead;                                   // pages of 16 slots that follow
  const std::byte* ahead[block_groups];
  alignas(64) float key_scale[block_positions], value_scale[block_positions];  // int8
};

// Calls kernel.operator()<N>(first of N queries) until all from `from` to `to` are done.
template <int N, class Kernel>
void in_tiles_of(i64 from, i64 to, const Kernel& kernel) {
  for (; from + N <= to; from += N) kernel.template operator()<N>(from);
  if constexpr (N > 1) in_tiles_of<(N > 4 ? 4 : N / 2)>(from, to, kernel);
}

/// Attention with the vectors and the arithmetic of `Type`, which has
///
///   Element, together        of keys and values; how many fill a word
///   Floats, Words, lanes     vectors of 32-bit lanes, at most 16
///   load store set1 max sub add div fmadd max_of sum_of exp2 load_words store_words splat
///   score_queries, _vectors, _chains, value_queries  sums that the registers hold
///   prepare                  a query as words
///   Sum: first_score dot add_scores score   a vector of scores, one a position
///   weight_positions, store_weights          weights as words
///   Part: part               which lanes of two vectors from a dimension on belong to the head
///   Sum: zero load_values add_values value      two vectors of weighted values, one a dimension
///   in_order                 two such vectors, reordered by dimension
///   scaled, prepares_values  int8; whether load_values() costs enough to be done once for several queries
template <class Type>
class Attention {
 public:
  static void attend(const AttendCall& call) {
    const i64 heads = call.q.cols == call.head_dim ? 1 : call.q.cols / call.head_dim;
    const i64 together = call.head_dim <= tile_words / most_queries ? most_queries : tile_words / largest_head;
    Place place{0, 0};
    for (i64 left = call.q.rows * heads; left > 0; left -= together)
      place = attend_tile(call, heads, place, least(together, left));
  }

 private:
  using Element = typename Type::Element;
  using Floats = typename Type::Floats;
  using Words = typename Type::Words;
  static constexpr i64 lanes = Type::lanes;
  static constexpr i64 block_vectors = block_positions / lanes;
  static constexpr i64 largest_steps = largest_head / Type::together;
  static constexpr i64 scale_bytes = Type::scaled ? 2 * group_positions * i64{sizeof(bf16)} : 0;

  // ---- positions ----

  // Walks over the runs.
  struct Cursor {
    explicit Cursor(const AttendCall& call) : first(call.runs), run(first), end(first + call.n_runs) {}

    const KvRun *first, *run, *end;
    i64 taken = 0;                                                                      // positions of *run
    alignas(64) std::uint32_t gathered[block_groups][largest_steps * group_positions];  // keys of groups that need it

    void take(const Tile& t, i64 n, Block& block) {
      block.n = n;
      for (i64 g = 0; g * group_positions < n; ++g)
        take_group(t, least(n - g * group_positions, group_positions), g, block);
      block.values[n] = block.values[n - 1];
      if constexpr (Type::scaled)
        for (i64 p = n; p % group_positions != 0; ++p) block.value_scale[p] = 0;
      look_ahead(t, block);
    }

    // The next block's pages; after the last block, where the first one's pages are likely to hold the next head.
    void look_ahead(const Tile& t, Block& block) const {
      const KvRun* next = taken == run->n ? run + 1 : run;
      i64 beyond = 0;
      if (next == end) next = first, beyond = 2 * group_positions * t.head_dim * i64{sizeof(Element)} + scale_bytes;
      for (block.n_ahead = 0; block.n_ahead < block_groups; ++block.n_ahead, ++next) {
        if (next == end || next->slots != group_positions) return;
        block.ahead[block.n_ahead] = next->head + beyond;
      }
    }

    // Keys are read where they are if the group lies in one run.
    void take_group(const Tile& t, i64 n, i64 g, Block& block) {
      const i64 h = t.head_dim;
      while (taken == run->n) ++run, taken = 0;
      const bool in_place = run->n - taken >= n && h % Type::together == 0;
      block.keys[g] = in_place ? run->head + (run->first + taken) * 4 : reinterpret_cast<const std::byte*>(gathered[g]);
      block.key_step[g] = (in_place ? run->slots : group_positions) * 4;
      for (i64 done = 0, m = 0; done < n; done += m, taken += m) {
        while (taken == run->n) ++run, taken = 0;
        m = least(run->n - taken, n - done);
        const i64 slot = run->first + taken, position = g * group_positions + done;
        if (!in_place) gather(t, slot, m, gathered[g] + done);
        const std::byte* value = run->head + (run->slots + slot) * h * i64{sizeof(Element)};
        for (i64 p = 0; p < m; ++p) block.values[position + p] = value + p * h * i64{sizeof(Element)};
        if constexpr (Type::scaled) {
          const bf16* scales = reinterpret_cast<const bf16*>(run->head + 2 * run->slots * h) + slot;
          widen(scales, m, block.key_scale + position);
          widen(scales + run->slots, m, block.value_scale + position);
        }
      }
    }

    // The keys of n slots become columns of [steps][16] words.
    void gather(const Tile& t, i64 slot, i64 n, std::uint32_t* to) const {
      const i64 whole = t.head_dim / Type::together, rest = t.head_dim % Type::together;
      for (i64 i = 0; i < whole; ++i)
        for (i64 p = 0; p < n; p += lanes)
          Type::store_words(to + i * group_positions + p,
                            Type::load_words(run->head + (i * run->slots + slot + p) * 4, n - p), n - p);
      if (rest == 0) return;
      const i64 bytes = rest * i64{sizeof(Element)};
      const std::byte* from = run->head + whole * run->slots * 4 + slot * bytes;
      for (i64 p = 0; p < n; ++p, from += bytes) {
        std::uint32_t word = 0;
        for (i64 b = 0; b < bytes; ++b) word |= static_cast<std::uint32_t>(from[b]) << (8 * b);
        to[whole * group_positions + p] = word;
      }
    }

    static void widen(const bf16* from, i64 n, float* to) {
      for (i64 p = 0; p < n; p += lanes) Type::store(to + p, Type::load(from + p, n - p), n - p);
    }
  };

  // ---- scores ----

  // Of N queries and V vectors of positions.
  template <int N, int V, bool fetch>
  static void score_some(const Block& block, i64 query, i64 vector, Tile& t) {
    constexpr int chains = Type::score_chains;  // so many sums a score, that none waits for the one before
    typename Type::Sum sums[chains][N][V];
    const std::byte *keys[V], *ahead[V];
    i64 key_step[V], n[V];
    const i64 steps = t.steps;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const i64 position = (vector + v) * lanes, group = position / group_positions,
                offset = position % group_positions * 4;
      keys[v] = block.keys[group] + offset;
      key_step[v] = block.key_step[group];
      ahead[v] = group < block.n_ahead ? block.ahead[group] : keys[v];
      n[v] = least(block.n - position, lanes);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        sums[0][i][v] = Type::first_score(t, query + i);
#pragma GCC unroll 2
        for (int c = 1; c < chains; ++c) sums[c][i][v] = Type::zero();
      }
    }
    if constexpr (fetch && Type::scaled)
      for (i64 g = 0; g < block.n_ahead; ++g)
        __builtin_prefetch(block.ahead[g] + 2 * group_positions * t.head_dim, 0, 2);
    const std::uint32_t* const q = t.queries + query * steps;
    const auto multiply = [&](i64 step, auto& sum) __attribute__((always_inline)) {
      Words k[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        k[v] = Type::load_words(keys[v] + step * key_step[v], n[v]);
        if constexpr (fetch) __builtin_prefetch(ahead[v] + step * group_positions * 4, 0, 2);
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const Words word = Type::splat(q[i * steps + step]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] = Type::dot(sum[i][v], word, k[v]);
      }
    };
    i64 step = 0;
    for (; step + chains <= steps; step += chains)
#pragma GCC unroll 2
      for (int c = 0; c < chains; ++c) multiply(step + c, sums[c]);
    for (; step < steps; ++step) multiply(step, sums[0]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        typename Type::Sum sum = sums[0][i][v];
        if constexpr (chains == 2) sum = Type::add_scores(sum, sums[1][i][v]);
        Type::store(t.scores[query + i] + (vector + v) * lanes,
                    Type::score(sum, t, query + i, block.key_scale + (vector + v) * lanes), lanes);
      }
  }

  // The first queries also fetch the pages that follow.
  template <bool fetch>
  static void score_all(const Block& block, i64 begin, i64 end, Tile& t) {
    in_tiles_of<Type::score_queries>(begin, end, [&]<int N>(i64 query) {
      constexpr int together = Type::score_vectors;
      const i64 vectors = (t.seen[query + N - 1] + lanes - 1) / lanes;
      i64 v = 0;
      for (; v + together <= vectors; v += together) score_some<N, together, fetch>(block, query, v, t);
      for (; v < vectors; ++v) score_some<N, 1, fetch>(block, query, v, t);
    });
  }

  static void score(const Block& block, i64 begin, Tile& t) {
    const i64 fetching = block.n_ahead > 0 ? least(begin + Type::score_queries, t.n) : begin;
    score_all<true>(block, begin, fetching, t);
    score_all<false>(block, fetching, t.n, t);
  }

  // ---- weights ----

  // Of queries `begin` and up; `top`, `keep` and `sum` follow.
  static void weigh(const Block& block, i64 begin, Tile& t) {
    for (i64 i = begin; i < t.n; ++i) {
      Floats largest = Type::load_or_lowest(t.scores[i], t.seen[i]);
      for (i64 p = lanes; p < t.seen[i]; p += lanes)
        largest = Type::max(largest, Type::load_or_lowest(t.scores[i] + p, t.seen[i] - p));
      const float of_block = Type::max_of(largest), top = t.top[i] > of_block ? t.top[i] : of_block;
      t.keep[i] = t.top[i] - top;
      t.lift[i] = of_block - top;
      t.top[i] = top;
    }
    if (!block.first)
      for (i64 i = begin; i < t.n; i += lanes)
        Type::store(t.keep + i, Type::exp2(Type::load(t.keep + i, t.n - i)), t.n - i);
    if constexpr (Type::scaled) bound_weights(block, begin, t);
    const i64 vectors = (block.n + lanes - 1) / lanes;
    for (i64 i = begin; i < t.n; ++i) {
      Floats w[block_vectors];
      const Floats top = Type::set1(t.top[i]);
#pragma GCC unroll 8
      for (i64 v = 0; v < block_vectors; ++v) {
        const i64 seen = t.seen[i] - v * lanes;
        w[v] =
            seen <= 0 ? Type::set1(0) : Type::exp2(Type::sub(Type::load_or_lowest(t.scores[i] + v * lanes, seen), top));
      }
      Floats sum = Type::add(Type::add(w[0], w[1]), Type::add(w[2], w[3]));
      if constexpr (block_vectors == 8) sum = Type::add(sum, Type::add(Type::add(w[4], w[5]), Type::add(w[6], w[7])));
      if (!block.first) sum = Type::fmadd(Type::load(t.sum[i], lanes), Type::set1(t.keep[i]), sum);
      Type::store(t.sum[i], sum, lanes);
      Type::store_weights(w, vectors, block.value_scale, i, t);
    }
  }

  // int8: what makes 15-bit integers of the block's weights, times the values' scales.
  static void bound_weights(const Block& block, i64 begin, Tile& t) {
    const auto largest_scale = [&](i64 seen) {
      Floats largest = Type::load(block.value_scale, seen);
      for (i64 p = lanes; p < seen; p += lanes)
        largest = Type::max(largest, Type::load(block.value_scale + p, seen - p));
      return Type::max_of(largest);
    };
    const float of_all = largest_scale(block.n);
    for (i64 i = begin; i < t.n; i += lanes)
      Type::store(t.lift + i, Type::exp2(Type::load(t.lift + i, t.n - i)), t.n - i);
    for (i64 i = begin; i < t.n; ++i) {
      const float bound = t.lift[i] * (t.seen[i] == block.n ? of_all : largest_scale(t.seen[i]));
      t.weight_scale[i] = (bound > 1e-30f ? bound : 1e-30f) / 32767;
    }
    for (i64 i = begin; i < t.n; i += lanes)
      Type::store(t.weight_inverse + i, Type::div(Type::set1(1), Type::load(t.weight_scale + i, t.n - i)), t.n - i);
  }

  // ---- values ----

  // Values as add() wants them, for queries that come later in a tile: [steps][width].
  static constexpr i64 queries_worth_preparing = 5;
  using PreparedValues = std::uint32_t[block_positions / Type::weight_positions * largest_head];

  // V vectors of dimensions from d on, of N queries.
  template <int N, int V, bool prepared, bool fetch>
  static void add_some(const Block& block, const std::uint32_t* values, i64 query, i64 d, Tile& t) {
    typename Type::Sum sums[N][V];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[i][v] = Type::zero();
    const i64 steps = (t.seen[query + N - 1] + Type::weight_positions - 1) / Type::weight_positions, width = t.width;
    typename Type::Part parts[V / 2];
#pragma GCC unroll 2
    for (int v = 0; v < V; v += 2) parts[v / 2] = Type::part(d + v * lanes, t.head_dim);
    const i64 row_bytes = t.head_dim * i64{sizeof(Element)};
    for (i64 step = 0; step < steps; ++step) {
      if constexpr (fetch) {
        const i64 position = step * Type::weight_positions, group = position / group_positions;
        if (d == 0 && group < block.n_ahead) {
          const std::byte* ahead = block.ahead[group] + (group_positions + position % group_positions) * row_bytes;
          for (i64 b = 0; b < Type::weight_positions * row_bytes; b += 64) __builtin_prefetch(ahead + b, 0, 2);
        }
      }
      Words row[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v += 2) {
        if constexpr (prepared) {
          const auto* at = reinterpret_cast<const std::byte*>(values + step * width + d + v * lanes);
          row[v] = Type::load_words(at, lanes);
          row[v + 1] = Type::load_words(at + lanes * 4, lanes);
        } else {
          Type::load_values(block.values + step * Type::weight_positions, d + v * lanes, parts[v / 2], row + v);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const Words weight = Type::splat(t.weights[query + i][step]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[i][v] = Type::add_values(sums[i][v], weight, row[v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* out = t.out + (query + i) * t.width + d + v * lanes;
        Floats sum = Type::value(sums[i][v], t, query + i);
        if (!block.first) sum = Type::fmadd(Type::load(out, lanes), Type::set1(t.keep[query + i]), sum);
        Type::store(out, sum, lanes);
      }
  }

  template <bool prepared, bool fetch>
  static void add_all(const Block& block, const std::uint32_t* values, i64 begin, i64 end, Tile& t) {
    in_tiles_of<Type::value_queries>(begin, end, [&]<int N>(i64 query) {
      i64 d = 0;
      for (; d + 4 * lanes <= t.width; d += 4 * lanes) add_some<N, 4, prepared, fetch>(block, values, query, d, t);
      if (d < t.width) add_some<N, 2, prepared, fetch>(block, values, query, d, t);
    });
  }

  template <bool prepared>
  static void add_all(const Block& block, const std::uint32_t* values, i64 begin, Tile& t) {
    const i64 fetching = block.n_ahead > 0 ? least(begin + Type::value_queries, t.n) : begin;
    add_all<prepared, true>(block, values, begin, fetching, t);
    add_all<prepared, false>(block, values, fetching, t.n, t);
  }

  static void add(const Block& block, i64 begin, Tile& t) {
    if constexpr (Type::prepares_values)
      if (t.n - begin >= queries_worth_preparing) return prepare_and_add(block, begin, t);
    add_all<false>(block, nullptr, begin, t);
  }
  static void prepare_and_add(const Block& block, i64 begin, Tile& t) {
    alignas(64) PreparedValues values;
    for (i64 step = 0; step * Type::weight_positions < block.n; ++step)
      for (i64 d = 0; d < t.width; d += 2 * lanes) {
        Words row[2];
        Type::load_values(block.values + step * Type::weight_positions, d, Type::part(d, t.head_dim), row);
        Type::store_words(values + step * t.width + d, row[0], lanes);
        Type::store_words(values + step * t.width + d + lanes, row[1], lanes);
      }
    add_all<true>(block, values, begin, t);
  }

  static void finish(const Tile& t, i64 i, float* out) {
    const Floats inverse = Type::set1(1 / Type::sum_of(Type::load(t.sum[i], lanes)));
    for (i64 d = 0; d < t.head_dim; d += 2 * lanes) {
      Floats part[2];
      Type::in_order(t.out + i * t.width + d, part);
      for (i64 j = 0; j < 2 && d + j * lanes < t.head_dim; ++j)  // + 0: -0 would depend on what invisible values add
        Type::store(out + d + j * lanes, Type::fmadd(part[j], inverse, Type::set1(0)), t.head_dim - d - j * lanes);
    }
  }

  // ---- all of it ----

  struct Place {  // of a query among those of the call
    i64 row, head;
    void next(i64 heads) {
      if (++head == heads) head = 0, ++row;
    }
  };

  // n queries from `from` on; returns where the next one is.
  static Place attend_tile(const AttendCall& call, i64 heads, Place from, i64 n) {
    const i64 h = call.head_dim;
    Tile t;
    t.n = n, t.head_dim = h, t.steps = (h + Type::together - 1) / Type::together, t.width = round_up(h, 2 * lanes);
    i64 visible[most_queries];
    Place place = from;
    for (i64 i = 0; i < n; ++i, place.next(heads)) {
      visible[i] = call.visible[place.row];
      t.top[i] = -__builtin_inff();
      Type::prepare(call.q.data + place.row * call.q.stride + place.head * h, i, t);
    }
    Cursor cursor(call);
    Block block;
    for (i64 position = 0, begin = 0; position < visible[n - 1]; position += block_positions) {
      while (visible[begin] <= position) ++begin;  // visible does not decrease
      for (i64 i = begin; i < n; ++i) t.seen[i] = least(visible[i] - position, block_positions);
      block.first = position == 0;
      cursor.take(t, t.seen[n - 1], block);
      score(block, begin, t);
      weigh(block, begin, t);
      add(block, begin, t);
    }
    place = from;
    for (i64 i = 0; i < n; ++i, place.next(heads)) {
      finish(t, i, call.out.data + place.row * call.out.stride + place.head * h);
      if (call.top.data == nullptr) continue;
      call.top.data[place.row * call.top.stride + place.head] = t.top[i] * 0.693147181f;  // of scores to base 2
      call.sum.data[place.row * call.sum.stride + place.head] = Type::sum_of(Type::load(t.sum[i], lanes));
    }
    return place;
  }
};

}  // namespace
}  // namespace photon
