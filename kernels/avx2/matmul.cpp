// Products with packed weights on AVX2 with FMA.  See isa.h for what this file must not call.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/math.h"
#include "kernels/matmul_tiles.h"

namespace photon {
namespace {

using std::byte;

__m256 broadcast_float(const byte* p) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(p)); }
__m256i broadcast(const byte* p) { return _mm256_set1_epi32(*reinterpret_cast<const int*>(p)); }
__m256i load_half(const byte* line_half) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(line_half)); }

struct Lanes {
  using Vector = __m256;
  static constexpr int lanes = 8;
  static Vector load(const float* y, i64 n) { return photon::load(y, n); }
  static void store(float* y, Vector sum, i64 n) { photon::store(y, sum, n); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector swiglu(Vector gate, Vector up) { return photon::swiglu(gate, up); }
  static Vector total(Vector sum) { return sum; }
};

// ---- f32 and bf16, both against float32 inputs ----

// One vector of weights of each of O panels times one input of each of N rows.  Three rows and two panels
// fill the registers: 12 sums, two vectors of weights, an input.  The mask that bf16 needs makes it two rows.
template <int half, int N, int O>
[[gnu::always_inline]] inline void multiply_add(const byte* x, i64 x_stride, const __m256 (&w)[O],
                                                __m256 (&sum)[N][O][2]) {
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    const __m256 in = broadcast_float(x + n * x_stride);
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) sum[n][o][half] = _mm256_fmadd_ps(in, w[o], sum[n][o][half]);
  }
}

// Halves are template arguments: the compiler keeps sums in registers only if it knows all indices early.
template <class Arithmetic, int inputs, int rows>
struct Floats : Lanes, InRegisters<Arithmetic> {
  static constexpr int max_rows = rows, four_panel_rows = 1;
  static constexpr i64 step_inputs = inputs, x_bytes = 4 * inputs, w_bytes = line;

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m256 (&sum)[N][O][2]) {
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) fetch(at.ahead + o * t.ahead_stride);
    Arithmetic::template step_half<0>(t, at, sum);
    Arithmetic::template step_half<1>(t, at, sum);
  }
};

struct F32 : Floats<F32, 1, 3> {
  template <int half, int N, int O>
  [[gnu::always_inline]] static void step_half(const Tile& t, const Place& at, __m256 (&sum)[N][O][2]) {
    __m256 weights[O];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) weights[o] = _mm256_castsi256_ps(load_half(at.w + o * t.panel_bytes + 32 * half));
    multiply_add<half>(at.x, t.x_stride, weights, sum);
  }
};

struct Bf16 : Floats<Bf16, 2, 2> {
  template <int half, int N, int O>
  [[gnu::always_inline]] static void step_half(const Tile& t, const Place& at, __m256 (&sum)[N][O][2]) {
    const __m256i upper_half = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    __m256 first[O], second[O];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
      first[o] = _mm256_castsi256_ps(_mm256_slli_epi32(load_half(at.w + o * t.panel_bytes + 32 * half), 16));
    multiply_add<half>(at.x, t.x_stride, first, sum);
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o)
      second[o] = _mm256_castsi256_ps(_mm256_and_si256(load_half(at.w + o * t.panel_bytes + 32 * half), upper_half));
    multiply_add<half>(at.x + 4, t.x_stride, second, sum);
  }
};

// ---- int8 and int4: a step is a group of 32 inputs ----

template <class Arithmetic, int lines>
struct Integers : Lanes, InRegisters<Arithmetic> {
  static constexpr int max_rows = 2, four_panel_rows = 1;
  static constexpr i64 step_inputs = quant_group, x_bytes = sizeof(Int8Group), w_bytes = lines * line;

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m256 (&sum)[N][O][2]) {
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
      for (int i = 0; i < lines; ++i) fetch(at.ahead + o * t.ahead_stride + i * line);
      fetch(at.scales + (O + o) * t.panel_bytes);
      const Place panel{at.x, at.w + o * t.panel_bytes, at.ahead, at.scales + o * t.panel_bytes};
      step_half<0>(t, panel, sum, o);
      step_half<1>(t, panel, sum, o);
    }
  }

  template <int half, int N, int O>
  [[gnu::always_inline]] static void step_half(const Tile& t, const Place& at, __m256 (&sum)[N][O][2], int o) {
    constexpr i64 scale_at = quant_group, start_at = quant_group + 4;  // in an Int8Group
    __m256i dots[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) dots[n] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < lines; ++i)
      Arithmetic::add_line(at.x + 4 * i, t.x_stride, load_half(at.w + i * line + 32 * half), dots);
    const __m256 scales = photon::load(reinterpret_cast<const bf16*>(at.scales) + 8 * half, 8);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const byte* x = at.x + n * t.x_stride;
      const __m256 dot = _mm256_cvtepi32_ps(Arithmetic::total_dot(dots[n], broadcast(x + start_at)));
      __m256& s = sum[n][o][half];
      s = _mm256_fmadd_ps(dot, _mm256_mul_ps(broadcast_float(x + scale_at), scales), s);
    }
  }
};

struct Int8 : Integers<Int8, 8> {
  // The signs go to the inputs: with magnitudes up to 127 two products fit 16 bits, which q + 128 would exceed.
  template <int N>
  [[gnu::always_inline]] static void add_line(const byte* x, i64 x_stride, __m256i w, __m256i (&dots)[N]) {
    const __m256i q = _mm256_xor_si256(w, _mm256_set1_epi8(-128)), magnitude = _mm256_abs_epi8(q);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast(x + n * x_stride), q));
      dots[n] = _mm256_add_epi32(dots[n], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
  static __m256i total_dot(__m256i dots, __m256i /*start*/) { return dots; }
};

struct Int4 : Integers<Int4, 4> {
  // q + 8 is at most 15: 16 bits hold the sums of a whole group, eight times two products.
  template <int N>
  [[gnu::always_inline]] static void add_line(const byte* x, i64 x_stride, __m256i w, __m256i (&dots)[N]) {
    const __m256i lower_half = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(w, lower_half);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(w, 4), lower_half);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const byte* in = x + n * x_stride;
      dots[n] = _mm256_add_epi16(dots[n], _mm256_maddubs_epi16(low, broadcast(in)));
      dots[n] = _mm256_add_epi16(dots[n], _mm256_maddubs_epi16(high, broadcast(in + 16)));
    }
  }
  // start is -128 Σ x; -8 Σ x is wanted.
  static __m256i total_dot(__m256i dots, __m256i start) {
    return _mm256_add_epi32(_mm256_madd_epi16(dots, _mm256_set1_epi16(1)), _mm256_srai_epi32(start, 4));
  }
};

// ---- inputs ----

void to_int8(const float* x, Int8Group* groups, i64 k) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (i64 first = 0; first < k; first += quant_group, ++groups) {
    __m256 in[4];
    __m256i larger = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const i64 left = k - first - 8 * i;
      in[i] = left > 0 ? load(x + first + 8 * i, left) : _mm256_setzero_ps();
      // Compared as integers: NaN is the largest of all.
      larger = _mm256_max_epi32(larger, _mm256_and_si256(_mm256_castps_si256(in[i]), magnitude));
    }
    __m128i most = _mm_max_epi32(_mm256_castsi256_si128(larger), _mm256_extracti128_si256(larger, 1));
    most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4e));
    most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1));
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(most));
    const bool vanishes = largest < 1e-36f;
    const float scale = vanishes ? 0 : largest / 127;
    const __m256 inverse = _mm256_set1_ps(vanishes ? 0 : 1 / scale);
    __m256i q[4], total = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(in[i], inverse));
      total = _mm256_add_epi32(total, q[i]);
    }
    // Packing works within 128-bit halves: the fours of bytes come out in the order 0 2 4 6 1 3 5 7.
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(groups->q), _mm256_permutevar8x32_epi32(packed, order));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    groups->scale = scale;
    groups->start = _mm_cvtsi128_si32(_mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum, 7)));
  }
}

}  // namespace

constinit const MatmulKernels avx2::matmul{
    .bf16_inputs = InputForm::f32, .matmul = matmul_any<F32, Bf16, Int8, Int4>, .to_int8 = to_int8};

}  // namespace photon
