// Properties of exported GGUF files, read back: keys, tensors, and rows of queries and
// keys in the order in which llama.cpp rotates them.
#include "weights/gguf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/bf16.h"
#include "base/folder_testing.h"
#include "base/random.h"
#include "weights/gguf_testing.h"
#include "weights/llama_gguf.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using testing_support::read_gguf;
using testing_support::ReadGguf;
using testing_support::ReadTensor;

class Gguf : public ::testing::Test {
 protected:
  ModelFolder init(const Spec& spec, DType dtype = DType::f32) const {
    fs::remove_all(root / "model");
    init_model_folder(spec, root / "model", {.seed = 5, .shake = true, .dtype = dtype});
    return open_model_folder(root / "model");
  }
  ReadGguf exported(const ModelFolder& folder, std::optional<DType> dtype = std::nullopt) const {
    const LlamaGguf gguf = llama_gguf(folder.spec, FolderSource(folder), "a name", dtype, 4096);
    write_gguf(root / "model.gguf", gguf.metadata, gguf.tensors);
    return read_gguf(root / "model.gguf");
  }
  std::string refusal(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) const {
    try {
      write_gguf(root / "refused.gguf", metadata, tensors);
    } catch (const WeightsError& e) {
      EXPECT_FALSE(fs::exists(root / "refused.gguf"));
      return e.what();
    }
    return "written";
  }

  testing_support::TemporaryFolder root;
};

// Grouped-query attention whose heads are not d_model / n_heads wide, as no width equals another.
Spec vanilla(bool tied = false) {
  Spec spec{.vocab_size = 11,
            .d_embed = 10,
            .norm_eps = 2e-5,
            .bos_token_id = 3,
            .eos_token_id = 4,
            .levels = {},
            .trunk = {}};
  spec.tie_embeddings = tied;
  spec.trunk = StackSpec{
      .d_model = 10, .n_layers = 2, .n_heads = 6, .n_kv_heads = 2, .head_dim = 4, .d_ff = 14, .rope_theta = 500.0};
  return spec;
}

TEST_F(Gguf, EveryTypeOfValueIsReadBackAsItWasWritten) {
  const GgufMetadata metadata = {
      {"number", std::uint32_t{4'000'000'000}},
      {"real", 1e-5f},
      {"yes", true},
      {"no", false},
      {"text", std::string("▁é\0\n", 7)},
      {"empty", std::string()},
      {"integers", std::vector<std::int32_t>{-1, 0, 1 << 30}},
      {"reals", std::vector<float>{-0.5f, 1e30f}},
      {"texts", std::vector<std::string>{"a", "", "<0x0A>"}},
      {"nothing", std::vector<float>{}},
  };
  write_gguf(root / "values.gguf", metadata, {});
  const ReadGguf file = read_gguf(root / "values.gguf");
  EXPECT_EQ(file.version, 3u);
  ASSERT_EQ(file.keys.size(), metadata.size());
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    EXPECT_EQ(file.keys[i], metadata[i].first);
    EXPECT_EQ(file.metadata.at(file.keys[i]), metadata[i].second) << file.keys[i];
  }
}

TEST_F(Gguf, MetadataSaysWhatTheSpecSays) {
  const ReadGguf file = exported(init(vanilla()));
  const std::map<std::string, GgufValue> wanted = {
      {"general.architecture", "llama"},
      {"general.name", "a name"},
      {"general.file_type", std::uint32_t{0}},
      {"llama.vocab_size", std::uint32_t{11}},
      {"llama.context_length", std::uint32_t{4096}},
      {"llama.embedding_length", std::uint32_t{10}},
      {"llama.block_count", std::uint32_t{2}},
      {"llama.feed_forward_length", std::uint32_t{14}},
      {"llama.attention.head_count", std::uint32_t{6}},
      {"llama.attention.head_count_kv", std::uint32_t{2}},
      {"llama.attention.key_length", std::uint32_t{4}},
      {"llama.attention.value_length", std::uint32_t{4}},
      {"llama.attention.layer_norm_rms_epsilon", 2e-5f},
      {"llama.rope.dimension_count", std::uint32_t{4}},
      {"llama.rope.freq_base", 500.0f},
  };
  EXPECT_EQ(file.metadata, wanted);
  EXPECT_EQ(std::get<std::uint32_t>(exported(init(vanilla(), DType::bf16)).metadata.at("general.file_type")), 32u);
}

TEST_F(Gguf, EveryTensorIsThereWithItsValuesAndATiedHeadIsNot) {
  for (const bool tied : {false, true}) {
    const ModelFolder folder = init(vanilla(tied));
    const ReadGguf file = exported(folder);
    std::map<std::string, std::string> names = {{"token_embd", "embed"}, {"output_norm", "trunk.norm"}};
    if (!tied) names["output"] = "lm_head";
    for (const char* i : {"0", "1"})
      for (const auto& [theirs, ours] : std::map<std::string, std::string>{{"attn_norm", "attn_norm"},
                                                                           {"attn_q", "attn.q"},
                                                                           {"attn_k", "attn.k"},
                                                                           {"attn_v", "attn.v"},
                                                                           {"attn_output", "attn.o"},
                                                                           {"ffn_norm", "mlp_norm"},
                                                                           {"ffn_gate", "mlp.gate"},
                                                                           {"ffn_up", "mlp.up"},
                                                                           {"ffn_down", "mlp.down"}})
        names[fmt::format("blk.{}.{}", i, theirs)] = fmt::format("trunk.layers.{}.{}", i, ours);
    EXPECT_EQ(file.tensors.size(), names.size());
    EXPECT_EQ(file.names.size(), names.size());
    for (const auto& [theirs, ours] : names) {
      ASSERT_TRUE(file.tensors.contains(theirs + ".weight")) << theirs;
      const ReadTensor& tensor = file.tensors.at(theirs + ".weight");
      const TensorView& source = folder.weights.at(ours + ".weight");
      EXPECT_EQ(std::vector<std::uint64_t>(source.shape.rbegin(), source.shape.rend()), tensor.dimensions) << theirs;
      std::vector<float> values = to_floats(source), got = tensor.values;
      if (theirs.ends_with("attn_q") || theirs.ends_with("attn_k")) {  // their order is the next test's
        EXPECT_NE(values, got) << theirs;
        std::sort(values.begin(), values.end());
        std::sort(got.begin(), got.end());
      }
      EXPECT_EQ(values, got) << theirs;
    }
  }
}

TEST_F(Gguf, MatricesHaveTheWantedTypeAndNormsAreAlwaysFloat32) {
  const std::vector<float> full = to_floats(init(vanilla()).weights.at("embed.weight"));
  for (const DType stored : {DType::f32, DType::bf16})
    for (const std::optional<DType> wanted :
         {std::optional<DType>(), std::optional(DType::f32), std::optional(DType::bf16)}) {
      const DType in_file = wanted.value_or(stored);
      const ReadGguf file = exported(init(vanilla(), stored), wanted);
      for (const auto& [name, tensor] : file.tensors)
        EXPECT_EQ(tensor.type, tensor.dimensions.size() == 1 || in_file == DType::f32 ? 0u : 30u) << name;
      const std::vector<float>& values = file.tensors.at("token_embd.weight").values;
      const bool rounded = stored == DType::bf16 || in_file == DType::bf16;
      for (std::size_t i = 0; i < full.size(); ++i)
        EXPECT_EQ(values[i], rounded ? to_float(to_bf16(full[i])) : full[i]);
    }
}

// q·k of a head after RoPE: ours rotates halves, llama.cpp's "llama" architecture neighbours.
double score(std::span<const float> q, std::span<const float> k, std::int64_t distance, bool interleaved) {
  const std::size_t h = q.size();
  double sum = 0;
  for (std::size_t i = 0; i < h / 2; ++i) {
    const std::size_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + h / 2;
    const double angle =
        static_cast<double>(distance) * std::pow(500.0, -2.0 * static_cast<double>(i) / static_cast<double>(h));
    const double real = static_cast<double>(q[a]) * k[a] + static_cast<double>(q[b]) * k[b];
    const double imaginary = static_cast<double>(q[b]) * k[a] - static_cast<double>(q[a]) * k[b];
    sum += real * std::cos(angle) - imaginary * std::sin(angle);
  }
  return sum;
}

TEST_F(Gguf, NeighbouringRotationOfTheExportedRowsIsOurRotationOfHalves) {
  for (const std::int64_t head_dim : {2, 4, 52}) {
    Spec spec = vanilla();
    spec.trunk->head_dim = head_dim;
    const ModelFolder folder = init(spec);
    const ReadGguf file = exported(folder);
    const StackSpec& trunk = *spec.trunk;
    Random random(3);
    std::vector<float> x(static_cast<std::size_t>(trunk.d_model)), y(x.size());
    for (auto* vector : {&x, &y})
      for (float& value : *vector) value = static_cast<float>(random.normal());
    const auto project = [&](const std::vector<float>& w, const std::vector<float>& input) {  // w [rows, d_model]
      std::vector<float> output(w.size() / input.size());
      for (std::size_t r = 0; r < output.size(); ++r)
        output[r] = std::inner_product(input.begin(), input.end(),
                                       w.begin() + static_cast<std::ptrdiff_t>(r * input.size()), 0.0f);
      return output;
    };
    const auto q = project(to_floats(folder.weights.at("trunk.layers.1.attn.q.weight")), x);
    const auto k = project(to_floats(folder.weights.at("trunk.layers.1.attn.k.weight")), y);
    const auto their_q = project(file.tensors.at("blk.1.attn_q.weight").values, x);
    const auto their_k = project(file.tensors.at("blk.1.attn_k.weight").values, y);
    const auto h = static_cast<std::size_t>(head_dim);
    for (std::int64_t head = 0; head < trunk.n_heads; ++head)
      for (const std::int64_t distance : {0, 1, 7}) {
        const auto at = static_cast<std::size_t>(head) * h;
        const auto kv_at = static_cast<std::size_t>(head / (trunk.n_heads / trunk.n_kv_heads)) * h;
        const double ours = score(std::span(q).subspan(at, h), std::span(k).subspan(kv_at, h), distance, false);
        const double theirs =
            score(std::span(their_q).subspan(at, h), std::span(their_k).subspan(kv_at, h), distance, true);
        EXPECT_NEAR(ours, theirs, 1e-4 * (1 + std::abs(ours))) << head_dim << ", head " << head << ", " << distance;
      }
  }
}

TEST_F(Gguf, ModelsThatTheArchitectureCannotHoldAreRefused) {
  const auto refusal_of = [&](const Spec& spec) -> std::string {
    const ModelFolder folder = init(spec);
    try {
      llama_gguf(folder.spec, FolderSource(folder), "x", std::nullopt, 4096);
    } catch (const InputError& e) {
      return e.what();
    }
    return "taken";
  };
  Spec windowed = vanilla();
  windowed.trunk->span = {Span::Kind::window, 64};
  EXPECT_NE(refusal_of(windowed).find("span window(64)"), std::string::npos);
  Spec remembering = vanilla();
  remembering.trunk->memory = {{.context = 1, .n_kv_heads = 1, .layers = {0}}};
  EXPECT_NE(refusal_of(remembering).find("memory has no place"), std::string::npos);
  Spec odd = vanilla();
  odd.trunk->head_dim = 5;
  EXPECT_NE(refusal_of(odd).find("head_dim 5 is odd"), std::string::npos);

  Spec block{.vocab_size = 11, .d_embed = 5, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  StackSpec encoder = *vanilla().trunk, decoder = encoder;
  decoder.span = {Span::Kind::chunk};
  block.levels.push_back({2, 1, Chunker::concat, encoder, decoder});
  EXPECT_NE(refusal_of(block).find("a model with 1 level has no GGUF form"), std::string::npos);
  block.decoder_embedding = block.levels[0].converter_bias = true;
  EXPECT_NE(refusal_of(block).find("1 level (decoder_embedding, level 1 converter_bias) has no GGUF form"),
            std::string::npos);
}

TEST_F(Gguf, WhatTheWriterCannotHoldIsRefusedAndNothingIsWritten) {
  const ReadRow zeros = [](std::int64_t, std::span<float> out) { std::fill(out.begin(), out.end(), 0.0f); };
  const GgufTensor matrix{"t", DType::f32, {2, 3}, zeros};
  const auto refusal_of = [&](const GgufTensor& tensor) { return refusal({}, {tensor}); };
  EXPECT_NE(refusal({{"a", true}, {"a", false}}, {}).find("key 'a' occurs twice"), std::string::npos);
  EXPECT_NE(refusal({}, {matrix, matrix}).find("'t': the name is taken"), std::string::npos);
  EXPECT_NE(refusal_of({std::string(64, 't'), DType::f32, {2, 3}, zeros}).find("longer than 63 bytes"),
            std::string::npos);
  EXPECT_NE(refusal_of({"t", DType::int8, {2, 3}, zeros}).find("F32 or BF16"), std::string::npos);
  EXPECT_NE(refusal_of({"t", DType::f32, {1, 2, 3}, zeros}).find("neither a vector nor a matrix"), std::string::npos);
}

}  // namespace
}  // namespace photon
