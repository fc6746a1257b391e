// What this machine can do at most, measured: the ceilings that speed is reported against.
#pragma once

#include <cstdint>

#include "base/memory.h"

namespace photon {

/// A buffer in huge pages that threads() threads read together, each one contiguous part, the way products read
/// weights.
class ReadProbe {
 public:
  /// @param most_bytes  what gb_s() may be asked for; to tell the memory's speed, much more than the last-level cache
  ///                    holds
  explicit ReadProbe(std::int64_t most_bytes = std::int64_t{512} << 20);

  /// GB/s (10⁹ bytes) of reading the first `bytes` again and again: what does not fit the caches comes from memory.
  /// The best of a few passes, since whatever else the machine does only slows one down; under a tenth of a second.
  /// @param bytes  at most most_bytes; rounded down to whole blocks of 4 KiB a thread, at least one
  double gb_s(std::int64_t bytes) const;
  double gb_s() const { return gb_s(buffer_.bytes()); }

 private:
  HugeMemory buffer_;
};

enum class Arithmetic {
  f32,   ///< fused multiply-add of float32
  bf16,  ///< dot products of bfloat16 pairs into float32; as f32 where the instruction set has none
  int8,  ///< dot products of 8-bit integers into 32 bits
};

/// Operations per second, in 10⁹ (a multiply-add is two), that threads() threads reach together in registers, with the
/// instructions of kernels().  The best of a few passes; about a twentieth of a second.
double measure_peak_gop_s(Arithmetic arithmetic);

}  // namespace photon
