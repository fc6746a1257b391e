// Products with packed weights on AVX-512 with BF16 and VNNI.  See isa.h for what this file must not call.
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/sums.h"
#include "kernels/matmul_tiles.h"

namespace photon {
namespace {

using std::byte;

__m512i broadcast(const byte* p) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(p)); }
__m512 broadcast_float(const byte* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }
__m512i load_line(const byte* p) { return _mm512_load_si512(p); }

// ---- f32 and bf16: a step is four bytes of inputs and a line of weights ----

template <class Arithmetic, int inputs>
struct Floats : Lanes, InRegisters<Arithmetic> {
  static constexpr int max_rows = 12, four_panel_rows = 6;
  static constexpr i64 step_inputs = inputs, x_bytes = 4, w_bytes = line;  // of a step

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m512 (&sum)[N][O][1]) {
    __m512i weights[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      weights[o] = load_line(at.w + o * t.panel_bytes);
      fetch(at.ahead + o * t.ahead_stride);
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const __m512i in = broadcast(at.x + n * t.x_stride);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) sum[n][o][0] = Arithmetic::multiply_add(in, weights[o], sum[n][o][0]);
    }
  }
};

struct F32 : Floats<F32, 1> {
  static __m512 multiply_add(__m512i x, __m512i w, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum);
  }
};
struct Bf16 : Floats<Bf16, 2> {
  static __m512 multiply_add(__m512i x, __m512i w, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  }
};

// ---- int8 and int4: a step is a group of 32 inputs ----

template <class Arithmetic, int lines>
struct Integers : Lanes, InRegisters<Arithmetic> {
  static constexpr int max_rows = 6, four_panel_rows = 3;
  static constexpr i64 step_inputs = quant_group, x_bytes = sizeof(Int8Group), w_bytes = lines * line;

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m512 (&sum)[N][O][1]) {
    constexpr i64 scale_at = quant_group, start_at = quant_group + 4;  // in an Int8Group
    __m512i dots[N][O];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) dots[n][o] = broadcast(at.x + n * t.x_stride + start_at);
#pragma GCC unroll 8
    for (int i = 0; i < lines; ++i) {
      __m512i weights[O];
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) {
        weights[o] = load_line(at.w + o * t.panel_bytes + i * line);
        fetch(at.ahead + o * t.ahead_stride + i * line);
      }
      Arithmetic::add_line(at.x + 4 * i, t.x_stride, weights, dots);
    }
    __m512 scales[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      scales[o] = photon::load(reinterpret_cast<const bf16*>(at.scales + o * t.panel_bytes), 16);
      fetch(at.scales + (O + o) * t.panel_bytes);
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const __m512 scale = broadcast_float(at.x + n * t.x_stride + scale_at);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o)
        sum[n][o][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[n][o]), _mm512_mul_ps(scale, scales[o]), sum[n][o][0]);
    }
  }
};

struct Int8 : Integers<Int8, 8> {
  template <int N, int O>
  [[gnu::always_inline]] static void add_line(const byte* x, i64 x_stride, const __m512i (&w)[O],
                                              __m512i (&dots)[N][O]) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const __m512i in = broadcast(x + n * x_stride);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) dots[n][o] = _mm512_dpbusd_epi32(dots[n][o], w[o], in);
    }
  }
};

// Each half of a byte is used as the byte's upper half: 16 q + 128, and 16 divides the total.
struct Int4 : Integers<Int4, 4> {
  template <int N, int O>
  [[gnu::always_inline]] static void add_line(const byte* x, i64 x_stride, const __m512i (&w)[O],
                                              __m512i (&dots)[N][O]) {
    const __m512i upper_half = _mm512_set1_epi8(static_cast<char>(0xf0));
    __m512i low[O], high[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      low[o] = _mm512_and_si512(_mm512_slli_epi32(w[o], 4), upper_half);
      high[o] = _mm512_and_si512(w[o], upper_half);
    }
    Int8::add_line(x, x_stride, low, dots);
    Int8::add_line(x + 16, x_stride, high, dots);
  }
  static __m512 total(__m512 sum) { return _mm512_mul_ps(sum, _mm512_set1_ps(1.0f / 16)); }
};

}  // namespace

void avx512::multiply(const MatmulCall& call) { matmul_any<F32, Bf16, Int8, Int4>(call); }

void avx512::to_int8(const float* x, Int8Group* groups, i64 k) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (i64 i = 0; i < k; i += quant_group, ++groups) {
    const __m512 low = load(x + i, k - i), high = k - i > 16 ? load(x + i + 16, k - i - 16) : _mm512_setzero_ps();
    // Compared as integers: NaN is the largest of all.
    const __m512i larger = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                            _mm512_and_si512(_mm512_castps_si512(high), magnitude));
    const float largest = __builtin_bit_cast(float, _mm512_reduce_max_epi32(larger));
    const bool vanishes = largest < 1e-36f;
    const float scale = vanishes ? 0 : largest / 127;
    const __m512 inverse = _mm512_set1_ps(vanishes ? 0 : 1 / scale);
    const __m512i q_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)),
                  q_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    auto* q = reinterpret_cast<__m128i*>(groups->q);
    _mm_storeu_si128(q, _mm512_cvtsepi32_epi8(q_low));
    _mm_storeu_si128(q + 1, _mm512_cvtsepi32_epi8(q_high));
    groups->scale = scale;
    const int total = _mm512_reduce_add_epi32(_mm512_add_epi32(q_low, q_high));
    groups->start = static_cast<int>(static_cast<unsigned>(total) * -128u);  // of NaN any number: it must not overflow
  }
}

constinit const MatmulKernels avx512::matmul{
    .bf16_inputs = InputForm::bf16, .matmul = avx512::multiply, .to_int8 = avx512::to_int8};

}  // namespace photon
