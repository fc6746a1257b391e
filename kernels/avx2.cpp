// AVX2 with FMA (Haswell, Zen and later).  See isa.h for what this file must not call.
#include "kernels/avx2_math.h"

namespace photon {
namespace {

// ---- matmul ------------------------------------------------------------------------------------------------------
// Every output is one vector of partial sums over k in steps of eight, then one reduction: the same order in every tile
// shape, so a row's result depends neither on the other rows nor on how outputs are split over threads.

// y [N, O] from x [N, k] and w [O, k].
template <class W, int N, int O>
void tile(const float* x, i64 x_stride, const W* w, i64 w_stride, i64 k, float* y, i64 y_stride, bool add) {
  __m256 sum[N][O];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) sum[i][o] = _mm256_setzero_ps();
  const auto step = [&](i64 at, i64 n) __attribute__((always_inline)) {
    __m256 weights[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      weights[o] = load(w + o * w_stride + at, n);
      // The next O rows: the processor's own prefetcher starts anew at each row, too late for rows of a few KiB.
      _mm_prefetch(reinterpret_cast<const char*>(w + (o + O) * w_stride + at), _MM_HINT_T1);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const __m256 in = load(x + i * x_stride + at, n);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) sum[i][o] = _mm256_fmadd_ps(in, weights[o], sum[i][o]);
    }
  };
  i64 at = 0;
  for (; at + 8 <= k; at += 8) step(at, 8);
  if (at < k) step(at, k - at);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      const float total = sum_of(sum[i][o]);
      float& out = y[i * y_stride + o];
      out = add ? out + total : total;
    }
}

// O outputs for all rows, N rows at a time (the last rows fewer).
template <class W, int N, int O>
void rows_of_tiles(const MatView<const float>& x, const W* w, i64 w_stride, float* y, i64 y_stride, bool add) {
  i64 i = 0;
  for (; i + N <= x.rows; i += N)
    tile<W, N, O>(x.data + i * x.stride, x.stride, w, w_stride, x.cols, y + i * y_stride, y_stride, add);
  if constexpr (N > 1)
    if (i < x.rows)
      rows_of_tiles<W, N - 1, O>({x.data + i * x.stride, x.rows - i, x.cols, x.stride}, w, w_stride, y + i * y_stride,
                                 y_stride, add);
}

// O outputs at a time: O rows of weights stay in the cache while the rows of x pass.
template <class W, int N, int O>
void outputs_of_tiles(const MatView<const float>& x, const MatView<const W>& w, const MatView<float>& y, bool add) {
  i64 o = 0;
  for (; o + O <= w.rows; o += O) rows_of_tiles<W, N, O>(x, w.data + o * w.stride, w.stride, y.data + o, y.stride, add);
  for (; o < w.rows; ++o) rows_of_tiles<W, N, 1>(x, w.data + o * w.stride, w.stride, y.data + o, y.stride, add);
}

template <class W>
void matmul(MatView<const float> x, MatView<const W> w, MatView<float> y, bool add) {
  constexpr i64 rows_together = 32;  // their inputs stay in the second-level cache
  for (i64 i = 0; i < x.rows; i += rows_together) {
    const i64 n = x.rows - i < rows_together ? x.rows - i : rows_together;
    const MatView<const float> part{x.data + i * x.stride, n, x.cols, x.stride};
    const MatView<float> out{y.data + i * y.stride, n, y.cols, y.stride};
    if (n == 1)
      outputs_of_tiles<W, 1, 8>(part, w, out, add);
    else
      outputs_of_tiles<W, 4, 3>(part, w, out, add);
  }
}

// ---- norm, sums ---------------------------------------------------------------------------------------------------

void rms_norm(const float* x, const float* w, float eps, float* y, i64 n) {
  __m256 squares = _mm256_setzero_ps();
  for (i64 i = 0; i < n; i += 8) {
    const __m256 v = load(x + i, n - i);
    squares = _mm256_fmadd_ps(v, v, squares);
  }
  const __m256 scale = _mm256_set1_ps(1 / __builtin_sqrtf(sum_of(squares) / static_cast<float>(n) + eps));
  for (i64 i = 0; i < n; i += 8)
    store(y + i, _mm256_mul_ps(_mm256_mul_ps(load(x + i, n - i), scale), load(w + i, n - i)), n - i);
}

void swiglu(float* gate, const float* up, i64 n) {
  for (i64 i = 0; i < n; i += 8) {
    const __m256 g = load(gate + i, n - i);
    store(gate + i, swiglu(g, load(up + i, n - i)), n - i);
  }
}

void to_bf16(const float* x, bf16* y, i64 n) {
  for (i64 i = 0; i < n; i += 8) {
    const __m256 f = load(x + i, n - i);
    const __m256i v = _mm256_castps_si256(f);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(v, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_or_si256(v, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
    const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    __builtin_memcpy(static_cast<void*>(y + i), &packed,
                     static_cast<unsigned long>(n - i < 8 ? n - i : 8) * sizeof(bf16));
  }
}

float log_sum_exp(const float* x, i64 n) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  const auto or_lowest = [&](i64 i) {
    return _mm256_blendv_ps(lowest, load(x + i, n - i), _mm256_castsi256_ps(first_lanes(n - i)));
  };
  __m256 tops = lowest;
  for (i64 i = 0; i < n; i += 8) tops = _mm256_max_ps(tops, or_lowest(i));
  const float top = max_of(tops);
  if (__builtin_isinf(top)) return top;
  __m256 sum = _mm256_setzero_ps();
  for (i64 i = 0; i < n; i += 8) sum = _mm256_add_ps(sum, exp(_mm256_sub_ps(or_lowest(i), _mm256_set1_ps(top))));
  return top + __builtin_logf(sum_of(sum));
}

// ---- attention ---------------------------------------------------------------------------------------------------

constexpr i64 heads_together = 64;     // their running maxima and sums live on the stack
constexpr i64 positions_together = 8;  // one vector of scores

// The keys and values of up to eight positions, from as many runs as they lie in.
template <class T>
struct Block {
  const T *k[positions_together], *v[positions_together];
  i64 n;
};

template <class T>
struct Cursor {
  const OldKvRun<T>* run;
  const OldKvRun<T>* end;
  i64 at = 0;

  void take(Block<T>& block) {
    block.n = 0;
    for (; run != end; ++run, at = 0)
      for (; at < run->n; ++at) {
        if (block.n == positions_together) return;
        block.k[block.n] = run->k + at * run->stride;
        block.v[block.n] = run->v + at * run->stride;
        ++block.n;
      }
    if (block.n == 0) return;
    for (i64 p = block.n; p < positions_together; ++p) block.k[p] = block.k[0], block.v[p] = block.v[0];  // masked out
  }
};

// Fetches what kv head `kv` reads of a later block: the positions' rows lie too far apart for the processor to foresee.
template <class T>
void prefetch(const Block<T>& block, i64 kv, i64 h) {
  constexpr i64 line = 64 / sizeof(T);
  for (i64 p = 0; p < block.n; ++p)
    for (i64 i = 0; i < h; i += line) {
      _mm_prefetch(reinterpret_cast<const char*>(block.k[p] + kv + i), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(block.v[p] + kv + i), _MM_HINT_T1);
    }
}

// Positions pass in blocks of eight, counted over all runs: where one run ends and the next begins changes no bit.  All
// heads pass over a block while it is in the cache.
template <class T>
void attend(const AttendShape& shape, const float* q, const OldKvRun<T>* runs, i64 n_runs, float* out) {
  const i64 h = shape.head_dim, group = shape.n_heads / shape.n_kv_heads;
  const __m256 scale = _mm256_set1_ps(1 / __builtin_sqrtf(static_cast<float>(h)));
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  for (i64 first = 0; first < shape.n_heads; first += heads_together) {
    const i64 last = first + heads_together < shape.n_heads ? first + heads_together : shape.n_heads;
    float top[heads_together], sum[heads_together];
    for (i64 i = 0; i < last - first; ++i) top[i] = -__builtin_inff(), sum[i] = 0;
    for (i64 i = first * h; i < last * h; ++i) out[i] = 0;

    Cursor<T> cursor{runs, runs + n_runs};
    Block<T> block, next;
    for (cursor.take(block); block.n > 0; block = next) {
      cursor.take(next);
      for (i64 head = first; head < last; ++head) {
        const i64 kv = head / group * h;
        const float* qh = q + head * h;
        float* o = out + head * h;
        if (head % group == 0) prefetch(next, kv, h);

        __m256 dots[positions_together];
#pragma GCC unroll 8
        for (int p = 0; p < positions_together; ++p) dots[p] = _mm256_setzero_ps();
        const auto multiply_keys = [&](i64 i, i64 n) __attribute__((always_inline)) {
          const __m256 query = load(qh + i, n);
#pragma GCC unroll 8
          for (int p = 0; p < positions_together; ++p)
            dots[p] = _mm256_fmadd_ps(query, load(block.k[p] + kv + i, n), dots[p]);
        };
        i64 i = 0;
        for (; i + 8 <= h; i += 8) multiply_keys(i, 8);
        if (i < h) multiply_keys(i, h - i);

        const __m256 scaled = _mm256_mul_ps(sums_of(dots), scale);
        const __m256 scores = _mm256_blendv_ps(lowest, scaled, _mm256_castsi256_ps(first_lanes(block.n)));
        const float block_top = max_of(scores);
        const float new_top = top[head - first] > block_top ? top[head - first] : block_top;
        const __m256 keep = exp(_mm256_set1_ps(top[head - first] - new_top));
        const __m256 weights = exp(_mm256_sub_ps(scores, _mm256_set1_ps(new_top)));
        sum[head - first] = sum[head - first] * _mm256_cvtss_f32(keep) + sum_of(weights);
        top[head - first] = new_top;
        float weight[positions_together];
        _mm256_storeu_ps(weight, weights);

        const auto add_values = [&](i64 at, i64 n) __attribute__((always_inline)) {
          __m256 even = _mm256_mul_ps(keep, load(o + at, n)), odd = _mm256_setzero_ps();
          for (i64 p = 0; p < block.n; p += 2) {
            even = _mm256_fmadd_ps(_mm256_set1_ps(weight[p]), load(block.v[p] + kv + at, n), even);
            odd = _mm256_fmadd_ps(_mm256_set1_ps(weight[p + 1]), load(block.v[p + 1] + kv + at, n), odd);
          }
          store(o + at, _mm256_add_ps(even, odd), n);
        };
        for (i = 0; i + 8 <= h; i += 8) add_values(i, 8);
        if (i < h) add_values(i, h - i);
      }
    }
    for (i64 head = first; head < last; ++head)
      for (i64 i = 0; i < h; ++i) out[head * h + i] /= sum[head - first];
  }
}

}  // namespace

constinit const Isa avx2_isa{
    .matmul_f32 = matmul<float>,
    .matmul_bf16 = matmul<bf16>,
    .rms_norm = rms_norm,
    .attend_f32 = attend<float>,
    .attend_bf16 = attend<bf16>,
    .swiglu = swiglu,
    .to_bf16 = to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
