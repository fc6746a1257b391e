// Reads a large buffer with all threads, the way that matmul() reads weights: each thread one contiguous part.
#include "kernels/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>

#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t words_together = 64;  // 512 bytes

std::uint64_t sum(const std::uint64_t* words, std::int64_t n) {
  constexpr std::int64_t ahead =
      8192 / sizeof(std::uint64_t);      // the hardware prefetcher stops at every page: half the speed
  std::uint64_t sums[words_together]{};  // independent: no addition waits for another
  for (std::int64_t i = 0; i < n; i += words_together) {
    for (std::int64_t line = 0; line < words_together; line += 8) __builtin_prefetch(words + i + line + ahead, 0, 2);
    for (std::int64_t j = 0; j < words_together; ++j) sums[j] += words[i + j];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t part : sums) total += part;
  return total;
}

}  // namespace

double measure_read_bandwidth_gb_s(std::int64_t bytes) {
  constexpr int passes = 6;  // the first one is a warm-up
  const std::int64_t n_threads = threads();
  const std::int64_t blocks = bytes / static_cast<std::int64_t>(sizeof(std::uint64_t)) / words_together / n_threads;
  const std::int64_t part = blocks * words_together;  // words of one thread
  const auto buffer = std::make_unique_for_overwrite<std::uint64_t[]>(static_cast<std::size_t>(part * n_threads));
  double best_seconds = 1e30;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    std::uint64_t total = 0;
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static) reduction(+ : total)
    for (std::int64_t thread = 0; thread < n_threads; ++thread) {
      std::uint64_t* words = buffer.get() + thread * part;
      // Written by the thread that will read it: pages lie near their reader.
      if (pass == 0) std::fill_n(words, part, std::uint64_t{1});
      total += sum(words, part);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    // Looking at the total keeps the compiler from leaving out the reading.
    if (pass > 0 && total == static_cast<std::uint64_t>(part * n_threads))
      best_seconds = std::min(best_seconds, seconds.count());
  }
  return static_cast<double>(part * n_threads * static_cast<std::int64_t>(sizeof(std::uint64_t))) / best_seconds / 1e9;
}

}  // namespace photon
