// Reads a large buffer with all threads, the way that matmul() reads weights: each thread one contiguous part.
#include "kernels/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>

#include "kernels/kernels.h"

namespace photon {

double measure_read_bandwidth_gb_s() {
  constexpr std::int64_t words = (512 << 20) / static_cast<std::int64_t>(sizeof(std::uint64_t));
  constexpr int passes = 6;  // the first one is a warm-up
  constexpr int sums = 16;   // independent, so that additions never wait for each other
  const auto n_threads = static_cast<int>(threads());
  const auto buffer = std::make_unique_for_overwrite<std::uint64_t[]>(words);
  // Written by the thread that will read it: pages lie near their reader.
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (std::int64_t i = 0; i < words; ++i) buffer[static_cast<std::size_t>(i)] = static_cast<std::uint64_t>(i);

  double best_seconds = 1e30;
  volatile std::uint64_t keep = 0;  // a sum that nobody wants would not be computed
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    std::uint64_t total = 0;
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : total)
    for (std::int64_t block = 0; block < words / sums; ++block)
      for (std::int64_t i = 0; i < sums; ++i) total += buffer[static_cast<std::size_t>(block * sums + i)];
    keep = total;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (pass > 0) best_seconds = std::min(best_seconds, seconds.count());
  }
  (void)keep;
  return static_cast<double>(words) * sizeof(std::uint64_t) / best_seconds / 1e9;
}

}  // namespace photon
