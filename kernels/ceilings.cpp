#include "kernels/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr int passes = 6;  // the first one is a warm-up

// Seconds until all threads have done their part.  What they do is called through pointers: the compiler cannot leave
// it out.
template <class Work>
double time_together(std::int64_t n_threads, const Work& work) {
  const auto start = std::chrono::steady_clock::now();
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static)
  for (std::int64_t thread = 0; thread < n_threads; ++thread) work(thread);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class Work>
double best_of(int n, const Work& work) {
  double best = work();
  for (int pass = 1; pass < n; ++pass) best = std::min(best, work());
  return best;
}

}  // namespace

ReadProbe::ReadProbe(std::int64_t most_bytes) : buffer_(std::max(most_bytes, threads() * peak_block_bytes)) {
  // Written by the threads that will read it: pages lie near their reader.
  const std::int64_t n_threads = threads(), part = buffer_.bytes() / n_threads;
  time_together(n_threads, [&](std::int64_t thread) {
    const std::int64_t end = thread == n_threads - 1 ? buffer_.bytes() : (thread + 1) * part;
    std::memset(buffer_.data() + thread * part, 1, static_cast<std::size_t>(end - thread * part));
  });
}

double ReadProbe::gb_s(std::int64_t bytes) const {
  constexpr std::int64_t pass_bytes = 128 << 20, l2_bytes = std::int64_t{1} << 20;
  const std::int64_t n_threads = std::min(threads(), buffer_.bytes() / peak_block_bytes);
  const std::int64_t n_blocks =
      std::max<std::int64_t>(1, std::min(bytes, buffer_.bytes()) / n_threads / peak_block_bytes);
  const std::int64_t part = n_blocks * peak_block_bytes;
  const std::int64_t n_reads = std::max<std::int64_t>(1, pass_bytes / (part * n_threads));
  const auto read_all = [&] {
    return time_together(n_threads, [&](std::int64_t thread) {
      for (std::int64_t read = 0; read < n_reads; ++read)
        kernels().peak.read(buffer_.data() + thread * part, n_blocks, part > l2_bytes);
    });
  };
  read_all();
  return static_cast<double>(n_reads * part * n_threads) / best_of(passes - 1, read_all) * 1e-9;
}

double measure_peak_gop_s(Arithmetic arithmetic) {
  constexpr double pass_seconds = 2e-3;
  const PeakKernels& peak = kernels().peak;
  const PeakKernels::Loop& loop = arithmetic == Arithmetic::f32    ? peak.f32
                                  : arithmetic == Arithmetic::bf16 ? peak.bf16
                                                                   : peak.int8;
  const std::int64_t n_threads = threads();
  std::int64_t n_steps = 1 << 12;
  const auto run = [&] { return time_together(n_threads, [&](std::int64_t) { loop.run(n_steps); }); };
  while (run() < pass_seconds && n_steps < std::int64_t{1} << 40) n_steps *= 2;
  return static_cast<double>(loop.operations * n_steps * n_threads) / best_of(passes, run) * 1e-9;
}

}  // namespace photon
