#include "bench/figures.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/gnuplot.h"

namespace photon {
namespace {

BenchResult result_of(const std::string& model, std::int64_t streams, std::int64_t context, double tokens_per_s) {
  return {.what = {.workload = {.streams = streams, .context = context, .tokens = 16},
                   .contexts = {context},
                   .context_label = context},
          .model = model,
          .tokens_per_s = {.median = tokens_per_s, .min = tokens_per_s - 1, .max = tokens_per_s + 1},
          .kv_bytes = (context + 16) * streams << 20};
}

TEST(Figures, ALineFollowsTheContextAndIsNamedByWhatDiffers) {
  const std::vector results{result_of("a", 1, 2048, 10), result_of("b", 1, 2048, 40), result_of("a", 1, 0, 20),
                            result_of("b", 1, 0, 50)};
  const auto lines = throughput_by_context(results);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].name, "a");
  EXPECT_EQ(lines[1].name, "b");
  ASSERT_EQ(lines[0].points.size(), 2u);
  EXPECT_EQ(lines[0].points[0].x, 0);
  EXPECT_EQ(lines[0].points[0].y, 20);
  EXPECT_EQ(lines[0].points[0].low, 19);
  EXPECT_EQ(lines[0].points[1].x, 2048);
}

TEST(Figures, BatchesMakeLinesOverMemoryAndSeparateThemOverContext) {
  const std::vector results{result_of("a", 1, 0, 10), result_of("a", 8, 0, 60), result_of("a", 1, 2048, 5),
                            result_of("a", 8, 2048, 30)};
  const auto by_memory = throughput_by_memory(results), by_context = throughput_by_context(results);
  ASSERT_EQ(by_memory.size(), 2u);
  EXPECT_EQ(by_memory[0].name, "a context 0");
  EXPECT_EQ(by_memory[0].points[1].y, 60);
  EXPECT_EQ(by_memory[0].points[1].x, 16.0 * 8 / 1024);
  ASSERT_EQ(by_context.size(), 2u);
  EXPECT_EQ(by_context[1].name, "a 8 streams");
}

TEST(Figures, AModelLooksTheSameInEachAndTheVanillaOneInAll) {
  std::vector results{result_of("photon", 1, 0, 50), result_of("photon", 8, 0, 90), result_of("vanilla", 1, 0, 10),
                      result_of("vanilla", 8, 0, 20), result_of("block", 1, 0, 30)};
  results[1].what.workload.protocol = Protocol::recgen;
  results[2].is_vanilla = results[3].is_vanilla = true;
  for (const auto& lines : {throughput_by_context(results), throughput_by_memory(results)})
    for (const FigureLine& line : lines) {
      EXPECT_EQ(line.look.colour, line.name.starts_with("vanilla")  ? 0u
                                  : line.name.starts_with("photon") ? 1u
                                                                    : 2u)
          << line.name;
      EXPECT_EQ(line.look.hollow, line.name.find("recgen") != std::string::npos) << line.name;
      for (const FigureLine& other : lines) EXPECT_EQ(line.look == other.look, &line == &other) << line.name;
    }
  const std::vector without_vanilla{results.front(), results.back()};
  for (const FigureLine& line : throughput_by_context(without_vanilla)) EXPECT_NE(line.look.colour, 0u);
}

TEST(Figures, AWorkloadOfThePaperIsAPointOfItsModelsLine) {
  std::vector results{result_of("a", 64, 2176, 10), result_of("a", 17, 8192, 60)};
  results[0].what.label = "128+2048", results[1].what.label = "128+8064";
  EXPECT_EQ(throughput_by_memory(results).size(), 1u);
  EXPECT_EQ(throughput_by_context(results).size(), 1u);
}

TEST(Figures, ThePapersIsOfOneSample) {
  std::vector results{result_of("vanilla-600m", 18, 2176, 60), result_of("photon-600m", 64, 2176, 400),
                      result_of("photon-600m", 64, 2176, 410)};
  results[0].is_vanilla = true;
  results[0].what.label = results[1].what.label = "2048+128", results[2].what.label = "128+2048";
  results[0].what.kv_bytes_alone = std::int64_t{1} << 28;
  results[1].what.kv_bytes_alone = results[2].what.kv_bytes_alone = std::int64_t{1} << 24;
  const auto lines = paper_throughput_by_memory(results);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].look.colour, 0u);
  ASSERT_EQ(lines[1].points.size(), 2u);
  EXPECT_EQ(lines[1].points[0].x, 1.0 / 64);
  EXPECT_DOUBLE_EQ(lines[1].points[0].y, 0.4);
  EXPECT_DOUBLE_EQ(lines[1].points[1].high, 0.411);
  EXPECT_EQ(lines[1].points[1].label, "128+2048");

  if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot";
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("photon-figure3-" + std::to_string(::getpid()));
  make_folder(folder);
  draw_paper_figure(results, folder);
  const std::string svg = read_text(folder / "paper-figure3.svg");
  for (const char* text : {"photon-600m", "the paper: one H200", "TPM 1000", "DE"})
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  std::filesystem::remove_all(folder);
}

TEST(Figures, AreDrawn) {
  if (!have_gnuplot()) GTEST_SKIP() << "no gnuplot";
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("photon-figures-" + std::to_string(::getpid())) / "deep";
  make_folder(folder);
  const std::vector results{result_of("it's", 1, 0, 10), result_of("b_c", 8, 2048, 60)};
  draw_figures(results, folder);
  for (const char* name : {"throughput-context.svg", "throughput-memory.svg"})
    EXPECT_NE(read_text(folder / name).find("b_c"), std::string::npos) << name;
  std::filesystem::remove_all(folder.parent_path());
}

TEST(Figures, RefuseAFolderThatCannotBeMade) { EXPECT_THROW(make_folder("/dev/null/figures"), InputError); }

}  // namespace
}  // namespace photon
