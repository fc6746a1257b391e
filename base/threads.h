// How many threads to use: what the machine lends this process, not what it owns.
#pragma once

#include <cstdint>

namespace photon {

/// min(CPUs in the affinity mask, cgroup CPU quota rounded down), at least 1.  Linux; elsewhere hardware_concurrency.
std::int64_t usable_cpus();

}  // namespace photon
