// What the training model must satisfy whatever its spec: causality, exact padding, a sane start, the power to learn.
#include "train/model.h"

#include <gtest/gtest.h>
#include <torch/optim/adamw.h>

#include <cmath>
#include <filesystem>

#include "train/attention.h"
#include "train/export.h"
#include "train/specs_testing.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

using torch::Tensor;

Tensor random_ids(int64_t B, int64_t T, int64_t vocab_size, uint64_t seed) {
  const auto ids = random_tokens(B * T, vocab_size, seed);
  return torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())).view({B, T});
}

Tensor random_tensor(torch::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return torch::randn(shape, generator);
}

class EverySpec : public testing::TestWithParam<NamedSpec> {
 protected:
  Spec spec = GetParam().spec;
  Photon model{spec, {.seed = 3, .shake = true}};
};

INSTANTIATE_TEST_SUITE_P(Zoo, EverySpec, testing::ValuesIn(spec_zoo()), [](const auto& i) { return i.param.name; });

// Both with the CPU's fused operations and with those of other devices.
TEST_P(EverySpec, ChangingATokenLeavesEarlierAndOwnLogitsBitIdentical) {
  torch::NoGradGuard no_grad;
  const int64_t T = 2 * spec.group_tokens() + 3;
  const Tensor tokens = random_ids(1, T, spec.vocab_size, 1);
  for (const bool fused : {true, false}) {
    ops::set_fused(fused);
    const Tensor before = model.forward(tokens).logits;
    for (int64_t p = 0; p < T; ++p) {
      Tensor changed = tokens.clone();
      changed[0][p] = (changed[0][p] + 1) % spec.vocab_size;
      const Tensor after = model.forward(changed).logits;
      EXPECT_TRUE(torch::equal(before.narrow(1, 0, p + 1), after.narrow(1, 0, p + 1))) << "token " << p;
      if (p + 1 < T) {
        EXPECT_FALSE(torch::equal(before.select(1, p + 1), after.select(1, p + 1))) << "token " << p;
      }
    }
  }
  ops::set_fused(true);
}

TEST_P(EverySpec, ANarrowerTokenSpanIsThatOfAModelWhichHasIt) {
  torch::NoGradGuard no_grad;
  Spec narrow = spec;
  StackSpec& stack = narrow.levels.empty() ? *narrow.trunk : narrow.levels.front().decoder;
  if (!stack.span.has_size() || stack.span.size < 4) GTEST_SKIP() << "its span has no smaller one";
  stack.span.size -= 2;
  Photon other(narrow, {.seed = 3, .shake = true});
  const Tensor tokens = random_ids(2, 3 * spec.group_tokens() + 1, spec.vocab_size, 1);
  const Tensor before = model.forward(tokens).logits;
  model.set_token_span(stack.span.size);
  EXPECT_TRUE(torch::equal(model.forward(tokens).logits, other.forward(tokens).logits));
  model.set_token_span(spec.token_stack().span.size);
  EXPECT_TRUE(torch::equal(model.forward(tokens).logits, before));
}

TEST_P(EverySpec, LossHasNoGradientFromItsOwnOrLaterTokens) {
  const int64_t T = 2 * spec.group_tokens() + 2;
  spec.vocab_size = T + 2;
  spec.tie_embeddings = false;  // a tied head is a path from the embedding to every loss
  Photon untied(spec, {.seed = 3, .shake = true});
  // All tokens differ, and none is bos: row t of the embedding's gradient belongs to the one position that holds t.
  const Tensor tokens = torch::arange(2, T + 2).unsqueeze(0);
  for (const bool fused : {true, false}) {
    ops::set_fused(fused);
    const Tensor logits = untied.forward(tokens).logits[0];
    std::vector<Tensor> tables{untied.named_parameters()["embed.weight"]};
    if (spec.decoder_embedding) tables.push_back(untied.named_parameters()["decoder_embed.weight"]);
    for (int64_t i = 0; i < T; i += i < 8 ? 1 : 5) {
      const Tensor loss = ops::cross_entropy(logits.narrow(0, i, 1), tokens[0].narrow(0, i, 1));
      Tensor moved = torch::zeros(T);
      for (const Tensor& by_token : torch::autograd::grad({loss}, tables, {}, /*retain_graph=*/true, {}, true))
        if (by_token.defined()) moved = moved + by_token.index_select(0, tokens[0]).abs().amax(1);
      EXPECT_EQ(moved.narrow(0, i, T - i).count_nonzero().item<int64_t>(), 0) << "loss " << i;
      if (i > 0) {
        EXPECT_NE(moved[i - 1].item<float>(), 0.0f) << "loss " << i;
      }
    }
  }
  ops::set_fused(true);
}

TEST_P(EverySpec, LengthDoesNotChangeWhatPrecedes) {
  torch::NoGradGuard no_grad;
  const int64_t longest = 2 * spec.group_tokens() + 1;
  const Tensor tokens = random_ids(2, longest, spec.vocab_size, 2);
  const Tensor all = model.forward(tokens).logits;
  for (int64_t T = 1; T <= longest; ++T) {
    const Tensor logits = model.forward(tokens.narrow(1, 0, T)).logits;
    ASSERT_EQ(logits.sizes(), torch::IntArrayRef({2, T, spec.vocab_size}));
    EXPECT_LT((logits - all.narrow(1, 0, T)).abs().max().item<float>(), 2e-5) << "T " << T;
  }
}

TEST_P(EverySpec, FoldersGiveBackTheSameWeights) {
  const auto folder = std::filesystem::path(testing::TempDir()) / ("photon_model_test_" + GetParam().name);
  save_model_folder(model, folder, DType::f32);
  const auto loaded = load_model_folder(folder);
  const auto saved = model.weights(), got = loaded->weights();
  for (size_t i = 0; i < saved.size(); ++i) EXPECT_TRUE(torch::equal(saved[i].second, got[i].second)) << saved[i].first;
  save_model_folder(model, folder, DType::bf16);
  const auto read_back = load_model_folder(folder)->weights();
  for (size_t i = 0; i < saved.size(); ++i) {
    const Tensor rounded = saved[i].second.to(torch::kBFloat16).to(torch::kFloat32);
    EXPECT_TRUE(torch::equal(rounded, read_back[i].second)) << saved[i].first;
  }
  std::filesystem::remove_all(folder);
}

TEST(Export, RefusesAnotherModelsFolder) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "photon_model_test_other";
  const auto zoo = spec_zoo();
  save_model_folder(Photon(zoo[0].spec), folder, DType::f32);
  const ModelFolder stored = open_model_folder(folder);
  EXPECT_THROW(Photon(zoo[1].spec, FolderSource(stored)), WeightsError);
  EXPECT_THROW(save_model_folder(Photon(zoo[0].spec), folder, DType::int8), InputError);
  std::filesystem::remove_all(folder);
}

TEST_P(EverySpec, Bf16StaysNearFloat32) {
  torch::NoGradGuard no_grad;
  const Tensor tokens = random_ids(2, 19, spec.vocab_size, 5);
  const Tensor exact = model.forward(tokens).logits;
  model.set_compute_dtype(torch::kBFloat16);
  const auto rounded = model.forward(tokens);
  EXPECT_EQ(rounded.logits.scalar_type(), torch::kBFloat16);
  const double error = (rounded.logits.to(torch::kFloat32) - exact).norm().item<double>();
  EXPECT_LT(error, 0.03 * exact.norm().item<double>());
  EXPECT_EQ(model.loss(tokens).total.scalar_type(), torch::kFloat32);
}

// Three architectures at the size where a batch is learnt in seconds.
std::vector<NamedSpec> small_architectures() {
  const auto small_level = [](Span decoder) {
    return LevelSpec{.chunk_size = 4,
                     .converter_len = 2,
                     .chunker = Chunker::linear,
                     .encoder = stack(48, 1, {}),
                     .decoder = stack(48, 1, decoder)};
  };
  const Span chunk{Span::Kind::chunk}, stream{Span::Kind::stream, 12};
  Spec vanilla, block, photon;
  vanilla.vocab_size = block.vocab_size = photon.vocab_size = 97;
  vanilla.d_embed = photon.d_embed = 48, block.d_embed = 24;
  vanilla.trunk = stack(48, 2, {});
  block.levels = {small_level(chunk)};
  photon.levels = {small_level(stream), small_level(chunk)};
  return {{"vanilla", vanilla}, {"block", block}, {"photon", photon}};
}

class EveryArchitecture : public testing::TestWithParam<NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Small, EveryArchitecture, testing::ValuesIn(small_architectures()),
                         [](const auto& i) { return i.param.name; });

TEST_P(EveryArchitecture, StartsAtTheUniformLossAndLearnsOneBatch) {
  const Spec& spec = GetParam().spec;
  Photon model(spec, {.seed = 1});
  // Nothing tells the two sequences apart before their first token: the least possible loss is ln 2 / 80 = 0.0087.
  const Tensor tokens = random_ids(2, 80, spec.vocab_size, 4);
  EXPECT_NEAR(model.loss(tokens).token.item<double>(), std::log(double(spec.vocab_size)), 0.1);
  torch::optim::AdamW optimizer(model.parameters(),
                                torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).weight_decay(0.0));
  double loss = 0.0;
  for (int step = 0; step < 400; ++step) {
    optimizer.zero_grad();
    const Tensor total = model.loss(tokens).total;
    total.backward();
    optimizer.step();
    loss = total.item<double>();
    if (loss < 0.015) break;
  }
  EXPECT_LT(loss, 0.02);
}

Spec two_levels() { return small_architectures().back().spec; }

TEST(RecLoss, ScalesWithAlphaAndStopsGradientsAtItsTarget) {
  Photon model(two_levels(), {.seed = 2, .shake = true});
  const Tensor tokens = random_ids(2, 32, 97, 6);
  const auto plain = model.loss(tokens, 0.0), weighted = model.loss(tokens, 0.5);
  EXPECT_TRUE(torch::equal(plain.total, plain.token));
  EXPECT_GT(plain.rec.item<double>(), 0.0);
  EXPECT_TRUE(torch::equal(plain.rec, weighted.rec));
  EXPECT_FLOAT_EQ(weighted.total.item<float>(), (weighted.token + 0.5 * weighted.rec).item<float>());

  // The last complete level-1 unit is content of nothing and condition of nothing: only the target would reach it.
  const Tensor embedding = model.named_parameters()["embed.weight"];
  const Tensor distinct = torch::arange(2, 34).unsqueeze(0);
  const Tensor rec = model.forward(distinct).rec_loss;
  const Tensor by_token = torch::autograd::grad({rec}, {embedding})[0].index_select(0, distinct[0]).abs().amax(1);
  EXPECT_EQ(by_token.narrow(0, 28, 4).count_nonzero().item<int64_t>(), 0);
  EXPECT_GT(by_token.narrow(0, 0, 16).min().item<float>(), 0.0f);
}

TEST(RecLoss, CountsCompleteUnitsOnly) {
  Photon model(two_levels(), {.seed = 2, .shake = true});
  const Tensor tokens = random_ids(1, 23, 97, 7);
  EXPECT_NEAR(model.forward(tokens).rec_loss.item<double>(),
              model.forward(tokens.narrow(1, 0, 20)).rec_loss.item<double>(), 1e-5);
  EXPECT_EQ(model.forward(tokens.narrow(1, 0, 3)).rec_loss.item<double>(), 0.0);
}

// Both with a second table and with one that is as wide as the decoder.
TEST(RecLoss, OfAllLevelsComparesTokensWithTheRowsOfTheContentTable) {
  for (const bool second_table : {false, true}) {
    Spec spec = two_levels();
    spec.decoder_embedding = second_table;
    if (second_table) spec.d_embed = 10;
    Photon model(spec, {.seed = 2, .shake = true});
    const Tensor tokens = torch::arange(2, 21).unsqueeze(0);  // 19: three tokens of the last group are real
    const Tensor table = model.named_parameters()[second_table ? "decoder_embed.weight" : "embed.weight"];
    const Tensor plain = model.loss(tokens, 1.0).rec, all = model.loss(tokens, 1.0, RecLevels::all).rec;
    const Tensor level_1 = all - plain;
    EXPECT_GT(level_1.item<double>(), 0.05);
    // The head's weight as a window on X̂⁽⁰⁾: logits = lm_head · X̂⁽⁰⁾ has a unique solution.
    const Tensor head = model.named_parameters()["lm_head.weight"].to(torch::kFloat64);
    const Tensor logits = model.forward(tokens).logits[0].to(torch::kFloat64);
    const Tensor x = std::get<0>(torch::linalg_lstsq(head, logits.t())).t();
    const Tensor rows = table.index_select(0, tokens[0]).to(torch::kFloat64);
    const double want = (1.0 - torch::cosine_similarity(x, rows, 1)).mean().item<double>();
    EXPECT_NEAR(level_1.item<double>(), want, 1e-4);
    // The last token is content of nothing: only the target would reach it.
    const Tensor by_token = torch::autograd::grad({all}, {table})[0].index_select(0, tokens[0]).abs().amax(1);
    EXPECT_EQ(by_token[18].item<float>(), 0.0f);
    EXPECT_GT(by_token[17].item<float>(), 0.0f);
  }
  Spec narrow = two_levels();
  narrow.d_embed = 10;
  Photon model(narrow, {.seed = 2});
  EXPECT_THROW(model.loss(random_ids(1, 20, 97, 3), 1.0, RecLevels::all), c10::Error);
}

TEST(HeadLoss, EqualsCrossEntropyOfAllLogitsAtOnce) {
  const int64_t N = 2100, V = 4099, E = 3;  // three pieces, the last one short
  const Tensor x = random_tensor({N, E}, 1).to(torch::kFloat64).set_requires_grad(true);
  const Tensor weight = random_tensor({V, E}, 2).to(torch::kFloat64).set_requires_grad(true);
  const Tensor targets = random_ids(1, N, V, 3)[0];
  const Tensor want = ops::reference::cross_entropy(ops::linear(x, weight), targets);
  const Tensor got = ops::head_loss(x, weight, targets);
  EXPECT_NEAR(got.item<double>(), want.item<double>(), 1e-12);
  const auto want_grads = torch::autograd::grad({want * 3.0}, {x, weight});
  const auto got_grads = torch::autograd::grad({got * 3.0}, {x, weight});
  for (size_t i = 0; i < 2; ++i) EXPECT_LT((got_grads[i] - want_grads[i]).abs().max().item<double>(), 1e-14);
  torch::NoGradGuard no_grad;
  EXPECT_EQ(ops::head_loss(x, weight, targets).item<double>(), got.item<double>());
}

struct SpanCase {
  Span span;
  int64_t S, n_kv_heads;
};
class EverySpan : public testing::TestWithParam<SpanCase> {};
using enum Span::Kind;
INSTANTIATE_TEST_SUITE_P(Lengths, EverySpan,
                         testing::Values(SpanCase{{global}, 1, 2}, SpanCase{{global}, 37, 4}, SpanCase{{chunk}, 7, 1},
                                         SpanCase{{window, 1}, 9, 4}, SpanCase{{window, 5}, 5, 4},
                                         SpanCase{{window, 5}, 6, 2}, SpanCase{{window, 16}, 71, 2},
                                         SpanCase{{window, 16}, 64, 1}, SpanCase{{stream, 7}, 40, 2},
                                         SpanCase{{stream, 100}, 40, 4}, SpanCase{{block, 1}, 5, 2},
                                         SpanCase{{block, 4}, 12, 4}, SpanCase{{block, 4}, 15, 2},
                                         SpanCase{{block, 50}, 15, 1}));

TEST_P(EverySpan, EqualsDenseMaskedAttentionInFloat64) {
  const auto [span, S, K] = GetParam();
  const int64_t B = 3, H = 4, h = 13;
  const auto leaf = [&](int64_t heads, uint64_t seed) {
    return random_tensor({B, S, heads, h}, seed).to(torch::kFloat64).set_requires_grad(true);
  };
  const Tensor q = leaf(H, 1), k = leaf(K, 2), v = leaf(K, 3), direction = random_tensor({B, S, H, h}, 4);
  Tensor visible = torch::zeros({S, S}, torch::kBool);
  for (int64_t s = 0; s < S; ++s) {
    const int64_t first = ops::first_visible(span, s);
    visible[s].narrow(0, first, s - first + 1).fill_(true);
  }
  const Tensor scores = torch::einsum("bshd,bthd->bhst", {q, k.repeat_interleave(H / K, 2)}) / std::sqrt(double(h));
  const Tensor weights = torch::softmax(scores.masked_fill(visible.logical_not(), -INFINITY), -1);
  const Tensor want = torch::einsum("bhst,bthd->bshd", {weights, v.repeat_interleave(H / K, 2)});
  const Tensor got = attend(q, k, v, span);
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-12);
  const auto want_grads = torch::autograd::grad({(want * direction).sum()}, {q, k, v});
  const auto got_grads = torch::autograd::grad({(got * direction).sum()}, {q, k, v});
  for (size_t i = 0; i < 3; ++i) EXPECT_LT((got_grads[i] - want_grads[i]).abs().max().item<double>(), 1e-11);
}

}  // namespace
}  // namespace photon
