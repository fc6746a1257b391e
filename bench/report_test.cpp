#include "bench/report.h"

#include <gtest/gtest.h>

#include <regex>

namespace photon {
namespace {

using nlohmann::ordered_json;

BenchResult result_of(const std::string& model, bool is_vanilla, double tokens_per_s, std::int64_t kv_bytes) {
  return {.what = {.workload = {.streams = 8, .tokens = 64}, .contexts = {2048}, .context_label = 2048},
          .model = model,
          .is_vanilla = is_vanilla,
          .tokens_per_s = {.median = tokens_per_s, .min = tokens_per_s / 2, .max = tokens_per_s * 2},
          .kv_bytes = kv_bytes};
}
constexpr std::int64_t gib = std::int64_t{1} << 30;

TEST(Tpm, IsThousandsOfTokensASecondForEachGib) {
  BenchResult r = result_of("photon", false, 3000, gib / 2);
  EXPECT_DOUBLE_EQ(*r.tpm(), 6);
  r.what.kind = BenchCase::Kind::prefill;
  EXPECT_FALSE(r.tpm());
}

TEST(RatioToVanilla, TakesBothSidesFromOneRun) {
  const std::vector results{result_of("vanilla", true, 100, gib), result_of("photon", false, 400, gib / 8)};
  const auto ratio = ratio_to_vanilla(results, results[1]);
  ASSERT_TRUE(ratio);
  EXPECT_DOUBLE_EQ(ratio->tokens_per_s, 4);
  EXPECT_DOUBLE_EQ(*ratio->tpm, 32);
  EXPECT_DOUBLE_EQ(ratio_to_vanilla(results, results[0])->tokens_per_s, 1);
}

TEST(RatioToVanilla, IsAbsentWithoutOneVanillaModelAtTheSameWork) {
  const BenchResult photon = result_of("photon", false, 400, gib);
  const auto has_ratio = [&](std::vector<BenchResult> others) {
    others.push_back(photon);
    return ratio_to_vanilla(others, photon).has_value();
  };
  const BenchResult vanilla = result_of("vanilla", true, 100, gib);
  EXPECT_TRUE(has_ratio({vanilla}));
  EXPECT_FALSE(has_ratio({}));
  EXPECT_FALSE(has_ratio({vanilla, vanilla}));  // which one?
  BenchResult other = vanilla;
  other.is_vanilla = false;
  EXPECT_FALSE(has_ratio({other}));
  for (const auto& change : std::vector<void (*)(BenchResult&)>{
           [](BenchResult& r) { r.dtype = DType::int8; }, [](BenchResult& r) { r.kv = DType::int8; },
           [](BenchResult& r) { r.what.threads = 2; }, [](BenchResult& r) { r.what.context_label = 0; },
           [](BenchResult& r) { r.what.workload.streams = 1; }, [](BenchResult& r) { r.what.workload.tokens = 16; },
           [](BenchResult& r) { r.what.kind = BenchCase::Kind::prefill; },
           [](BenchResult& r) { r.what.label = "1984+64"; }}) {
    other = vanilla;
    change(other);
    EXPECT_FALSE(has_ratio({other}));
  }
}

TEST(RatioToVanilla, ComparesBatchesOfDifferentSizesInAWorkloadOfThePaper) {
  std::vector results{result_of("vanilla", true, 100, gib), result_of("photon", false, 400, gib / 8)};
  for (BenchResult& r : results) r.what.label = "128+1920";
  results[0].what.workload.streams = 2;
  EXPECT_TRUE(ratio_to_vanilla(results, results[1]));
}

TEST(Table, PrintsNoRatioWithoutVanilla) {
  const std::vector alone{result_of("photon", false, 400, gib), result_of("photon-2", false, 500, gib)};
  const std::regex ratio("[0-9]x ");
  EXPECT_FALSE(std::regex_search(to_table(alone), ratio)) << to_table(alone);
  const std::vector beside{result_of("vanilla", true, 100, gib), result_of("photon", false, 400, gib)};
  EXPECT_TRUE(std::regex_search(to_table(beside), ratio)) << to_table(beside);
}

TEST(Json, HasEveryFieldInEveryRow) {
  const BenchOptions options{.repeats = 3, .seed = 9};
  const std::vector results{result_of("photon", false, 400, gib / 2), result_of("photon-2", false, 1, gib)};
  const ordered_json array = to_json(results, options);
  ASSERT_TRUE(array.is_array());
  ASSERT_EQ(array.size(), 2u);
  for (const auto& row : array) {
    for (const char* text : {"benchmark", "model", "protocol", "dtype", "kv_dtype", "phases", "bound_by", "logits_hash",
                             "isa", "cpu", "commit"})
      EXPECT_TRUE(row.at(text).is_string()) << text;
    for (const char* number : {"threads", "streams", "context", "tokens", "tokens_per_s", "tokens_per_s_min",
                               "tokens_per_s_max", "ceiling_gb_s", "ceiling_share", "memory_share", "ceiling_gop_s",
                               "compute_share", "kv_bytes", "kv_bytes_read_per_token", "kv_bytes_written_per_token",
                               "weight_bytes_read_per_token", "tpm", "repeats", "seed"})
      EXPECT_TRUE(row.at(number).is_number()) << number;
    for (const char* absent : {"tokens_per_s_vs_vanilla", "tpm_vs_vanilla"}) EXPECT_TRUE(row.at(absent).is_null());
  }
  const auto& row = array[0];
  EXPECT_EQ(row["model"], "photon");
  EXPECT_EQ(row["tokens_per_s"], 400);
  EXPECT_EQ(row["tokens_per_s_min"], 200);
  EXPECT_EQ(row["tokens_per_s_max"], 800);
  EXPECT_EQ(row["tpm"], 0.8);
  EXPECT_EQ(row["streams"], 8);
  EXPECT_EQ(row["context"], 2048);
  EXPECT_EQ(row["seed"], 9);
}

TEST(Json, TellsWhereAGenerationWasSampled) {
  std::vector results{result_of("photon", false, 400, gib)};
  EXPECT_FALSE(to_json(results, {})[0].contains("workload"));
  results[0].what.label = "128+2048";
  results[0].what.contexts = {376, 888};
  const auto row = to_json(results, {})[0];
  EXPECT_EQ(row["workload"], "128+2048");
  EXPECT_EQ(row["sampled_contexts"], (std::vector<int>{376, 888}));
}

TEST(Tpm, OfOneSampleIsThePapers) {
  std::vector results{result_of("vanilla", true, 100, 2 * gib), result_of("photon", false, 400, gib)};
  EXPECT_FALSE(results[0].tpm_alone());
  for (BenchResult& r : results) r.what.label = "128+2048";
  results[0].what.kv_bytes_alone = gib, results[1].what.kv_bytes_alone = gib / 16;
  EXPECT_DOUBLE_EQ(*results[1].tpm_alone(), 6.4);
  const auto ratio = ratio_to_vanilla(results, results[1]);
  EXPECT_DOUBLE_EQ(*ratio->tpm_alone, 64);
  EXPECT_DOUBLE_EQ(*ratio->tpm, 8);
  EXPECT_EQ(to_json(results, {})[1]["kv_bytes_alone"], gib / 16);
}

TEST(BenchResult, IsBoundByWhatItUsesMore) {
  BenchResult r = result_of("photon", false, 400, gib);
  r.memory_share = 0.9, r.compute_share = 0.2;
  EXPECT_TRUE(r.memory_binds());
  EXPECT_EQ(r.ceiling_share(), 0.9);
  r.memory_share = 0.1;
  EXPECT_FALSE(r.memory_binds());
  EXPECT_EQ(r.ceiling_share(), 0.2);
}

}  // namespace
}  // namespace photon
