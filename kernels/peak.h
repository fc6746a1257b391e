// What an instruction set's peak file implements: loops that do nothing but read, or nothing but multiply and add.
// The rules of isa.h hold for these files too.
#pragma once

#include <cstdint>

namespace photon {

struct PeakLoops {
  struct Loop {
    std::int64_t operations = 0;         // of one step; a multiply-add is two
    float (*run)(std::int64_t n_steps);  // returns what the compiler must not leave out
  };

  /// Reads n blocks of 4 KiB; `ahead`: fetches the next ones early, which pays beyond the second-level cache.
  std::uint64_t (*read)(const void* data, std::int64_t n_blocks, bool ahead);
  Loop f32, bf16, int8;
};
inline constexpr std::int64_t peak_block_bytes = 4096;

extern const PeakLoops scalar_peak;
#ifdef PHOTON_X86
extern const PeakLoops avx2_peak, avx512_peak;
#endif

}  // namespace photon
