// The peak loop of bf16 on AMX's tiles.  See isa.h for what this file must not call.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/avx512.h"

namespace photon {
namespace {

float run_dot_bf16(std::int64_t n_steps) {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) shapes.set(tile, tile_rows);
  configure_tiles(shapes);
  alignas(64) std::uint16_t halves[tile_rows][32];
  for (auto& line : halves)
    for (std::uint16_t& half : line) half = 0x3f00;  // 0.5
  load_tile<4>(halves, tile_line);
  load_tile<5>(halves, tile_line);
  load_tile<6>(halves, tile_line);
  load_tile<7>(halves, tile_line);
  for (std::int64_t step = 0; step < n_steps; ++step) {
    dot_bf16<0, 4, 6>();
    dot_bf16<1, 4, 7>();
    dot_bf16<2, 5, 6>();
    dot_bf16<3, 5, 7>();
  }
  alignas(64) float sums[tile_rows][16];
  store_tile<0>(sums, tile_line);
  release_tiles();
  return sums[0][0];
}

}  // namespace

constinit const PeakKernels amx::peak{.read = avx512::read,
                                      .f32 = {avx512::fma_operations, avx512::fma_f32},
                                      .bf16 = {4 * 2 * tile_rows * 16 * 32, run_dot_bf16},
                                      .int8 = {avx512::dot_int8_operations, avx512::dot_int8}};

}  // namespace photon
