// Properties of photon agree: what it prints is the agreement of the documents, and what cannot be measured is refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/arguments.h"
#include "cli/command_testing.h"
#include "cli/commands.h"
#include "engine/models_testing.h"
#include "eval/agreement.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::some_text, testing_support::TemporaryFolder;

class AgreeCommand : public ::testing::Test {
 protected:
  AgreeCommand() {
    Spec spec = tiny_spec("window_mixed");
    spec.vocab_size = 400;
    init_model_folder(spec, model, {.seed = 1, .shake = true});
    std::filesystem::copy_file(testing_support::tokenizer_path(), std::filesystem::path(model) / tokenizer_file);
  }
  static nlohmann::json run(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--json", "--threads", "1"});
    return nlohmann::json::parse(testing_support::run_command(add_agree, "agree", arguments));
  }
  static void refused(const std::vector<std::string>& arguments, const std::string& names) {
    try {
      run(arguments);
      ADD_FAILURE() << "accepted: " << names;
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(names), std::string::npos) << e.what();
    }
  }

  TemporaryFolder folder;
  const std::string model = folder / "model";
};

TEST_F(AgreeCommand, TellsTheAgreementOfTheFirstDocumentsWithoutTheirBos) {
  const std::string a = some_text(2, 3), b = some_text(3, 5), end = "<|endoftext|>\n";
  const std::string file = folder.write("text", a + end + b + end + some_text(4, 5));
  const auto got = run({"-m", model, "--file", file, "--limit", "2", "--window", "40"});

  Engine engine(model);
  std::vector<std::vector<std::int32_t>> windows;
  for (const std::string& document : {a, b}) {
    const auto ids = tokenizer_of(engine.model())->encode(document.substr(0, document.size() - 1));
    for (std::size_t first = 0; first < ids.size(); first += 40) {
      auto& window = windows.emplace_back(1, 1);
      window.insert(window.end(), ids.begin() + static_cast<std::ptrdiff_t>(first),
                    ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), first + 40)));
    }
  }
  windows.resize(2);
  Agreement agreement(engine.runner());
  agreement.add(windows, 1);
  const auto want = agreement.result();
  EXPECT_EQ(got["texts"], 2);
  EXPECT_EQ(got["tokens"], want[0].tokens.n_tokens);
  EXPECT_EQ(got["forward_nats_per_token"], want[0].tokens.reference_nats);
  ASSERT_EQ(got["protocols"].size(), 2u);
  for (const ProtocolAgreement& p : want) {
    const auto& of = got["protocols"][std::string(to_string(p.protocol))];
    EXPECT_EQ(of["kl"], p.tokens.kl);
    EXPECT_EQ(of["kl_max"], p.tokens.kl_max);
    EXPECT_EQ(of["top1_agreement"], p.tokens.top1_agreement);
    EXPECT_EQ(of["nats_per_token"], p.tokens.model_nats);
    EXPECT_EQ(of["logit_difference_max"], p.tokens.logit_difference_max);
    ASSERT_EQ(of["units"].size(), 1u);
    EXPECT_EQ(of["units"][0]["cosine"], p.units[0].all.value());
    EXPECT_EQ(of["units"][0]["cosine_by_slot"].size(), 4u);
  }
  EXPECT_EQ(got["protocols"]["hiergen"]["logit_difference_max"], 0);
  EXPECT_GT(got["protocols"]["recgen"]["kl"], 1e-4);
}

TEST_F(AgreeCommand, LossesAreThoseOfPhotonScore) {
  const std::string file = folder.write("text", some_text(3, 5));
  const auto agree = run({"-m", model, "--file", file});
  for (const std::string protocol : {"hiergen", "recgen"}) {
    const auto score = nlohmann::json::parse(testing_support::run_command(
        add_score, "score", {"-m", model, "--file", file, "--protocol", protocol, "--json", "--threads", "1"}));
    EXPECT_EQ(score["protocol"], protocol);
    EXPECT_NEAR(score["nats_per_token"], agree["protocols"][protocol]["nats_per_token"], 1e-5);
  }
}

TEST_F(AgreeCommand, GreedyContinuesTheBeginningOfTextsThatAreLongEnough) {
  const std::string file = folder.write("text", some_text(3, 5) + "<|endoftext|>\nshort\n");
  const auto greedy = run({"-m", model, "--file", file, "--greedy", "20", "--prompt-tokens", "30"})["greedy"];
  EXPECT_EQ(greedy["prompts"], 1);
  EXPECT_EQ(greedy["tokens"], 20);
  EXPECT_LE(greedy["equal"], 1);
  EXPECT_GE(greedy["equal"].get<double>() * 20, greedy["first_difference_mean"]);
  EXPECT_EQ(greedy["first_difference_mean"], greedy["first_difference_median"]);
  EXPECT_FALSE(run({"-m", model, "--file", file}).contains("greedy"));
  refused({"-m", model, "--file", file, "--greedy", "2", "--prompt-tokens", "100000"}, "--prompt-tokens");
}

TEST_F(AgreeCommand, PrintsATableWithAColumnForEachProtocol) {
  const std::string table = testing_support::run_command(
      add_agree, "agree",
      {"-m", model, "--tokens", "1,2,3,4,5,6,7,8,9", "--greedy", "3", "--prompt-tokens", "5", "--threads", "1"});
  for (const char* word :
       {"hiergen", "recgen", "9 tokens of 1 text,", "top-1", "level 1", "slot 4", "greedy, 1 prompt,"})
    EXPECT_NE(table.find(word), std::string::npos) << word << "\n" << table;
}

TEST_F(AgreeCommand, WhatWasNotMeasuredIsNotZero) {
  const auto units = run({"-m", model, "--tokens", "1,2,3,4,5"})["protocols"]["recgen"]["units"][0];
  EXPECT_EQ(units["n"], 1);
  EXPECT_TRUE(units["cosine"].is_number());
  EXPECT_TRUE(units["cosine_standard_error"].is_null());
  EXPECT_TRUE(units["cosine_by_slot"][0].is_number());
  EXPECT_TRUE(units["cosine_by_slot"][1].is_null());
}

TEST_F(AgreeCommand, AVanillaModelHasOneProtocol) {
  const TestModel vanilla(tiny_spec("vanilla"));
  const auto got = run({"-m", vanilla.path(), "--tokens", "1,2,3,4,5"});
  EXPECT_EQ(got["protocols"].size(), 1u);
  EXPECT_EQ(got["protocols"]["hiergen"]["kl"], 0);
  refused({"-m", vanilla.path(), "--tokens", "1,2,3", "--greedy", "2"}, "vanilla");
}

TEST_F(AgreeCommand, RefusesTextsThatSayNothing) {
  refused({"-m", model, "--tokens", ""}, "--tokens");
  refused({"-m", model, "--tokens", "1,400"}, "400");
  refused({"-m", model, "--file", folder.write("empty", "\n\n")}, "holds no text");
}

}  // namespace
}  // namespace photon
