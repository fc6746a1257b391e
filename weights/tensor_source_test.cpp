// Properties of sources: a folder gives back what is in it, random rows are their own, other names are the same rows.
#include "weights/tensor_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/folder_testing.h"
#include "spec/tensor_names.h"
#include "weights/model_folder.h"
#include "weights/quantizer.h"

namespace photon {
namespace {

// Two levels, widths without common factors.
Spec small_spec() {
  Spec spec{.vocab_size = 30, .d_embed = 5, .levels = {}, .trunk = {}};
  const StackSpec stack{.d_model = 15, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 3, .d_ff = 14};
  spec.levels.push_back({3, 2, Chunker::concat, stack, stack});
  spec.levels.push_back({2, 1, Chunker::linear, stack, stack});
  for (LevelSpec& level : spec.levels) level.decoder.span = {Span::Kind::chunk};
  return spec;
}

std::vector<float> row(const TensorSource& source, const TensorSpec& tensor, std::int64_t r) {
  std::vector<float> out(static_cast<std::size_t>(column_count(tensor)), NAN);
  source.rows(tensor)(r, out);
  return out;
}

std::string refusal(const std::function<void()>& what) {
  try {
    what();
  } catch (const WeightsError& e) {
    return e.what();
  }
  return "taken";
}

class Sources : public ::testing::Test {
 protected:
  const Spec spec = small_spec();
  const testing_support::TemporaryFolder root;
};

TEST_F(Sources, AFolderGivesBackWhatIsInItHoweverItIsStored) {
  init_model_folder(spec, root / "f32", {.seed = 1, .shake = true});
  for (const DType dtype : {DType::bf16, DType::int8, DType::int4})
    quantize(root / "f32", root / std::string(to_string(dtype)), dtype, 1);
  const InitialSource made(spec, {.seed = 1, .shake = true});
  for (const DType dtype : {DType::f32, DType::bf16, DType::int8, DType::int4}) {
    const ModelFolder folder = open_model_folder(root / std::string(to_string(dtype)));
    const FolderSource source(folder);
    EXPECT_EQ(source.name(), (root / std::string(to_string(dtype)) / weights_file).string());
    for (const TensorSpec& tensor : tensors(spec)) {
      const auto values = source.values(tensor), wanted = made.values(tensor);
      const DType held = tensor.shape.size() == 1 && is_quantized(dtype) ? DType::f32 : dtype;
      EXPECT_EQ(source.stored(tensor)->dtype, held) << tensor.name;
      const float largest = std::abs(*std::ranges::max_element(wanted, {}, [](float x) { return std::abs(x); }));
      const float tolerance = held == DType::f32    ? 0
                              : held == DType::bf16 ? 0x1p-8f
                              : held == DType::int8 ? 0.005f
                                                    : 0.1f;
      ASSERT_EQ(values.size(), wanted.size());
      for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_NEAR(values[i], wanted[i], tolerance * largest) << tensor.name << " " << i;
    }
  }
}

TEST_F(Sources, AFolderRefusesTensorsOfAnotherNameOrShape) {
  init_model_folder(spec, root / "model", {});
  const ModelFolder folder = open_model_folder(root / "model");
  const FolderSource source(folder);
  for (const TensorSpec& wrong : {TensorSpec{"embed.weight", {30, 6}},
                                  {"embed.weight", {31, 5}},
                                  {"embed.weight", {150}},
                                  {"start.weight", {14}},
                                  {"start.weight", {1, 15}},
                                  {"trunk.norm.weight", {15}},
                                  {"trunk.layers.0.attn.q.weight", {12, 15}}})
    EXPECT_NE(refusal([&] { source.rows(wrong); }).find(wrong.name), std::string::npos) << wrong.name;
}

TEST_F(Sources, InitialRowsAreThoseOfInitialValues) {
  const InitOptions options{.seed = 3, .shake = true, .scale_residual = true};
  const InitialSource source(spec, options);
  for (const TensorSpec& tensor : tensors(spec)) {
    const std::vector<float> all = initial_values(tensor, spec, options);
    EXPECT_EQ(source.values(tensor), all);
    EXPECT_FALSE(source.stored(tensor));
    const auto last = static_cast<std::ptrdiff_t>(column_count(tensor));
    EXPECT_EQ(row(source, tensor, row_count(tensor) - 1), std::vector<float>(all.end() - last, all.end()));
  }
}

TEST_F(Sources, UniformRowsAreOfTheirOwnAndOfStd002) {
  const UniformSource one(1), other(2);
  const TensorSpec embed{names::embed, {200, 500}}, head{names::lm_head, {200, 500}};
  const std::vector<float> values = one.values(embed);
  EXPECT_EQ(row(one, embed, 7), std::vector<float>(values.begin() + 3500, values.begin() + 4000));
  EXPECT_NE(row(one, embed, 7), row(one, embed, 8));
  EXPECT_NE(row(one, embed, 7), row(one, head, 7));
  EXPECT_NE(row(one, embed, 7), row(other, embed, 7));
  double sum = 0, squares = 0;
  for (const float x : values) sum += x, squares += static_cast<double>(x) * x;
  EXPECT_NEAR(sum / 1e5, 0, 3e-4);
  EXPECT_NEAR(std::sqrt(squares / 1e5), 0.02, 2e-4);
  EXPECT_LE(*std::ranges::max_element(values), 0.02f * std::sqrt(3.0f));
  EXPECT_EQ(one.values({"levels.1.encoder.norm.weight", {3}}), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(one.values({names::start, {2}}), (std::vector<float>{0.02f, 0.02f}));
}

// The decoder of a level from a model whose stack of the same shape has another name, its query rows turned around;
// everything else from where it was.
TEST_F(Sources, OtherNamesAreTheSameRowsInTheOrderThatIsAsked) {
  init_model_folder(spec, root / "model", {.seed = 1, .shake = true});
  const ModelFolder folder = open_model_folder(root / "model");
  const FolderSource other(folder);
  const InitialSource rest(spec, {.seed = 2});
  const names::Block from = names::Level(2).encoder.layer(1), to = names::Level(1).decoder.layer(0);
  const MappedSource source(
      other,
      [&](const TensorSpec& wanted) -> std::optional<MappedSource::Origin> {
        if (wanted.name == to.attn_norm) return MappedSource::Origin{{from.attn_norm, wanted.shape}};
        if (wanted.name == to.v) return MappedSource::Origin{{from.v, wanted.shape}};
        if (wanted.name == to.q)
          return MappedSource::Origin{{from.q, wanted.shape}, {11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}};
        return std::nullopt;
      },
      &rest);
  for (const TensorSpec& tensor : tensors(spec)) {
    if (tensor.name == to.attn_norm) {
      EXPECT_EQ(source.values(tensor), other.values({from.attn_norm, tensor.shape}));
    } else if (tensor.name == to.v) {
      EXPECT_EQ(source.values(tensor), other.values({from.v, tensor.shape}));
      EXPECT_EQ(source.stored(tensor)->values.data(), other.stored({from.v, tensor.shape})->values.data());
    } else if (tensor.name == to.q) {
      for (std::int64_t r = 0; r < 12; ++r) EXPECT_EQ(row(source, tensor, r), row(other, {from.q, {12, 15}}, 11 - r));
      EXPECT_FALSE(source.stored(tensor)) << "no file holds it so";
    } else {
      EXPECT_EQ(source.values(tensor), rest.values(tensor)) << tensor.name;
    }
  }
}

TEST_F(Sources, AnOriginThatDoesNotFitIsRefused) {
  const UniformSource other(1);
  const auto refusal_of = [&](std::optional<MappedSource::Origin> origin) {
    const MappedSource source(other, [&](const TensorSpec&) { return origin; });
    return refusal([&] { source.rows({"t", {3, 4}}); });
  };
  EXPECT_EQ(refusal_of({{{"o", {3, 4}}}}), "taken");
  EXPECT_EQ(refusal_of({{{"o", {9, 4}}, {8, 0, 8}}}), "taken");
  EXPECT_NE(refusal_of(std::nullopt).find("'t' [3, 4] has no origin there"), std::string::npos);
  EXPECT_NE(refusal_of({{{"o", {4, 3}}}}).find("cannot be made of 'o' [4, 3]"), std::string::npos);
  EXPECT_NE(refusal_of({{{"o", {2, 4}}}}).find("cannot be made of"), std::string::npos);
  EXPECT_NE(refusal_of({{{"o", {9, 4}}, {8, 0}}}).find("cannot be made of"), std::string::npos);
  EXPECT_NE(refusal_of({{{"o", {9, 4}}, {8, 0, 9}}}).find("wants row 9 of the 9 of 'o'"), std::string::npos);
}

}  // namespace
}  // namespace photon
