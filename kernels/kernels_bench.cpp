// matmul() on the shapes of photon-600m against the memory's read bandwidth.
//
//   kernels_kernels_bench --benchmark_filter='matmul/bf16/.*/n:1$'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "kernels/bandwidth.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

// As many copies of one weight matrix as no cache can hold: every call reads its weights from memory, as decoding does.
template <class T>
struct ColdWeights {
  static constexpr std::int64_t bytes = 256 << 20;
  ColdWeights(std::int64_t o, std::int64_t k)
      : outputs(o), copies(std::max<std::int64_t>(1, bytes / (o * k * static_cast<std::int64_t>(sizeof(T))))) {
    all.resize(copies * o, k);
    Random random(1);
    for (std::int64_t i = 0; i < copies * o * k; ++i) {
      const auto value = static_cast<float>(random.uniform() - 0.5);
      if constexpr (std::is_same_v<T, float>)
        all.data()[i] = value;
      else
        all.data()[i] = to_bf16(value);
    }
  }
  Weight copy(std::int64_t i) const {
    const auto view = all.view().slice(i % copies * outputs, outputs);
    if constexpr (std::is_same_v<T, float>)
      return {.type = Weight::Type::f32, .f32 = view};
    else
      return {.type = Weight::Type::bf16, .b16 = view};
  }
  Matrix<T> all;
  std::int64_t outputs, copies;
};

void read_bandwidth(benchmark::State& state) {
  double gb_s = 0;
  for (auto _ : state) gb_s = std::max(gb_s, measure_read_bandwidth_gb_s());
  state.counters["GB/s"] = gb_s;
  state.counters["threads"] = static_cast<double>(threads());
}

template <class T>
void matmul_cold(benchmark::State& state, const ColdWeights<T>& weights, std::int64_t n, std::int64_t onednn_from) {
  const std::int64_t before = onednn_rows(), k = weights.all.cols();
  set_onednn_rows(onednn_from);
  Matrix<float> x(n, k), y(n, weights.outputs);
  Random random(2);
  for (std::int64_t i = 0; i < n * k; ++i) x.data()[i] = static_cast<float>(random.normal());
  matmul(x, weights.copy(0), y);
  std::int64_t calls = 0;
  for (auto _ : state) {
    matmul(x, weights.copy(++calls), y);
    benchmark::DoNotOptimize(y.data());
  }
  set_onednn_rows(before);
  const auto per_second = [&](std::int64_t amount) {
    return benchmark::Counter(static_cast<double>(amount) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GB/s"] = per_second(weights.outputs * k * static_cast<std::int64_t>(sizeof(T)));
  state.counters["GFLOP/s"] = per_second(2 * n * weights.outputs * k);
}

template <class T>
void register_matmuls(const char* dtype) {
  constexpr std::array<std::array<std::int64_t, 2>, 4> shapes{
      {{1664, 1664}, {4096, 1664}, {1664, 4096}, {32000, 1664}}};
  for (const auto& [o, k] : shapes) {
    const auto weights = std::make_shared<const ColdWeights<T>>(o, k);
    for (const std::int64_t n : {1, 2, 3, 4, 8, 16, 32, 64, 256})
      for (const bool onednn : {false, true}) {
        const auto name = fmt::format("matmul/{}/{}x{}/{}/n:{}", dtype, o, k, onednn ? "onednn" : kernels().name, n);
        const auto run = [=](benchmark::State& state) { matmul_cold<T>(state, *weights, n, onednn ? 0 : INT64_MAX); };
        benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMicrosecond);
      }
  }
}

const bool registered = [] {
  benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)->Iterations(1)->Unit(benchmark::kMillisecond);
  register_matmuls<bf16>("bf16");
  register_matmuls<float>("f32");
  return true;
}();

}  // namespace
}  // namespace photon
