// Products with packed weights on AVX-512 with BF16 and VNNI.  See isa.h for what this file must not call.
//
// A tile is N rows times O panels with all its sums in registers.  Every output has one sum, which takes the inputs in
// order whatever the tile: the tiles' shape changes no bit.
#include "kernels/avx512_math.h"

namespace photon {
namespace {

using std::byte;

constexpr i64 line = 64;  // bytes

struct Tile {
  const byte* x = nullptr;  // N rows
  i64 x_stride = 0;
  const byte* w = nullptr;  // O panels
  i64 panel_bytes = 0;
  i64 steps = 0;  // that k takes
  // What is fetched early: `ahead` while the first `turn` steps read their weights, `ahead_after` from there on; each
  // O streams ahead_stride apart, line for line.  The hardware's prefetcher stops at every page.
  const byte *ahead = nullptr, *ahead_after = nullptr;
  i64 ahead_stride = 0, turn = 0;
  float* y = nullptr;
  i64 y_stride = 0;
  i64 columns = 0;  // from y to the end of its row
  Epilogue epilogue = Epilogue::set;
};

// Where a step stands.
struct Place {
  const byte *x, *w, *ahead, *scales;
};

__m512i broadcast(const byte* p) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(p)); }
__m512 broadcast_float(const byte* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }
__m512i load_line(const byte* p) { return _mm512_load_si512(p); }
void fetch(const byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

// ---- f32 and bf16: a step is four bytes of inputs and a line of weights ----

template <class Arithmetic, int inputs>
struct Floats {
  static constexpr int max_rows = 12;
  static constexpr i64 step_inputs = inputs, x_bytes = 4, w_bytes = line;  // of a step

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m512 (&sum)[N][O]) {
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
      for (int o = 0; o < O; ++o) sum[n][o] = Arithmetic::multiply_add(in, weights[o], sum[n][o]);
    }
  }
  static __m512 total(__m512 sum) { return sum; }
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
struct Integers {
  static constexpr int max_rows = 6;
  static constexpr i64 step_inputs = quant_group, x_bytes = sizeof(Int8Group), w_bytes = lines * line;

  template <int N, int O>
  [[gnu::always_inline]] static void step(const Tile& t, const Place& at, __m512 (&sum)[N][O]) {
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
      scales[o] = load(reinterpret_cast<const bf16*>(at.scales + o * t.panel_bytes), 16);
      fetch(at.scales + (O + o) * t.panel_bytes);
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const __m512 scale = broadcast_float(at.x + n * t.x_stride + scale_at);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o)
        sum[n][o] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[n][o]), _mm512_mul_ps(scale, scales[o]), sum[n][o]);
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
  static __m512 total(__m512 sum) { return sum; }
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

// ---- tiles ----

template <int N, int O>
void finish(const Tile& t, const __m512 (&sum)[N][O]) {
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    float* y = t.y + n * t.y_stride;
    if (t.epilogue == Epilogue::swiglu) {
      if constexpr (O % 2 == 0)
#pragma GCC unroll 8
        for (int o = 0; o < O; o += 2) store(y + 8 * o, swiglu(sum[n][o], sum[n][o + 1]), t.columns - 8 * o);
    } else {
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) {
        const i64 columns = t.columns - 16 * o;
        const bool add = t.epilogue == Epilogue::add;
        store(y + 16 * o, add ? _mm512_add_ps(load(y + 16 * o, columns), sum[n][o]) : sum[n][o], columns);
      }
    }
  }
}

template <class Type, int N, int O>
void multiply(const Tile& t) {
  __m512 sum[N][O];
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) sum[n][o] = _mm512_setzero_ps();
  Place at{t.x, t.w, t.ahead, t.w + t.steps * Type::w_bytes};
  const auto pass = [&](i64 steps) __attribute__((always_inline)) {
    for (const byte* end = at.w + steps * Type::w_bytes; at.w != end; at.w += Type::w_bytes) {
      Type::step(t, at, sum);
      at.x += Type::x_bytes, at.ahead += Type::w_bytes, at.scales += panel_outputs * 2;
    }
  };
  pass(t.turn);
  at.ahead = t.ahead_after;
  pass(t.steps - t.turn);
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) sum[n][o] = Type::total(sum[n][o]);
  finish(t, sum);
}

using Multiply = void (*)(const Tile&);

// multiply<Type, rows, panels>
template <class Type, int N = Type::max_rows>
Multiply tile_of(i64 rows, i64 panels) {
  if constexpr (N > 1)
    if (rows < N) return tile_of<Type, N - 1>(rows, panels);
  if constexpr (N * 4 <= 2 * Type::max_rows)
    if (panels == 4) return multiply<Type, N, 4>;
  return panels == 2 ? multiply<Type, N, 2> : multiply<Type, N, 1>;
}

constexpr i64 bytes_ahead = 8192;
constexpr i64 block_bytes = 384 << 10;  // of inputs, which stay in the second-level cache while the panels pass

template <class Type>
void matmul_block(const MatmulCall& call, i64 first_row, i64 rows) {
  const i64 n_tiles = (rows + Type::max_rows - 1) / Type::max_rows;
  const i64 rows_of_tile = (rows + n_tiles - 1) / n_tiles;
  const i64 most_panels = rows_of_tile * 4 <= 2 * Type::max_rows ? 4 : 2;
  const i64 outputs_of_panel = call.epilogue == Epilogue::swiglu ? panel_outputs / 2 : panel_outputs;
  const byte* const x = call.x.data + first_row * call.x.stride;
  float* const y = call.y.data + first_row * call.y.stride;
  Tile tile;
  tile.x_stride = call.x.stride;
  tile.panel_bytes = call.panel_bytes;
  tile.steps = (call.x.k + Type::step_inputs - 1) / Type::step_inputs;
  tile.y_stride = call.y.stride;
  tile.epilogue = call.epilogue;
  for (i64 panel = 0, panels; panel < call.n_panels; panel += panels) {
    panels = most_panels;
    while (panels > call.n_panels - panel) panels /= 2;
    const i64 column = panel * outputs_of_panel;
    tile.w = call.panels + panel * call.panel_bytes;
    tile.columns = call.y.cols - column;
    const byte* const next = tile.w + panels * call.panel_bytes;
    for (i64 i = 0, row = 0; i < n_tiles; ++i) {
      const i64 n = rows * (i + 1) / n_tiles - row;
      if (n_tiles == 1) {  // a little ahead
        const i64 steps_ahead = bytes_ahead / Type::w_bytes < tile.steps ? bytes_ahead / Type::w_bytes : tile.steps;
        tile.turn = tile.steps - steps_ahead;
        tile.ahead = tile.w + steps_ahead * Type::w_bytes;
        tile.ahead_after = next;
        tile.ahead_stride = call.panel_bytes;
      } else {  // one panel of the next ones in each of the first passes over these
        tile.turn = tile.steps;
        tile.ahead = i < panels ? next + i * call.panel_bytes : tile.w;
        tile.ahead_stride = 0;
      }
      tile.x = x + row * call.x.stride;
      tile.y = y + row * call.y.stride + column;
      tile_of<Type>(n, panels)(tile);
      row += n;
    }
  }
}

template <class Type>
void matmul_type(const MatmulCall& call) {
  const i64 fitting = block_bytes / call.x.stride / Type::max_rows * Type::max_rows;
  const i64 most = fitting > 4 * Type::max_rows ? fitting : 4 * Type::max_rows;
  const i64 n_blocks = (call.x.rows + most - 1) / most;
  for (i64 i = 0, row = 0; i < n_blocks; ++i) {
    const i64 end = call.x.rows * (i + 1) / n_blocks;
    matmul_block<Type>(call, row, end - row);
    row = end;
  }
}

void matmul(const MatmulCall& call) {
  switch (call.type) {
    case WeightType::f32:
      return matmul_type<F32>(call);
    case WeightType::bf16:
      return matmul_type<Bf16>(call);
    case WeightType::int8:
      return matmul_type<Int8>(call);
    case WeightType::int4:
      return matmul_type<Int4>(call);
  }
}

// ---- inputs ----

void to_int8(const float* x, Int8Group* groups, i64 k) {
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

}  // namespace

constinit const MatmulIsa avx512_matmul{.bf16_inputs = InputForm::bf16, .matmul = matmul, .to_int8 = to_int8};

}  // namespace photon
