// Reading a long text: a token's step of a block of 4 heads with context 2 over a vocabulary of 4,096.
//
//   kernels_text_memory_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//
// Bytes are those of the ids, each read twice.  PHOTON_ISA chooses the kernels.
#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "kernels/kernels.h"
#include "kernels/text_memory.h"

namespace photon {
namespace {

void read_text(benchmark::State& state) {
  constexpr std::int64_t V = 4096, context = 2, h = 64, page_tokens = 512;
  const std::int64_t n = state.range(0);
  Random random(1);
  std::vector<std::uint16_t> ids;
  for (std::int64_t j = 0; j < n; ++j) {  // some words are frequent
    const double x = random.uniform();
    ids.push_back(static_cast<std::uint16_t>(x * x * x * V));
  }
  std::vector<const std::byte*> pages;
  for (std::int64_t j = 0; j < n; j += page_tokens) pages.push_back(reinterpret_cast<const std::byte*>(&ids[j]));
  std::vector<std::int32_t> occurring, weighed(V);
  for (std::int32_t id = 0; id < V; ++id) occurring.push_back(id);
  std::vector<float> scores(text_heads * context * V), values(V * h), log_distances, out(text_heads * h),
      table(context * (V + 1) * text_heads), weights((V + 1) * text_heads), top(text_heads), sum(text_heads);
  for (float& x : scores) x = static_cast<float>(random.normal());
  for (std::int64_t d = 0; d <= n; ++d) log_distances.push_back(std::log1p(static_cast<float>(d)));
  TextCall call{.vocab_size = V,
                .context = context,
                .head_dim = h,
                .n_heads = text_heads,
                .ids = occurring.data(),
                .n_ids = V,
                .score_stride = V,
                .pages = pages.data(),
                .page_tokens = page_tokens,
                .id_bytes = 2,
                .first = 0,
                .last = n,
                .predicted = n,
                .log_distances = log_distances.data(),
                .type = DType::f32,
                .table = table.data(),
                .weights = weights.data(),
                .weighed = weighed.data(),
                .top = top.data(),
                .sum = sum.data()};
  for (std::int64_t k = 0; k < text_heads; ++k) {
    call.scores[k] = scores.data() + k * context * V;
    call.rates[k] = 0.5f;
    call.values[k] = reinterpret_cast<const std::byte*>(values.data());
    call.out[k] = out.data() + k * h;
  }
  for (auto _ : state) {
    kernels().read_text(call);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ids/s"] = benchmark::Counter(static_cast<double>(n), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(n) * 4e-9, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(read_text)->Arg(1 << 10)->Arg(1 << 14)->Arg(1 << 20);

}  // namespace
}  // namespace photon
