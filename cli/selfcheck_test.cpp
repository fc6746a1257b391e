// Properties of photon selfcheck: what it prints, and that a failed check fails it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/command_testing.h"
#include "cli/commands.h"
#include "engine/models_testing.h"
#include "text/tokenizer_testing.h"
#include "weights/safetensors.h"

namespace photon {
namespace {

using testing_support::some_text, testing_support::TemporaryFolder;

class SelfcheckCommand : public ::testing::Test {
 protected:
  SelfcheckCommand() {
    Spec spec = tiny_spec("window_mixed");
    spec.vocab_size = 400;
    init_model_folder(spec, model, {.seed = 1});
    std::filesystem::copy_file(testing_support::tokenizer_path(), std::filesystem::path(model) / tokenizer_file);
  }
  std::string run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"-m", model, "--threads", "1", "-n", "64"});
    return testing_support::run_command(add_selfcheck, "selfcheck", arguments);
  }

  TemporaryFolder folder;
  const std::string model = folder / "model";
};

TEST_F(SelfcheckCommand, PrintsALineForEachCheckAndNoneFails) {
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--dtype", "int8"}, {"--file", folder.write("text", some_text(3, 20))}}) {
    const std::string text = run(more);
    EXPECT_EQ(text.find("FAIL"), std::string::npos) << text;
    for (const char* line : {"PASS  decoding", "info  recgen", "PASS  causality", "PASS  KV bytes = accounting, recgen",
                             "PASS  recgen keeps", "PASS  KL of int4 weights", "0 failed", "64 tokens"})
      EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
}

TEST_F(SelfcheckCommand, JsonHoldsEveryNumberWithItsTolerance) {
  const auto report = nlohmann::json::parse(run({"--json"}));
  EXPECT_EQ(report["model"], model);
  EXPECT_EQ(report["passed"], true);
  EXPECT_EQ(report["checks"].size(), 13u);
  for (const auto& check : report["checks"]) {
    EXPECT_EQ(check["verdict"], check["tolerance"].is_null() ? "info" : "PASS") << check;
    if (!check["tolerance"].is_null()) {
      EXPECT_LE(check["value"], check["tolerance"]);
    }
  }
}

// With weights of zero no token changes anything, so that the probes cannot find a leak either.
TEST_F(SelfcheckCommand, AFailedCheckFailsTheCommandAfterAllAreTold) {
  const std::vector<TensorSpec> shapes = tensors(load_spec(model));
  std::vector<TensorToWrite> zeros;
  for (const TensorSpec& t : shapes)
    zeros.push_back({.name = t.name, .dtype = StoredType::f32, .shape = t.shape, .bytes = {}, .make = [&t] {
                       std::size_t n = sizeof(float);
                       for (const std::int64_t size : t.shape) n *= static_cast<std::size_t>(size);
                       return std::vector<std::byte>(n);
                     }});
  write_safetensors(model + "/model.safetensors", std::move(zeros));
  std::string text;
  EXPECT_THROW(
      testing_support::run_command(add_selfcheck, "selfcheck", {"-m", model, "-n", "64", "--threads", "1"}, &text),
      Error);
  EXPECT_NE(text.find("FAIL  causality"), std::string::npos) << text;
  EXPECT_NE(text.find("FAIL  recgen keeps"), std::string::npos) << text;
  EXPECT_NE(text.find("2 failed"), std::string::npos) << text;
}

TEST_F(SelfcheckCommand, DamagedWeightsAreAnErrorThatSaysSo) {
  const std::string path = model + "/model.safetensors";
  std::string bytes = read_text(path);
  bytes.replace(bytes.size() - 400, 400, 400, '\xff');  // NaNs
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    run({});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("not finite"), std::string::npos) << error.what();
  }
}

TEST_F(SelfcheckCommand, RefusesATextThatIsTooShort) {
  EXPECT_THROW(run({"--file", folder.write("text", "a b c\n")}), InputError);
}

}  // namespace
}  // namespace photon
