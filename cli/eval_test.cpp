// Properties of photon eval: what it prints is what its record says, and nothing runs on broken data.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/tokenizer_model_testing.h"
#include "engine/models_testing.h"
#include "kernels/kernels.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing_support::run_command;
using testing_support::TemporaryFolder;

const std::string testdata = PHOTON_SOURCE_DIR "/eval/testdata";

class EvalCommand : public testing_support::TokenizerModel {
 protected:
  std::string eval(const std::vector<std::string>& arguments) const { return run(add_eval, "eval", arguments); }

  TemporaryFolder folder;
};

TEST_F(EvalCommand, EveryTaskReportsItsMetricsAndItsRecordAgrees) {
  const std::string out = folder / "out";
  const json report = json::parse(eval({"--data", testdata, "--out", out, "--json", "--limit", "3"}));
  EXPECT_EQ(report, json::parse(read_text(folder / "out/results.json")));
  ASSERT_EQ(report["tasks"].size(), 7u);
  for (const json& task : report["tasks"]) {
    const std::string name = task["task"];
    EXPECT_EQ(task["documents"], 3);
    std::ifstream lines(folder / "out" / (name + ".jsonl"));
    double acc = 0, nats = 0;
    int n = 0;
    for (std::string line; std::getline(lines, line); ++n) {
      const json record = json::parse(line);
      EXPECT_EQ(record["data_sha256"], task["data"]["sha256"]);
      acc += record.value("acc", 0.0);
      nats += record["loglikelihoods"][0].get<double>();
    }
    EXPECT_EQ(n, 3) << name;
    const json& metrics = task["metrics"];
    if (metrics.contains("acc")) {
      EXPECT_DOUBLE_EQ(metrics["acc"]["value"], acc / 3);
    }
    if (name == "lambada") {
      EXPECT_DOUBLE_EQ(metrics["perplexity"]["value"], std::exp(-nats / 3));
    }
    EXPECT_EQ(metrics.contains("acc_norm"), name != "wikitext" && name != "lambada" && name != "winogrande");
    EXPECT_EQ(metrics.contains("word_perplexity"), name == "wikitext");
  }
  const std::string table = eval({"--data", testdata, "--out", out, "--limit", "3", "--tasks", "piqa,winogrande"});
  EXPECT_NE(table.find("acc_norm"), std::string::npos);
  EXPECT_NE(table.find("±"), std::string::npos);
  EXPECT_EQ(table.find("lambada"), std::string::npos);
}

TEST_F(EvalCommand, ProtocolsAndExamplesAreSettings) {
  const auto nats = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"--data", testdata, "--tasks", "wikitext,lambada", "--limit", "4", "--json"});
    const json report = json::parse(eval(more));
    return std::pair(report["tasks"][0]["metrics"]["bits_per_byte"]["value"].get<double>(),
                     report["tasks"][1]["metrics"]["perplexity"]["value"].get<double>());
  };
  const auto exact = nats({});
  EXPECT_EQ(nats({"--protocol", "hiergen"}), exact);
  EXPECT_NE(nats({"--protocol", "recgen"}), exact);
  EXPECT_NE(nats({"--max-length", "16"}).first, exact.first);
  EXPECT_EQ(nats({"--few-shot", "2"}).first, exact.first);  // wikitext has none
  EXPECT_NE(nats({"--few-shot", "2"}).second, exact.second);
  EXPECT_THROW(nats({"--protocol", "beam"}), InputError);
}

TEST_F(EvalCommand, SaysWhatIsWrongBeforeAnythingIsScored) {
  EXPECT_THROW(eval({}), UsageError);
  EXPECT_THROW(run_command(add_eval, "eval", {"--data", testdata}), UsageError);
  EXPECT_THROW(eval({"--data", testdata, "--fetch", folder / "x"}), UsageError);
  EXPECT_THROW(eval({"--data", testdata, "--max-length", "0"}), UsageError);
  EXPECT_THROW(eval({"--data", testdata, "--tasks", "piqa,none"}), InputError);
  EXPECT_THROW(eval({"--data", testdata, "--tasks", "all,none"}), InputError);
  fs::copy(testdata + "/piqa", folder / "piqa", fs::copy_options::recursive);
  folder.write("lambada_test.jsonl", "{}");
  EXPECT_THROW(eval({"--data", folder.path(), "--tasks", "piqa,lambada", "--out", folder / "out"}), InputError);
  EXPECT_FALSE(fs::exists(folder / "out"));
  fs::remove(model.path() / tokenizer_file);
  EXPECT_THROW(eval({"--data", testdata}), InputError);
}

}  // namespace
}  // namespace photon
