// Chooses the instruction set, checks shapes for all of them, and holds what needs no vectors by hand: RoPE and the
// thread count.
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

template <class W>
bool fits(MatView<const float> x, MatView<const W> w, MatView<float> y) {
  return x.cols == w.cols && y.rows == x.rows && y.cols == w.rows && x.stride >= x.cols && w.stride >= w.cols &&
         y.stride >= y.cols;
}

template <class T>
bool fits(const AttendShape& shape, std::span<const float> q, std::span<const OldKvRun<T>> runs, std::span<float> out) {
  std::int64_t positions = 0;
  for (const auto& run : runs) {
    if (run.n > 0 && run.stride < shape.n_kv_heads * shape.head_dim) return false;
    positions += run.n;
  }
  return positions > 0 && shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0 && q.size() == out.size() &&
         std::ssize(q) == shape.n_heads * shape.head_dim;
}

// The table of one instruction set over spans.
template <const Isa& isa, const AttentionIsa& attention_isa, const MatmulIsa& matmul_isa>
constexpr Kernels table(const char* name, bool (*runs_here)(), bool bf16_rounds_x) {
  return {
      .name = name,
      .runs_here = runs_here,
      .matmul_f32 =
          [](MatView<const float> x, MatView<const float> w, MatView<float> y, bool add) noexcept {
            assert(fits(x, w, y));
            isa.matmul_f32(x, w, y, add);
          },
      .matmul_bf16 =
          [](MatView<const float> x, MatView<const bf16> w, MatView<float> y, bool add) noexcept {
            assert(fits(x, w, y));
            isa.matmul_bf16(x, w, y, add);
          },
      .bf16_rounds_x = bf16_rounds_x,
      .rms_norm =
          [](std::span<const float> x, std::span<const float> w, float eps, std::span<float> y) noexcept {
            assert(x.size() == w.size() && y.size() == w.size());
            isa.rms_norm(x.data(), w.data(), eps, y.data(), std::ssize(w));
          },
      .attend_f32 =
          [](const AttendShape& shape, std::span<const float> q, std::span<const OldKvRun<float>> runs,
             std::span<float> out) noexcept {
            assert(fits(shape, q, runs, out));
            isa.attend_f32(shape, q.data(), runs.data(), std::ssize(runs), out.data());
          },
      .attend_bf16 =
          [](const AttendShape& shape, std::span<const float> q, std::span<const OldKvRun<bf16>> runs,
             std::span<float> out) noexcept {
            assert(fits(shape, q, runs, out));
            isa.attend_bf16(shape, q.data(), runs.data(), std::ssize(runs), out.data());
          },
      .swiglu =
          [](std::span<float> gate, std::span<const float> up) noexcept {
            assert(gate.size() == up.size());
            isa.swiglu(gate.data(), up.data(), std::ssize(gate));
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

constexpr Kernels scalar = table<scalar_isa, scalar_attention, scalar_matmul>(
    "scalar", [] { return true; }, false);
#ifdef PHOTON_X86
// __builtin_cpu_supports also asks the operating system (XCR0) whether it saves the wide registers.
constexpr Kernels avx2 = table<avx2_isa, avx2_attention, avx2_matmul>(
    "avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, false);
constexpr Kernels avx512_bf16 = table<avx512_bf16_isa, avx512_attention, avx512_matmul>(
    "avx512_bf16",
    [] {
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("fma");
    },
    true);
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

void rope(std::span<const std::int64_t> positions, double theta, std::int64_t head_dim, MatView<float> x) {
  assert(std::ssize(positions) == x.rows && head_dim > 0 && x.cols % head_dim == 0);
  const std::int64_t half = head_dim / 2;
  if (half == 0) return;
  std::vector<double> frequencies(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i)
    frequencies[static_cast<std::size_t>(i)] =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));

  constexpr std::int64_t rows_worth_a_thread = 8;
  const std::int64_t n_threads = std::max<std::int64_t>(1, std::min(threads(), x.rows / rows_worth_a_thread));
  std::vector<float> cos_sin(static_cast<std::size_t>(n_threads * 2 * half));
  const auto rotate_rows = [&](std::int64_t thread) {
    float* cosines = cos_sin.data() + thread * 2 * half;  // [h / 2]
    float* sines = cosines + half;                        // [h / 2]
    for (std::int64_t r = x.rows * thread / n_threads; r < x.rows * (thread + 1) / n_threads; ++r) {
      const auto position = static_cast<double>(positions[static_cast<std::size_t>(r)]);
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = position * frequencies[static_cast<std::size_t>(i)];
        cosines[i] = static_cast<float>(std::cos(angle));
        sines[i] = static_cast<float>(std::sin(angle));
      }
      for (float* head = x.data + r * x.stride; head != x.data + r * x.stride + x.cols; head += head_dim) {
        float* second = head + (head_dim - half);
        for (std::int64_t i = 0; i < half; ++i) {
          const float a = head[i], b = second[i];
          head[i] = a * cosines[i] - b * sines[i];
          second[i] = b * cosines[i] + a * sines[i];
        }
      }
    }
  };
  if (n_threads == 1) return rotate_rows(0);  // a parallel region costs more than a few rows
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static)
  for (std::int64_t thread = 0; thread < n_threads; ++thread) rotate_rows(thread);
}

}  // namespace photon
