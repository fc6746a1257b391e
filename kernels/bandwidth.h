// The machine's memory bandwidth, the ceiling that decoding speed is reported against.
#pragma once

namespace photon {

/// GB/s (10^9 bytes) at which threads() threads together read a buffer much larger than the last-level cache; the best
/// of a few passes, since anything else on the machine only slows one down.  Takes about half a second and 512 MiB.
double measure_read_bandwidth_gb_s();

}  // namespace photon
