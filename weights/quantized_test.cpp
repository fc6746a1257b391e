// Properties of quantised model folders: values and scales read back as written, and whatever metadata and tensors do
// not agree on is refused by name.
#include "weights/quantized.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>

#include "base/folder_testing.h"
#include "base/random.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

// L = 1 with odd widths: matrices of 5, 11, 33, 64 and 65 columns, so that groups and bytes have tails, or just not.
Spec odd_spec() {
  Spec spec{.vocab_size = 30, .d_embed = 11, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  const StackSpec stack{.d_model = 33, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 5, .d_ff = 65};
  spec.levels.push_back({3, 2, Chunker::concat, stack, stack});
  spec.levels[0].decoder.span = {Span::Kind::chunk};
  spec.levels[0].decoder.d_ff = 64;
  return spec;
}

using File = std::vector<TensorToWrite>;

class QuantizedFolders : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { write_atomically(folder / config_file, to_json(spec)); }

  DType dtype() const { return *quantized_dtype(GetParam()); }
  bool is_int8() const { return dtype() == DType::int8; }

  std::span<std::byte> bytes(std::int64_t n) { return storage.emplace_back(static_cast<std::size_t>(n), std::byte{0}); }
  // Random values and scales for every matrix of the spec, 1 for every element of a vector.
  File file() {
    File tensors;
    Random random(1);
    for (const TensorSpec& tensor : photon::tensors(spec)) {
      if (tensor.shape.size() == 1) {
        const auto ones = bytes(tensor.shape[0] * 4);
        for (std::int64_t i = 0; i < tensor.shape[0]; ++i) {
          constexpr float one = 1;
          std::memcpy(ones.data() + i * 4, &one, 4);
        }
        tensors.push_back({tensor.name, StoredType::f32, tensor.shape, ones});
        continue;
      }
      const auto shape = values_shape(dtype(), tensor.shape), groups = scales_shape(tensor.shape);
      const auto values = bytes(shape[0] * shape[1]), scales = bytes(groups[0] * groups[1] * 2);
      for (std::byte& value : values)
        value = static_cast<std::byte>(is_int8() ? random.below(255) - 127 : random.below(256));
      for (std::size_t i = 0; i < scales.size(); i += 2) {
        const bf16 scale = to_bf16(static_cast<float>(random.uniform()));
        std::memcpy(scales.data() + i, &scale, 2);
      }
      tensors.push_back({tensor.name, stored_type(dtype()), shape, values});
      tensors.push_back({scale_name(tensor.name), StoredType::bf16, groups, scales});
    }
    return tensors;
  }
  void write(const File& tensors) { write(tensors, {{weight_type_key, GetParam()}}); }
  void write(const File& tensors, const std::map<std::string, std::string>& metadata) {
    write_safetensors(folder / weights_file, tensors, metadata);
  }
  static TensorToWrite& find(File& tensors, std::string_view name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const TensorToWrite& t) { return t.name == name; });
  }
  TensorToWrite of(std::string name, StoredType type, std::vector<std::int64_t> shape) {
    std::int64_t n = size_of(type);
    for (const std::int64_t dimension : shape) n *= dimension;
    return {std::move(name), type, std::move(shape), bytes(n)};
  }
  // The same bytes with two of them replaced.
  std::span<std::byte> with(std::span<const std::byte> old, std::int64_t at, std::uint16_t bits) {
    const auto changed = bytes(std::ssize(old));
    std::copy(old.begin(), old.end(), changed.begin());
    std::memcpy(changed.data() + at, &bits, 2);
    return changed;
  }

  // Why the folder is refused: all lines of the message; "opened" if it is not.
  std::string refusal(bool check_finite = false) const {
    try {
      open_model_folder(folder.path(), check_finite);
    } catch (const WeightsError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with((folder / weights_file).string())) << e.what();
      return e.what();
    }
    return "opened";
  }
  void expect_refused(const File& tensors, const std::vector<std::string>& mentions, bool check_finite = false) {
    write(tensors);
    const std::string message = refusal(check_finite);
    for (const std::string& text : mentions)
      EXPECT_NE(message.find(text), message.npos) << message << "\n  does not mention " << text;
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n') + 1, std::ssize(mentions)) << message;
  }

  Spec spec = odd_spec();
  testing_support::TemporaryFolder folder;
  std::deque<std::vector<std::byte>> storage;  // what files are written from
};

INSTANTIATE_TEST_SUITE_P(, QuantizedFolders, ::testing::Values("int8", "int4"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(QuantizedFolders, ReadBackAsWritten) {
  for (const bool tied : {false, true}) {
    if (tied) {  // the head is the quantised embedding: vanilla, where the widths agree
      spec = Spec{.vocab_size = 30, .d_embed = 33, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
      spec.tie_embeddings = true;
      spec.trunk = odd_spec().level(1).encoder;
      write_atomically(folder / config_file, to_json(spec));
    }
    File tensors = file();
    write(tensors);
    const ModelFolder model = open_model_folder(folder.path(), /*check_finite=*/true);
    EXPECT_EQ(model.dtype, dtype());
    EXPECT_TRUE(model.is_quantized());
    EXPECT_EQ(model.matrices.contains("lm_head.weight"), !tied);
    for (const TensorSpec& wanted : photon::tensors(spec)) {
      if (wanted.shape.size() == 1) {
        EXPECT_EQ(to_floats(model.weights.at(wanted.name)),
                  std::vector<float>(static_cast<std::size_t>(wanted.shape[0]), 1.0f));
        EXPECT_THROW(model.matrix(wanted.name), WeightsError);
        continue;
      }
      const MatrixView& matrix = model.matrix(wanted.name);
      EXPECT_EQ(matrix.dtype, dtype());
      EXPECT_EQ(matrix.rows, wanted.shape[0]);
      EXPECT_EQ(matrix.cols, wanted.shape[1]);
      const TensorToWrite& values = find(tensors, wanted.name);
      const TensorToWrite& scales = find(tensors, scale_name(wanted.name));
      EXPECT_EQ(scales.shape, (std::vector<std::int64_t>{matrix.rows, (matrix.cols + 31) / 32}));
      for (std::int64_t r = 0; r < matrix.rows; ++r) {
        const auto row = matrix.values_row(r), row_scales = std::as_bytes(matrix.scales_row(r));
        ASSERT_EQ(std::ssize(row), is_int8() ? matrix.cols : (matrix.cols + 1) / 2);
        ASSERT_EQ(std::ssize(row_scales), 2 * ((matrix.cols + 31) / 32));
        EXPECT_TRUE(
            std::ranges::equal(row, values.bytes.subspan(static_cast<std::size_t>(r) * row.size(), row.size())));
        EXPECT_TRUE(std::ranges::equal(
            row_scales, scales.bytes.subspan(static_cast<std::size_t>(r) * row_scales.size(), row_scales.size())));
      }
    }
  }
}

TEST_P(QuantizedFolders, MissingAndExtraScalesAreNamedTogether) {
  File tensors = file();
  std::erase_if(tensors, [](const TensorToWrite& t) {
    return t.name == "embed.weight_scale" || t.name == "levels.1.encoder.layers.0.attn.o.weight_scale";
  });
  tensors.push_back(of("start.weight_scale", StoredType::bf16, {33, 1}));
  expect_refused(tensors, {"'embed.weight_scale' [30, 1] is missing",
                           "'levels.1.encoder.layers.0.attn.o.weight_scale' [33, 1] is missing",
                           "'start.weight_scale' [33, 1] is no tensor of config.json's model"});
}

TEST_P(QuantizedFolders, MisshapenValuesAndScalesAreNamedTogether) {
  File tensors = file();
  find(tensors, "lm_head.weight") = of("lm_head.weight", stored_type(dtype()), {30, 18});
  find(tensors, "embed.weight_scale") = of("embed.weight_scale", StoredType::bf16, {30, 2});
  find(tensors, "levels.1.encoder.layers.0.mlp.down.weight_scale") =
      of("levels.1.encoder.layers.0.mlp.down.weight_scale", StoredType::bf16, {33});
  find(tensors, "levels.1.converter.weight") = of("levels.1.converter.weight", stored_type(dtype()), {66});
  expect_refused(tensors, {is_int8() ? "'lm_head.weight' is [30, 18], config.json wants [30, 33]"
                                     : "'lm_head.weight' is [30, 18], config.json wants [30, 17]",
                           "'embed.weight_scale' is [30, 2], config.json wants [30, 1]",
                           "'levels.1.encoder.layers.0.mlp.down.weight_scale' is [33], config.json wants [33, 3]",
                           "'levels.1.converter.weight' is [66], config.json wants"});
}

TEST_P(QuantizedFolders, OtherDTypesThanTheMetadatasAreNamedTogether) {
  const char* wanted = is_int8() ? "I8" : "U8";
  File tensors = file();
  TensorToWrite& embed = find(tensors, "embed.weight");
  embed.dtype = is_int8() ? StoredType::u8 : StoredType::i8;
  TensorToWrite& head = find(tensors, "lm_head.weight");  // a float matrix among quantised ones
  head = of("lm_head.weight", StoredType::bf16, head.shape);
  TensorToWrite& scales = find(tensors, "levels.1.converter.weight_scale");
  scales = of(scales.name, StoredType::f32, scales.shape);
  TensorToWrite& norm = find(tensors, "levels.1.encoder.norm.weight");
  norm = of(norm.name, stored_type(dtype()), norm.shape);
  const auto says = [&](const std::string& name, const char* is, const char* wants) {
    return fmt::format("'{}' is {}, weight_type {} of the metadata wants {}", name, is, GetParam(), wants);
  };
  expect_refused(tensors,
                 {says("embed.weight", is_int8() ? "U8" : "I8", wanted), says("lm_head.weight", "BF16", wanted),
                  says("levels.1.converter.weight_scale", "F32", "BF16"),
                  fmt::format("'levels.1.encoder.norm.weight' is {}; convert it to F32 or BF16", wanted)});
}

TEST_P(QuantizedFolders, MetadataOfAnotherTypeOrNoneIsRefused) {
  const File tensors = file();
  write(tensors, {{weight_type_key, is_int8() ? "int4" : "int8"}});
  EXPECT_NE(refusal().find("'embed.weight' is"), std::string::npos) << refusal();
  write(tensors, {});
  const char* says = is_int8() ? "'embed.weight' is I8; the metadata has no weight_type" : "'embed.weight' is [30, 6]";
  EXPECT_NE(refusal().find(says), std::string::npos) << refusal();
  EXPECT_NE(refusal().find("'embed.weight_scale' [30, 1] is no tensor of config.json's model (the metadata has no "
                           "weight_type)"),
            std::string::npos)
      << refusal();
  for (const char* word : {"", "int5", "INT8", "int8 ", "f32", "bf16"}) {
    write(tensors, {{weight_type_key, word}});
    EXPECT_NE(refusal().find(fmt::format("weight_type '{}' of the metadata is unknown; int8 and int4 are known", word)),
              std::string::npos)
        << refusal();
  }
}

TEST_P(QuantizedFolders, FloatMatricesUnderAQuantisedTypeAreRefused) {
  fs::remove(folder / config_file);
  init_model_folder(spec, folder.path(), {});
  const SafeTensors floats(folder / weights_file);
  File tensors;
  for (const auto& [name, tensor] : floats.tensors())
    tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
  write(tensors);
  EXPECT_NE(refusal().find("'embed.weight_scale' [30, 1] is missing"), std::string::npos) << refusal();
}

TEST_P(QuantizedFolders, ScalesAreFiniteAndThoseOfInt8NotNegative) {
  const std::string name = "levels.1.encoder.layers.0.mlp.down.weight_scale";  // [33, 3]
  std::vector<float> bad{INFINITY, -INFINITY, NAN}, good{0.0f, -0.0f, 1e-40f, 3e38f};
  (is_int8() ? bad : good).push_back(-0.5f);
  for (const float scale : bad) {
    File tensors = file();
    TensorToWrite& scales = find(tensors, name);
    scales.bytes = with(scales.bytes, 2 * (32 * 3 + 2), to_bf16(scale).bits);
    expect_refused(tensors, {fmt::format("'{}' holds {:g} at [32, 2]", name, scale)});
  }
  for (const float scale : good) {
    File tensors = file();
    TensorToWrite& scales = find(tensors, name);
    scales.bytes = with(scales.bytes, 0, to_bf16(scale).bits);
    write(tensors);
    EXPECT_EQ(refusal(/*check_finite=*/true), "opened");
  }
}

TEST_P(QuantizedFolders, ValuesOutsideTheTypeAndVectorsThatAreNotFiniteAreRefusedOnRequest) {
  File tensors = file();
  if (is_int8()) {
    TensorToWrite& embed = find(tensors, "embed.weight");  // [30, 11]
    embed.bytes = with(embed.bytes, 29 * 11 + 4, 0x0080);
    write(tensors);
    EXPECT_EQ(refusal(), "opened");
    expect_refused(tensors, {"'embed.weight' holds -128 at [29, 4]; int8 values are -127 to 127"}, true);
  }
  tensors = file();
  TensorToWrite& start = find(tensors, "start.weight");
  start.bytes = with(start.bytes, 4 * 7 + 2, 0x7f80);
  expect_refused(tensors, {"'start.weight' holds a NaN or an infinity at index [7]"}, true);
}

TEST(FloatFolders, GiveTheirMatricesRowByRow) {
  const testing_support::TemporaryFolder root;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    init_model_folder(odd_spec(), root / "model", {.seed = 2, .dtype = dtype});
    const ModelFolder model = open_model_folder(root / "model");
    EXPECT_EQ(model.dtype, dtype);
    EXPECT_FALSE(model.is_quantized());
    for (const auto& [name, matrix] : model.matrices) {
      const std::vector<float> values = to_floats(model.weights.at(name));
      std::vector<float> row(static_cast<std::size_t>(matrix.cols));
      for (std::int64_t r = 0; r < matrix.rows; ++r) {
        matrix.read_row(r, row);
        EXPECT_TRUE(
            std::ranges::equal(row, std::span(values).subspan(static_cast<std::size_t>(r) * row.size(), row.size())));
      }
    }
    fs::remove_all(root / "model");
  }
}

}  // namespace
}  // namespace photon
