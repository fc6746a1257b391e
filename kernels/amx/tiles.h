// The instructions of AMX as functions: eight registers of 16 rows of 64 bytes, the tiles.  For the files of this
// folder alone: every function is internal to the file that includes it (see isa.h).
//
// Inline assembly in place of the intrinsics: GCC 12's do not say which memory they read, so that stores to it may be
// moved or dropped.
#pragma once

#include <cstddef>
#include <cstdint>

namespace photon {
namespace {

constexpr int tile_rows = 16;
constexpr std::int64_t tile_line = 64, tile_bytes = tile_rows * tile_line;

// The shapes of all tiles; a tile that is not used has none.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t line_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, std::int64_t n_rows) {
    line_bytes[tile] = tile_line;
    rows[tile] = static_cast<std::uint8_t>(n_rows);
  }
};
static_assert(sizeof(TileShapes) == 64);

// Begins with all tiles zero; until release_tiles(), the thread's switches are dearer.
inline void configure_tiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
inline void release_tiles() { asm volatile("tilerelease"); }

template <int tile>
[[gnu::always_inline]] inline void load_tile(const void* lines, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(lines), "r"(stride), "i"(tile) : "memory");
}
// The same of lines that are not read again soon.
template <int tile>
[[gnu::always_inline]] inline void load_tile_once(const void* lines, std::int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(lines), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
[[gnu::always_inline]] inline void store_tile(void* lines, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(lines), "r"(stride), "i"(tile) : "memory");
}
// sum [rows][16] of float += a [rows][16] · b [16][16] of pairs of bf16: pair i of row r times pair i of column c.
template <int sum, int a, int b>
[[gnu::always_inline]] inline void dot_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
}

}  // namespace
}  // namespace photon
