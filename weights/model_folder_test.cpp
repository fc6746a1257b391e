// Properties of model folders: random ones are a function of their seed, damaged ones are refused with everything that
// is wrong.
#include "weights/model_folder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <set>

#include "base/folder_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

StackSpec stack(std::int64_t d_model, Span span) {
  return {.d_model = d_model, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 3, .d_ff = 14, .span = span};
}

// L = 2, C = (3, 2), R = (2, 1), all widths different; both chunkers, content projection at level 1.
Spec photon_spec() {
  Spec spec{.vocab_size = 30, .d_embed = 5, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  spec.levels.push_back({3, 2, Chunker::concat, stack(15, {Span::Kind::global}), stack(8, {Span::Kind::chunk})});
  spec.levels.push_back({2, 1, Chunker::linear, stack(10, {Span::Kind::global}), stack(15, {Span::Kind::chunk})});
  return spec;
}
Spec vanilla_spec() {
  Spec spec{.vocab_size = 30, .d_embed = 8, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  spec.trunk = stack(8, {Span::Kind::global});
  return spec;
}

class ModelFolders : public ::testing::Test {
 protected:
  // The message with which the folder is refused, without the path before the file's name; "opened" if it is not.
  std::string refusal(bool check_finite = false) const {
    try {
      open_model_folder(folder, check_finite);
    } catch (const Error& e) {
      const std::string text = e.what(), prefix = folder.string() + "/";
      EXPECT_TRUE(text.starts_with(prefix)) << text;
      return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
    }
    return "opened";
  }
  // Writes the weights of photon_spec() again with changes.
  void rewrite(const std::function<void(std::vector<TensorToWrite>&)>& change) const {
    const SafeTensors old(folder / "model.safetensors");
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, tensor] : old.tensors())
      tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
    change(tensors);
    write_safetensors(folder / "model.safetensors", tensors);
  }
  void write(const char* name, const std::string& text) const {  // without waiting for the disk
    fs::remove(folder / name);
    std::ofstream(folder / name, std::ios::binary) << text;
  }
  static TensorToWrite& find(std::vector<TensorToWrite>& tensors, std::string_view name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const TensorToWrite& t) { return t.name == name; });
  }
  void replace_in_config(const std::string& from, const std::string& to) const {
    std::string text = read_text(folder / "config.json");
    const auto at = text.find(from);
    ASSERT_NE(at, text.npos) << from << " is not in " << text;
    text.replace(at, from.size(), to);
    write("config.json", text);
  }
  void expect_refused(const std::string& names, bool check_finite = false) const {
    const std::string message = refusal(check_finite);
    EXPECT_NE(message.find(names), message.npos) << message << "\n  does not mention " << names;
  }

  testing_support::TemporaryFolder root;
  fs::path folder = root / "model";
};

TEST_F(ModelFolders, InitialisedOnesOpenWithEveryTensorOfTheSpec) {
  for (const Spec& spec : {photon_spec(), vanilla_spec()})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      init_model_folder(spec, folder, {.seed = 3, .dtype = dtype});
      const ModelFolder model = open_model_folder(folder, /*check_finite=*/true);
      EXPECT_EQ(model.spec, spec);
      EXPECT_EQ(model.path, folder);
      EXPECT_FALSE(model.tokenizer.has_value());
      EXPECT_EQ(model.weights.tensors().size(), tensors(spec).size());
      for (const TensorSpec& tensor : tensors(spec)) {
        EXPECT_EQ(model.weights.at(tensor.name).shape, tensor.shape);
        EXPECT_EQ(model.weights.at(tensor.name).dtype, stored_type(dtype));
      }
      write("tokenizer.model", "x");
      EXPECT_EQ(open_model_folder(folder).tokenizer, folder / "tokenizer.model");
      fs::remove_all(folder);
    }
}

TEST_F(ModelFolders, InitDoesNotOverwriteAModel) {
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model"}) {
    fs::create_directories(folder);
    write(name, "mine");
    EXPECT_THROW(init_model_folder(photon_spec(), folder, {}), InputError);
    EXPECT_EQ(read_text(folder / name), "mine");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
    fs::remove_all(folder);
  }
  Spec wrong = photon_spec();
  wrong.vocab_size = 0;
  EXPECT_THROW(init_model_folder(wrong, folder, {}), SpecError);
  EXPECT_THROW(init_model_folder(photon_spec(), folder, {.dtype = DType::int8}), InputError);
  EXPECT_FALSE(fs::exists(folder));
  std::ofstream(folder) << "a file";
  EXPECT_THROW(init_model_folder(photon_spec(), folder, {}), InputError);
}

TEST_F(ModelFolders, TheSameSeedGivesTheSameFileAndAnotherSeedAnotherTensor) {
  const auto file = [&](std::uint64_t seed, bool shake) {
    init_model_folder(photon_spec(), folder, {.seed = seed, .shake = shake});
    std::string bytes = read_text(folder / "model.safetensors");
    fs::remove_all(folder);
    return bytes;
  };
  EXPECT_EQ(file(7, true), file(7, true));
  for (const TensorSpec& tensor : tensors(photon_spec())) {
    const auto a = initial_values(tensor, photon_spec(), {.seed = 7, .shake = true});
    const auto b = initial_values(tensor, photon_spec(), {.seed = 8, .shake = true});
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NE(a[i], b[i]) << tensor.name;
  }
}

TEST_F(ModelFolders, ValuesDependOnNameAndSeedAloneNotOnThreads) {
  const TensorSpec big{"embed.weight", {5, 40'000}};  // several blocks
  const auto values = initial_values(big, vanilla_spec(), {.seed = 1});
  const int levels = omp_get_max_active_levels();
  omp_set_max_active_levels(0);  // one thread
  EXPECT_EQ(initial_values(big, vanilla_spec(), {.seed = 1}), values);
  omp_set_max_active_levels(levels);
  std::size_t repeated = 0;  // no block repeats another's
  for (std::size_t i = 1 << 16; i < values.size(); ++i) repeated += values[i] == values[i - (1 << 16)];
  EXPECT_LT(repeated, 10u);
  const auto other = initial_values({"lm_head.weight", {5, 40'000}}, vanilla_spec(), {.seed = 1});
  std::set<float> seen(values.begin(), values.end());
  std::size_t shared = 0;
  for (const float value : other) shared += seen.contains(value);
  EXPECT_LT(shared, 2000u);  // chance alone: floats near 0.02 are dense, yet some coincide
}

TEST_F(ModelFolders, MatricesAreNormalWithStd002AndNormsAreOne) {
  const auto moments = [](const std::vector<float>& values) {
    double sum = 0, squares = 0;
    for (const float v : values) sum += v, squares += static_cast<double>(v) * v;
    const auto n = static_cast<double>(values.size());
    return std::pair(sum / n, std::sqrt(squares / n));
  };
  const Spec spec = photon_spec();
  const std::string o = "levels.2.decoder.layers.1.attn.o.weight";
  const auto [mean, std] = moments(initial_values({o, {400, 500}}, spec, {.seed = 5}));
  EXPECT_NEAR(mean, 0, 3 * 0.02 / std::sqrt(200'000));
  EXPECT_NEAR(std, 0.02, 0.0002);
  const auto scaled = moments(initial_values({o, {400, 500}}, spec, {.seed = 5, .scale_residual = true}));
  EXPECT_NEAR(scaled.second, 0.01, 0.0001);  // 2 layers: 0.02 / sqrt(4)
  const auto q = moments(initial_values({"trunk.layers.0.attn.q.weight", {400, 500}}, vanilla_spec(),
                                        {.seed = 5, .scale_residual = true}));
  EXPECT_NEAR(q.second, 0.02, 0.0002);
  for (const TensorSpec& tensor : tensors(spec)) {
    const auto values = initial_values(tensor, spec, {.seed = 5});
    const auto ones = std::count(values.begin(), values.end(), 1.0f);
    EXPECT_EQ(ones, tensor.name.ends_with("norm.weight") ? std::ssize(values) : 0) << tensor.name;
  }
}

TEST_F(ModelFolders, ShakeChangesEveryParameterNoticeably) {
  for (const Spec& spec : {photon_spec(), vanilla_spec()})
    for (const TensorSpec& tensor : tensors(spec)) {
      const auto plain = initial_values(tensor, spec, {.seed = 4});
      const auto shaken = initial_values(tensor, spec, {.seed = 4, .shake = true});
      double squares = 0;
      for (std::size_t i = 0; i < plain.size(); ++i) {
        EXPECT_NE(plain[i], shaken[i]) << tensor.name;
        squares += std::pow(shaken[i] - plain[i], 2);
      }
      EXPECT_GT(std::sqrt(squares / static_cast<double>(plain.size())), 0.03) << tensor.name;
    }
}

TEST_F(ModelFolders, MisshapenTensorsAreNamedWithBothShapesAndAGuess) {
  init_model_folder(photon_spec(), folder, {});
  std::vector<std::byte> zeros(100'000);
  const auto reshape = [&](const char* name, std::vector<std::int64_t> shape) {
    rewrite([&](std::vector<TensorToWrite>& tensors) {
      TensorToWrite& tensor = find(tensors, name);
      std::size_t bytes = 4;
      for (const std::int64_t dimension : shape) bytes *= static_cast<std::size_t>(dimension);
      tensor.shape = shape;
      tensor.bytes = std::span(zeros).first(bytes);
    });
  };
  reshape("levels.2.chunker.weight", {10, 60});
  expect_refused(
      "'levels.2.chunker.weight' is [10, 60], config.json wants [10, 30]; was it converted with chunk_size 4?");
  reshape("levels.1.converter.weight", {24, 15});
  expect_refused(
      "'levels.1.converter.weight' is [24, 15], config.json wants [16, 15]; was it converted with "
      "converter_len 3?");
  reshape("levels.1.encoder.layers.0.attn.q.weight", {15, 12});
  expect_refused("attn.q.weight' is [15, 12], config.json wants [12, 15]; is it transposed?");
  reshape("embed.weight", {31, 5});
  expect_refused("'embed.weight' is [31, 5], config.json wants [30, 5]; was it trained with vocab_size 31?");
  reshape("start.weight", {1, 10});
  expect_refused("'start.weight' is [1, 10], config.json wants [10]");
  reshape("start.weight", {});
  expect_refused("'start.weight' is [], config.json wants [10]");
  reshape("levels.2.decoder.norm.weight", {0});
  expect_refused("model.safetensors: 'embed.weight' is [31, 5]");  // all of them at once, in the model's order
  const std::string message = refusal();
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 5) << message;
}

TEST_F(ModelFolders, MissingExtraAndForeignTensorsAreListedTogether) {
  init_model_folder(photon_spec(), folder, {});
  const std::vector<std::byte> zeros(1000);
  rewrite([&](std::vector<TensorToWrite>& tensors) {
    std::erase_if(tensors, [](const TensorToWrite& t) { return t.name == "start.weight"; });
    tensors.push_back({"model.embed_tokens.weight", StoredType::f32, {2}, std::span(zeros).first(8)});
    TensorToWrite& norm = find(tensors, "levels.1.encoder.norm.weight");
    norm.dtype = StoredType::f16;
    norm.bytes = norm.bytes.first(norm.bytes.size() / 2);
    TensorToWrite& head = find(tensors, "lm_head.weight");
    head.dtype = StoredType::i32;
  });
  expect_refused("'start.weight' [10] is missing");
  expect_refused("'model.embed_tokens.weight' [2] is no tensor of config.json's model");
  expect_refused("'levels.1.encoder.norm.weight' is F16; convert it to F32 or BF16");
  expect_refused("'lm_head.weight' is I32; convert it to F32 or BF16");

  rewrite([](std::vector<TensorToWrite>& tensors) { tensors.clear(); });
  expect_refused("'embed.weight' [30, 5] is missing");
  rewrite([&](std::vector<TensorToWrite>& tensors) {
    for (int i = 0; i < 1000; ++i)
      tensors.push_back({fmt::format("x{}", i), StoredType::f32, {2}, std::span(zeros).first(8)});
  });
  expect_refused("more");
  EXPECT_LT(refusal().size(), 10'000u);
}

TEST_F(ModelFolders, TensorsOfKeysThatAreNotSetAreNamedByKeyAndLevel) {
  Spec spec = photon_spec();
  spec.decoder_embedding = true, spec.learned_start = false;
  for (LevelSpec& level : spec.levels) level.converter_bias = true;
  spec.levels[1].chunker = Chunker::linear;
  spec.levels[1].chunker_bias = spec.levels[1].chunker_norm = true;
  init_model_folder(spec, folder, {});
  EXPECT_EQ(refusal(), "opened");
  const std::string complete = read_text(folder / "config.json");
  write("config.json", to_json([&] {
          Spec plain = spec;
          plain.levels[0].converter_bias = plain.levels[1].chunker_bias = plain.levels[1].chunker_norm = false;
          plain.decoder_embedding = false;
          return plain;
        }()));
  expect_refused("is no tensor of config.json's model (level 1: converter_bias is not set)");
  expect_refused("'levels.2.chunker.bias' [10] is no tensor of config.json's model (level 2: chunker_bias is not set)");
  expect_refused(
      "'levels.2.chunker.norm.weight' [30] is no tensor of config.json's model (level 2: chunker_norm is not");
  expect_refused("is no tensor of config.json's model (decoder_embedding is not set)");
  write("config.json", complete);
  const std::vector<std::byte> zeros(1000);
  rewrite([&](std::vector<TensorToWrite>& tensors) {
    std::erase_if(tensors, [](const TensorToWrite& t) {
      return t.name == "levels.1.converter.bias" || t.name == "decoder_embed.weight";
    });
    tensors.push_back({"start.weight", StoredType::f32, {10}, std::span(zeros).first(40)});
    tensors.push_back({"levels.1.content_proj.weight", StoredType::f32, {8, 5}, std::span(zeros).first(160)});
  });
  expect_refused("'levels.1.converter.bias' [16] is missing");
  expect_refused("'decoder_embed.weight' [30, 8] is missing");
  expect_refused("'start.weight' [10] is no tensor of config.json's model (learned_start is false)");
  expect_refused(
      "'levels.1.content_proj.weight' [8, 5] is no tensor of config.json's model (decoder_embedding is true)");
}

TEST_F(ModelFolders, ATiedHeadIsNoTensorOfItsOwn) {
  Spec spec = vanilla_spec();
  init_model_folder(spec, folder, {});
  replace_in_config(R"("tie_embeddings": false)", R"("tie_embeddings": true)");
  expect_refused("'lm_head.weight' [30, 8] is no tensor of config.json's model (tie_embeddings is true)");
  rewrite([](std::vector<TensorToWrite>& tensors) {
    std::erase_if(tensors, [](const TensorToWrite& t) { return t.name == "lm_head.weight"; });
  });
  EXPECT_EQ(refusal(), "opened");
}

TEST_F(ModelFolders, WeightsThatAreNotFiniteAreRefusedOnRequest) {
  init_model_folder(photon_spec(), folder, {});
  const std::vector<float> bad(10, INFINITY);
  rewrite([&](std::vector<TensorToWrite>& tensors) {
    find(tensors, "start.weight").bytes = std::as_bytes(std::span(bad));
  });
  EXPECT_EQ(refusal(), "opened");
  expect_refused("model.safetensors: 'start.weight' holds a NaN or an infinity at index [0]", /*check_finite=*/true);
}

TEST_F(ModelFolders, MisalignedWeightsAreRefusedWithTheWayOut) {
  init_model_folder(vanilla_spec(), folder, {});
  std::string bytes = read_text(folder / "model.safetensors");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  bytes.insert(8 + header_bytes, " ");
  ++header_bytes;
  std::memcpy(bytes.data(), &header_bytes, sizeof header_bytes);
  write("model.safetensors", bytes);
  expect_refused("'embed.weight' is not aligned to its F32 elements; save the file with a current safetensors library");
}

TEST_F(ModelFolders, DamagedConfigsAreRefusedByFileAndField) {
  const std::pair<std::string, std::string> damages[] = {
      {R"("vocab_size": 30)", R"("vocab_size": 1000000000000)"},
      {R"("vocab_size": 30)", R"("vocab_size": 30, "hidden_size": 5)"},
      {R"("vocab_size": 30)", R"("vocab_size": "30")"},
      {R"("d_embed": 5)", R"("d_embed": -5)"},
      {R"("d_model": 8)", R"("d_model": 1000000000000)"},
      {R"("d_ff": 14)", R"("d_ff": 1000000000000)"},
      {R"("n_layers": 2)", R"("n_layers": 1000000000000)"},
      {R"("n_heads": 4)", R"("n_heads": 1000000000000)"},
      {R"("head_dim": 3)", R"("head_dim": 1000000000000)"},
      {R"("chunk_size": 3)", R"("chunk_size": 1000000000000)"},
      {R"("converter_len": 2)", R"("converter_len": 1000000000000)"},
      {R"("format": "photon-lm")", R"("format": "gguf")"},
      {R"("version": 1)", R"("version": 2)"},
  };
  init_model_folder(photon_spec(), folder, {});
  const std::string config = read_text(folder / "config.json");
  for (const auto& [from, to] : damages) {
    write("config.json", config);
    replace_in_config(from, to);
    const std::string field = to.find("hidden") == to.npos ? to.substr(1, to.find('"', 1) - 1) : "hidden_size";
    const std::string message = refusal();
    EXPECT_TRUE(message.starts_with("config.json")) << message;
    EXPECT_NE(message.find(field), message.npos) << field << " is not in " << message;
  }
  for (std::size_t i = 0; i < 200; ++i) {
    write("config.json", config.substr(0, config.size() * i / 201));
    EXPECT_TRUE(refusal().starts_with("config.json"));
  }
}

TEST_F(ModelFolders, LargerConfigsThanTheWeightsAreRefusedWithoutAllocatingThem) {
  init_model_folder(vanilla_spec(), folder, {});
  replace_in_config(R"("vocab_size": 30)", R"("vocab_size": 16000000)");
  expect_refused("'embed.weight' is [30, 8], config.json wants [16000000, 8]; was it trained with vocab_size 30?");
}

TEST_F(ModelFolders, WhatIsMissingIsNamed) {
  EXPECT_THROW(open_model_folder(folder), InputError);
  std::ofstream(folder) << "a file";
  EXPECT_THROW(open_model_folder(folder), InputError);
  fs::remove(folder);
  fs::create_directory(folder);
  expect_refused("config.json");
  init_model_folder(vanilla_spec(), folder, {});
  fs::remove(folder / "model.safetensors");
  expect_refused("model.safetensors");
  write("model.safetensors.index.json", R"({"weight_map":{"embed.weight":"../../etc/passwd"}})");
  expect_refused("model.safetensors.index.json");
}

}  // namespace
}  // namespace photon
