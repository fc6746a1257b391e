// The peak loops in plain C++, as the compiler makes them.
#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"

namespace photon {
namespace {

constexpr int lanes = 32;

// Values that the compiler knows nothing about, before every step: else it would compute the whole loop ahead.
void forget(const void* data) { asm volatile("" : : "r"(data) : "memory"); }

std::uint64_t read(const void* data, std::int64_t n_blocks, bool ahead) {
  constexpr std::int64_t words_together = 64, fetch = 8192 / sizeof(std::uint64_t);
  const auto* words = static_cast<const std::uint64_t*>(data);
  const std::int64_t n = n_blocks * peak_block_bytes / static_cast<std::int64_t>(sizeof(std::uint64_t));
  std::uint64_t sums[words_together]{};  // independent: no addition waits for another
  for (std::int64_t i = 0; i < n; i += words_together) {
    if (ahead)  // the hardware prefetcher stops at every page of 4 KiB
      for (std::int64_t line = 0; line < words_together; line += 8) __builtin_prefetch(words + i + line + fetch, 0, 2);
    for (std::int64_t j = 0; j < words_together; ++j) sums[j] += words[i + j];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t part : sums) total += part;
  return total;
}

template <class In, class Sum>
float multiply_add(std::int64_t n_steps) {
  In a[lanes], b[lanes];
  Sum sums[lanes]{};
  for (int j = 0; j < lanes; ++j) a[j] = static_cast<In>(j % 3), b[j] = static_cast<In>(1 + j % 2);
  for (std::int64_t step = 0; step < n_steps; ++step) {
    forget(a);
    for (int j = 0; j < lanes; ++j) sums[j] += static_cast<Sum>(a[j]) * static_cast<Sum>(b[j]);
  }
  Sum total = 0;
  for (const Sum sum : sums) total += sum;
  return static_cast<float>(total);
}

constexpr PeakKernels::Loop f32{2 * lanes, multiply_add<float, float>};

}  // namespace

constinit const PeakKernels scalar::peak{
    .read = read, .f32 = f32, .bf16 = f32, .int8 = {2 * lanes, multiply_add<std::int8_t, std::int32_t>}};

}  // namespace photon
