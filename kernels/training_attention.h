// Attention of training, forward and backward; V: training_vectors.h.  For the training files of the instruction sets
// alone: everything is internal to the file that includes it (see isa.h).
//
// Queries lie in the lanes: scores are computed as Sᵀ [keys, queries], so that maxima, sums and rescaling are plain
// vector operations.  The five products are those of training_products.h.
//
//   forward   Sᵀ = K Qᵀ,  Oᵀ += Vᵀ Pᵀ                                P = exp2(scale·log₂e·S - running maximum)
//   backward  Sᵀ = K Qᵀ,  dPᵀ = V dOᵀ,  dS = scale·P∘(dP - rowsum(dO∘O)),
//             dV += Pᵀ dO,  dK += dSᵀ Q,  dQᵀ += Kᵀ dSᵀ
#pragma once

#include "kernels/training_products.h"

namespace photon::training {
namespace {

constexpr i64 rows_ahead = 8;           // rows that are prefetched: a head's rows lie far apart
constexpr float lowest_score = -1e30f;  // below every score, and finite when scaled

void clear(u32* p, i64 n) { __builtin_memset(p, 0, static_cast<std::size_t>(n) * sizeof(u32)); }
void clear(float* p, i64 n) { __builtin_memset(p, 0, static_cast<std::size_t>(n) * sizeof(float)); }

struct Arena {  // hands out the scratch memory
  char* at;
  template <class T>
  T* take(i64 n) {
    T* p = reinterpret_cast<T*>(at);
    at += round_up(n * static_cast<i64>(sizeof(T)), 64);
    return p;
  }
};

template <class V>
RowReader<V> head_reader(const InRows& m, i64 row, i64 head, i64 h) {
  const InRows elements{m.data, 1, m.is_bf16};
  return RowReader<V>(elements, row * m.stride + head * h);
}

// Rows [0, n) of one head, rotated if asked, as padded rows of units; rows [n, padded) become zeros.
template <class U>
void pack_rows(const Attention& op, const InRows& source, i64 first_row, i64 first_position, i64 head, i64 n,
               i64 padded, bool rotate, u32* rows) {
  using V = typename U::V;
  using Floats = typename V::Floats;
  constexpr i64 lanes = V::lanes;
  const HeadShape<U> shape(op.head_dim);
  const i64 h = shape.h, half = h / 2, whole = h / U::elements;
  clear(rows + n * shape.row, (padded - n) * shape.row);
  for (i64 s = 0; s < n; ++s) {
    u32* row = rows + s * shape.row;
    clear(row + whole, shape.row - whole);
    const RowReader<V> x = head_reader<V>(source, first_row + s, head, h);
    if (s + rows_ahead < n) head_reader<V>(source, first_row + s + rows_ahead, head, h).prefetch(h);
    const auto write = [&](i64 i, Floats y, i64 left) {
      U::store_some(row, i, y, static_cast<int>(left < lanes ? left : lanes));
    };
    if (!rotate) {
      for (i64 i = 0; i < h; i += lanes) write(i, x.at(i, h - i), h - i);
      continue;
    }
    const i64 position = op.positions[first_position + s];
    const float *cos = op.cos + position * half, *sin = op.sin + position * half;
    if (h % 2) write(half, x.at(half, 1), 1);
    for (i64 i = 0; i < half; i += lanes) {
      const Floats a = x.at(i, half - i), b = x.at(h - half + i, half - i);
      const Floats c = load<V>(cos, i, half - i), d = load<V>(sin, i, half - i);
      write(i, a * c - b * d, half - i);
      write(h - half + i, b * c + a * d, half - i);
    }
  }
}

// rows [n, wide] of floats to the rows of one head, rotated back if asked.
template <class V>
void unpack_rows(const Attention& op, const float* rows, i64 wide, i64 first_row, i64 first_position, i64 head, i64 n,
                 bool rotate, const OutRows& target) {
  using Floats = typename V::Floats;
  constexpr i64 lanes = V::lanes;
  const i64 h = op.head_dim, half = h / 2;
  for (i64 s = 0; s < n; ++s) {
    const float* row = rows + s * wide;
    OutRows to = target;
    to.stride = 1;
    const RowWriter<V> y(to, (first_row + s) * target.stride + head * h);
    if (!rotate) {
      for (i64 i = 0; i < h; i += lanes) y.put(i, load<V>(row, i, h - i), h - i);
      continue;
    }
    const i64 position = op.positions[first_position + s];
    const float *cos = op.cos + position * half, *sin = op.sin + position * half;
    if (h % 2) y.put(half, load<V>(row, half, 1), 1);
    for (i64 i = 0; i < half; i += lanes) {
      const Floats a = load<V>(row, i, half - i), b = load<V>(row + h - half, i, half - i);
      const Floats c = load<V>(cos, i, half - i), d = load<V>(sin, i, half - i);
      y.put(i, a * c + b * d, half - i);
      y.put(h - half + i, b * c - a * d, half - i);
    }
  }
}

// What the queries [q0, q0 + n) of a block see.
template <class V>
struct QueryBlock {
  static constexpr i64 lanes = V::lanes, Q = block_queries<V>;
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;

  i64 q0, n, vectors, first_key, end_key;
  std::int32_t lowest[Q];  // the first key that each lane sees
  QueryBlock(const Attention& op, i64 q0_in, i64 S)
      : q0(q0_in),
        n(S - q0 < Q ? S - q0 : Q),
        vectors(n > lanes ? 2 : 1),
        first_key(op.first_visible[q0]),
        end_key(q0 + n) {
    for (i64 i = 0; i < Q; ++i) lowest[i] = op.first_visible[i < n ? q0 + i : q0 + n - 1];
  }
  enum View { none, some, all };
  // Of the keys [key, key + group_rows) by the queries of vector v.
  View view(i64 key, i64 v) const {
    const i64 first = q0 + v * lanes, last = first + lanes - 1;
    if (key > last || lowest[v * lanes] >= key + group_rows) return none;
    return key + group_rows - 1 <= first && lowest[v * lanes + lanes - 1] <= key ? all : some;
  }
  // The scores of one key, -infinity in the lanes that do not see it.
  Floats hide(Floats scores, i64 key, i64 v) const {
    Ints query;
    for (int i = 0; i < lanes; ++i) query[i] = static_cast<std::int32_t>(q0 + v * lanes + i);
    const Ints k = V::set1(static_cast<std::int32_t>(key));
    return ((k <= query) & (k >= V::load(lowest + v * lanes))) ? scores : V::set1(-__builtin_inff());
  }
};

// Sᵀ, dPᵀ: rows [keys, Q] of a's rows times the block's transposed operand, where some query sees the key.
template <class U>
void multiply_visible(const QueryBlock<typename U::V>& block, i64 key, i64 end, const u32* rows,
                      const HeadShape<U>& shape, const u32* operand, float* c) {
  using V = typename U::V;
  constexpr i64 lanes = V::lanes, Q = block_queries<V>;
  for (i64 k = key; k < end; k += group_rows) {
    const bool first = block.view(k, 0) != QueryBlock<V>::none;
    const bool second = block.vectors == 2 && block.view(k, 1) != QueryBlock<V>::none;
    const i64 offset = first ? 0 : lanes, n = first && second ? 2 * lanes : lanes;
    if (first || second) {
      multiply<U, false>(group_rows, n, shape.units, rows + k * shape.row, shape.row, operand + offset, Q,
                         c + (k - key) * Q + offset, Q);
    }
  }
}

template <class U>
void attend(const Attention& op, i64 first_row, i64 S, i64 kv_head, void* scratch) {
  using V = typename U::V;
  using Floats = typename V::Floats;
  constexpr i64 lanes = V::lanes, Q = block_queries<V>;
  constexpr i64 pad = row_pad<V> * U::elements, units_of_tile = tile_keys / U::elements;
  const HeadShape<U> shape(op.head_dim);
  const i64 h = shape.h, heads = op.n_heads / op.n_kv_heads, padded = round_up(S, pad);
  const i64 tiles = (padded + tile_keys - 1) / tile_keys;
  const bool rotate = op.cos != nullptr;
  const float scale = op.scale * log2_e;
  Arena arena{static_cast<char*>(scratch)};
  u32* keys = arena.take<u32>(padded * shape.row);
  u32* values = arena.take<u32>(padded * shape.row);
  u32* value_tiles = arena.take<u32>(tiles * shape.wide * units_of_tile);
  u32* zipped = arena.take<u32>(tile_keys * shape.wide);
  u32* queries = arena.take<u32>(Q * shape.row);
  u32* queries_t = arena.take<u32>(shape.row * Q);
  float* scores = arena.take<float>(tile_keys * Q);
  u32* weights = arena.take<u32>(units_of_tile * Q);
  float* out_t = arena.take<float>(shape.wide * Q);
  float* out = arena.take<float>(Q * shape.wide);

  pack_rows<U>(op, op.k, first_row, 0, kv_head, S, padded, rotate, keys);
  pack_rows<U>(op, op.v, first_row, 0, kv_head, S, padded, false, values);
  transpose_tiles<U>(values, padded, shape, zipped, value_tiles);

  for (i64 head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
    for (i64 q0 = 0; q0 < S; q0 += Q) {
      const QueryBlock<V> block(op, q0, S);
      const i64 n_lanes = block.vectors * lanes;
      pack_rows<U>(op, op.q, first_row + q0, q0, head, block.n, n_lanes, rotate, queries);
      transpose<V>(queries, shape.row, n_lanes, shape.row, queries_t, Q);
      clear(out_t, shape.wide * Q);
      Floats greatest[2] = {V::set1(lowest_score), V::set1(lowest_score)}, sum[2] = {};

      const i64 from = block.first_key / group_rows * group_rows, to = round_up(block.end_key, group_rows);
      for (i64 tile = from / tile_keys * tile_keys; tile < to; tile += tile_keys) {
        const i64 key = from > tile ? from : tile, end = to < tile + tile_keys ? to : tile + tile_keys;
        multiply_visible<U>(block, key, end, keys, shape, queries_t, scores);
        for (i64 v = 0; v < block.vectors; ++v) {
          Floats best = greatest[v];
          for (i64 k = key; k < end; k += group_rows) {
            const auto view = block.view(k, v);
            if (view == QueryBlock<V>::none) continue;
            for (i64 r = k; r < k + group_rows; ++r) {
              float* row = scores + (r - key) * Q + v * lanes;
              Floats x = V::load(row);
              if (view == QueryBlock<V>::some) V::store(row, x = block.hide(x, r, v));
              best = V::max(x, best);
            }
          }
          const Floats shrink = V::exp2((greatest[v] - best) * scale);
          greatest[v] = best;
          sum[v] *= shrink;
          for (i64 d = 0; d < shape.wide; ++d) {
            float* row = out_t + d * Q + v * lanes;
            V::store(row, V::load(row) * shrink);
          }
          const Floats shift = best * scale;
          for (i64 k = key; k < end; k += group_rows) {
            const bool seen = block.view(k, v) != QueryBlock<V>::none;
            for (i64 r = k - key; r < k - key + group_rows; r += 2) {
              const float* row = scores + r * Q + v * lanes;
              const Floats even = seen ? V::exp2(V::load(row) * scale - shift) : Floats{};
              const Floats odd = seen ? V::exp2(V::load(row + Q) * scale - shift) : Floats{};
              sum[v] += even + odd;
              store_two_rows<U>(weights + v * lanes, r, even, odd);
            }
          }
        }
        multiply<U, true>(round_up(h, group_rows), n_lanes, (end - key) / U::elements,
                          value_tiles + tile / tile_keys * shape.wide * units_of_tile + (key - tile) / U::elements,
                          units_of_tile, weights, Q, out_t, Q);
      }

      for (i64 v = 0; v < block.vectors; ++v) {
        const Floats inverse = V::reciprocal(sum[v]);
        for (i64 d = 0; d < shape.wide; ++d) {
          float* row = out_t + d * Q + v * lanes;
          V::store(row, V::load(row) * inverse);
        }
        for (i64 i = 0; i < lanes && v * lanes + i < block.n; ++i) {
          op.log2_sum[(first_row + q0 + v * lanes + i) * op.n_heads + head] =
              greatest[v][i] * scale + __builtin_log2f(sum[v][i]);
        }
      }
      queries_to_rows<V>(out_t, n_lanes, shape.wide, out);
      unpack_rows<V>(op, out, shape.wide, first_row + q0, q0, head, block.n, false, op.out);
    }
  }
}

// rowsum(dO∘O) of each query.
template <class V>
void output_products(const Attention& op, const InRows& grad_out, i64 first_row, i64 head, i64 n, float* products) {
  using Floats = typename V::Floats;
  const InRows out{op.out.data, op.out.stride, op.out.is_bf16};
  const i64 h = op.head_dim;
  for (i64 s = 0; s < n; ++s) {
    const RowReader<V> o = head_reader<V>(out, first_row + s, head, h),
                       g = head_reader<V>(grad_out, first_row + s, head, h);
    if (s + rows_ahead < n) head_reader<V>(out, first_row + s + rows_ahead, head, h).prefetch(h);
    Floats sums{};
    for (i64 i = 0; i < h; i += V::lanes) sums += o.at(i, h - i) * g.at(i, h - i);
    products[s] = V::sum_of(sums);
  }
}

template <class U>
void attend_backward(const AttentionBackward& backward, i64 first_row, i64 S, i64 kv_head, void* scratch) {
  using V = typename U::V;
  using Floats = typename V::Floats;
  constexpr i64 lanes = V::lanes, Q = block_queries<V>;
  constexpr i64 pad = row_pad<V> * U::elements, units_of_tile = tile_keys / U::elements;
  constexpr i64 units_of_block = Q / U::elements;
  const Attention& op = backward.forward;
  const HeadShape<U> shape(op.head_dim);
  const i64 h = shape.h, heads = op.n_heads / op.n_kv_heads, padded = round_up(S, pad);
  const i64 tiles = (padded + tile_keys - 1) / tile_keys;
  const bool rotate = op.cos != nullptr;
  const float scale = op.scale * log2_e;
  Arena arena{static_cast<char*>(scratch)};
  u32* keys = arena.take<u32>(padded * shape.row);
  u32* values = arena.take<u32>(padded * shape.row);
  u32* key_tiles = arena.take<u32>(tiles * shape.wide * units_of_tile);
  u32* zipped = arena.take<u32>(tile_keys * shape.wide);
  float* grad_k = arena.take<float>(padded * shape.wide);
  float* grad_v = arena.take<float>(padded * shape.wide);
  u32* queries = arena.take<u32>(Q * shape.row);
  u32* queries_t = arena.take<u32>(shape.row * Q);
  u32* queries_z = arena.take<u32>(units_of_block * shape.wide);
  u32* grads = arena.take<u32>(Q * shape.row);
  u32* grads_t = arena.take<u32>(shape.row * Q);
  u32* grads_z = arena.take<u32>(units_of_block * shape.wide);
  float* scores = arena.take<float>(tile_keys * Q);
  float* grad_weights = arena.take<float>(tile_keys * Q);
  u32* weights_a = arena.take<u32>(tile_keys * units_of_block);
  u32* grad_scores_a = arena.take<u32>(tile_keys * units_of_block);
  u32* grad_scores_b = arena.take<u32>(units_of_tile * Q);
  float* grad_q_t = arena.take<float>(shape.wide * Q);
  float* grad_q = arena.take<float>(Q * shape.wide);

  pack_rows<U>(op, op.k, first_row, 0, kv_head, S, padded, rotate, keys);
  pack_rows<U>(op, op.v, first_row, 0, kv_head, S, padded, false, values);
  transpose_tiles<U>(keys, padded, shape, zipped, key_tiles);
  clear(grad_k, padded * shape.wide);
  clear(grad_v, padded * shape.wide);

  for (i64 head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
    for (i64 q0 = 0; q0 < S; q0 += Q) {
      const QueryBlock<V> block(op, q0, S);
      const i64 n_lanes = block.vectors * lanes;
      pack_rows<U>(op, op.q, first_row + q0, q0, head, block.n, n_lanes, rotate, queries);
      pack_rows<U>(op, backward.grad_out, first_row + q0, q0, head, block.n, n_lanes, false, grads);
      transpose<V>(queries, shape.row, n_lanes, shape.row, queries_t, Q);
      transpose<V>(grads, shape.row, n_lanes, shape.row, grads_t, Q);
      const u32* queries_b = interleave<U>(queries, n_lanes, shape, queries_z);
      const u32* grads_b = interleave<U>(grads, n_lanes, shape, grads_z);
      clear(grad_q_t, shape.wide * Q);
      float products[Q] = {}, log2_sum[Q] = {};
      output_products<V>(op, backward.grad_out, first_row + q0, head, block.n, products);
      for (i64 i = 0; i < block.n; ++i) log2_sum[i] = op.log2_sum[(first_row + q0 + i) * op.n_heads + head];

      const i64 from = block.first_key / group_rows * group_rows, to = round_up(block.end_key, group_rows);
      for (i64 tile = from / tile_keys * tile_keys; tile < to; tile += tile_keys) {
        const i64 key = from > tile ? from : tile, end = to < tile + tile_keys ? to : tile + tile_keys;
        multiply_visible<U>(block, key, end, keys, shape, queries_t, scores);
        multiply_visible<U>(block, key, end, values, shape, grads_t, grad_weights);
        for (i64 v = 0; v < block.vectors; ++v) {
          const Floats shift = V::load(log2_sum + v * lanes), product = V::load(products + v * lanes);
          for (i64 k = key; k < end; k += group_rows) {
            const auto view = block.view(k, v);
            for (i64 r = k - key; r < k - key + group_rows; r += 2) {
              Floats p[2] = {}, ds[2] = {};
              for (i64 i = 0; i < 2 && view != QueryBlock<V>::none; ++i) {
                const i64 at_row = (r + i) * Q + v * lanes;
                Floats x = V::load(scores + at_row);
                if (view == QueryBlock<V>::some) x = block.hide(x, key + r + i, v);
                p[i] = V::exp2(x * scale - shift);
                ds[i] = p[i] * (V::load(grad_weights + at_row) - product) * op.scale;
              }
              for (i64 i = 0; i < 2; ++i) {
                U::store(weights_a + (r + i) * units_of_block + v * lanes / U::elements, p[i]);
                U::store(grad_scores_a + (r + i) * units_of_block + v * lanes / U::elements, ds[i]);
              }
              store_two_rows<U>(grad_scores_b + v * lanes, r, ds[0], ds[1]);
            }
          }
        }
        const i64 n = end - key, query_units = n_lanes / U::elements;
        multiply<U, true>(n, shape.wide, query_units, weights_a, units_of_block, grads_b, shape.wide,
                          grad_v + key * shape.wide, shape.wide);
        multiply<U, true>(n, shape.wide, query_units, grad_scores_a, units_of_block, queries_b, shape.wide,
                          grad_k + key * shape.wide, shape.wide);
        multiply<U, true>(round_up(h, group_rows), n_lanes, n / U::elements,
                          key_tiles + tile / tile_keys * shape.wide * units_of_tile + (key - tile) / U::elements,
                          units_of_tile, grad_scores_b, Q, grad_q_t, Q);
      }
      queries_to_rows<V>(grad_q_t, n_lanes, shape.wide, grad_q);
      unpack_rows<V>(op, grad_q, shape.wide, first_row + q0, q0, head, block.n, rotate, backward.grad_q);
    }
  }
  unpack_rows<V>(op, grad_k, shape.wide, first_row, 0, kv_head, S, rotate, backward.grad_k);
  unpack_rows<V>(op, grad_v, shape.wide, first_row, 0, kv_head, S, false, backward.grad_v);
}

template <class V>
void attention(const Attention& op, i64 first_row, i64 S, i64 kv_head, void* scratch) {
  op.q.is_bf16 ? attend<typename V::Bf16Units>(op, first_row, S, kv_head, scratch)
               : attend<Singles<V>>(op, first_row, S, kv_head, scratch);
}
template <class V>
void attention_backward(const AttentionBackward& op, i64 first_row, i64 S, i64 kv_head, void* scratch) {
  op.forward.q.is_bf16 ? attend_backward<typename V::Bf16Units>(op, first_row, S, kv_head, scratch)
                       : attend_backward<Singles<V>>(op, first_row, S, kv_head, scratch);
}

// Of attend_backward<Singles<V>>, which takes the most.
template <class V>
i64 attention_scratch(i64 S, i64 head_dim) {
  const i64 wide = round_up(head_dim, row_pad<V>), rows = round_up(S, tile_keys), Q = block_queries<V>;
  const i64 floats = (5 * rows + tile_keys + 8 * Q) * wide + 5 * tile_keys * Q;
  return floats * static_cast<i64>(sizeof(float)) + 32 * 64;
}

}  // namespace
}  // namespace photon::training
