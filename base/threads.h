// The CPU: which one it is, and how many threads to use: what the machine lends this process, not what it owns.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace photon {

/// min(CPUs in the affinity mask, cgroup CPU quota rounded down), at least 1.  Linux; elsewhere hardware_concurrency.
std::int64_t usable_cpus();

/// The CPU's name as the system gives it, for the record of a measurement; "unknown" where it gives none.
std::string cpu_model();

/// Environment variables and their values.
using Environment = std::map<std::string, std::string>;

/// What lets OpenMP's idle threads sleep after microseconds instead of spinning for milliseconds: where CPUs are
/// shared, a spinning thread takes the CPU from the one it waits for (measured: 20 times slower generation).  Empty
/// where the user has an OMP_WAIT_POLICY or GOMP_SPINCOUNT.
Environment openmp_settings();

/// Sets variables that libraries read before main(), so it starts the program anew; call it first.
/// @param settings  variables that have no value yet, which ends this after one new start; nothing happens without any
void start_with(const Environment& settings, char** argv);

}  // namespace photon
