// The CPU: which one it is, and how many threads to use: what the machine lends this process, not what it owns.
#pragma once

#include <cstdint>
#include <string>

namespace photon {

/// min(CPUs in the affinity mask, cgroup CPU quota rounded down), at least 1.  Linux; elsewhere hardware_concurrency.
std::int64_t usable_cpus();

/// The CPU's name as the system gives it, for the record of a measurement; "unknown" where it gives none.
std::string cpu_model();

/// Lets OpenMP's idle threads sleep after microseconds instead of spinning for milliseconds: where CPUs are shared, a
/// spinning thread takes the CPU from the one it waits for (measured: 20 times slower generation).  libgomp reads its
/// settings before main(), so this starts the program anew, once; call it first.  A user's own OMP_WAIT_POLICY or
/// GOMP_SPINCOUNT is left as it is.
void limit_openmp_spinning(char** argv);

}  // namespace photon
