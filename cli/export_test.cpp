// Properties of `photon export`: the tokenizer goes along, and what GGUF cannot express is refused without a file.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "cli/command_testing.h"
#include "cli/commands.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_testing.h"
#include "weights/gguf_testing.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using testing_support::read_gguf;
using testing_support::ReadGguf;
using testing_support::TemporaryFolder;
using testing_support::tokenizer_path;

class Export : public ::testing::Test {
 protected:
  void init(std::int64_t vocab_size) const {
    Spec spec{.vocab_size = vocab_size, .d_embed = 8, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
    spec.trunk = StackSpec{.d_model = 8, .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4, .d_ff = 12};
    init_model_folder(spec, folder / "model", {.seed = 1});
  }
  // The error's message, or "" if the file was written.
  std::string run() const {
    try {
      testing_support::run_command(add_export, "export", {folder / "model", "--gguf", gguf()});
    } catch (const InputError& e) {
      EXPECT_FALSE(fs::exists(gguf()));
      return e.what();
    }
    return "";
  }
  void copy_tokenizer() const { fs::copy_file(tokenizer_path(), folder / "model" / "tokenizer.model"); }
  fs::path gguf() const { return folder / "model.gguf"; }

  TemporaryFolder folder;
};

TEST_F(Export, TheTokenizerGoesAlongWithEveryPiece) {
  init(400);
  copy_tokenizer();
  ASSERT_EQ(run(), "");
  const ReadGguf file = read_gguf(gguf());
  const auto vocabulary = read_sentencepiece_vocabulary(tokenizer_path());
  const auto& tokens = std::get<std::vector<std::string>>(file.metadata.at("tokenizer.ggml.tokens"));
  const auto& scores = std::get<std::vector<float>>(file.metadata.at("tokenizer.ggml.scores"));
  const auto& types = std::get<std::vector<std::int32_t>>(file.metadata.at("tokenizer.ggml.token_type"));
  ASSERT_EQ(tokens.size(), vocabulary.pieces.size());
  ASSERT_EQ(scores.size(), tokens.size());
  ASSERT_EQ(types.size(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(tokens[i], vocabulary.pieces[i].text);
    EXPECT_EQ(scores[i], vocabulary.pieces[i].score);
  }
  EXPECT_EQ(types[0], 2);         // unknown
  EXPECT_EQ(types[1], 3);         // control: bos
  EXPECT_EQ(types[3 + '\n'], 6);  // a byte
  EXPECT_EQ(types.back(), 1);     // normal
  const std::map<std::string, GgufValue> wanted = {
      {"tokenizer.ggml.model", "llama"},
      {"tokenizer.ggml.pre", "default"},
      {"tokenizer.ggml.bos_token_id", std::uint32_t{1}},
      {"tokenizer.ggml.eos_token_id", std::uint32_t{2}},
      {"tokenizer.ggml.unknown_token_id", std::uint32_t{0}},
      {"tokenizer.ggml.add_bos_token", true},
      {"tokenizer.ggml.add_eos_token", false},
      {"tokenizer.ggml.add_space_prefix", true},
      {"general.name", "model"},
      {"llama.context_length", std::uint32_t{8192}},
  };
  for (const auto& [key, value] : wanted) {
    ASSERT_TRUE(file.metadata.contains(key)) << key;
    EXPECT_EQ(file.metadata.at(key), value) << key;
  }
}

TEST_F(Export, AModelWithoutTokenizerSaysSo) {
  init(30);
  ASSERT_EQ(run(), "");
  const ReadGguf file = read_gguf(gguf());
  EXPECT_EQ(std::get<std::string>(file.metadata.at("tokenizer.ggml.model")), "none");
  EXPECT_FALSE(file.metadata.contains("tokenizer.ggml.tokens"));
}

TEST_F(Export, ATokenizerThatWouldSplitTextDifferentlyIsRefused) {
  init(30);
  copy_tokenizer();
  EXPECT_NE(run().find("has 400 pieces, config.json says vocab_size 30"), std::string::npos);
  // One piece "a"; trainer_spec.model_type 2 is BPE; normalizer_spec.remove_extra_whitespaces is true by default.
  fs::remove_all(folder / "model");
  init(1 + 2);
  const std::string pieces =
      "\x0A\x03\x0A\x01"
      "a\x0A\x03\x0A\x01"
      "b\x0A\x03\x0A\x01"
      "c";
  folder.write("model/tokenizer.model", pieces + std::string("\x12\x00\x1A\x02\x20\x00", 6));
  EXPECT_NE(run().find("is no BPE"), std::string::npos);
  folder.write("model/tokenizer.model", pieces + std::string("\x12\x02\x18\x02\x1A\x00", 6));
  EXPECT_NE(run().find("rewrites spaces"), std::string::npos);
  folder.write("model/tokenizer.model", pieces + std::string("\x12\x02\x18\x02\x1A\x02\x20\x00", 8));
  EXPECT_EQ(run(), "");
}

}  // namespace
}  // namespace photon
