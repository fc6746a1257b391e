// Attention with AVX-512, BF16 and VNNI: what attention_blocks.h asks for.  See isa.h for what this file must not call.
#include "kernels/attention_blocks.h"
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/math.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

struct Vectors {
  using Floats = __m512;
  using Words = __m512i;
  static constexpr i64 lanes = 16;
  // 24 registers of sums, the others for their factors.
  static constexpr int score_queries = 6, score_vectors = 2, score_chains = 2, value_queries = 6;

  static Floats load(const float* p, i64 n) { return photon::load(p, n); }
  static Floats load(const bf16* p, i64 n) { return photon::load(p, n); }
  static Floats load_some(const float* p, i64 n) { return n > 0 ? load(p, n) : set1(0); }
  static Floats load_or_lowest(const float* p, i64 n) {
    return n >= lanes ? _mm512_loadu_ps(p) : _mm512_mask_loadu_ps(set1(-__builtin_inff()), first_lanes16(n), p);
  }
  static void store(float* p, Floats v, i64 n) { photon::store(p, v, n); }
  static Words load_words(const std::byte* p, i64 n) {
    return _mm512_maskz_loadu_epi32(first_lanes16(least(n, lanes)), p);
  }
  static void store_words(std::uint32_t* p, Words v, i64 n) {
    _mm512_mask_storeu_epi32(p, first_lanes16(least(n, lanes)), v);
  }
  static Words splat(std::uint32_t word) { return _mm512_set1_epi32(static_cast<int>(word)); }
  static Floats set1(float x) { return _mm512_set1_ps(x); }
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats fmadd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static float max_of(Floats v) { return _mm512_reduce_max_ps(v); }
  static float sum_of(Floats v) { return _mm512_reduce_add_ps(v); }

  using Part = __mmask32;
  static Part part(i64 d, i64 h) { return first_lanes32(least(h - d, 32)); }

  // 2^x for x <= 0: within 1e-7 of itself, 1 for 0, 0 below -150.
  static Floats exp2(Floats x) {
    x = _mm512_max_ps(x, set1(-160.0f));
    const Floats n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats r = _mm512_sub_ps(x, n);  // |r| <= 1/2
    Floats p = set1(0.00015345812f);       // the polynomial of least relative error
    p = _mm512_fmadd_ps(p, r, set1(0.0013399931f));
    p = _mm512_fmadd_ps(p, r, set1(0.009618489f));
    p = _mm512_fmadd_ps(p, r, set1(0.055503288f));
    p = _mm512_fmadd_ps(p, r, set1(0.24022647f));
    p = _mm512_fmadd_ps(p, r, set1(0.69314721f));
    p = _mm512_fmadd_ps(p, r, set1(1.0f));
    return _mm512_scalef_ps(p, n);
  }

  // Two rows of 32 values become pairs: of dimensions 0-3 8-11 16-19 24-27, and of the others.
  static void pair(Words first, Words second, Words* pairs) {
    pairs[0] = _mm512_unpacklo_epi16(first, second);
    pairs[1] = _mm512_unpackhi_epi16(first, second);
  }
  // The 32 sums of such pairs.
  static void unpair(const float* sums, Floats* in_order) {
    const Words low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const Words high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const Floats a = _mm512_loadu_ps(sums), b = _mm512_loadu_ps(sums + 16);
    in_order[0] = _mm512_permutex2var_ps(a, low, b);
    in_order[1] = _mm512_permutex2var_ps(a, high, b);
  }
};

struct F32 : Vectors {
  using Element = float;
  using Sum = Floats;
  static constexpr i64 together = 1, weight_positions = 1;
  static constexpr bool scaled = false, prepares_values = false;

  static void prepare(const float* q, i64 i, Tile& t) {
    const Floats scale = set1(score_scale(t.head_dim));
    float* to = reinterpret_cast<float*>(t.queries + i * t.steps);
    for (i64 d = 0; d < t.head_dim; d += 16)
      store(to + d, _mm512_mul_ps(load(q + d, t.head_dim - d), scale), t.head_dim - d);
  }
  static Sum first_score(const Tile&, i64) { return zero(); }
  static Sum add_scores(Sum a, Sum b) { return add(a, b); }
  static Sum dot(Sum sum, Words query, Words keys) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(query), _mm512_castsi512_ps(keys), sum);
  }
  static Floats score(Sum sum, const Tile&, i64, const float*) { return sum; }

  static void store_weights(const Floats* w, i64 vectors, const float*, i64 i, Tile& t) {
    for (i64 v = 0; v < vectors; ++v) _mm512_storeu_ps(t.weights[i] + v * lanes, w[v]);
  }
  static Sum zero() { return set1(0); }
  static void load_values(const std::byte* const* rows, i64 d, Part part, Words* v) {
    const float* row = reinterpret_cast<const float*>(rows[0]) + d;
    v[0] = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(part), row);
    v[1] = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(part >> 16), row + 16);
  }
  static Sum add_values(Sum sum, Words weight, Words values) { return dot(sum, weight, values); }
  static Floats value(Sum sum, const Tile&, i64) { return sum; }
  static void in_order(const float* out, Floats* v) { v[0] = _mm512_loadu_ps(out), v[1] = _mm512_loadu_ps(out + 16); }
};

// Queries and weights are rounded to bfloat16.
struct Bf16 : Vectors {
  using Element = bf16;
  using Sum = Floats;
  static constexpr i64 together = 2, weight_positions = 2;
  static constexpr bool scaled = false, prepares_values = true;

  static void prepare(const float* q, i64 i, Tile& t) {
    const Floats scale = set1(score_scale(t.head_dim));
    for (i64 d = 0; d < t.head_dim; d += 32) {
      const Floats low = _mm512_mul_ps(load(q + d, t.head_dim - d), scale);
      const Floats high = _mm512_mul_ps(load_some(q + d + 16, t.head_dim - d - 16), scale);
      store_words(t.queries + i * t.steps + d / 2, (Words)_mm512_cvtne2ps_pbh(high, low), t.steps - d / 2);
    }
  }
  static Sum first_score(const Tile&, i64) { return zero(); }
  static Sum add_scores(Sum a, Sum b) { return add(a, b); }
  static Sum dot(Sum sum, Words query, Words keys) { return _mm512_dpbf16_ps(sum, (__m512bh)keys, (__m512bh)query); }
  static Floats score(Sum sum, const Tile&, i64, const float*) { return sum; }

  static void store_weights(const Floats* w, i64 vectors, const float*, i64 i, Tile& t) {
    for (i64 v = 0; v < vectors; v += 2)
      _mm512_storeu_si512(t.weights[i] + v * lanes / 2, (Words)_mm512_cvtne2ps_pbh(w[v + 1], w[v]));
  }
  static Sum zero() { return set1(0); }
  static void load_values(const std::byte* const* rows, i64 d, Part part, Words* v) {
    pair(_mm512_maskz_loadu_epi16(part, rows[0] + 2 * d), _mm512_maskz_loadu_epi16(part, rows[1] + 2 * d), v);
  }
  static Sum add_values(Sum sum, Words weights, Words values) { return dot(sum, weights, values); }
  static Floats value(Sum sum, const Tile&, i64) { return sum; }
  static void in_order(const float* out, Floats* v) { unpair(out, v); }
};

// All sums are of integers: queries of 8 bits times keys of 8, weights of 16 bits times values of 8.
struct Int8 : Vectors {
  using Element = std::int8_t;
  using Sum = Words;
  static constexpr i64 together = 4, weight_positions = 2;
  static constexpr int score_vectors = 4, score_chains = 1;  // so few steps that a chain does no harm
  static constexpr bool scaled = true, prepares_values = true;

  static void prepare(const float* q, i64 i, Tile& t) {
    const i64 h = t.head_dim;
    Floats sizes = set1(0);
    for (i64 d = 0; d < h; d += 16) sizes = max(sizes, _mm512_abs_ps(load(q + d, h - d)));
    const float largest = max_of(sizes);
    const Floats inverse = set1(largest < 1e-36f ? 0 : 127 / largest);
    Words sum = _mm512_setzero_si512();
    std::uint32_t* to = t.queries + i * t.steps;
    for (i64 d = 0; d < h; d += 16, to += 4) {
      const Words integers = _mm512_cvtps_epi32(_mm512_mul_ps(load(q + d, h - d), inverse));
      sum = _mm512_add_epi32(sum, integers);
      _mm_mask_storeu_epi8(to, first_lanes16(least(round_up(h - d, together), 16)), _mm512_cvtepi32_epi8(integers));
    }
    t.query_scale[i] = largest / 127 * score_scale(h);
    t.bias[i] = -128 * _mm512_reduce_add_epi32(sum);
  }
  static Sum add_scores(Sum a, Sum b) { return _mm512_add_epi32(a, b); }
  static Sum first_score(const Tile& t, i64 i) { return _mm512_set1_epi32(t.bias[i]); }
  static Sum dot(Sum sum, Words query, Words keys) { return _mm512_dpbusd_epi32(sum, keys, query); }
  static Floats score(Sum sum, const Tile& t, i64 i, const float* key_scale) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(set1(t.query_scale[i]), _mm512_loadu_ps(key_scale)));
  }

  static void store_weights(const Floats* w, i64 vectors, const float* value_scale, i64 i, Tile& t) {
    const Floats inverse = set1(t.weight_inverse[i]);
    for (i64 v = 0; v < vectors; ++v) {
      const Floats factor = _mm512_mul_ps(inverse, _mm512_loadu_ps(value_scale + v * lanes));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.weights[i]) + v,
                          _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(w[v], factor))));
    }
  }
  static Sum zero() { return _mm512_setzero_si512(); }
  static void load_values(const std::byte* const* rows, i64 d, Part part, Words* v) {
    pair(_mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(part, rows[0] + d)),
         _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(part, rows[1] + d)), v);
  }
  static Sum add_values(Sum sum, Words weights, Words values) { return _mm512_dpwssd_epi32(sum, weights, values); }
  static Floats value(Sum sum, const Tile& t, i64 i) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), set1(t.weight_scale[i]));
  }
  static void in_order(const float* out, Floats* v) { unpair(out, v); }
};

void attend_all(const AttendCall& call) {
  if (call.head_dim > largest_head) return scalar::attention.attend(call);
  switch (call.type) {
    case DType::f32:
      return Attention<F32>::attend(call);
    case DType::bf16:
      return Attention<Bf16>::attend(call);
    case DType::int8:
      return Attention<Int8>::attend(call);
    case DType::int4:
      return;  // no cache
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

constinit const AttentionKernels avx512::attention{
    .largest_rounded_head = largest_head, .rounds_weights = true, .attend = attend_all, .rotate = rotate_all};

}  // namespace photon
