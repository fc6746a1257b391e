// AVX-512 with BF16 (Zen 4, Cooper Lake, Sapphire Rapids and later).  See isa.h for what this file must not call.
#include "kernels/avx512_math.h"

namespace photon {
namespace {

// ---- matmul ------------------------------------------------------------------------------------------------------
// Every output is one vector of partial sums over k in steps of one register, then one reduction: the same order in
// every tile shape, so a row's result depends neither on the other rows nor on how outputs are split over threads.

struct F32 {
  using Weight = float;
  using Lanes = __m512;
  static constexpr i64 step = 16;
  static Lanes load(const float* p, i64 n) { return photon::load(p, n); }
  static __m512 multiply_add(Lanes x, Lanes w, __m512 sum) { return _mm512_fmadd_ps(x, w, sum); }
};

struct Bf16 {
  using Weight = bf16;
  using Lanes = __m512bh;
  static constexpr i64 step = 32;
  static Lanes load(const void* p, i64 n) {
    return (__m512bh)(n >= step ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(first_lanes32(n), p));
  }
  static Lanes load(const bf16* p, i64 n) { return load(static_cast<const void*>(p), n); }
  static Lanes load(const std::uint16_t* p, i64 n) { return load(static_cast<const void*>(p), n); }
  static Lanes load(const float* p, i64 n) {  // rounded
    if (n >= step) return _mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p));
    const __m512 low = F32::load(p, n), high = n > 16 ? F32::load(p + 16, n - 16) : _mm512_setzero_ps();
    return _mm512_cvtne2ps_pbh(high, low);
  }
  static __m512 multiply_add(Lanes x, Lanes w, __m512 sum) { return _mm512_dpbf16_ps(sum, x, w); }
};

// y [N, O] from x [N, k] and w [O, k].
template <class Type, int N, int O, class X>
void tile(const X* x, i64 x_stride, const typename Type::Weight* w, i64 w_stride, i64 k, float* y, i64 y_stride,
          bool add) {
  __m512 sum[N][O];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) sum[i][o] = _mm512_setzero_ps();
  const auto step = [&](i64 at, i64 n) __attribute__((always_inline)) {
    typename Type::Lanes in[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) in[i] = Type::load(x + i * x_stride + at, n);
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      const typename Type::Lanes weights = Type::load(w + o * w_stride + at, n);
      // The next O rows: the processor's own prefetcher starts anew at each row, too late for rows of a few KiB.
      _mm_prefetch(reinterpret_cast<const char*>(w + (o + O) * w_stride + at), _MM_HINT_T1);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) sum[i][o] = Type::multiply_add(in[i], weights, sum[i][o]);
    }
  };
  i64 at = 0;
  for (; at + Type::step <= k; at += Type::step) step(at, Type::step);
  if (at < k) step(at, k - at);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      const float total = _mm512_reduce_add_ps(sum[i][o]);
      float& out = y[i * y_stride + o];
      out = add ? out + total : total;
    }
}

// O outputs for all rows, N rows at a time (the last rows fewer).
template <class Type, int N, int O, class X>
void rows_of_tiles(const MatView<X>& x, const typename Type::Weight* w, i64 w_stride, float* y, i64 y_stride,
                   bool add) {
  i64 i = 0;
  for (; i + N <= x.rows; i += N)
    tile<Type, N, O>(x.data + i * x.stride, x.stride, w, w_stride, x.cols, y + i * y_stride, y_stride, add);
  if constexpr (N > 1) {
    const MatView<X> rest{x.data + i * x.stride, x.rows - i, x.cols, x.stride};
    if (rest.rows > 0) rows_of_tiles<Type, N - 1, O>(rest, w, w_stride, y + i * y_stride, y_stride, add);
  }
}

// O outputs at a time: O rows of weights stay in the cache while the rows of x pass.
template <class Type, int N, int O, class X>
void outputs_of_tiles(const MatView<X>& x, const MatView<const typename Type::Weight>& w, const MatView<float>& y,
                      bool add) {
  i64 o = 0;
  for (; o + O <= w.rows; o += O)
    rows_of_tiles<Type, N, O>(x, w.data + o * w.stride, w.stride, y.data + o, y.stride, add);
  for (; o < w.rows; ++o) rows_of_tiles<Type, N, 1>(x, w.data + o * w.stride, w.stride, y.data + o, y.stride, add);
}

template <class Type, class X>
void matmul_rows(const MatView<X>& x, const MatView<const typename Type::Weight>& w, const MatView<float>& y,
                 bool add) {
  if (x.rows <= 3)
    outputs_of_tiles<Type, 3, 8>(x, w, y, add);
  else
    outputs_of_tiles<Type, 4, 6>(x, w, y, add);
}

constexpr i64 rows_together = 32;  // their inputs stay in the second-level cache

void matmul_f32(MatView<const float> x, MatView<const float> w, MatView<float> y, bool add) {
  for (i64 i = 0; i < x.rows; i += rows_together) {
    const i64 n = x.rows - i < rows_together ? x.rows - i : rows_together;
    const MatView<const float> in{x.data + i * x.stride, n, x.cols, x.stride};
    matmul_rows<F32>(in, w, {y.data + i * y.stride, n, y.cols, y.stride}, add);
  }
}

void matmul_bf16(MatView<const float> x, MatView<const bf16> w, MatView<float> y, bool add) {
  // Inputs are rounded once into this buffer (twice as fast at 8 rows as rounding them anew for every few outputs).
  constexpr i64 room = 64 << 10;
  alignas(64) std::uint16_t rounded[room];  // not bf16, whose constructor would clear it
  const i64 k = x.cols;
  const i64 fitting = room / (k > 0 ? k : 1);
  const i64 most = fitting < rows_together ? fitting : rows_together;
  const bool fits = most >= (x.rows < 4 ? x.rows : 4);
  for (i64 i = 0, n = 0; i < x.rows; i += n) {
    n = fits ? most : rows_together;
    if (n > x.rows - i) n = x.rows - i;
    const MatView<float> out{y.data + i * y.stride, n, y.cols, y.stride};
    if (!fits) {  // rows so long that the buffer holds fewer than a tile of them
      matmul_rows<Bf16>(MatView<const float>{x.data + i * x.stride, n, k, x.stride}, w, out, add);
      continue;
    }
    for (i64 r = 0; r < n; ++r)
      for (i64 at = 0; at < k; at += Bf16::step) {
        const __m512i lanes = (__m512i)Bf16::load(x.data + (i + r) * x.stride + at, k - at);
        _mm512_mask_storeu_epi16(rounded + r * k + at, first_lanes32(k - at < 32 ? k - at : 32), lanes);
      }
    matmul_rows<Bf16>(MatView<const std::uint16_t>{rounded, n, k, k}, w, out, add);
  }
}

// ---- norm, sums ---------------------------------------------------------------------------------------------------

void rms_norm(const float* x, const float* w, float eps, float* y, i64 n) {
  __m512 squares = _mm512_setzero_ps();
  for (i64 i = 0; i < n; i += 16) {
    const __m512 v = load(x + i, n - i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float scale = 1 / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / static_cast<float>(n) + eps);
  for (i64 i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes16(n - i < 16 ? n - i : 16);
    const __m512 normed = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(scale));
    _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(normed, _mm512_maskz_loadu_ps(lanes, w + i)));
  }
}

void swiglu(float* gate, const float* up, i64 n) {
  for (i64 i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes16(n - i < 16 ? n - i : 16);
    const __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i);
    _mm512_mask_storeu_ps(gate + i, lanes, swiglu(g, _mm512_maskz_loadu_ps(lanes, up + i)));
  }
}

void to_bf16(const float* x, bf16* y, i64 n) {
  for (i64 i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes16(n - i < 16 ? n - i : 16);
    const __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes, x + i));
    // Integer rounding: vcvtneps2bf16 would flush denormals to zero.
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(v, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
    const __m512 f = _mm512_castsi512_ps(v);
    const __m512i nan = _mm512_or_si512(v, _mm512_set1_epi32(0x400000));
    const __m512i bits = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q), nan);
    _mm256_mask_storeu_epi16(y + i, lanes, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
}

float log_sum_exp(const float* x, i64 n) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 tops = lowest;
  for (i64 i = 0; i < n; i += 16)
    tops = _mm512_max_ps(tops, _mm512_mask_loadu_ps(lowest, first_lanes16(n - i < 16 ? n - i : 16), x + i));
  const float top = _mm512_reduce_max_ps(tops);
  if (__builtin_isinf(top)) return top;
  __m512 sum = _mm512_setzero_ps();
  for (i64 i = 0; i < n; i += 16) {
    const __m512 v = _mm512_mask_loadu_ps(lowest, first_lanes16(n - i < 16 ? n - i : 16), x + i);
    sum = _mm512_add_ps(sum, exp(_mm512_sub_ps(v, _mm512_set1_ps(top))));
  }
  return top + __builtin_logf(_mm512_reduce_add_ps(sum));
}

// ---- attention ---------------------------------------------------------------------------------------------------

constexpr i64 heads_together = 64;      // their running maxima and sums live on the stack
constexpr i64 positions_together = 16;  // one vector of scores

// The keys and values of up to 16 positions, from as many runs as they lie in.
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

// dots[p] = the partial sums of q · k of the block's first P positions; q, k [h], the latter at `kv` in its row.
// Fetches the same of a later block `ahead`: its rows lie too far apart for the processor to foresee.
template <int P, class T>
void multiply(const float* q, const Block<T>& block, const Block<T>& ahead, i64 kv, i64 h,
              __m512 (&dots)[positions_together]) {
  __m512 sums[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) sums[p] = _mm512_setzero_ps();
  const auto step = [&](i64 i, i64 n) __attribute__((always_inline)) {
    const __m512 query = load(q + i, n);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      sums[p] = _mm512_fmadd_ps(query, load(block.k[p] + kv + i, n), sums[p]);
      _mm_prefetch(reinterpret_cast<const char*>(ahead.k[p] + kv + i), _MM_HINT_T1);
    }
  };
  i64 i = 0;
  for (; i + 16 <= h; i += 16) step(i, 16);
  if (i < h) step(i, h - i);
#pragma GCC unroll 16
  for (int p = 0; p < positions_together; ++p) dots[p] = p < P ? sums[p] : _mm512_setzero_ps();
}

// Positions pass in blocks of 16, counted over all runs: where one run ends and the next begins changes no bit.  All
// heads pass over a block while it is in the cache.
template <class T>
void attend(const AttendShape& shape, const float* q, const OldKvRun<T>* runs, i64 n_runs, float* out) {
  const i64 h = shape.head_dim, group = shape.n_heads / shape.n_kv_heads;
  const __m512 scale = _mm512_set1_ps(1 / __builtin_sqrtf(static_cast<float>(h)));
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  for (i64 first = 0; first < shape.n_heads; first += heads_together) {
    const i64 last = first + heads_together < shape.n_heads ? first + heads_together : shape.n_heads;
    float top[heads_together], sum[heads_together];
    for (i64 i = 0; i < last - first; ++i) top[i] = -__builtin_inff(), sum[i] = 0;
    for (i64 i = first * h; i < last * h; ++i) out[i] = 0;

    Cursor<T> cursor{runs, runs + n_runs};
    Block<T> block, next;
    for (cursor.take(block); block.n > 0; block = next) {
      cursor.take(next);
      const Block<T>& ahead = next.n > 0 ? next : block;
      for (i64 head = first; head < last; ++head) {
        const i64 kv = head / group * h;
        __m512 dots[positions_together];
        if (block.n <= 8)
          multiply<8>(q + head * h, block, ahead, kv, h, dots);
        else
          multiply<16>(q + head * h, block, ahead, kv, h, dots);
        const __m512 scores = _mm512_mask_mul_ps(lowest, first_lanes16(block.n), sums_of(dots), scale);
        const float block_top = _mm512_reduce_max_ps(scores);
        const float new_top = top[head - first] > block_top ? top[head - first] : block_top;
        const __m512 keep = exp(_mm512_set1_ps(top[head - first] - new_top));
        const __m512 weights = exp(_mm512_sub_ps(scores, _mm512_set1_ps(new_top)));
        sum[head - first] = sum[head - first] * _mm512_cvtss_f32(keep) + _mm512_reduce_add_ps(weights);
        top[head - first] = new_top;
        float weight[positions_together];
        _mm512_storeu_ps(weight, weights);
        float* o = out + head * h;
        const auto add_values = [&](i64 i, i64 n) __attribute__((always_inline)) {
          __m512 even = _mm512_mul_ps(keep, load(o + i, n)), odd = _mm512_setzero_ps();
          for (i64 p = 0; p < block.n; p += 2) {
            even = _mm512_fmadd_ps(_mm512_set1_ps(weight[p]), load(block.v[p] + kv + i, n), even);
            odd = _mm512_fmadd_ps(_mm512_set1_ps(weight[p + 1]), load(block.v[p + 1] + kv + i, n), odd);
            _mm_prefetch(reinterpret_cast<const char*>(ahead.v[p] + kv + i), _MM_HINT_T1);
            _mm_prefetch(reinterpret_cast<const char*>(ahead.v[p + 1] + kv + i), _MM_HINT_T1);
          }
          _mm512_mask_storeu_ps(o + i, first_lanes16(n), _mm512_add_ps(even, odd));
        };
        i64 i = 0;
        for (; i + 16 <= h; i += 16) add_values(i, 16);
        if (i < h) add_values(i, h - i);
      }
    }
    for (i64 head = first; head < last; ++head)
      for (i64 i = 0; i < h; ++i) out[head * h + i] /= sum[head - first];
  }
}

}  // namespace

constinit const Isa avx512_bf16_isa{
    .matmul_f32 = matmul_f32,
    .matmul_bf16 = matmul_bf16,
    .rms_norm = rms_norm,
    .attend_f32 = attend<float>,
    .attend_bf16 = attend<bf16>,
    .swiglu = swiglu,
    .to_bf16 = to_bf16,
    .log_sum_exp = log_sum_exp,
};

}  // namespace photon
