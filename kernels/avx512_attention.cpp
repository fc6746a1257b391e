// Attention with AVX-512, BF16 and VNNI.  See isa.h for what this file must not call.
#include "kernels/attention_blocks.h"
#include "kernels/avx512_math.h"

namespace photon {
namespace {

// 2^x for x <= 0: within 1e-7 of itself, 1 for 0, 0 below -150.
__m512 exp2(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-160.0f));
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);       // |r| <= 1/2
  __m512 p = _mm512_set1_ps(0.00015345812f);  // the polynomial of least relative error
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0013399931f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.009618489f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.055503288f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022647f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69314721f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Scores to the base 2, so that weights are powers of 2.
float score_scale(i64 h) { return 1.44269504f / __builtin_sqrtf(static_cast<float>(h)); }

__m512 load_some(const float* p, i64 n) { return n > 0 ? load(p, n) : _mm512_setzero_ps(); }  // any n

// Two rows of 32 values [2][32] become pairs: of dimensions 0-3 8-11 16-19 24-27, and of the others.
void pair(__m512i first, __m512i second, __m512i* pairs) {
  pairs[0] = _mm512_unpacklo_epi16(first, second);
  pairs[1] = _mm512_unpackhi_epi16(first, second);
}
// The 32 sums of such pairs, in order.
void unpair(const float* sums, __m512& first, __m512& second) {
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const __m512 a = _mm512_loadu_ps(sums), b = _mm512_loadu_ps(sums + 16);
  first = _mm512_permutex2var_ps(a, low, b);
  second = _mm512_permutex2var_ps(a, high, b);
}

// What the cache types do differently.  A word is 4 bytes: as many elements of a query or a key, or the weights of as
// many positions.
struct F32 {
  using Element = float;
  using Sum = __m512;
  static constexpr i64 together = 1;   // elements of a word of keys
  static constexpr i64 positions = 1;  // of a word of weights
  static constexpr bool scaled = false;

  static void prepare(const float* q, i64 i, Tile& t) {
    const __m512 scale = _mm512_set1_ps(score_scale(t.head_dim));
    float* to = reinterpret_cast<float*>(t.queries + i * t.steps);
    for (i64 d = 0; d < t.head_dim; d += 16)
      store(to + d, _mm512_mul_ps(load(q + d, t.head_dim - d), scale), t.head_dim - d);
  }
  static Sum first_score(const Tile&, i64) { return _mm512_setzero_ps(); }
  static Sum dot(Sum sum, __m512i query, __m512i keys) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(query), _mm512_castsi512_ps(keys), sum);
  }
  static __m512 score(Sum sum, const Tile&, i64, const Block&, i64) { return sum; }

  static void store_weights(const __m512 (&w)[block_groups], i64 groups, const Block&, i64 i, Tile& t) {
    for (i64 g = 0; g < groups; ++g) _mm512_storeu_ps(t.weights[i] + g * group_positions, w[g]);
  }
  static Sum no_values() { return _mm512_setzero_ps(); }
  static void load_values(const std::byte* const* rows, i64 d, i64 h, __m512i* v) {  // dimensions d … d + 31
    const float* row = reinterpret_cast<const float*>(rows[0]) + d;
    v[0] = _mm512_castps_si512(load(row, h - d));
    v[1] = _mm512_castps_si512(load_some(row + 16, h - d - 16));
  }
  static Sum add(Sum sum, __m512i weight, __m512i values) { return dot(sum, weight, values); }
  static __m512 value(Sum sum, const Tile&, i64) { return sum; }
  static void in_order(const float* out, __m512& first, __m512& second) {
    first = _mm512_loadu_ps(out), second = _mm512_loadu_ps(out + 16);
  }
};

struct Bf16 {
  using Element = bf16;
  using Sum = __m512;
  static constexpr i64 together = 2;
  static constexpr i64 positions = 2;
  static constexpr bool scaled = false;

  static void prepare(const float* q, i64 i, Tile& t) {
    const __m512 scale = _mm512_set1_ps(score_scale(t.head_dim));
    for (i64 d = 0; d < t.head_dim; d += 32) {
      const __m512 low = _mm512_mul_ps(load(q + d, t.head_dim - d), scale);
      const __m512 high = _mm512_mul_ps(load_some(q + d + 16, t.head_dim - d - 16), scale);
      const i64 step = d / 2;
      _mm512_mask_storeu_epi32(t.queries + i * t.steps + step, first_lanes16(least(t.steps - step, 16)),
                               (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
  static Sum first_score(const Tile&, i64) { return _mm512_setzero_ps(); }
  static Sum dot(Sum sum, __m512i query, __m512i keys) {
    return _mm512_dpbf16_ps(sum, (__m512bh)keys, (__m512bh)query);
  }
  static __m512 score(Sum sum, const Tile&, i64, const Block&, i64) { return sum; }

  static void store_weights(const __m512 (&w)[block_groups], i64 groups, const Block&, i64 i, Tile& t) {
    for (i64 g = 0; g < groups; g += 2)
      _mm512_storeu_si512(t.weights[i] + g * group_positions / 2, (__m512i)_mm512_cvtne2ps_pbh(w[g + 1], w[g]));
  }
  static Sum no_values() { return _mm512_setzero_ps(); }
  static void load_values(const std::byte* const* rows, i64 d, i64 h, __m512i* v) {
    const __mmask32 lanes = first_lanes32(least(h - d, 32));
    pair(_mm512_maskz_loadu_epi16(lanes, rows[0] + 2 * d), _mm512_maskz_loadu_epi16(lanes, rows[1] + 2 * d), v);
  }
  static Sum add(Sum sum, __m512i weight, __m512i values) { return dot(sum, weight, values); }
  static __m512 value(Sum sum, const Tile&, i64) { return sum; }
  static void in_order(const float* out, __m512& first, __m512& second) { unpair(out, first, second); }
};

// All integers: queries of 8 bits against keys of 8, weights of 16 bits against values of 8.
struct Int8 {
  using Element = std::int8_t;
  using Sum = __m512i;
  static constexpr i64 together = 4;
  static constexpr i64 positions = 2;
  static constexpr bool scaled = true;

  static void prepare(const float* q, i64 i, Tile& t) {
    const i64 h = t.head_dim;
    __m512 sizes = _mm512_setzero_ps();
    for (i64 d = 0; d < h; d += 16) sizes = _mm512_max_ps(sizes, _mm512_abs_ps(load(q + d, h - d)));
    const float largest = _mm512_reduce_max_ps(sizes);
    const __m512 inverse = _mm512_set1_ps(largest < 1e-36f ? 0 : 127 / largest);
    __m512i sum = _mm512_setzero_si512();
    std::uint32_t* to = t.queries + i * t.steps;
    for (i64 d = 0; d < h; d += 16, to += 4) {
      const __m512i integers = _mm512_cvtps_epi32(_mm512_mul_ps(load(q + d, h - d), inverse));
      sum = _mm512_add_epi32(sum, integers);
      const __mmask16 bytes = first_lanes16(least(round_up(h - d, together), 16));
      _mm_mask_storeu_epi8(to, bytes, _mm512_cvtepi32_epi8(integers));
    }
    t.query_scale[i] = largest / 127 * score_scale(h);
    t.bias[i] = -128 * _mm512_reduce_add_epi32(sum);
  }
  static Sum first_score(const Tile& t, i64 i) { return _mm512_set1_epi32(t.bias[i]); }
  static Sum dot(Sum sum, __m512i query, __m512i keys) { return _mm512_dpbusd_epi32(sum, keys, query); }
  static __m512 score(Sum sum, const Tile& t, i64 i, const Block& block, i64 group) {
    const __m512 scale =
        _mm512_mul_ps(_mm512_set1_ps(t.query_scale[i]), _mm512_loadu_ps(block.key_scale + group * group_positions));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
  }

  static void store_weights(const __m512 (&w)[block_groups], i64 groups, const Block& block, i64 i, Tile& t) {
    __m512 scaled_weights[block_groups], largest = _mm512_set1_ps(1e-30f);
    for (i64 g = 0; g < groups; ++g) {
      const i64 seen = least(t.seen[i] - g * group_positions, group_positions);
      scaled_weights[g] = _mm512_mul_ps(w[g], load_some(block.value_scale + g * group_positions, seen));
      largest = _mm512_max_ps(largest, scaled_weights[g]);
    }
    constexpr float limit = 32767;
    t.weight_scale[i] = _mm512_reduce_max_ps(largest) / limit;
    const __m512 inverse = _mm512_set1_ps(limit / _mm512_reduce_max_ps(largest));
    for (i64 g = 0; g < groups; ++g)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.weights[i]) + g,
                          _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(scaled_weights[g], inverse))));
  }
  static Sum no_values() { return _mm512_setzero_si512(); }
  static void load_values(const std::byte* const* rows, i64 d, i64 h, __m512i* v) {
    const __mmask32 lanes = first_lanes32(least(h - d, 32));
    pair(_mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(lanes, rows[0] + d)),
         _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(lanes, rows[1] + d)), v);
  }
  static Sum add(Sum sum, __m512i weight, __m512i values) { return _mm512_dpwssd_epi32(sum, weight, values); }
  static __m512 value(Sum sum, const Tile& t, i64 i) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(t.weight_scale[i]));
  }
  static void in_order(const float* out, __m512& first, __m512& second) { unpair(out, first, second); }
};

// Values of a block, paired once for many queries: [steps][width] words.
using PairedValues = std::uint32_t[block_positions / 2 * largest_head];
constexpr i64 queries_worth_pairing = 5;

// The operations that attend_tile() asks for.
template <class Type>
struct Ops : Type {
  static void copy_words(const std::byte* from, i64 n, std::uint32_t* to) {
    _mm512_mask_storeu_epi32(to, first_lanes16(n), _mm512_maskz_loadu_epi32(first_lanes16(n), from));
  }
  static void widen(const bf16* from, i64 n, float* to) { store(to, load(from, n), n); }

  // Scores of N queries and G groups of positions.
  template <int N, int G>
  static void score_some(const Block& block, i64 query, i64 group, bool fetch, Tile& t) {
    typename Type::Sum sums[N][G];
    const std::byte *keys[G], *ahead[G];
    __mmask16 lanes[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      keys[g] = block.keys[group + g];
      ahead[g] = fetch && block.ahead[group + g] != nullptr ? block.ahead[group + g] : keys[g];
      lanes[g] = first_lanes16(least(block.n - (group + g) * group_positions, group_positions));
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) sums[i][g] = Type::first_score(t, query + i);
    }
    const std::uint32_t* q = t.queries + query * t.steps;
    for (i64 step = 0; step < t.steps; ++step, ++q) {
      __m512i k[G];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        k[g] = _mm512_maskz_loadu_epi32(lanes[g], keys[g]);
        keys[g] += block.key_step[group + g];
        if (fetch) {  // every step has as many bytes of keys as of values
          _mm_prefetch(ahead[g] + step * 128, _MM_HINT_T0);
          _mm_prefetch(ahead[g] + step * 128 + 64, _MM_HINT_T0);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const __m512i word = _mm512_set1_epi32(static_cast<int>(q[i * t.steps]));
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) sums[i][g] = Type::dot(sums[i][g], word, k[g]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        _mm512_storeu_ps(t.scores[query + i] + (group + g) * group_positions,
                         Type::score(sums[i][g], t, query + i, block, group + g));
  }

  static void score(const Block& block, i64 begin, Tile& t) {
    in_tiles_of<6>(begin, t.n, [&]<int N>(i64 query) {
      const i64 seen = t.seen[query + N - 1];
      const bool fetch = query == begin;
      if (seen > 3 * group_positions) return score_some<N, 4>(block, query, 0, fetch, t);
      for (i64 g = 0; g * group_positions < seen; ++g) score_some<N, 1>(block, query, g, fetch, t);
    });
  }

  // Scores of queries `begin` and up become weights; `top`, `sum` and `keep` follow.
  static void weigh(const Block& block, i64 begin, Tile& t) {
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    for (i64 i = begin; i < t.n; ++i) {
      __m512 largest = _mm512_set1_ps(t.top[i]);
      for (i64 p = 0; p < t.seen[i]; p += group_positions) {
        const __mmask16 lanes = first_lanes16(least(t.seen[i] - p, group_positions));
        largest = _mm512_mask_max_ps(largest, lanes, largest, _mm512_loadu_ps(t.scores[i] + p));
      }
      const float top = _mm512_reduce_max_ps(largest);
      t.keep[i] = t.top[i] - top;
      t.top[i] = top;
    }
    for (i64 i = begin; i < t.n; i += 16) store(t.keep + i, exp2(load(t.keep + i, t.n - i)), t.n - i);
    const i64 groups = (block.n + group_positions - 1) / group_positions;
    for (i64 i = begin; i < t.n; ++i) {
      __m512 w[block_groups];
      const __m512 top = _mm512_set1_ps(t.top[i]);
#pragma GCC unroll 4
      for (i64 g = 0; g < block_groups; ++g) {
        const i64 seen = least(t.seen[i] - g * group_positions, group_positions);
        w[g] = seen <= 0
                   ? _mm512_setzero_ps()
                   : exp2(_mm512_sub_ps(
                         _mm512_mask_loadu_ps(lowest, first_lanes16(seen), t.scores[i] + g * group_positions), top));
      }
      const __m512 sum = _mm512_add_ps(_mm512_add_ps(w[0], w[1]), _mm512_add_ps(w[2], w[3]));
      _mm512_storeu_ps(t.sum[i], _mm512_fmadd_ps(_mm512_loadu_ps(t.sum[i]), _mm512_set1_ps(t.keep[i]), sum));
      Type::store_weights(w, groups, block, i, t);
    }
  }

  // 16·V dimensions of N queries.
  template <int N, int V, bool paired>
  static void add_some(const Block& block, const std::uint32_t* pairs, i64 query, i64 d, Tile& t) {
    typename Type::Sum sums[N][V];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[i][v] = Type::no_values();
    const i64 steps = (t.seen[query + N - 1] + Type::positions - 1) / Type::positions;
    for (i64 step = 0; step < steps; ++step) {
      __m512i values[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v += 2) {
        if constexpr (paired) {
          values[v] = _mm512_loadu_si512(pairs + step * t.width + d + v * 16);
          values[v + 1] = _mm512_loadu_si512(pairs + step * t.width + d + v * 16 + 16);
        } else {
          Type::load_values(block.values + step * Type::positions, d + v * 16, t.head_dim, values + v);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const __m512i weight = _mm512_set1_epi32(static_cast<int>(t.weights[query + i][step]));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[i][v] = Type::add(sums[i][v], weight, values[v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* out = t.out + (query + i) * t.width + d + v * 16;
        _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_loadu_ps(out), _mm512_set1_ps(t.keep[query + i]),
                                              Type::value(sums[i][v], t, query + i)));
      }
  }

  template <bool paired>
  static void add_values(const Block& block, const std::uint32_t* pairs, i64 begin, Tile& t) {
    in_tiles_of<6>(begin, t.n, [&]<int N>(i64 query) {
      i64 d = 0;
      for (; d + 64 <= t.width; d += 64) add_some<N, 4, paired>(block, pairs, query, d, t);
      if (d < t.width) add_some<N, 2, paired>(block, pairs, query, d, t);
    });
  }

  static void add_values(const Block& block, i64 begin, Tile& t) {
    if (Type::positions == 1 || t.n - begin < queries_worth_pairing) return add_values<false>(block, nullptr, begin, t);
    alignas(64) PairedValues pairs;
    for (i64 step = 0; step * Type::positions < block.n; ++step)
      for (i64 d = 0; d < t.width; d += 32) {
        __m512i values[2];
        Type::load_values(block.values + step * Type::positions, d, t.head_dim, values);
        _mm512_storeu_si512(pairs + step * t.width + d, values[0]);
        _mm512_storeu_si512(pairs + step * t.width + d + 16, values[1]);
      }
    add_values<true>(block, pairs, begin, t);
  }

  static void finish(const Tile& t, i64 i, float* out) {
    const __m512 inverse = _mm512_set1_ps(1 / _mm512_reduce_add_ps(_mm512_loadu_ps(t.sum[i])));
    for (i64 d = 0; d < t.head_dim; d += 32) {
      __m512 part[2];
      Type::in_order(t.out + i * t.width + d, part[0], part[1]);
      for (i64 j = 0; j < 2 && d + 16 * j < t.head_dim; ++j)  // + 0: no row has -0 where another order gives +0
        store(out + d + 16 * j, _mm512_fmadd_ps(part[j], inverse, _mm512_setzero_ps()), t.head_dim - d - 16 * j);
    }
  }
};

void attend_all(const AttendCall& call) {
  if (call.head_dim > largest_head) return scalar_attention.attend(call);
  switch (call.type) {
    case KvType::f32:
      return attend_in_tiles<Ops<F32>>(call);
    case KvType::bf16:
      return attend_in_tiles<Ops<Bf16>>(call);
    case KvType::int8:
      return attend_in_tiles<Ops<Int8>>(call);
  }
}

void rotate_all(MatView<const float> cos_sin, i64 head_dim, MatView<float> x) {
  const i64 half = head_dim / 2;
  for (i64 r = 0; r < x.rows; ++r) {
    const float* angles = cos_sin.data + r * cos_sin.stride;  // cosines, then sines [half]
    float* const end = x.data + r * x.stride + x.cols;
    for (i64 i = 0; i < half; i += 16) {
      const i64 n = least(half - i, 16);
      const __m512 cosines = load(angles + i, n), sines = load(angles + half + i, n);
      for (float* head = x.data + r * x.stride; head != end; head += head_dim) {
        float *a = head + i, *b = a + (head_dim - half);
        const __m512 first = load(a, n), second = load(b, n);
        store(a, _mm512_fmsub_ps(first, cosines, _mm512_mul_ps(second, sines)), n);
        store(b, _mm512_fmadd_ps(second, cosines, _mm512_mul_ps(first, sines)), n);
      }
    }
  }
}

}  // namespace

constinit const AttentionIsa avx512_attention{.attend = attend_all, .rotate = rotate_all};

}  // namespace photon
