// Properties of photon selfcheck: every model that runs right passes, and a number beyond its tolerance is a failure.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/selfcheck_checks.h"
#include "cli/testing.h"
#include "engine/test_models.h"
#include "kernels/kernels.h"
#include "text/testing.h"
#include "weights/safetensors.h"

namespace photon {
namespace {

using testing_support::some_text, testing_support::TemporaryFolder;

class SelfcheckOf : public testing::TestWithParam<NamedSpec> {
 protected:
  SelfcheckOf() { set_threads(1); }
};
INSTANTIATE_TEST_SUITE_P(EverySpec, SelfcheckOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(SelfcheckOf, FindsNothingWrongInAnyPrecision) {
  const Spec& spec = GetParam().spec;
  const TestModel folder(spec);
  const auto tokens = random_tokens(70, spec.vocab_size, 4);
  for (const Precision precision : {Precision{}, Precision{DType::bf16, DType::bf16},
                                    Precision{DType::int8, DType::int8}, Precision{DType::int4, DType::f32}}) {
    Engine engine(folder.path(), precision);
    std::vector<Check> checks = check_protocols(engine, tokens);
    EXPECT_EQ(checks.size(), spec.n_levels() > 0 ? 2u : 1u);
    checks.push_back(check_generation(engine, tokens));
    checks.push_back(check_causality(engine, tokens));
    checks.push_back(check_batches(engine, tokens));
    checks.push_back(check_kv_bytes(engine, Protocol::hiergen, tokens));
    if (spec.n_levels() > 0) checks.push_back(check_kv_bytes(engine, Protocol::recgen, tokens));
    if (spec.n_levels() > 1) checks.push_back(check_recgen_state(engine, tokens));
    for (const Check& check : checks) EXPECT_FALSE(check.failed()) << check.name << ": " << check.value << check.detail;
  }
}

TEST(Selfcheck, AnotherModelIsFartherThanRounding) {
  const Spec spec = tiny_spec("paper");
  const TestModel folder(spec, 1), other_folder(spec, 2);
  Engine engine(folder.path()), other(other_folder.path());
  const auto tokens = random_tokens(40, spec.vocab_size, 4);
  EXPECT_FALSE(check_rounding(engine, engine, "nothing", 0, tokens).failed());
  EXPECT_TRUE(check_rounding(engine, other, "everything", 1e-2, tokens).failed());
}

TEST(Selfcheck, BeyondTheToleranceNotANumberOrVacuousFails) {
  EXPECT_FALSE((Check{.name = "", .value = 1, .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE((Check{.name = "", .value = std::nextafter(1, 2), .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE(
      (Check{.name = "", .value = std::numeric_limits<double>::quiet_NaN(), .tolerance = 1, .detail = ""}).failed());
  EXPECT_TRUE((Check{.name = "", .value = 0, .tolerance = 1, .detail = "", .vacuous = true}).failed());
  EXPECT_FALSE((Check{.name = "", .value = 7, .tolerance = {}, .detail = ""}).failed());
}

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
