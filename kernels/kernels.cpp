// Chooses the instruction set, checks shapes for all of them, and holds the thread count.
#include "kernels/kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/isa.h"

namespace photon {
namespace {

// The table of one instruction set over spans.
template <const Isa& isa, const AttentionIsa& attention_isa, const MatmulIsa& matmul_isa>
constexpr Kernels table(const char* name, bool (*runs_here)()) {
  return {
      .name = name,
      .runs_here = runs_here,
      .rms_norm =
          [](std::span<const float> x, std::span<const float> w, float eps, std::span<float> y) noexcept {
            assert(x.size() == w.size() && y.size() == w.size());
            isa.rms_norm(x.data(), w.data(), eps, y.data(), std::ssize(w));
          },
      .to_bf16 =
          [](std::span<const float> x, std::span<bf16> y) noexcept {
            assert(x.size() == y.size());
            isa.to_bf16(x.data(), y.data(), std::ssize(x));
          },
      .log_sum_exp = [](std::span<const float> x) noexcept { return isa.log_sum_exp(x.data(), std::ssize(x)); },
      .attention = &attention_isa,
      .matmul = &matmul_isa,
  };
}

constexpr Kernels scalar = table<scalar_isa, scalar_attention, scalar_matmul>("scalar", [] { return true; });
#ifdef PHOTON_X86
// __builtin_cpu_supports also asks the operating system (XCR0) whether it saves the wide registers.
constexpr Kernels avx2 = table<avx2_isa, avx2_attention, avx2_matmul>(
    "avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); });
constexpr Kernels avx512_bf16 = table<avx512_bf16_isa, avx512_attention, avx512_matmul>("avx512_bf16", [] {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
});
constexpr std::array<const Kernels*, 3> tables{&avx512_bf16, &avx2, &scalar};
#else
constexpr std::array<const Kernels*, 1> tables{&scalar};
#endif

const Kernels& choose() {
  const char* wanted = std::getenv("PHOTON_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    for (const Kernels* table : tables)
      if (table->runs_here()) return *table;
    return scalar;
  }
  std::string runnable;
  for (const Kernels* table : tables)
    if (table->runs_here()) runnable += (runnable.empty() ? "" : ", ") + std::string(table->name);
  for (const Kernels* table : tables)
    if (std::string_view(table->name) == wanted) {
      if (table->runs_here()) return *table;
      throw InputError(fmt::format("PHOTON_ISA={}: this CPU (or its operating system) cannot run it; it runs: {}",
                                   wanted, runnable));
    }
  throw InputError(fmt::format("PHOTON_ISA={}: no such instruction set; this CPU runs: {}", wanted, runnable));
}

std::atomic<std::int64_t> chosen_threads{0};  // 0: not set

}  // namespace

std::span<const Kernels* const> all_kernels() { return tables; }

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

void set_threads(std::int64_t n) {
  assert(n >= 1);
  chosen_threads = n;
}

std::int64_t threads() {
  static const std::int64_t usable = usable_cpus();
  const std::int64_t n = chosen_threads;
  return n > 0 ? n : usable;
}

}  // namespace photon
