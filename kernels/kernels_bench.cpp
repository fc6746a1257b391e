// matmul() on the shapes of photon-600m and attention over long caches, beside the memory's read bandwidth.
//
//   kernels_kernels_bench --benchmark_filter='read_bandwidth|n:1/' --benchmark_repetitions=5
//     --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
//
// compares medians of one run, interleaved.  PHOTON_ISA chooses the kernels, OMP_WAIT_POLICY=passive helps where other
// programs compete for the cores.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/ceilings.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// More bytes than any cache holds: every call reads its operands from memory, as decoding does.
constexpr std::int64_t cold_bytes = 256 << 20;

template <class T>
Matrix<T> random_matrix(std::int64_t rows, std::int64_t cols) {
  Matrix<T> made(rows, cols);
  Random random(1);
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const auto value = static_cast<float>(random.uniform() - 0.5);
    if constexpr (std::is_same_v<T, float>)
      made.data()[i] = value;
    else
      made.data()[i] = to_bf16(value);
  }
  return made;
}

// Many copies of one weight matrix [o, k].
template <class T>
struct ColdWeights {
  ColdWeights(std::int64_t o, std::int64_t k)
      : outputs(o),
        copies(std::max<std::int64_t>(2, cold_bytes / (o * k * static_cast<std::int64_t>(sizeof(T))))),
        all(random_matrix<T>(copies * o, k)) {}
  Weight copy(std::int64_t i) const {
    const MatView<const T> view = all.view().slice(i % copies * outputs, outputs);
    if constexpr (std::is_same_v<T, float>)
      return {.type = Weight::Type::f32, .f32 = view};
    else
      return {.type = Weight::Type::bf16, .b16 = view};
  }
  std::int64_t outputs, copies;
  Matrix<T> all;
};

// Kept from one benchmark to the next, which mostly has the same shape.
template <class T>
const ColdWeights<T>& cold_weights(std::int64_t o, std::int64_t k) {
  static std::unique_ptr<const ColdWeights<T>> current;
  if (!current || current->outputs != o || current->all.cols() != k) {
    current.reset();
    current = std::make_unique<const ColdWeights<T>>(o, k);
  }
  return *current;
}

benchmark::Counter giga_per_second(std::int64_t amount) {
  return {static_cast<double>(amount) * 1e-9, benchmark::Counter::kIsIterationInvariantRate};
}

void read_bandwidth(benchmark::State& state) {
  double gb_s = 0;
  const ReadProbe probe;
  for (auto _ : state) gb_s = std::max(gb_s, probe.gb_s());
  state.counters["GB/s"] = gb_s;
}

template <class T>
void matmul_cold(benchmark::State& state, std::int64_t o, std::int64_t k, std::int64_t n, std::int64_t onednn_from) {
  const ColdWeights<T>& weights = cold_weights<T>(o, k);
  const Matrix<float> x = random_matrix<float>(n, k);
  Matrix<float> y(n, o);
  const std::int64_t before = onednn_rows();
  set_onednn_rows(onednn_from);
  std::int64_t calls = 0;
  matmul(x, weights.copy(calls), y);
  for (auto _ : state) {
    matmul(x, weights.copy(++calls), y);
    benchmark::DoNotOptimize(y.data());
  }
  set_onednn_rows(before);
  state.counters["GB/s"] = giga_per_second(o * k * static_cast<std::int64_t>(sizeof(T)));
  state.counters["GFLOP/s"] = giga_per_second(2 * n * o * k);
}

// One row's 32 heads of 52 over `positions` cached positions, on the calling thread.
void attend_cold(benchmark::State& state, std::int64_t positions) {
  constexpr AttendShape shape{.n_heads = 32, .n_kv_heads = 32, .head_dim = 52};
  constexpr std::int64_t width = shape.n_kv_heads * shape.head_dim;
  const std::int64_t bytes = 2 * positions * width * static_cast<std::int64_t>(sizeof(bf16)),
                     copies = cold_bytes / bytes;
  const Matrix<bf16> cache = random_matrix<bf16>(copies * 2 * positions, width);
  const Matrix<float> q = random_matrix<float>(1, width);
  Matrix<float> out(1, width);
  std::int64_t calls = 0;
  for (auto _ : state) {
    const auto rows = cache.view().slice(calls++ % copies * 2 * positions, 2 * positions);
    const OldKvRun<bf16> run{.k = rows.data, .v = rows.row(positions).data(), .n = positions, .stride = width};
    kernels().attend_bf16(shape, q.row(0), {&run, 1}, out.row(0));
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["GB/s"] = giga_per_second(bytes);
}

template <class T>
void register_matmuls(const std::string& dtype) {
  constexpr std::array<std::array<std::int64_t, 2>, 4> shapes{
      {{1664, 1664}, {4096, 1664}, {1664, 4096}, {32000, 1664}}};
  for (const auto& [o, k] : shapes)
    for (const std::int64_t n : {1, 2, 3, 4, 8, 16, 32, 64, 128, 256})
      for (const bool onednn : {false, true}) {
        const auto name = fmt::format("matmul/{}/{}x{}/n:{}/{}", dtype, o, k, n, onednn ? "onednn" : kernels().name);
        const auto run = [=](benchmark::State& state) { matmul_cold<T>(state, o, k, n, onednn ? 0 : INT64_MAX); };
        benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMicrosecond);
      }
}

const bool registered = [] {
  benchmark::AddCustomContext("isa", kernels().name);
  benchmark::AddCustomContext("threads", std::to_string(threads()));
  benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)->Iterations(1)->Unit(benchmark::kMillisecond);
  register_matmuls<bf16>("bf16");
  register_matmuls<float>("f32");
  for (const std::int64_t positions : {16, 128, 2048}) {
    const auto run = [=](benchmark::State& state) { attend_cold(state, positions); };
    benchmark::RegisterBenchmark(fmt::format("attend/bf16/{}", positions).c_str(), run)->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace photon
