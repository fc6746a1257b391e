// The list of instruction sets, the choice among them, checks for all of them, and the thread count.
#include "kernels/kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/isa.h"
#include "kernels/scalar/scalar.h"
#ifdef PHOTON_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/amx/amx.h"
#include "kernels/avx2/avx2.h"
#include "kernels/avx512/avx512.h"
#endif

namespace photon {
namespace {

#ifdef PHOTON_X86
// __builtin_cpu_supports also asks the operating system (XCR0) whether it saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512_bf16() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
// Linux gives the tiles, 8 KiB more for a thread's switch to save, to processes that ask for them.
bool may_use_tiles() {
#ifdef __linux__
  constexpr long ask_for_state = 0x1023, tiles = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, its XFEATURE_XTILE_DATA
  return ::syscall(SYS_arch_prctl, ask_for_state, tiles) == 0;
#else
  return false;
#endif
}
bool has_amx_bf16() {
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;  // of cpuid 7, edx
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & bf16) != 0 && (d & tile) != 0 &&
         may_use_tiles();
}
#endif
bool always() { return true; }

// A new instruction set is a folder that defines parts of isa.h, photon_isa() in CMakeLists.txt, and a row here, of its
// parts and of those that it borrows.
constexpr Kernels tables[] = {
#ifdef PHOTON_X86
    {.name = "amx_bf16",
     .runs_here = has_amx_bf16,
     .rows = avx512::rows,
     .matmul = amx::matmul,
     .attention = avx512::attention,
     .memory = avx512::memory,
     .peak = amx::peak,
     .training = avx512::training},
    {.name = "avx512_bf16",
     .runs_here = has_avx512_bf16,
     .rows = avx512::rows,
     .matmul = avx512::matmul,
     .attention = avx512::attention,
     .memory = avx512::memory,
     .peak = avx512::peak,
     .training = avx512::training},
    {.name = "avx2",
     .runs_here = has_avx2,
     .rows = avx2::rows,
     .matmul = avx2::matmul,
     .attention = avx2::attention,
     .memory = avx2::memory,
     .peak = avx2::peak,
     .training = avx2::training},
#endif
    {.name = "scalar",
     .runs_here = always,
     .rows = scalar::rows,
     .matmul = scalar::matmul,
     .attention = scalar::attention,
     .memory = scalar::memory,
     .peak = scalar::peak,
     .training = scalar::training},
};

const Kernels& choose() {
  const char* wanted = std::getenv("PHOTON_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    return *std::find_if(std::begin(tables), std::end(tables), [](const Kernels& table) { return table.runs_here(); });
  }
  std::string runnable;
  for (const Kernels& table : tables)
    if (table.runs_here()) runnable += (runnable.empty() ? "" : ", ") + std::string(table.name);
  for (const Kernels& table : tables)
    if (std::string_view(table.name) == wanted) {
      if (table.runs_here()) return table;
      throw InputError(fmt::format("PHOTON_ISA={}: this CPU (or its operating system) cannot run it; it runs: {}",
                                   wanted, runnable));
    }
  throw InputError(fmt::format("PHOTON_ISA={}: no such instruction set; this CPU runs: {}", wanted, runnable));
}

std::atomic<std::int64_t> chosen_threads{0};  // 0: not set

}  // namespace

void Kernels::rms_norm(std::span<const float> x, std::span<const float> w, float eps, std::span<float> y) const {
  assert(x.size() == w.size() && y.size() == w.size());
  rows.rms_norm(x.data(), w.data(), eps, y.data(), std::ssize(w));
}

void Kernels::to_bf16(std::span<const float> x, std::span<bf16> y) const {
  assert(x.size() == y.size());
  rows.to_bf16(x.data(), y.data(), std::ssize(x));
}

void Kernels::read_text(const TextCall& call) const {
  assert(call.first < call.last && call.last <= call.predicted && call.n_heads >= 1 && call.n_heads <= text_heads);
  memory.read_text(call);
}

float Kernels::log_sum_exp(std::span<const float> x) const { return rows.log_sum_exp(x.data(), std::ssize(x)); }

std::span<const Kernels> all_kernels() { return tables; }

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
