// Agreement of protocols with the forward pass: hiergen is it, bit for bit; recgen's divergence and units equal the
// float64 reference's.
#include "eval/agreement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

class AgreementOf : public testing::TestWithParam<NamedSpec> {
 protected:
  AgreementOf() { set_threads(1); }  // tiny models are faster so
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group_tokens() const { return spec().group_tokens(); }
  std::vector<std::int32_t> text(std::int64_t n, std::uint64_t seed) const {
    return random_tokens(n, spec().vocab_size, seed);
  }
  TestModel folder{GetParam().spec};
  Engine engine{folder.path()};
};
INSTANTIATE_TEST_SUITE_P(EverySpec, AgreementOf, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

// Lengths about slices and groups, batches that are not full, texts that end before others.
TEST_P(AgreementOf, HiergenIsTheForwardPassBitForBit) {
  Agreement agreement(engine.runner());
  std::vector<std::vector<std::int32_t>> texts;
  std::int64_t n = 0;
  for (const std::int64_t length : {0, 1, 7, 31, 32, 33, 64, 65, 90, 2}) {
    texts.push_back(text(length, 5 + static_cast<std::uint64_t>(length)));
    n += std::max<std::int64_t>(0, length - 1);
  }
  agreement.add(texts, 1);
  const ProtocolAgreement hiergen = agreement.result().front();
  EXPECT_EQ(hiergen.protocol, Protocol::hiergen);
  EXPECT_EQ(hiergen.tokens.n_tokens, n);
  EXPECT_EQ(hiergen.tokens.logit_difference_max, 0);
  EXPECT_EQ(hiergen.tokens.kl, 0);
  EXPECT_EQ(hiergen.tokens.top1_agreement, 1);
  EXPECT_GT(hiergen.tokens.model_nats, 0);
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

TEST_P(AgreementOf, RecgenIsAsFarFromTheForwardPassAsInTheReference) {
  if (spec().n_levels() == 0) GTEST_SKIP() << "has no recgen";
  std::vector<std::vector<std::int32_t>> texts{text(2 * group_tokens(), 6), text(3 * group_tokens(), 7)};
  constexpr std::int64_t n_given = 2;
  double n = 0, kl = 0, kl_max = 0, agreement = 0, forward_nats = 0, recgen_nats = 0, difference_max = 0;
  for (const auto& tokens : texts) {
    const auto p = reference_logits(folder.path(), tokens), q = reference_recgen_logits(folder.path(), {}, tokens);
    for (std::size_t i = n_given; i < tokens.size(); ++i) {
      const auto logp = log_softmax(p[i]), logq = log_softmax(q[i]);
      double divergence = 0;
      for (std::size_t v = 0; v < logp.size(); ++v) {
        divergence += std::exp(logp[v]) * (logp[v] - logq[v]);
        difference_max = std::max(difference_max, std::abs(p[i][v] - q[i][v]));
      }
      n += 1, kl += divergence, kl_max = std::max(kl_max, divergence);
      agreement += std::ranges::max_element(logp) - logp.begin() == std::ranges::max_element(logq) - logq.begin();
      forward_nats -= logp[static_cast<std::size_t>(tokens[i])];
      recgen_nats -= logq[static_cast<std::size_t>(tokens[i])];
    }
  }
  Agreement measured(engine.runner());
  measured.add(texts, n_given);
  const ProtocolAgreement got = measured.result().back();
  ASSERT_EQ(got.protocol, Protocol::recgen);
  EXPECT_EQ(got.tokens.n_tokens, static_cast<std::int64_t>(n));
  EXPECT_NEAR(got.tokens.kl, kl / n, 1e-5 + 1e-4 * kl / n);
  EXPECT_NEAR(got.tokens.kl_max, kl_max, 1e-5 + 1e-3 * kl_max);
  EXPECT_NEAR(got.tokens.logit_difference_max, difference_max, 4e-4);
  EXPECT_NEAR(got.tokens.reference_nats, forward_nats / n, 1e-5);
  EXPECT_NEAR(got.tokens.model_nats, recgen_nats / n, 1e-5);
  EXPECT_NEAR(got.tokens.top1_agreement, agreement / n, 1e-9);
  if (spec().n_levels() > 1) {
    EXPECT_GT(got.tokens.kl, 1e-4);
  }
}

TEST_P(AgreementOf, CosinesOfUnitsAreTheReferencesByLevelAndSlot) {
  const auto tokens = text(3 * group_tokens(), 8);
  Agreement measured(engine.runner());
  measured.add({{tokens}});
  for (const ProtocolAgreement& got : measured.result()) {
    ASSERT_EQ(std::ssize(got.units), std::max<std::int64_t>(0, spec().n_levels() - 1));
    if (got.units.empty()) continue;
    const ReferenceUnits want = reference_units(folder.path(), tokens, got.protocol == Protocol::recgen);
    for (const UnitCosine& c : got.units) {
      const auto& X = want.encoded[static_cast<std::size_t>(c.level)];
      const auto& predicted = want.predicted[static_cast<std::size_t>(c.level)];
      std::vector<Mean> by_slot(c.by_slot.size());
      Mean all;
      for (std::size_t m = 0; m < X.size(); ++m) {
        all.add(cosine(X[m], predicted[m]));
        by_slot[m % by_slot.size()].add(cosine(X[m], predicted[m]));
      }
      EXPECT_EQ(c.all.n(), std::ssize(X));
      EXPECT_NEAR(c.all.value(), all.value(), 1e-5) << to_string(got.protocol) << ", level " << c.level;
      for (std::size_t slot = 0; slot < by_slot.size(); ++slot) {
        EXPECT_EQ(c.by_slot[slot].n(), 3);
        EXPECT_NEAR(c.by_slot[slot].value(), by_slot[slot].value(), 1e-5) << to_string(got.protocol) << slot;
      }
    }
  }
}

TEST_P(AgreementOf, ATextsShareDoesNotDependOnTheTextsBesideIt) {
  std::vector<std::vector<std::int32_t>> texts;
  for (const std::int64_t length : {50, 3, 33, 64, 1, 20, 47, 48, 49, 12})
    texts.push_back(text(length, 9 + static_cast<std::uint64_t>(length)));
  Agreement together(engine.runner()), one_by_one(engine.runner());
  together.add(texts);
  for (const auto& t : texts) one_by_one.add({{t}});
  const auto a = together.result(), b = one_by_one.result();
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].tokens.n_tokens, b[i].tokens.n_tokens);
    EXPECT_EQ(a[i].tokens.kl_max, b[i].tokens.kl_max);
    EXPECT_EQ(a[i].tokens.logit_difference_max, b[i].tokens.logit_difference_max);
    EXPECT_NEAR(a[i].tokens.kl, b[i].tokens.kl, 1e-12);
    for (std::size_t u = 0; u < a[i].units.size(); ++u) {
      EXPECT_EQ(a[i].units[u].all.n(), b[i].units[u].all.n());
      EXPECT_NEAR(a[i].units[u].all.value(), b[i].units[u].all.value(), 1e-12);
    }
  }
}

TEST_P(AgreementOf, GreedyCountsPositionsAndTheFirstDifference) {
  if (spec().n_levels() == 0) {
    EXPECT_THROW(greedy_agreement(engine, {{text(3, 1)}}, 4), InputError);
    return;
  }
  const std::vector<std::vector<std::int32_t>> prompts{text(5, 10), text(2 * group_tokens(), 11), {}};
  constexpr std::int64_t n_tokens = 40;
  const GreedyAgreement got = greedy_agreement(engine, prompts, n_tokens);
  ASSERT_EQ(std::ssize(got.first_difference), 3);
  double equal = 0;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    Request request{.prompt = prompts[p], .n_tokens = n_tokens, .sampler = {.temperature = 0}, .ignore_eos = true};
    const auto exact = engine.generate(request).tokens();
    request.protocol = Protocol::recgen;
    const auto recursive = engine.generate(request).tokens();
    std::int64_t first = n_tokens;
    for (std::int64_t i = n_tokens; i-- > 0;) {
      const auto at = static_cast<std::size_t>(i);
      equal += exact[at] == recursive[at];
      if (exact[at] != recursive[at]) first = i;
    }
    EXPECT_EQ(got.first_difference[p], first);
  }
  EXPECT_EQ(got.n_prompts, 3);
  EXPECT_NEAR(got.equal.value(), equal / (3.0 * n_tokens), 1e-12);
  if (spec().n_levels() == 1) {
    EXPECT_EQ(got.equal.value(), 1);
  }
}

TEST(Agreement, RefusesForeignIds) {
  const TestModel folder(tiny_spec("paper"));
  Engine engine(folder.path());
  Agreement agreement(engine.runner());
  EXPECT_THROW(agreement.add({{{1, -1}}}), InputError);
  EXPECT_EQ(agreement.result().front().tokens.n_tokens, 0);
}

}  // namespace
}  // namespace photon
