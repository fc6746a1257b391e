// Properties of photon vote: its points are a curve over the samples that were asked for, and bad values are refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/tokenizer_model_testing.h"

namespace photon {
namespace {

using nlohmann::json;

const std::string testdata = PHOTON_SOURCE_DIR "/eval/testdata";

class VoteCommand : public testing_support::TokenizerModel {
 protected:
  std::string vote(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--data", testdata});
    return run(add_vote, "vote", arguments);
  }
};

TEST_F(VoteCommand, TellsTheCurveAndWhatABudgetHolds) {
  const json report = json::parse(
      vote({"--tasks", "lambada,sciq", "--samples", "8", "--tokens", "4", "--limit", "3", "--budget", "2", "--json"}));
  ASSERT_EQ(report["tasks"].size(), 2u);
  for (const json& task : report["tasks"]) {
    EXPECT_EQ(task["documents"], 3);
    EXPECT_EQ(task["samples"], 24);
    ASSERT_EQ(task["points"].size(), 4u);
    const double alone = task["kv_bytes_a_sample_alone"];
    EXPECT_EQ(task["samples_in_budget"], static_cast<std::int64_t>(2e6 / alone));
    for (std::size_t i = 0; i < 4; ++i) {
      const json& point = task["points"][i];
      EXPECT_EQ(point["n"], 1 << i);
      EXPECT_DOUBLE_EQ(point["kv_bytes_alone"], alone * (1 << i));
      EXPECT_GE(point["any"]["value"], point["majority"]["value"]);
      EXPECT_GE(point["any"]["value"], point["best"]["value"]);
    }
  }
  const std::string table = vote({"--tasks", "lambada", "--samples", "2", "--limit", "2"});
  EXPECT_NE(table.find("likeliest"), table.npos) << table;
}

TEST_F(VoteCommand, RefusesWhatCannotBe) {
  EXPECT_THROW(vote({"--tasks", "wikitext"}), InputError);
  EXPECT_THROW(vote({"--tasks", "nothing"}), InputError);
  EXPECT_THROW(vote({"--tasks", "lambada", "--temperature", "-1"}), FieldError);
  EXPECT_THROW(vote({"--tasks", "lambada", "--samples", "0"}), UsageError);
  EXPECT_THROW(vote({"--tasks", "lambada", "--seed", "-1"}), UsageError);
}

}  // namespace
}  // namespace photon
