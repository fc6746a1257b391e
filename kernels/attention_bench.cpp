// Attention: long contexts read from memory, prompts, short chunks; writing positions and rotation.
//
//   kernels_attention_bench --benchmark_filter='decode|read_bandwidth' --benchmark_repetitions=5
//     --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true
//
// GB/s are keys and values, once for every call; GFLOP/s are 4·h for every position that a query sees.  PHOTON_ISA
// chooses the kernels.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/attention.h"
#include "kernels/ceilings.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t page_slots = 16;

std::vector<float> random_floats(std::int64_t n) {
  Random random(1);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

benchmark::Counter giga_per_second(double amount) {
  return {amount * 1e-9, benchmark::Counter::kIsIterationInvariantRate};
}

/// The caches of several sequences as an engine lays them out: a page holds 16 positions of all heads.
struct Caches {
  Caches(DType kv_type, std::int64_t head_dim, std::int64_t heads, std::int64_t slots, std::int64_t length,
         std::int64_t sequences)
      : type(kv_type),
        h(head_dim),
        n_heads(heads),
        page(slots),
        n_pages((length + slots - 1) / slots),
        head_bytes(slots * kv_position_bytes(type, h)),
        memory(sequences * n_pages * n_heads * head_bytes) {
    const auto k = random_floats(64 + h);
    for (std::int64_t i = 0; i < sequences * n_pages; ++i)
      for (std::int64_t head = 0; head < n_heads; ++head)
        for (std::int64_t slot = 0; slot < page; ++slot) {
          const auto vector =
              std::span(k).subspan(static_cast<std::size_t>((i + head + slot) % 64), static_cast<std::size_t>(h));
          kv_store(type, head_of(i, head), page, slot, vector, vector);
        }
  }
  std::byte* head_of(std::int64_t i, std::int64_t head) const {
    return memory.data() + (i * n_heads + head) * head_bytes;
  }
  void see(std::int64_t sequence, std::int64_t head, std::int64_t n, std::vector<KvRun>& runs) const {
    runs.clear();
    for (std::int64_t p = 0; p < n; p += page)
      runs.push_back({.head = head_of(sequence * n_pages + p / page, head),
                      .slots = page,
                      .first = 0,
                      .n = std::min(page, n - p)});
  }
  DType type;
  std::int64_t h, n_heads, page, n_pages, head_bytes;
  HugeMemory memory;
};

void read_bandwidth(benchmark::State& state) {
  const ReadProbe probe;
  double gb_s = 0;
  for (auto _ : state) gb_s = std::max(gb_s, probe.gb_s());
  state.counters["GB/s"] = gb_s;
}

// One row of each of 32 heads over `context` positions; enough sequences that every call reads from memory, or one
// head again and again (warm).  Every benchmark thread has its own heads.
void decode(benchmark::State& state, DType type, std::int64_t h, std::int64_t heads_together, std::int64_t context,
            bool warm) {
  constexpr std::int64_t n_heads = 32;
  static const Caches* caches = nullptr;
  const std::int64_t bytes = context * kv_position_bytes(type, h);
  const std::int64_t sequences = warm ? 1 : std::max<std::int64_t>(1, (192 << 20) / (bytes * n_heads));
  if (state.thread_index() == 0) caches = new Caches(type, h, n_heads, page_slots, context, sequences);
  const auto q = random_floats(heads_together * h);
  std::vector<float> out(q.size());
  std::vector<KvRun> runs;
  runs.reserve(static_cast<std::size_t>(context));
  const std::vector<std::int64_t> visible{context};
  std::int64_t call = state.thread_index();
  for (auto _ : state) {
    caches->see(warm ? 0 : call / n_heads % sequences, warm ? state.thread_index() : call % n_heads, context, runs);
    call += state.threads();
    attend(type, h, {q.data(), 1, heads_together * h, heads_together * h}, visible, runs,
           {out.data(), 1, heads_together * h, heads_together * h});
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["GB/s"] = giga_per_second(static_cast<double>(bytes));
  if (state.thread_index() == 0) delete caches;
}

// n causal rows of one head.
void prefill(benchmark::State& state, DType type, std::int64_t h, std::int64_t n) {
  const Caches caches(type, h, 1, page_slots, n, 1);
  const auto q = random_floats(n * h);
  std::vector<float> out(q.size());
  std::vector<KvRun> runs;
  caches.see(0, 0, n, runs);
  std::vector<std::int64_t> visible(static_cast<std::size_t>(n));
  std::iota(visible.begin(), visible.end(), 1);
  for (auto _ : state) {
    attend(type, h, {q.data(), n, h, h}, visible, runs, {out.data(), n, h, h});
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["GFLOP/s"] = giga_per_second(4.0 * static_cast<double>(h * n * (n + 1) / 2));
}

// The last rows of 32 heads' chunks of 7 slots; the time is that of 32 heads.
void chunk(benchmark::State& state, DType type, std::int64_t n, std::int64_t positions) {
  constexpr std::int64_t n_heads = 32, h = 52, slots = 7;
  const Caches caches(type, h, n_heads, slots, slots, 8);
  const auto q = random_floats(n * n_heads * h);
  std::vector<float> out(q.size());
  std::vector<std::int64_t> visible(static_cast<std::size_t>(n));
  std::iota(visible.begin(), visible.end(), positions - n + 1);
  std::int64_t sequence = 0;
  for (auto _ : state) {
    ++sequence;
    for (std::int64_t head = 0; head < n_heads; ++head) {
      const KvRun run{caches.head_of(sequence % 8, head), slots, 0, positions};
      attend(type, h, {q.data() + head * h, n, h, n_heads * h}, visible, {&run, 1},
             {out.data() + head * h, n, h, n_heads * h});
    }
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ns/head"] = {n_heads * 1e-9,
                               benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert};
}

void store(benchmark::State& state, DType type) {
  constexpr std::int64_t h = 52;
  const auto k = random_floats(h), v = random_floats(h);
  std::vector<std::byte> page(static_cast<std::size_t>(page_slots * kv_position_bytes(type, h)));
  std::int64_t slot = 0;
  for (auto _ : state) {
    kv_store(type, page.data(), page_slots, slot++ % page_slots, k, v);
    benchmark::DoNotOptimize(page.data());
    benchmark::ClobberMemory();
  }
}

void rope(benchmark::State& state, std::int64_t n) {
  constexpr std::int64_t h = 52, width = 64 * h;
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n));
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<float> cos_sin(static_cast<std::size_t>(n * h));
  auto x = random_floats(n * width);
  rope_table(positions, 10000.0, h, {cos_sin.data(), n, h, h});
  for (auto _ : state) {
    rotate({cos_sin.data(), n, h, h}, h, {x.data(), n, width, width});
    benchmark::DoNotOptimize(x.data());
  }
  state.counters["Gelement/s"] = giga_per_second(static_cast<double>(n * width));
}

void table(benchmark::State& state, std::int64_t n) {
  constexpr std::int64_t h = 52;
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n));
  std::iota(positions.begin(), positions.end(), 2048);
  std::vector<float> cos_sin(static_cast<std::size_t>(n * h));
  for (auto _ : state) {
    rope_table(positions, 10000.0, h, {cos_sin.data(), n, h, h});
    benchmark::DoNotOptimize(cos_sin.data());
  }
}

template <class Run>
auto* add(const std::string& name, Run run) {
  return benchmark::RegisterBenchmark(name.c_str(), run);
}

const bool registered = [] {
  benchmark::AddCustomContext("isa", kernels().name);
  add("read_bandwidth", read_bandwidth)->Iterations(1)->Unit(benchmark::kMillisecond);
  for (const DType type : {DType::bf16, DType::int8, DType::f32}) {
    const auto named = [type](const char* what) { return fmt::format("{}/{}", what, to_string(type)); };
    for (const std::int64_t context : {128, 512, 2048, 8192})
      for (const std::int64_t heads : {1, 4}) {
        const auto run = [=](benchmark::State& state) { decode(state, type, 52, heads, context, false); };
        for (const int threads : {1, 2})
          add(fmt::format("{}/G:{}/{}", named("decode"), heads, context), run)->Threads(threads);
      }
    for (const std::int64_t context : {16, 64, 128, 1024}) {
      const auto run = [=](benchmark::State& state) { decode(state, type, 52, 1, context, true); };
      add(fmt::format("{}/warm/{}", named("decode"), context), run);
    }
    for (const std::int64_t h : {52, 64, 128})
      for (const std::int64_t n : {16, 128, 512, 2048}) {
        const auto run = [=](benchmark::State& state) { prefill(state, type, h, n); };
        add(fmt::format("{}/h:{}/{}", named("prefill"), h, n), run)->Unit(benchmark::kMicrosecond);
      }
    for (const std::int64_t n : {1, 4})
      for (const std::int64_t positions : {4, 7}) {
        const auto run = [=](benchmark::State& state) { chunk(state, type, n, positions); };
        add(fmt::format("{}/n:{}/{}", named("chunk"), n, positions), run);
      }
    add(named("store"), [=](benchmark::State& state) { store(state, type); });
  }
  for (const std::int64_t n : {1, 512}) {
    add(fmt::format("rotate/{}", n), [=](benchmark::State& state) { rope(state, n); });
    add(fmt::format("rope_table/{}", n), [=](benchmark::State& state) { table(state, n); });
  }
  return true;
}();

}  // namespace
}  // namespace photon
