#include "bench/run.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "bench/bench_testing.h"
#include "bench/plan.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

using testing_support::source_of;

const BenchOptions quick{.repeats = 2, .probe_bytes = 1 << 20};

TEST(RunBench, MeasuresEveryCaseInEveryRound) {
  const std::vector sources{source_of("vanilla"), source_of("paper", DType::int8)};
  const auto cases = cases_of(
      BenchCase::Kind::decode, sources,
      {.protocols = {Protocol::hiergen, Protocol::recgen}, .streams = {1, 3}, .contexts = {32}, .tokens = {16}});
  std::vector<std::string> lines;
  const std::int64_t threads_before = threads();
  const auto results = run_bench(sources, cases, quick, [&](const std::string& line) { lines.push_back(line); });
  EXPECT_EQ(threads(), threads_before);
  ASSERT_EQ(results.size(), 2u * 3);
  EXPECT_EQ(lines.size(), 2 + 2 * results.size());  // loading each model, every case in every round
  for (const BenchResult& r : results) {
    const Spec& spec = sources[r.what.source].spec;
    EXPECT_EQ(r.model, r.what.source == 0 ? "vanilla" : "paper");
    EXPECT_EQ(r.is_vanilla, r.what.source == 0);
    EXPECT_EQ(r.dtype, sources[r.what.source].dtype);
    const Workload& w = r.what.workload;
    EXPECT_EQ(r.kv_bytes, w.streams * kv_bytes_allocated(spec, w.protocol, 32 + 16, DType::f32));
    EXPECT_LE(r.tokens_per_s.min, r.tokens_per_s.median);
    EXPECT_LE(r.tokens_per_s.median, r.tokens_per_s.max);
    for (const double positive :
         {r.tokens_per_s.min, r.ceiling_gb_s, r.memory_share, r.ceiling_gop_s, r.compute_share,
          r.kv_bytes_read_per_token, r.kv_bytes_written_per_token, r.weight_bytes_read_per_token})
      EXPECT_GT(positive, 0);
    EXPECT_EQ(r.logits_hash.size(), 16u);
  }
}

// Every stream reads its own caches and all of them the same weights.
TEST(RunBench, CountsBytesPerTokenOfAllStreams) {
  const std::vector sources{source_of("vanilla")};
  const auto cases = cases_of(BenchCase::Kind::decode, sources, {.streams = {1, 4}, .contexts = {32}, .tokens = {16}});
  const auto results = run_bench(sources, cases, quick, [](const std::string&) {});
  EXPECT_DOUBLE_EQ(results[0].kv_bytes_read_per_token, results[1].kv_bytes_read_per_token);
  EXPECT_DOUBLE_EQ(results[0].weight_bytes_read_per_token, 4 * results[1].weight_bytes_read_per_token);
}

TEST(RunBench, AveragesTheSamplesOfAGeneration) {
  const std::vector sources{source_of("vanilla")};
  const auto cases = paper_cases(sources, {.workloads = {{32, 64}}, .most_streams = 2, .tokens = 8, .samples = 4});
  const auto results = run_bench(sources, cases, quick, [](const std::string&) {});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].kv_bytes, 2 * kv_bytes_allocated(sources[0].spec, Protocol::hiergen, 96, DType::f32));
  // A token at context T reads T + 1 positions and its own; the samples' middles are those of the generation.
  const auto position = static_cast<double>(kv_bytes_per_position(*sources[0].spec.trunk, DType::f32));
  EXPECT_NEAR(results[0].kv_bytes_read_per_token / position, 64 + 1.5, 1);
}

TEST(RunBench, RefusesWhatDoesNotFitIntoMemory) {
  const std::vector sources{source_of("vanilla")};
  const auto cases = cases_of(BenchCase::Kind::decode, sources, {.streams = {1 << 16}, .contexts = {1 << 24}});
  try {
    run_bench(sources, cases, quick, [](const std::string&) {});
    FAIL();
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("KV caches 1759"), std::string::npos) << e.what();  // 2^16 · 2^24 · 160 bytes
  }
}

TEST(MemoryOf, CountsAllModelsTheLargestBatchAndTheProbe) {
  const std::vector sources{source_of("vanilla"), source_of("paper")};
  const auto cases =
      cases_of(BenchCase::Kind::decode, sources, {.streams = {1, 5}, .contexts = {0, 64}, .tokens = {16}});
  const BenchMemory memory = memory_of(sources, cases, 1000);
  EXPECT_GE(memory.weights, packed_bytes(sources[0].spec, DType::f32) + packed_bytes(sources[1].spec, DType::f32));
  std::int64_t kv = 0;
  for (const BenchSource& s : sources) kv += 5 * kv_bytes_allocated(s.spec, Protocol::hiergen, 80, DType::f32);
  EXPECT_EQ(memory.kv, kv);  // the first stream shares the prompt's pages
  EXPECT_GE(memory.rest, 1000);
}

TEST(MemoryOf, LeavesOutWhatHasNoCase) {
  const std::vector both{source_of("vanilla"), source_of("paper")}, one{source_of("vanilla")};
  const auto cases = cases_of(BenchCase::Kind::decode, one, {.tokens = {16}});
  EXPECT_EQ(memory_of(both, cases, 0).total(), memory_of(one, cases, 0).total());
}

TEST(SpreadOf, TakesTheMedian) {
  const Spread odd = spread_of({3, 1, 2}), even = spread_of({4, 1, 2, 3});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(even.median, 2.5);
}

TEST(Sources, HaveTheNameOfTheirConfigOrFolderAndItsTypes) {
  const TestModel folder(tiny_spec("block"), 1, DType::bf16);
  const BenchSource stored = folder_source(folder.path(), std::nullopt, std::nullopt);
  EXPECT_EQ(name_of(stored), folder.path().filename().string());
  EXPECT_EQ(stored.dtype, DType::bf16);
  EXPECT_EQ(stored.kv, DType::bf16);
  EXPECT_EQ(stored.spec, tiny_spec("block"));
  const BenchSource slash = folder_source(folder.path() / "", DType::f32, DType::int8);
  EXPECT_EQ(name_of(slash), name_of(stored));
  EXPECT_EQ(slash.dtype, DType::f32);
  EXPECT_EQ(slash.kv, DType::int8);
  const BenchSource config = config_source(folder.path() / "config.json", DType::f32, std::nullopt);
  EXPECT_EQ(name_of(config), "config");
  EXPECT_EQ(config.kv, DType::f32);
}

}  // namespace
}  // namespace photon
