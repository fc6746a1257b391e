// Properties of photon score: a text is its documents, and a model beside a reference is as far from it as it is.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/command_testing.h"
#include "cli/commands.h"
#include "engine/generate.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::some_text, testing_support::TemporaryFolder;

class ScoreCommand : public ::testing::Test {
 protected:
  ScoreCommand() {
    Spec spec{.vocab_size = 400, .d_embed = 24, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
    const StackSpec stack{.d_model = 48, .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .head_dim = 20, .d_ff = 70};
    spec.levels.push_back({2, 1, Chunker::concat, stack, stack});
    spec.levels[0].decoder.span = {Span::Kind::stream, 9};
    for (const auto& [path, seed] : {std::pair(model, 1u), std::pair(other, 2u)}) {
      init_model_folder(spec, path, {.seed = seed, .shake = true});
      std::filesystem::copy_file(testing_support::tokenizer_path(), std::filesystem::path(path) / tokenizer_file);
    }
  }
  static nlohmann::json run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--json", "--threads", "1"});
    return nlohmann::json::parse(testing_support::run_command(add_score, "score", arguments));
  }

  TemporaryFolder folder;
  const std::string model = folder / "model", other = folder / "other";
  const std::string tokens = "1,7,8,9,350,11,12,399,14,0,16,17";
};

TEST_F(ScoreCommand, OfATextIsTheMeanOverItsDocumentsEachBegunWithBos) {
  const std::string a = some_text(2, 3), b = some_text(3, 5), end = "<|endoftext|>\n";
  const std::string text = folder.write("text", a + end + b + end), first = folder.write("a", a),
                    second = folder.write("b", "\n" + b + end);
  const auto all = run({"-m", model, "--file", text}), of_a = run({"-m", model, "--file", first}),
             of_b = run({"-m", model, "--file", second});
  const double n_a = of_a["tokens"], n_b = of_b["tokens"];
  EXPECT_EQ(all["tokens"], n_a + n_b);
  EXPECT_EQ(all["bytes"], a.size() + b.size() - 2);  // the newline at a document's end is no text
  EXPECT_NEAR(all["nats_per_token"],
              (n_a * of_a["nats_per_token"].get<double>() + n_b * of_b["nats_per_token"].get<double>()) / (n_a + n_b),
              1e-9);

  const auto windows = run({"-m", model, "--file", text, "--window", "10"});
  EXPECT_EQ(windows["tokens"], all["tokens"]);
  EXPECT_NE(windows["nats_per_token"], all["nats_per_token"]);
}

TEST_F(ScoreCommand, TheFirstDocumentsOrWindowsAloneAreTheirText) {
  const std::string a = some_text(2, 3), end = "<|endoftext|>\n";
  const std::string text = folder.write("text", a + end + some_text(3, 5)), first = folder.write("a", a);
  EXPECT_EQ(run({"-m", model, "--file", text, "--limit", "1"}), run({"-m", model, "--file", first}));
  const auto whole = run({"-m", model, "--file", first});
  const std::string n_but_one = std::to_string(whole["tokens"].get<int>() - 1);
  const auto window = run({"-m", model, "--file", first, "--window", n_but_one, "--limit", "1"});
  EXPECT_EQ(std::to_string(window["tokens"].get<int>()), n_but_one);
  EXPECT_LT(window["bytes"], whole["bytes"]);
  EXPECT_GT(window["bytes"].get<double>(), whole["bytes"].get<double>() - 20);
}

TEST_F(ScoreCommand, ByContextAndBySlotAddUpToTheWhole) {
  const std::string text = folder.write("text", some_text(2, 30));
  const auto c = run({"-m", model, "--file", text, "--window", "21", "--by-context", "--slots", "4"});
  const double n = c["tokens"], nats = c["nats_per_token"];
  for (const char* part : {"by_context", "by_slot"}) {
    double sum = 0, count = 0;
    for (const auto& bin : c[part])
      sum += bin["nats"].get<double>() * bin["tokens"].get<double>(), count += bin["tokens"].get<double>();
    EXPECT_EQ(count, n) << part;
    EXPECT_NEAR(sum, nats * n, 1e-6 * n) << part;
  }
  ASSERT_EQ(c["by_context"].size(), 5u);  // 1, 2-3, 4-7, 8-15, 16-21
  EXPECT_EQ(c["by_context"][4]["from"], 16);
  EXPECT_EQ(c["by_context"][4]["to"], 21);

  // Two tokens after bos: position 1 is in slot 1, position 2 in slot 0 of two.
  const auto alone = run({"-m", model, "--file", folder.write("short", "ka"), "--slots", "2"});
  const double first = alone["by_slot"][1]["nats"];
  EXPECT_NEAR(first * alone["by_slot"][1]["tokens"].get<double>() +
                  (alone["by_slot"][0]["nats"].is_null()
                       ? 0.0
                       : alone["by_slot"][0]["nats"].get<double>() * alone["by_slot"][0]["tokens"].get<double>()),
              alone["nats_per_token"].get<double>() * alone["tokens"].get<double>(), 1e-6);
  EXPECT_THROW(run({"-m", model, "--tokens", tokens, "--by-context"}), InputError);
}

TEST_F(ScoreCommand, BesideAReferenceGivesBothLossesAndTheirDistance) {
  const std::string text = folder.write("text", some_text(2, 3) + "<|endoftext|>\n" + some_text(3, 20));
  const auto c = run({"-m", model, "--compare", other, "--file", text, "--window", "50"});
  const auto own = run({"-m", model, "--file", text, "--window", "50"}),
             reference = run({"-m", other, "--file", text, "--window", "50"});
  EXPECT_EQ(c["model"], model);
  EXPECT_EQ(c["reference"], other);
  EXPECT_EQ(c["tokens"], own["tokens"]);
  EXPECT_NEAR(c["nats_per_token"], own["nats_per_token"], 1e-5);
  EXPECT_NEAR(c["reference_nats_per_token"], reference["nats_per_token"], 1e-5);
  EXPECT_NEAR(c["nats_per_token_difference"],
              own["nats_per_token"].get<double>() - reference["nats_per_token"].get<double>(), 2e-5);
  EXPECT_GT(c["nats_per_token_difference_standard_error"], 0);
  EXPECT_GT(c["kl"], 0.01);
  EXPECT_GT(c["kl_standard_error"], 0);
  EXPECT_GE(c["kl_max"], c["kl"]);
  EXPECT_LT(c["top1_agreement"], 0.9);
}

TEST_F(ScoreCommand, RoundingFewerBitsIsFartherFromTheReferenceAsItIsStored) {
  const auto divergence = [&](std::vector<std::string> precision) {
    precision.insert(precision.end(), {"-m", model, "--compare", model, "--tokens", tokens});
    const auto c = run(precision);
    EXPECT_EQ(c["tokens"], 12);
    return c["kl"].get<double>();
  };
  const double f32 = divergence({}), bf16 = divergence({"--dtype", "bf16"}), int8 = divergence({"--dtype", "int8"}),
               int4 = divergence({"--dtype", "int4"});
  EXPECT_EQ(f32, 0);
  EXPECT_GT(bf16, 0);
  EXPECT_GT(int8, bf16);
  EXPECT_GT(int4, 10 * int8);
  EXPECT_GT(divergence({"--kv-dtype", "int8"}), 0);
}

TEST_F(ScoreCommand, AQuantisedFolderIsTheModelThatItsTypeMakesAtLoad) {
  for (const std::string type : {"int8", "int4"}) {
    const std::string quantised = folder / type;
    testing_support::run_command(add_quantize, "quantize", {model, quantised, "--type", type});
    const auto stored = run({"-m", quantised, "--compare", model, "--tokens", tokens}),
               loaded = run({"-m", model, "--dtype", type, "--compare", model, "--tokens", tokens});
    for (const char* field : {"kl", "kl_max", "top1_agreement", "nats_per_token"})
      EXPECT_EQ(stored[field], loaded[field]);
    EXPECT_GT(stored["kl"], 0);
  }
}

TEST_F(ScoreCommand, RefusesWhatCannotBeCompared) {
  const auto refused = [&](std::vector<std::string> arguments, const std::string& names) {
    arguments.insert(arguments.end(), {"-m", model});
    try {
      run(arguments);
      ADD_FAILURE() << "accepted: " << names;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(names), std::string::npos) << e.what();
    }
  };
  refused({"--compare", folder / "none", "--tokens", tokens}, "none");
  refused({"--compare", other, "--tokens", ""}, "--tokens");
  refused({"--compare", other, "--tokens", "1,400"}, "400");
  refused({"--compare", other, "--file", folder.write("empty", "\n\n")}, "holds no text");
  write_atomically(std::filesystem::path(other) / tokenizer_file, "another tokenizer");
  refused({"--compare", other, "--tokens", tokens}, "do not speak of the same tokens");
}

}  // namespace
}  // namespace photon
