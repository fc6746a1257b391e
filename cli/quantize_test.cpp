// The command line of photon quantize: what it reports of what weights/quantizer.h does, and which types it knows.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/folder_testing.h"
#include "cli/command_testing.h"
#include "engine/models_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

class QuantizeCommand : public ::testing::Test {
 protected:
  static std::string run(const std::vector<std::string>& arguments) {
    return testing_support::run_command(add_quantize, "quantize", arguments);
  }

  const TestModel model{tiny_spec("block")};
  const testing_support::TemporaryFolder folder;
  const std::string in = model.path(), out = folder / "out";
};

TEST_F(QuantizeCommand, ReportsSizesAndLossesAsJsonAndAsATable) {
  const auto report = nlohmann::json::parse(run({in, out, "--type", "int8", "--json"}));
  EXPECT_EQ(report["model"], out);
  EXPECT_EQ(report["type"], "int8");
  EXPECT_EQ(report["bytes_before"], fs::file_size(fs::path(in) / weights_file));
  EXPECT_EQ(report["bytes_after"], fs::file_size(fs::path(out) / weights_file));
  for (const auto& kind : report["kinds"]) {
    EXPECT_GE(kind["tensors"], 1);
    EXPECT_GE(kind["parameters"], kind["tensors"]);
    EXPECT_GT(kind["relative_rms_error"], 0) << kind;
    EXPECT_LE(kind["relative_rms_error"], kind["largest_relative_rms_error"]) << kind;
  }
  const ModelFolder rounded = open_model_folder(out);
  EXPECT_EQ(rounded.dtype, DType::int8);
  const std::string table = run({in, folder / "table", "--type", "bf16"});
  for (const char* word : {"times smaller", "bf16", "attn.q", "embed", "norm"})
    EXPECT_NE(table.find(word), std::string::npos) << word << "\n" << table;
}

TEST_F(QuantizeCommand, KnowsItsTypes) {
  EXPECT_THROW(run({in, out, "--type", "int5"}), UsageError);
  EXPECT_THROW(run({in, out, "--type", "f32"}), UsageError);
  EXPECT_THROW(run({in, out}), UsageError);
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace photon
