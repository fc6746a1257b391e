// Attention with AVX2: what attention_blocks.h asks for.  See isa.h for what this file must not call.
#include "kernels/attention_blocks.h"
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/math.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

struct Vectors {
  using Floats = __m256;
  using Words = __m256i;
  static constexpr i64 lanes = 8;
  // 8 registers of sums, the others for their factors.
  static constexpr int score_queries = 2, score_vectors = 4, score_chains = 1, value_queries = 2;

  static Floats load(const float* p, i64 n) { return photon::load(p, n); }
  static Floats load(const bf16* p, i64 n) { return photon::load(p, n); }
  static Floats load_some(const float* p, i64 n) { return n > 0 ? load(p, n) : set1(0); }
  static Floats load_or_lowest(const float* p, i64 n) {
    if (n >= lanes) return _mm256_loadu_ps(p);
    return _mm256_blendv_ps(set1(-__builtin_inff()), load(p, n), _mm256_castsi256_ps(first_lanes(n)));
  }
  static void store(float* p, Floats v, i64 n) { photon::store(p, v, n); }
  static Words load_words(const std::byte* p, i64 n) {
    if (n >= lanes) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_lanes(n));
  }
  static void store_words(std::uint32_t* p, Words v, i64 n) {
    _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first_lanes(n), v);
  }
  static Words splat(std::uint32_t word) { return _mm256_set1_epi32(static_cast<int>(word)); }
  static Floats set1(float x) { return _mm256_set1_ps(x); }
  static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats fmadd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static float max_of(Floats v) { return photon::max_of(v); }
  static float sum_of(Floats v) { return photon::sum_of(v); }

  using Part = i64;
  static Part part(i64 d, i64 h) { return h - d; }

  // 2^x for x <= 0: within 1e-7 of itself, 1 for 0, 0 below -126.5.
  static Floats exp2(Floats x) {
    x = _mm256_max_ps(x, set1(-127.0f));
    const Floats n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Floats r = _mm256_sub_ps(x, n);  // |r| <= 1/2
    Floats p = set1(0.00015345812f);       // the polynomial of least relative error
    p = _mm256_fmadd_ps(p, r, set1(0.0013399931f));
    p = _mm256_fmadd_ps(p, r, set1(0.009618489f));
    p = _mm256_fmadd_ps(p, r, set1(0.055503288f));
    p = _mm256_fmadd_ps(p, r, set1(0.24022647f));
    p = _mm256_fmadd_ps(p, r, set1(0.69314721f));
    p = _mm256_fmadd_ps(p, r, set1(1.0f));
    const Words exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));  // 0 makes 0
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }

  // The first min(n, 16) bytes, the others 0; n >= 1.  Nothing beyond them is read.
  static __m128i load_bytes(const std::byte* p, i64 n) {
    if (n >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const auto read = [&](auto word, i64 at) {
      __builtin_memcpy(&word, p + at, sizeof word);
      return static_cast<std::uint64_t>(word);
    };
    std::uint64_t low = 0, high = 0;
    if (n > 8)  // the second of two overlapping words sheds what the first has
      low = read(std::uint64_t{}, 0), high = read(std::uint64_t{}, n - 8) >> (8 * (16 - n));
    else if (n >= 4)
      low = read(std::uint32_t{}, 0) | read(std::uint32_t{}, n - 4) << (8 * (n - 4));
    else
      for (i64 i = 0; i < n; ++i) low |= read(std::uint8_t{}, i) << (8 * i);
    return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
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
    for (i64 d = 0; d < t.head_dim; d += lanes)
      store(to + d, _mm256_mul_ps(load(q + d, t.head_dim - d), scale), t.head_dim - d);
  }
  static Sum first_score(const Tile&, i64) { return set1(0); }
  static Sum dot(Sum sum, Words query, Words keys) {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(query), _mm256_castsi256_ps(keys), sum);
  }
  static Floats score(Sum sum, const Tile&, i64, const float*) { return sum; }

  static void store_weights(const Floats* w, i64 vectors, const float*, i64 i, Tile& t) {
    for (i64 v = 0; v < vectors; ++v)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.weights[i]) + v, _mm256_castps_si256(w[v]));
  }
  static Sum zero() { return set1(0); }
  static void load_values(const std::byte* const* rows, i64 d, Part left, Words* v) {
    const float* row = reinterpret_cast<const float*>(rows[0]) + d;
    v[0] = _mm256_castps_si256(load(row, left));
    v[1] = _mm256_castps_si256(load_some(row + lanes, left - lanes));
  }
  static Sum add_values(Sum sum, Words weight, Words values) {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(weight), _mm256_castsi256_ps(values), sum);
  }
  static Floats value(Sum sum, const Tile&, i64) { return sum; }
  static void in_order(const float* out, Floats* v) { v[0] = _mm256_loadu_ps(out), v[1] = _mm256_loadu_ps(out + 8); }
};

// Queries are rounded to bfloat16, weights are not: without instructions for pairs, values are widened anyway.
struct Bf16 : F32 {
  using Element = bf16;
  static constexpr i64 together = 2;
  static constexpr bool prepares_values = true;

  static void prepare(const float* q, i64 i, Tile& t) {
    const Floats scale = set1(score_scale(t.head_dim));
    for (i64 d = 0; d < t.head_dim; d += lanes) {
      const Words x = _mm256_castps_si256(_mm256_mul_ps(load(q + d, t.head_dim - d), scale));
      const Words odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));  // ties go to even
      const Words rounded =
          _mm256_srli_epi32(_mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
      const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
      // What this writes beyond the query belongs to the next one, or to nobody.
      _mm_storeu_si128(reinterpret_cast<__m128i*>(t.queries + i * t.steps + d / 2), packed);
    }
  }
  static Sum dot(Sum sum, Words query, Words keys) {
    const Words upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    sum = F32::dot(sum, _mm256_slli_epi32(query, 16), _mm256_slli_epi32(keys, 16));
    return F32::dot(sum, _mm256_and_si256(query, upper), _mm256_and_si256(keys, upper));
  }
  static void load_values(const std::byte* const* rows, i64 d, Part left, Words* v) {
    const std::byte* row = rows[0] + 2 * d;
    v[0] = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load_bytes(row, 2 * left)), 16);
    v[1] = left <= lanes ? _mm256_setzero_si256()
                         : _mm256_slli_epi32(_mm256_cvtepu16_epi32(load_bytes(row + 16, 2 * (left - lanes))), 16);
  }
};

// All sums are of integers: queries of 8 bits times keys of 8, weights of 16 bits times values of 8.
struct Int8 : Vectors {
  using Element = std::int8_t;
  using Sum = Words;
  static constexpr i64 together = 4, weight_positions = 2;
  static constexpr bool scaled = true, prepares_values = true;

  static void prepare(const float* q, i64 i, Tile& t) {
    const i64 h = t.head_dim;
    Floats sizes = set1(0);
    for (i64 d = 0; d < h; d += lanes) sizes = max(sizes, _mm256_andnot_ps(set1(-0.0f), load(q + d, h - d)));
    const float largest = max_of(sizes);
    const Floats inverse = set1(largest < 1e-36f ? 0 : 127 / largest);
    Words sum = _mm256_setzero_si256();
    std::uint32_t* to = t.queries + i * t.steps;
    for (i64 d = 0; d < h; d += lanes, to += 2) {
      const Words integers = _mm256_cvtps_epi32(_mm256_mul_ps(load(q + d, h - d), inverse));
      sum = _mm256_add_epi32(sum, integers);
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
      // What this writes beyond the query belongs to the next one, or to nobody.
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
    }
    __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
    t.bias[i] = -128 * _mm_cvtsi128_si32(total);
    t.query_scale[i] = largest / 127 * score_scale(h);
  }
  static Sum first_score(const Tile& t, i64 i) { return _mm256_set1_epi32(t.bias[i]); }
  static Sum dot(Sum sum, Words query, Words keys) {  // the even bytes, then the odd ones, as 16 bits
    const Words even = _mm256_madd_epi16(_mm256_and_si256(keys, _mm256_set1_epi16(0xff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(query, 8), 8));
    const Words odd = _mm256_madd_epi16(_mm256_srli_epi16(keys, 8), _mm256_srai_epi16(query, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
  }
  static Floats score(Sum sum, const Tile& t, i64 i, const float* key_scale) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(set1(t.query_scale[i]), _mm256_loadu_ps(key_scale)));
  }

  static void store_weights(const Floats* w, i64 vectors, const float* value_scale, i64 i, Tile& t) {
    const Floats inverse = set1(t.weight_inverse[i]);
    for (i64 v = 0; v < vectors; ++v) {
      const Floats factor = _mm256_mul_ps(inverse, _mm256_loadu_ps(value_scale + v * lanes));
      const Words integers = _mm256_cvtps_epi32(_mm256_mul_ps(w[v], factor));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(t.weights[i]) + v,
                       _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1)));
    }
  }
  static Sum zero() { return _mm256_setzero_si256(); }
  // Pairs of dimensions 0-3 8-11, and of the others.
  static void load_values(const std::byte* const* rows, i64 d, Part left, Words* v) {
    const Words first = _mm256_cvtepi8_epi16(load_bytes(rows[0] + d, left)),
                second = _mm256_cvtepi8_epi16(load_bytes(rows[1] + d, left));
    v[0] = _mm256_unpacklo_epi16(first, second);
    v[1] = _mm256_unpackhi_epi16(first, second);
  }
  static Sum add_values(Sum sum, Words weights, Words values) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, values));
  }
  static Floats value(Sum sum, const Tile& t, i64 i) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), set1(t.weight_scale[i]));
  }
  static void in_order(const float* out, Floats* v) {
    const Floats a = _mm256_loadu_ps(out), b = _mm256_loadu_ps(out + lanes);
    v[0] = _mm256_permute2f128_ps(a, b, 0x20);
    v[1] = _mm256_permute2f128_ps(a, b, 0x31);
  }
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
    for (i64 i = 0; i < half; i += 8) {
      const i64 n = least(half - i, 8);
      const __m256 cosines = load(angles + i, n), sines = load(angles + half + i, n);
      for (float* head = x.data + r * x.stride; head != end; head += head_dim) {
        float *a = head + i, *b = a + (head_dim - half);
        const __m256 first = load(a, n), second = load(b, n);
        store(a, _mm256_fmsub_ps(first, cosines, _mm256_mul_ps(second, sines)), n);
        store(b, _mm256_fmadd_ps(second, cosines, _mm256_mul_ps(first, sines)), n);
      }
    }
  }
}

}  // namespace

constinit const AttentionKernels avx2::attention{
    .largest_rounded_head = largest_head, .rounds_weights = false, .attend = attend_all, .rotate = rotate_all};

}  // namespace photon
