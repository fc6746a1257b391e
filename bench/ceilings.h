// The machine's ceilings, measured and told.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/run.h"

namespace photon {

struct Ceiling {
  std::string name, unit;  // "DRAM read", "GB/s"
  std::int64_t threads = 1;
  std::int64_t bytes = 0;  // of all threads together, that are read again and again; 0 for arithmetic
  Spread value{};
};
/// Reading from memory, from 16 MiB (the last-level cache) and from 512 KiB a thread (the second-level one), and the
/// peaks of kernels/ceilings.h, with each number of threads; `repeats` rounds through all of them.
std::vector<Ceiling> measure_ceilings(const std::vector<std::int64_t>& thread_counts, std::int64_t repeats);

std::string to_table(std::span<const Ceiling> ceilings);
nlohmann::ordered_json to_json(std::span<const Ceiling> ceilings, std::int64_t repeats);

}  // namespace photon
