// Properties of rounded folders: what is in them is what quantize_row() makes of every row, and what cannot be rounded
// honestly is refused and leaves no model behind.
#include "weights/quantizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/folder_testing.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

// L = 1; widths with tails of groups and of bytes.
Spec odd_spec() {
  Spec spec{.vocab_size = 30, .d_embed = 11, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  const StackSpec stack{.d_model = 33, .n_layers = 2, .n_heads = 1, .n_kv_heads = 1, .head_dim = 5, .d_ff = 65};
  spec.levels.push_back({3, 2, Chunker::concat, stack, stack});
  spec.levels[0].decoder.span = {Span::Kind::chunk};
  return spec;
}

class Quantize : public ::testing::Test {
 protected:
  void SetUp() override {
    init_model_folder(odd_spec(), in, {.seed = 1, .shake = true});
    write_atomically(in / tokenizer_file, "pieces");
  }

  void expect_refused(DType type, const std::string& names) const {
    try {
      quantize(in, out, type, 2);
      FAIL() << "accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(names), std::string::npos) << e.what();
    }
    EXPECT_FALSE(fs::exists(out / weights_file));
    EXPECT_FALSE(fs::exists(out / config_file));
  }
  // Writes the input's weights again with one element of an F32 tensor changed.
  void poison(const std::string& name, std::int64_t element, float value) const {
    const SafeTensors old(in / weights_file);
    std::vector<TensorToWrite> tensors;
    std::vector<std::byte> changed;
    for (const auto& [at, tensor] : old.tensors()) {
      tensors.push_back({at, tensor.dtype, tensor.shape, tensor.bytes});
      if (at != name) continue;
      changed.assign(tensor.bytes.begin(), tensor.bytes.end());
      std::memcpy(changed.data() + element * 4, &value, 4);
      tensors.back().bytes = changed;
    }
    write_safetensors(in / weights_file, tensors);
  }

  testing_support::TemporaryFolder root;
  fs::path in = root / "in", out = root / "out";
};

TEST_F(Quantize, WritesWhatQuantizeRowMakesOfEveryRowAndReportsTheLoss) {
  for (const DType type : {DType::int8, DType::int4}) {
    const QuantizeReport report = quantize(in, out, type, 2);
    const ModelFolder original = open_model_folder(in), rounded = open_model_folder(out, /*check_finite=*/true);
    EXPECT_EQ(rounded.dtype, type);
    EXPECT_EQ(rounded.weights.metadata().at("seed"), "1");
    EXPECT_EQ(read_text(out / config_file), read_text(in / config_file));
    EXPECT_EQ(read_text(out / tokenizer_file), "pieces");

    std::map<std::string, double> losses;
    for (const TensorSpec& tensor : tensors(original.spec)) {
      if (tensor.shape.size() == 1) {
        EXPECT_EQ(to_floats(rounded.weights.at(tensor.name)), to_floats(original.weights.at(tensor.name)));
        continue;
      }
      const MatrixView &w = original.matrix(tensor.name), &q = rounded.matrix(tensor.name);
      double squares = 0, errors = 0;
      for (std::int64_t r = 0; r < w.rows; ++r) {
        std::vector<float> row(static_cast<std::size_t>(w.cols)), back(row.size());
        std::vector<std::byte> values(static_cast<std::size_t>(quantized_row_bytes(type, w.cols)));
        std::vector<bf16> scales(static_cast<std::size_t>(quant_groups(w.cols)));
        w.read_row(r, row);
        quantize_row(type, row, values, scales);
        EXPECT_TRUE(std::ranges::equal(q.values_row(r), values)) << tensor.name;
        EXPECT_TRUE(std::ranges::equal(q.scales_row(r), scales)) << tensor.name;
        dequantize_row(type, {values.data(), scales.data()}, back);
        for (std::size_t i = 0; i < row.size(); ++i) {
          squares += static_cast<double>(row[i]) * row[i];
          errors += (static_cast<double>(back[i]) - row[i]) * (static_cast<double>(back[i]) - row[i]);
        }
      }
      losses[tensor.name] = std::sqrt(errors / squares);
    }
    EXPECT_EQ(report.bytes_before, static_cast<std::int64_t>(fs::file_size(in / weights_file)));
    EXPECT_EQ(report.bytes_after, static_cast<std::int64_t>(fs::file_size(out / weights_file)));
    double sum = 0, largest = 0;
    for (const char* place : {"encoder.layers.0", "encoder.layers.1", "decoder.layers.0", "decoder.layers.1"}) {
      const double loss = losses.at(fmt::format("levels.1.{}.mlp.down.weight", place));
      sum += loss, largest = std::max(largest, loss);
    }
    EXPECT_NEAR(report.losses.at("embed").mean(), losses.at("embed.weight"), 1e-9);
    const RoundingLoss& down = report.losses.at("mlp.down");
    EXPECT_EQ(down.tensors, 4);
    EXPECT_EQ(down.parameters, 4 * 33 * 65);
    EXPECT_NEAR(down.mean(), sum / 4, 1e-9);
    EXPECT_NEAR(down.largest, largest, 1e-9);
    EXPECT_FALSE(report.losses.contains("norm")) << "vectors are not rounded";
    EXPECT_LT(largest, type == DType::int8 ? 0.01 : 0.12);
    fs::remove_all(out);
  }
}

TEST_F(Quantize, ToBfloat16RoundsEveryTensorToNearest) {
  quantize(in, out, DType::bf16, 2);
  const ModelFolder original = open_model_folder(in), rounded = open_model_folder(out);
  EXPECT_EQ(rounded.dtype, DType::bf16);
  for (const TensorSpec& tensor : tensors(original.spec)) {
    EXPECT_EQ(rounded.weights.at(tensor.name).dtype, StoredType::bf16) << tensor.name;
    auto values = to_floats(original.weights.at(tensor.name));
    for (float& value : values) value = to_float(to_bf16(value));
    EXPECT_EQ(to_floats(rounded.weights.at(tensor.name)), values) << tensor.name;
  }
}

// Of a matrix that is large enough for several.
TEST_F(Quantize, ThreadsChangeNothing) {
  fs::remove_all(in);
  Spec large = odd_spec();
  large.vocab_size = 7000;
  init_model_folder(large, in, {.seed = 1});
  const QuantizeReport one = quantize(in, out, DType::int4, 1);
  const std::string file = read_text(out / weights_file);
  fs::remove_all(out);
  const QuantizeReport many = quantize(in, out, DType::int4, 3);
  EXPECT_EQ(read_text(out / weights_file), file);
  EXPECT_EQ(many.losses.at("embed").sum, one.losses.at("embed").sum);
}

TEST_F(Quantize, RequantisesNothing) {
  quantize(in, out, DType::int8, 2);
  fs::rename(out, root / "int8");
  in = root / "int8";
  for (const DType type : {DType::int8, DType::int4, DType::bf16}) expect_refused(type, "is int8 already");
}

TEST_F(Quantize, OverwritesNoModel) {
  fs::create_directory(out);
  for (const char* name : {config_file, weights_file, tokenizer_file}) {
    write_atomically(out / name, "mine");
    EXPECT_THROW(quantize(in, out, DType::int8, 2), InputError);
    EXPECT_EQ(read_text(out / name), "mine");
    EXPECT_EQ(std::distance(fs::directory_iterator(out), {}), 1);
    fs::remove(out / name);
  }
  const std::string before = read_text(in / weights_file);
  EXPECT_THROW(quantize(in, in, DType::int8, 2), InputError);
  EXPECT_EQ(read_text(in / weights_file), before);
}

TEST_F(Quantize, RefusesWeightsThatAreNotFiniteOrWouldNotBe) {
  poison("levels.1.decoder.layers.1.mlp.down.weight", 66, NAN);
  for (const DType type : {DType::int8, DType::int4, DType::bf16})
    expect_refused(type, "'levels.1.decoder.layers.1.mlp.down.weight' holds a NaN or an infinity at index [1, 1]");
  poison("levels.1.decoder.layers.1.mlp.down.weight", 66, 0);
  poison("start.weight", 3, 3.4e38f);
  expect_refused(DType::bf16, "'start.weight' holds a value beyond the range of bf16");
}

// A source whose tensors are in no file: matrices are rounded, vectors are float32.
TEST_F(Quantize, RoundsWhatIsInNoFile) {
  const Spec spec = odd_spec();
  const InitialSource source(spec, {.seed = 1, .shake = true});
  Rounder rounder(spec, source, DType::int8, 2);
  write_safetensors(root / "made", rounder.tensors());
  quantize(in, out, DType::int8, 2);
  const SafeTensors made(root / "made"), rounded(out / weights_file);
  ASSERT_EQ(made.tensors().size(), rounded.tensors().size());
  for (const auto& [name, tensor] : rounded.tensors()) {
    EXPECT_EQ(made.at(name).dtype, tensor.dtype) << name;
    EXPECT_TRUE(std::ranges::equal(made.at(name).bytes, tensor.bytes)) << name;
  }
}

}  // namespace
}  // namespace photon
