// The run log goes on after the right record.
#include "train/progress.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "train/plot.h"
#include "train/runs_testing.h"

namespace photon {
namespace {

using testing_support::lines_of;
using testing_support::TemporaryFolder;

TEST(RunLog, GoesOnAfterTheCheckpointWithoutDuplicatesOrTornLines) {
  const TemporaryFolder folder;
  {
    RunLog log(folder / "log.jsonl", 0);
    EXPECT_TRUE(log.empty());
    log.append({{"format", "photon-log"}});
    for (const int step : {1, 2, 3}) log.append({{"step", step}, {"loss", 0.1 * step}});
    EXPECT_FALSE(log.empty());
  }
  std::ofstream(folder / "log.jsonl", std::ios::app) << R"({"step": 4, "lo)";
  {
    RunLog log(folder / "log.jsonl", 2);
    EXPECT_FALSE(log.empty());
    log.append({{"step", 3}, {"loss", 7}});
  }
  const auto lines = lines_of(folder / "log.jsonl");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(nlohmann::json::parse(lines[2])["loss"], 0.2);
  EXPECT_EQ(nlohmann::json::parse(lines[3])["loss"], 7);
}

TEST(RunLog, DamageBeforeTheLastLineIsRefused) {
  const TemporaryFolder folder;
  write_atomically(folder / "log.jsonl", "{\"step\": 1}\nrubbish\n{\"step\": 2}\n");
  EXPECT_THROW(RunLog(folder / "log.jsonl", 5), InputError);
}

// A log of so many steps of 1,000 tokens, with held-out losses every tenth one.
std::string log_of_run(int steps) {
  std::string log = "{\"format\": \"photon-log\"}\n";
  for (int step = 1; step <= steps; ++step) {
    log += nlohmann::json{{"step", step}, {"loss", 2.0 + 6.0 / step}, {"tokens", 1000 * step}}.dump() + "\n";
    if (step % 10 == 0)
      log +=
          nlohmann::json{{"step", step}, {"tokens", 1000 * step}, {"valid", {{"it's", {{"nats", 2.5 + 6.0 / step}}}}}}
              .dump() +
          "\n";
  }
  return log;
}

TEST(Plot, DrawsTrainingAndHeldOutLosses) {
  const TemporaryFolder folder;
  EXPECT_FALSE(plot_losses(folder.path())) << "nothing to draw";
  write_atomically(folder / "log.jsonl", log_of_run(50));
  const bool drawn = plot_losses(folder.path());
  const std::string script = read_text(folder / "loss.gp");
  for (const char* part :
       {"tokens trained on (thousands)", "loss (nats per token)", "held out: its, 2.620", "\n50 2.62\n"})
    EXPECT_NE(script.find(part), std::string::npos) << part;
  if (!drawn) GTEST_SKIP() << "gnuplot is not installed";
  EXPECT_NE(read_text(folder / "loss.svg").find("</svg>"), std::string::npos);
}

TEST(Plot, NamesNothingThatIsNotDrawn) {
  for (const auto& [steps, has_range] : {std::pair{1, false}, {50, false}, {319, false}, {320, true}, {2000, true}}) {
    const TemporaryFolder folder;
    write_atomically(folder / "log.jsonl", log_of_run(steps));
    plot_losses(folder.path());
    const std::string script = read_text(folder / "loss.gp");
    EXPECT_NE(script.find("'training"), std::string::npos);
    EXPECT_EQ(script.find("filledcurves") != std::string::npos, has_range) << steps;
    EXPECT_EQ(script.find("shaded") != std::string::npos, has_range) << steps;
    EXPECT_EQ(script.find("held out") != std::string::npos, steps >= 10) << steps;
    EXPECT_EQ(script.find("with points") != std::string::npos, steps == 1) << "one point makes no line";
    EXPECT_EQ(script.find("title"), std::string::npos) << "names stand beside the lines, there is no key";
  }
}

}  // namespace
}  // namespace photon
