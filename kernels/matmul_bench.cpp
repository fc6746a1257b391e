// Products with packed weights on the shapes of photon-600m, every weight type, beside what the machine can do at most.
//
//   kernels_matmul_bench --benchmark_filter='ceiling|int8/4096x1664' --benchmark_repetitions=5
//     --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
//
// compares medians of one run, interleaved.  PHOTON_ISA chooses the kernels, OMP_WAIT_POLICY=passive helps where other
// programs compete for the cores.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/ceilings.h"
#include "kernels/kernels.h"
#include "kernels/matmul.h"

namespace photon {
namespace {

constexpr std::array types{DType::f32, DType::bf16, DType::int8, DType::int4};

// More bytes than any cache holds: every call reads its weights from memory, as decoding does.  The numbers are
// arbitrary, but none is a NaN or a denormal in any type.
const HugeMemory& cold_weights() {
  static const HugeMemory memory = [] {
    HugeMemory made(std::int64_t{256} << 20);
    Random random(1);
    for (std::int64_t i = 0; i < made.bytes(); i += 8) {
      const std::uint64_t word = (random.next() & 0x3fff'3fff'3fff'3fff) | 0x3000'3000'3000'3000;
      std::memcpy(made.data() + i, &word, sizeof word);
    }
    return made;
  }();
  return memory;
}

Matrix<float> random_matrix(std::int64_t rows, std::int64_t cols) {
  Matrix<float> made(rows, cols);
  Random random(1);
  for (std::int64_t i = 0; i < rows * cols; ++i) made.data()[i] = static_cast<float>(random.normal());
  return made;
}

benchmark::Counter giga_per_second(std::int64_t amount) {
  return {static_cast<double>(amount) * 1e-9, benchmark::Counter::kIsIterationInvariantRate};
}

void matmul_cold(benchmark::State& state, DType type, std::int64_t outputs, std::int64_t k, std::int64_t rows) {
  PackedWeight w{.type = type, .outputs = outputs, .k = k};
  const std::int64_t copies = cold_weights().bytes() / w.bytes();
  Inputs x;
  x.assign(random_matrix(rows, k), input_form(type));
  Matrix<float> y(rows, outputs);
  std::int64_t calls = 0;
  for (auto _ : state) {
    w.panels = cold_weights().data() + calls++ % copies * w.bytes();
    matmul(x.view(), w, y);
    benchmark::DoNotOptimize(y.data());
  }
  state.counters["GB/s"] = giga_per_second(w.bytes());
  state.counters["GOP/s"] = giga_per_second(2 * rows * outputs * k);
}

void make_inputs(benchmark::State& state, InputForm form, std::int64_t k, std::int64_t rows, bool normed) {
  const Matrix<float> x = random_matrix(rows, k), weight = random_matrix(1, k);
  Inputs made;
  for (auto _ : state) {
    if (normed)
      made.assign_normed(x, weight.row(0), 1e-5f, form);
    else
      made.assign(x, form);
    benchmark::DoNotOptimize(made.view().data);
  }
}

void read_ceiling(benchmark::State& state) {
  static const ReadProbe probe;
  double gb_s = 0;
  for (auto _ : state) gb_s = std::max(gb_s, probe.gb_s());
  state.counters["GB/s"] = gb_s;
}

void peak_ceiling(benchmark::State& state, Arithmetic arithmetic) {
  double gop_s = 0;
  for (auto _ : state) gop_s = std::max(gop_s, measure_peak_gop_s(arithmetic));
  state.counters["GOP/s"] = gop_s;
}

const bool registered = [] {
  benchmark::AddCustomContext("isa", kernels().name);
  benchmark::AddCustomContext("threads", std::to_string(threads()));
  benchmark::RegisterBenchmark("ceiling/read", read_ceiling)->Iterations(1)->Unit(benchmark::kMillisecond);
  constexpr std::array<std::pair<const char*, Arithmetic>, 3> peaks{
      {{"f32", Arithmetic::f32}, {"bf16", Arithmetic::bf16}, {"int8", Arithmetic::int8}}};
  for (const auto& [name, arithmetic] : peaks)
    benchmark::RegisterBenchmark(
        fmt::format("ceiling/{}", name).c_str(),
        [arithmetic = arithmetic](benchmark::State& state) { peak_ceiling(state, arithmetic); })
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  constexpr std::array<std::array<std::int64_t, 2>, 4> shapes{
      {{1664, 1664}, {4096, 1664}, {1664, 4096}, {32000, 1664}}};
  for (const DType type : types)
    for (const auto& [outputs, k] : shapes)
      for (const std::int64_t rows : {1, 4, 16, 64, 512}) {
        const auto name = fmt::format("matmul/{}/{}x{}/n:{}", to_string(type), outputs, k, rows);
        const auto run = [=](benchmark::State& state) { matmul_cold(state, type, outputs, k, rows); };
        benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMicrosecond);
      }
  constexpr std::array<std::pair<const char*, InputForm>, 3> forms{
      {{"f32", InputForm::f32}, {"bf16", InputForm::bf16}, {"int8", InputForm::int8}}};
  for (const auto& [form_name, form] : forms)
    for (const bool normed : {false, true})
      for (const std::int64_t rows : {1, 16, 512}) {
        const auto name = fmt::format("inputs/{}{}/1664/n:{}", form_name, normed ? "/normed" : "", rows);
        const auto run = [form = form, rows, normed](benchmark::State& state) {
          make_inputs(state, form, 1664, rows, normed);
        };
        benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMicrosecond);
      }
  return true;
}();

}  // namespace
}  // namespace photon
