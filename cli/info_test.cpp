// photon info: the parameters in the rows of the paper's tables, to the digit.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "cli/command_testing.h"
#include "cli/commands.h"

namespace photon {
namespace {

std::string info(const std::string& config, std::vector<std::string> more = {}) {
  more.insert(more.begin(), PHOTON_SOURCE_DIR "/configs/" + config + ".json");
  return testing_support::run_command(add_info, "info", more);
}

void expect_rows(const std::string& text, std::vector<std::pair<std::string, std::string>> rows) {
  for (const auto& [part, n] : rows)
    EXPECT_TRUE(std::regex_search(text, std::regex("\n  " + part + " +" + n + " +[0-9.]+ %\n"))) << part << '\n'
                                                                                                 << text;
}

TEST(Info, HasThePapersRowsOfParameters) {
  expect_rows(info("paper/photon-600m"), {{"embedder", "13,312,000"},
                                          {"level 1 encoder", "126,106,240"},
                                          {"level 2 chunker", "11,083,904"},
                                          {"level 2 encoder", "126,106,240"},
                                          {"level 2 converter", "5,541,120"},
                                          {"level 2 decoder", "126,106,240"},
                                          {"level 1 converter", "5,541,120"},
                                          {"decoder embedder", "53,248,000"},
                                          {"level 1 decoder", "126,106,240"},
                                          {"head", "53,248,000"},
                                          {"total", "646,399,104"}});
  expect_rows(info("paper/block-600m"),
              {{"embedder", "13,312,000"}, {"level 1 converter", "5,541,120"}, {"total", "629,770,752"}});
  expect_rows(info("paper/vanilla-600m"),
              {{"embedder", "53,248,000"}, {"head", "53,248,000"}, {"total", "610,915,968"}});
}

TEST(Info, GivesMachinesTheSamePartsAsPeople) {
  const auto report = nlohmann::json::parse(info("paper/photon-900m", {"--json"}));
  std::int64_t sum = 0;
  for (const auto& [part, n] : report["parameters_by_part"].items()) sum += n.get<std::int64_t>();
  EXPECT_EQ(sum, 907'162'368);
  EXPECT_EQ(report["parameters"], sum);
}

}  // namespace
}  // namespace photon
