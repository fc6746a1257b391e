// How a product with packed weights goes through its panels and rows, tile by tile.  For the instruction sets' files
// alone: every function is internal to the file that includes it (see isa.h).
//
// A tile is N rows times O panels with all its sums in registers.  Every output has one sum, which takes the inputs in
// order whatever the tile: the tiles' shape changes no bit.
#pragma once

#include "kernels/isa.h"

namespace photon {
namespace {

constexpr std::int64_t line = 64;  // bytes

struct Tile {
  const std::byte* x = nullptr;  // N rows
  std::int64_t x_stride = 0;
  const std::byte* w = nullptr;  // O panels
  std::int64_t panel_bytes = 0;
  std::int64_t steps = 0;  // that k takes
  // What is fetched early: `ahead` while the first `turn` steps read their weights, `ahead_after` from there on; each
  // O streams ahead_stride apart, line for line.  The hardware's prefetcher stops at every page.
  const std::byte *ahead = nullptr, *ahead_after = nullptr;
  std::int64_t ahead_stride = 0, turn = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t columns = 0;  // from y to the end of its row
  Epilogue epilogue = Epilogue::set;
};

// Where a step stands.
struct Place {
  const std::byte *x, *w, *ahead, *scales;
};

// Into the second-level cache: so far ahead, the first would lose it again.
inline void fetch(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

// A Type says what a product does with its weights:
//   Vector           of `lanes` sums, with load() and store() of the first n, add(), swiglu(), total()
//   max_rows         N of the largest tile, which has two panels
//   rows_together    tiles of fewer rows come last: what N is a multiple of
//   four_panel_rows  rows up to which a tile has four
//   step_inputs      inputs of a step
//   x_bytes w_bytes  bytes of a row and of a panel's values that a step passes
//   block_bytes      of inputs that stay in the second-level cache as panels pass
//   run(t, n, panels) computes a whole tile: InRegisters does, of Types that have
//   step(t, at, sum) adds a step's products to the tile's sums
template <class Type, int N, int O>
using Sums = typename Type::Vector[N][O][panel_outputs / Type::lanes];

// The v-th vector of every panel.  A template argument, because the compiler keeps sums in registers only if it knows
// all indices early.
template <class Type, int v, int N, int O>
[[gnu::always_inline]] inline void finish(const Tile& t, const Sums<Type, N, O>& sum) {
  const std::int64_t columns = t.columns - v * Type::lanes;
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    float* y = t.y + n * t.y_stride + v * Type::lanes;
    if (t.epilogue == Epilogue::swiglu) {
      if constexpr (O % 2 == 0)
#pragma GCC unroll 4
        for (int o = 0; o < O; o += 2) {
          const auto gate = Type::total(sum[n][o][v]), up = Type::total(sum[n][o + 1][v]);
          Type::store(y + 8 * o, Type::swiglu(gate, up), columns - 8 * o);
        }
    } else {
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) {
        auto total = Type::total(sum[n][o][v]);
        if (t.epilogue == Epilogue::add) total = Type::add(Type::load(y + 16 * o, columns - 16 * o), total);
        Type::store(y + 16 * o, total, columns - 16 * o);
      }
    }
  }
}

template <class Type, int N, int O>
void multiply(const Tile& t) {
  Sums<Type, N, O> sum = {};
  Place at{t.x, t.w, t.ahead, t.w + t.steps * Type::w_bytes};
  const auto pass = [&](std::int64_t steps) __attribute__((always_inline)) {
    for (const std::byte* end = at.w + steps * Type::w_bytes; at.w != end; at.w += Type::w_bytes) {
      Type::step(t, at, sum);
      at.x += Type::x_bytes, at.ahead += Type::w_bytes, at.scales += panel_outputs * 2;
    }
  };
  pass(t.turn);
  at.ahead = t.ahead_after;
  pass(t.steps - t.turn);
  finish<Type, 0, N, O>(t, sum);
  if constexpr (Type::lanes < panel_outputs) finish<Type, 1, N, O>(t, sum);
}

// multiply<Type, rows, panels>
template <class Type, int N = Type::max_rows>
auto tile_of(std::int64_t rows, std::int64_t panels) -> void (*)(const Tile&) {
  if constexpr (N > 1)
    if (rows < N) return tile_of<Type, N - 1>(rows, panels);
  if constexpr (N <= Type::four_panel_rows)
    if (panels == 4) return multiply<Type, N, 4>;
  return panels == 2 ? multiply<Type, N, 2> : multiply<Type, N, 1>;
}

// What Types have in common whose sums stay in vector registers.
template <class Type>
struct InRegisters {
  static constexpr int rows_together = 1;
  static constexpr std::int64_t block_bytes = 384 << 10;
  static void run(const Tile& t, std::int64_t rows, std::int64_t panels) { tile_of<Type>(rows, panels)(t); }
};

// What the tile fetches early in pass i of n over its panels.
template <class Type>
void plan_fetching(Tile& t, std::int64_t panels, std::int64_t i, std::int64_t n) {
  const std::byte* const next = t.w + panels * t.panel_bytes;
  if (n == 1) {  // read as fast as memory gives: a little ahead in every panel
    constexpr std::int64_t wanted = 8192 / Type::w_bytes;
    const std::int64_t steps = wanted < t.steps ? wanted : t.steps;
    t.ahead = t.w + steps * Type::w_bytes;
    t.turn = t.steps - steps;
    t.ahead_after = next;
    t.ahead_stride = t.panel_bytes;
  } else {  // one of the next panels in each of the first passes
    t.ahead = i < panels ? next + i * t.panel_bytes : t.w;
    t.turn = t.steps;
    t.ahead_stride = 0;
  }
}

template <class Type>
void matmul_block(const MatmulCall& call, std::int64_t first_row, std::int64_t rows) {
  const std::int64_t n_tiles = (rows + Type::max_rows - 1) / Type::max_rows;
  const std::int64_t most_panels = rows <= Type::four_panel_rows ? 4 : 2;
  const std::int64_t columns_of_panel = call.epilogue == Epilogue::swiglu ? panel_outputs / 2 : panel_outputs;
  Tile tile;
  tile.x_stride = call.x.stride;
  tile.panel_bytes = call.panel_bytes;
  tile.steps = (call.x.k + Type::step_inputs - 1) / Type::step_inputs;
  tile.y_stride = call.y.stride;
  tile.epilogue = call.epilogue;
  for (std::int64_t panel = 0, panels = most_panels; panel < call.n_panels; panel += panels) {
    while (panels > call.n_panels - panel) panels /= 2;
    const std::int64_t column = panel * columns_of_panel;
    tile.w = call.panels + panel * call.panel_bytes;
    tile.columns = call.y.cols - column;
    for (std::int64_t i = 0, row = 0; i < n_tiles; ++i) {
      const std::int64_t even = rows * (i + 1) / n_tiles + Type::rows_together - 1;
      const std::int64_t end = i == n_tiles - 1 ? rows : even - even % Type::rows_together;
      tile.x = call.x.data + (first_row + row) * call.x.stride;
      tile.y = call.y.data + (first_row + row) * call.y.stride + column;
      plan_fetching<Type>(tile, panels, i, n_tiles);
      Type::run(tile, end - row, panels);
      row = end;
    }
  }
}

template <class Type>
void matmul_type(const MatmulCall& call) {
  const std::int64_t fitting = Type::block_bytes / call.x.stride;
  const std::int64_t most = fitting > 4 * Type::max_rows ? fitting : 4 * Type::max_rows;
  const std::int64_t n_blocks = (call.x.rows + most - 1) / most;
  for (std::int64_t i = 0, row = 0; i < n_blocks; ++i) {
    const std::int64_t end = call.x.rows * (i + 1) / n_blocks;
    matmul_block<Type>(call, row, end - row);
    row = end;
  }
}

// The types by the names that both instruction sets give them.
template <class F32, class Bf16, class Int8, class Int4>
void matmul_any(const MatmulCall& call) {
  switch (call.type) {
    case DType::f32:
      return matmul_type<F32>(call);
    case DType::bf16:
      return matmul_type<Bf16>(call);
    case DType::int8:
      return matmul_type<Int8>(call);
    case DType::int4:
      return matmul_type<Int4>(call);
  }
}

}  // namespace
}  // namespace photon
