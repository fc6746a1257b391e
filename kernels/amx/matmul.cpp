// Products with bf16 weights on AMX's tiles; the other types as AVX-512 has them.  See isa.h for what this file must
// not call.
//
// A panel's lines are pairs of inputs of 16 outputs, as the tiles want them: a tile of weights is 16 lines as they
// stand, a tile of activations the same 16 pairs of up to 16 rows.  One row takes the same instructions as many, so
// that its bits do not depend on its batch.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/avx512.h"
#include "kernels/avx512/sums.h"
#include "kernels/matmul_tiles.h"

namespace photon {
namespace {

using std::byte;

// The first n pairs of each row, and zeros behind them.
void copy_pairs(const byte* rows, i64 stride, i64 n_rows, i64 n, byte* tile) {
  for (i64 r = 0; r < n_rows; ++r)
    _mm512_store_si512(tile + r * tile_line, _mm512_maskz_loadu_epi32(first_lanes16(n), rows + r * stride));
}
void copy_lines(const byte* lines, i64 n, byte* tile) {
  for (i64 i = 0; i < tile_rows; ++i)
    _mm512_store_si512(tile + i * tile_line, i < n ? _mm512_load_si512(lines + i * tile_line) : _mm512_setzero_si512());
}

struct Bf16 : Lanes {
  static constexpr int max_rows = 2 * tile_rows, four_panel_rows = tile_rows, rows_together = tile_rows;
  static constexpr i64 step_inputs = 32, x_bytes = tile_line, w_bytes = tile_bytes, block_bytes = 1 << 20;

  static void run(const Tile& t, i64 rows, i64 panels) {
    if (rows > tile_rows)
      panels == 2 ? multiply<2, 2>(t, rows) : multiply<2, 1>(t, rows);
    else
      panels == 4 ? multiply<1, 4>(t, rows) : panels == 2 ? multiply<1, 2>(t, rows) : multiply<1, 1>(t, rows);
  }

 private:
  // Which tile is what: sums of R tiles of rows and P panels, then activations, then weights.
  template <int R, int P>
  struct Tiles {
    static constexpr int x = R * P, w = x + R, n_w = 8 - w;
    static_assert(n_w >= 1);
  };

  template <int R, int P, int p>
  [[gnu::always_inline]] static void add_panel(const byte* w, const byte* ahead) {
    using T = Tiles<R, P>;
    constexpr int tile = T::w + p % T::n_w;
    R == 1 ? load_tile_once<tile>(w, tile_line) : load_tile<tile>(w, tile_line);
    // One panel's lines beside its loads: all panels' at once would wait for each other.
#pragma GCC unroll 16
    for (int j = 0; j < tile_rows; ++j) fetch(ahead + j * tile_line);
    dot_bf16<p, T::x, tile>();
    if constexpr (R == 2) dot_bf16<P + p, T::x + 1, tile>();
  }
  // x, w and ahead: where the tiles of the first row and panel begin, and what is fetched meanwhile.
  template <int R, int P>
  [[gnu::always_inline]] static void step(const byte* x, i64 x_stride, const byte* w, i64 panel_bytes,
                                          const byte* ahead, i64 ahead_stride) {
    using T = Tiles<R, P>;
    load_tile<T::x>(x, x_stride);
    if constexpr (R == 2) load_tile<T::x + 1>(x + tile_rows * x_stride, x_stride);
    add_panel<R, P, 0>(w, ahead);
    if constexpr (P > 1) add_panel<R, P, 1>(w + panel_bytes, ahead + 1 * ahead_stride);
    if constexpr (P > 2) add_panel<R, P, 2>(w + 2 * panel_bytes, ahead + 2 * ahead_stride);
    if constexpr (P > 3) add_panel<R, P, 3>(w + 3 * panel_bytes, ahead + 3 * ahead_stride);
  }

  template <int R, int P>
  static void multiply(const Tile& t, i64 rows) {
    using T = Tiles<R, P>;
    TileShapes shapes;
    for (int r = 0; r < R; ++r) {
      const i64 height = r == R - 1 ? rows - r * tile_rows : tile_rows;
      for (int p = 0; p < P; ++p) shapes.set(r * P + p, height);
      shapes.set(T::x + r, height);
    }
    for (int i = T::w; i < 8; ++i) shapes.set(i, tile_rows);
    configure_tiles(shapes);

    const byte *x = t.x, *w = t.w, *ahead = t.ahead;
    const i64 lines = t.panel_bytes / tile_line, whole = lines / tile_rows, tail = lines % tile_rows;
    for (i64 i = 0; i < whole; ++i, x += x_bytes, w += w_bytes, ahead += w_bytes) {
      if (i == t.turn) ahead = t.ahead_after;
      step<R, P>(x, t.x_stride, w, t.panel_bytes, ahead, t.ahead_stride);
    }
    if (tail > 0) {
      alignas(64) byte x_tail[R * tile_bytes], w_tail[P * tile_bytes];
      copy_pairs(x, t.x_stride, rows, tail, x_tail);
      for (int p = 0; p < P; ++p) copy_lines(w + p * t.panel_bytes, tail, w_tail + p * tile_bytes);
      step<R, P>(x_tail, tile_line, w_tail, tile_bytes, w_tail, 0);
    }
    finish_rows<R, P>(t, rows);
  }

  template <int R, int P, int i = 0>
  static void store_sums(float (*sums)[tile_rows][panel_outputs]) {
    store_tile<i>(sums[i], tile_line);
    if constexpr (i + 1 < R * P) store_sums<R, P, i + 1>(sums);
  }
  template <int R, int P>
  static void finish_rows(const Tile& t, i64 rows) {
    alignas(64) float sums[R * P][tile_rows][panel_outputs];
    store_sums<R, P>(sums);
    Tile row = t;
    for (i64 i = 0; i < rows; ++i, row.y += t.y_stride) {
      Sums<Bf16, 1, P> sum;
      for (int p = 0; p < P; ++p) sum[0][p][0] = _mm512_load_ps(sums[i / tile_rows * P + p][i % tile_rows]);
      finish<Bf16, 0, 1, P>(row, sum);
    }
  }
};

void multiply(const MatmulCall& call) {
  if (call.type != DType::bf16) return avx512::multiply(call);
  matmul_type<Bf16>(call);
  release_tiles();
}

}  // namespace

constinit const MatmulKernels amx::matmul{
    .bf16_inputs = InputForm::bf16, .matmul = multiply, .to_int8 = avx512::to_int8};

}  // namespace photon
