// The paper's figures stand in the rows that they belong to, and what we measure is what they are of.
#include "bench/paper.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>

#include "spec/accounting.h"

namespace photon {
namespace {

using enum Protocol;

BenchResult result_of(const std::string& model, Protocol protocol, const std::string& label,
                      double tokens_per_s = 100) {
  return {.what = {.workload = {.protocol = protocol, .streams = 8, .tokens = 16},
                   .contexts = {2048},
                   .context_label = 2176,
                   .label = label,
                   .kv_bytes_peak = std::int64_t{1} << 30,
                   .kv_bytes_alone = std::int64_t{1} << 28},
          .model = model,
          .is_vanilla = model.starts_with("vanilla"),
          .tokens_per_s = {.median = tokens_per_s, .min = tokens_per_s, .max = tokens_per_s},
          .kv_bytes = std::int64_t{1} << 30};
}

// Three columns of which the third is a quotient: a slip of the pen in any of them shows.
TEST(PaperRows, HaveTheThroughputOfTheirMemory) {
  for (const PaperRow& row : paper_rows())
    for (const PaperFigures& f : {row.prefill_heavy, row.decode_heavy})
      EXPECT_NEAR(f.k_tokens_per_s / f.kv_gib / f.tpm, 1, 0.005) << row.model << ' ' << to_string(row.protocol);
}

TEST(PaperRows, NameConfigsOfThisRepository) {
  EXPECT_EQ(paper_sizes(), (std::vector<std::string>{"600m", "900m", "1.2b"}));
  EXPECT_EQ(paper_models("600m"),
            (std::vector<std::string>{"vanilla-600m", "block-600m", "photon-600m", "photon-600m-c2x2"}));
  for (const std::string& size : paper_sizes()) {
    const auto models = paper_models(size);
    EXPECT_TRUE(load_spec(PHOTON_SOURCE_DIR "/configs/paper/" + models.front() + ".json").is_vanilla());
    for (const std::string& model : models)
      EXPECT_TRUE(std::filesystem::exists(PHOTON_SOURCE_DIR "/configs/paper/" + model + ".json")) << model;
  }
}

TEST(PaperFigures, AreOfTheSameModelProtocolAndWorkload) {
  EXPECT_EQ(paper_figures(result_of("photon-600m", hiergen, "128+2048"))->tpm, 3062.17);
  EXPECT_EQ(paper_figures(result_of("photon-600m", recgen, "128+2048"))->tpm, 13642.50);
  EXPECT_EQ(paper_figures(result_of("photon-600m", hiergen, "2048+128"))->kv_gib, .031);
  EXPECT_EQ(paper_figures(result_of("block-1.2b", hiergen, "128+2048"))->k_tokens_per_s, 27.55);
  EXPECT_FALSE(paper_figures(result_of("photon-600m", hiergen, "128+8064")));
  EXPECT_FALSE(paper_figures(result_of("photon-600m-c2x2", recgen, "128+2048")));
  EXPECT_FALSE(paper_figures(result_of("photon-600m-block", hiergen, "128+2048")));
}

TEST(PaperRatio, IsWhatThePaperClaims) {
  EXPECT_NEAR(paper_ratio(result_of("photon-600m", hiergen, "128+2048"))->tpm, 416.6, 0.1);
  EXPECT_NEAR(paper_ratio(result_of("photon-1.2b", hiergen, "128+2048"))->tpm, 475.3, 0.1);
  EXPECT_NEAR(paper_ratio(result_of("photon-600m", recgen, "128+2048"))->tpm, 1856, 0.2);
  EXPECT_EQ(paper_ratio(result_of("vanilla-900m", hiergen, "2048+128"))->kv_gib, 1);
  EXPECT_FALSE(paper_ratio(result_of("photon-tiny", hiergen, "2048+128")));
}

TEST(PaperTable, PutsThePapersFiguresBesideOurs) {
  const std::vector results{result_of("vanilla-600m", hiergen, "128+2048", 50),
                            result_of("photon-600m", hiergen, "128+2048", 400),
                            result_of("photon-600m-c2x2", recgen, "128+2048", 400)};
  std::istringstream lines(to_paper_table(results));
  std::string line, vanilla, photon, without;
  while (std::getline(lines, line))
    for (auto& [name, found] : {std::pair{"vanilla-600m ", &vanilla}, {"photon-600m ", &photon}, {"c2x2 ", &without}})
      if (line.find(name) != std::string::npos) *found = line;
  for (const char* figure : {"DE 128+2048", " 1.69 ", " 7.35 ", " 0.23 "})
    EXPECT_NE(vanilla.find(figure), std::string::npos) << figure << " in " << vanilla;
  for (const char* figure : {" 0.4 ", " 8x ", " 70.4 ", " 41.7x ", " 0.25 ", " 0.023 ", " 1.6 ", " 3062 ", " 417x "})
    EXPECT_NE(photon.find(figure), std::string::npos) << figure << " in " << photon;
  EXPECT_NE(without.find(" - "), std::string::npos) << without;
}

TEST(PaperJson, HasThePapersFiguresOrNull) {
  const std::vector results{result_of("photon-600m", recgen, "2048+128"),
                            result_of("photon-600m-c2x2", recgen, "2048+128")};
  const auto array = to_paper_json(results, {});
  EXPECT_EQ(array[0]["paper"]["tpm"], 2828.06);
  EXPECT_NEAR(array[0]["paper_vs_vanilla"]["k_tokens_per_s"].get<double>(), 87.67 / 0.89, 1e-9);
  EXPECT_EQ(array[0]["kv_bytes_alone"], 1 << 28);
  EXPECT_NEAR(array[0]["tpm_alone"].get<double>(), 0.4, 1e-12);
  EXPECT_TRUE(array[1]["paper"].is_null());
  EXPECT_TRUE(array[1]["paper_vs_vanilla"].is_null());
}

// What `photon bench paper` measures of the 600M models: their keys and values are not all that the paper counted.
TEST(PaperPlan, HoldsLessThanThePapersMemory) {
  std::vector<BenchSource> sources;
  for (const std::string& model : paper_models("600m"))
    sources.push_back(config_source(PHOTON_SOURCE_DIR "/configs/paper/" + model + ".json", DType::bf16, std::nullopt));
  const auto cases = paper_cases(sources, {.workloads = {paper_prefill_heavy, paper_decode_heavy}});
  EXPECT_EQ(cases.size(), 2u * 6);  // recgen of the two PHOTONs, too
  for (const BenchCase& c : cases) {
    const BenchResult result{.what = c, .model = name_of(sources[c.source])};
    const double kv_gib = static_cast<double>(c.kv_bytes_alone) * 0x1p-30;
    EXPECT_LE(c.kv_bytes_peak, std::int64_t{4} << 30);
    if (const auto figures = paper_figures(result)) {
      EXPECT_LT(kv_gib, figures->kv_gib) << result.model << ' ' << c.label;
    }
    EXPECT_EQ(c.contexts.size(), 4u);
  }
  EXPECT_EQ(cases.front().kv_bytes_alone, (2176 + kv_page_units) * 106'496);  // with the bos, in whole pages
  EXPECT_EQ(cases.front().workload.streams, 18);
}

}  // namespace
}  // namespace photon
