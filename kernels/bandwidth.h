// The machine's memory bandwidth, the ceiling that decoding speed is reported against.
#pragma once

#include <cstdint>

namespace photon {

/// GB/s (10^9 bytes) at which threads() threads together read `bytes`, which must be much more than the last-level
/// cache holds; the best of a few passes, since whatever else the machine does only slows one down.  Takes about half a
/// second.
double measure_read_bandwidth_gb_s(std::int64_t bytes = 512 << 20);

}  // namespace photon
