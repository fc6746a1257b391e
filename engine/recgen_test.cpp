// recgen does what docs/architecture.md §3 says: it unrolls on its own outputs, keeps the top stream only, and may
// decode a group's chunks in any order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "engine/runner_testing.h"
#include "engine/sampler.h"
#include "kernels/kernels.h"
#include "spec/accounting.h"

namespace photon {
namespace {

std::vector<NamedSpec> specs_where(bool (*holds)(const Spec&)) {
  std::vector<NamedSpec> specs = tiny_specs();
  std::erase_if(specs, [&](const NamedSpec& s) { return !holds(s.spec); });
  return specs;
}
bool has_levels(const Spec& spec) { return spec.n_levels() >= 1; }
bool has_one_level(const Spec& spec) { return spec.n_levels() == 1; }
bool has_more_levels(const Spec& spec) { return spec.n_levels() >= 2; }

struct Output {
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<float>> logits;
  bool operator==(const Output&) const = default;
};

// Which token comes out at a position: the likeliest, or another one.
using Pick = std::function<std::int32_t(std::int64_t position, std::span<const float> logits)>;
std::int32_t likeliest(std::int64_t, std::span<const float> logits) { return argmax(logits); }

class RecGen : public testing::TestWithParam<NamedSpec> {
 protected:
  RecGen() { set_threads(1); }
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group_tokens() const { return spec().group_tokens(); }  // C_≤L
  std::vector<std::int32_t> prompt(std::int64_t groups, std::uint64_t seed = 3) const {
    return random_tokens(groups * group_tokens(), spec().vocab_size, seed);
  }

  Sequence started(std::span<const std::int32_t> tokens) {
    Sequence sequence(model, pool);
    prefill(runner, sequence, tokens);
    runner.start_recgen(sequence);
    return sequence;
  }
  // LogitRows and tokens in the order of their positions.
  Output generate(Sequence& sequence, std::int64_t n_groups, const Pick& pick = likeliest, bool one_by_one = false) {
    Output result;
    const std::int64_t first = sequence.n_tokens;
    result.tokens.resize(static_cast<std::size_t>(n_groups * group_tokens()));
    result.logits.resize(result.tokens.size());
    Sequence* const batch[] = {&sequence};
    for (std::int64_t g = 0; g < n_groups; ++g)
      runner.recgen_group(
          batch,
          [&](std::size_t, std::int64_t position, std::span<const float> logits) {
            const auto i = static_cast<std::size_t>(position - first);
            result.logits[i].assign(logits.begin(), logits.end());
            return result.tokens[i] = pick(position, logits);
          },
          one_by_one);
    return result;
  }

  TestModel folder{GetParam().spec};
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
  KvPool& pool = runner.pool();
};
using OneLevel = RecGen;
using MoreLevels = RecGen;
INSTANTIATE_TEST_SUITE_P(Specs, RecGen, testing::ValuesIn(specs_where(has_levels)), testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(Specs, OneLevel, testing::ValuesIn(specs_where(has_one_level)),
                         testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(Specs, MoreLevels, testing::ValuesIn(specs_where(has_more_levels)),
                         testing::PrintToStringParamName());

TEST_P(RecGen, EqualsTheReference) {
  for (const std::int64_t groups : {0, 1, 3}) {
    const auto text = prompt(groups);
    Sequence sequence = started(text);
    const Output got = generate(sequence, 2);
    const auto want = reference_recgen_logits(folder.path(), text, got.tokens);
    double worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      for (std::size_t v = 0; v < want[i].size(); ++v)
        worst = std::max(worst, std::abs(static_cast<double>(got.logits[i][v]) - want[i][v]));
    EXPECT_LE(worst, 2e-4) << groups << " groups before";
  }
}

TEST_P(RecGen, ParallelChunksEqualOneByOne) {
  const auto text = prompt(2);
  Sequence parallel = started(text), sequential = started(text);
  EXPECT_EQ(generate(parallel, 4), generate(sequential, 4, likeliest, /*one_by_one=*/true));
}

// Between groups tokens travel only through a `stream` level-1 decoder or a memory of the text, and never into the top
// stream.
TEST_P(MoreLevels, EmittedTokensDoNotReachLaterGroups) {
  const auto text = prompt(1);
  Sequence a = started(text), b = started(text);
  const std::int64_t V = spec().vocab_size, first = std::ssize(text);
  const auto other = [&](std::int64_t position, std::span<const float> logits) {
    const std::int32_t token = argmax(logits);
    return position == first ? static_cast<std::int32_t>((token + 1) % V) : token;
  };
  const Output plain = generate(a, 3), replaced = generate(b, 3, other);
  EXPECT_NE(plain.logits[1], replaced.logits[1]);  // the own chunk sees it
  const std::int64_t L = spec().n_levels(), last = a.units_of(L).end() - 1;
  EXPECT_TRUE(std::ranges::equal(a.units_of(L).at(last), b.units_of(L).at(last)));
  const StackSpec& decoder = spec().level(1).decoder;
  const bool remembers = decoder.memory_of(MemorySpec::Kind::text) != nullptr;
  EXPECT_TRUE(!remembers || plain.logits.back() != replaced.logits.back());
  if (remembers || decoder.span.kind != Span::Kind::chunk) return;
  for (auto i = static_cast<std::size_t>(spec().level(1).chunk_size); i < plain.logits.size(); ++i)
    EXPECT_EQ(plain.logits[i], replaced.logits[i]) << "position " << i;
}

TEST_P(RecGen, TheFirstTokenOfAGroupAfterThePromptIsHiergens) {
  for (const std::int64_t groups : {0, 1, 3, 9}) {
    const auto text = prompt(groups);
    Sequence sequence = started(text), exact(model, pool);
    prefill(runner, exact, text);
    Sequence* const batch[] = {&exact};
    const Matrix<float> want = next_logits(runner, batch);
    EXPECT_TRUE(std::ranges::equal(generate(sequence, 1).logits[0], want.row(0))) << groups << " groups before";
  }
}

TEST_P(OneLevel, IsHiergen) {
  const auto text = prompt(3);
  Sequence sequence = started(text), exact(model, pool);
  const Output got = generate(sequence, 5);
  prefill(runner, exact, text);
  Sequence* const batch[] = {&exact};
  Matrix<float> logits = next_logits(runner, batch);
  for (std::size_t i = 0; i < got.tokens.size(); ++i) {
    EXPECT_EQ(got.logits[i], std::vector<float>(logits.row(0).begin(), logits.row(0).end())) << "token " << i;
    const std::int32_t token = argmax(logits.row(0));
    ASSERT_EQ(got.tokens[i], token);
    const Extension next{&exact, {&token, 1}};
    logits = step(runner, {&next, 1});
  }
}

TEST_P(MoreLevels, IsNotHiergen) {
  const auto text = prompt(2);
  Sequence sequence = started(text), exact(model, pool);
  const Output got = generate(sequence, 2);
  std::vector<std::int32_t> all = text;
  all.insert(all.end(), got.tokens.begin(), got.tokens.end());
  std::vector<float> last;
  score(runner, exact, all,
        [&](std::int64_t, std::span<const float> logits) { last.assign(logits.begin(), logits.end()); });
  EXPECT_NE(got.logits.back(), last);
}

TEST_P(RecGen, OnlyTheTopCacheAndTheMemoryGrowAndBytesEqualTheAccounting) {
  Sequence sequence = started(prompt(1));
  const std::int64_t constant = sequence.kv_bytes_constant();
  EXPECT_EQ(constant, kv_bytes_constant(spec(), Protocol::recgen, DType::f32));
  for (int i = 0; i < 40; ++i) {
    generate(sequence, 1);
    EXPECT_EQ(sequence.kv_bytes_constant(), constant);
    EXPECT_EQ(sequence.kv_bytes_growing(), sequence.encoder(spec().n_levels()).bytes() +
                                               (sequence.text ? sequence.text->bytes() : 0) +
                                               (sequence.remembered_units ? sequence.remembered_units->bytes() : 0));
    EXPECT_EQ(sequence.kv_bytes_growing() + sequence.kv_bytes_constant(),
              kv_bytes_allocated(spec(), Protocol::recgen, sequence.n_tokens, DType::f32));
    EXPECT_EQ(pool.bytes_in_use(), sequence.kv_bytes_growing() + sequence.kv_bytes_constant());
    for (const UnitBuffer& units : sequence.units) EXPECT_LE(units.end() - units.first(), 64) << "units pile up";
  }
}

TEST_P(RecGen, SequencesInOneBatchDoNotTouchEachOther) {
  const std::vector<std::vector<std::int32_t>> texts{prompt(0), prompt(1, 5), prompt(4, 6)};
  std::vector<Output> alone;
  std::vector<Sequence> sequences;
  for (const auto& text : texts) {
    Sequence sequence = started(text);
    alone.push_back(generate(sequence, 2));
    sequences.push_back(started(text));
  }
  std::vector<Sequence*> batch;
  for (Sequence& s : sequences) batch.push_back(&s);
  for (int g = 0; g < 2; ++g)
    runner.recgen_group(batch, [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
      const auto i = static_cast<std::size_t>(position - std::ssize(texts[b]));
      EXPECT_TRUE(std::ranges::equal(alone[b].logits[i], logits)) << "sequence " << b << ", token " << i;
      return argmax(logits);
    });
}

// ---- tokens given instead of chosen ----

using LogitRows = std::vector<std::vector<float>>;

class ForcedRecGen : public RecGen {
 protected:
  // LogitRows of `tokens` after a context of any length.
  LogitRows forced(std::span<const std::int32_t> context, std::span<const std::int32_t> tokens) {
    Sequence sequence(model, pool);
    prefill(runner, sequence, context);
    LogitRows logits(tokens.size());
    const Extension all{&sequence, tokens};
    runner.score(Protocol::recgen, {&all, 1}, [&](std::size_t, std::int64_t position, std::span<const float> row) {
      auto& of_token = logits.at(static_cast<std::size_t>(position) - context.size());
      EXPECT_TRUE(of_token.empty()) << "visited twice";
      of_token.assign(row.begin(), row.end());
    });
    return logits;
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, ForcedRecGen, testing::ValuesIn(specs_where(has_levels)),
                         testing::PrintToStringParamName());

TEST_P(ForcedRecGen, TokensHaveTheReferencesLogits) {
  for (const std::int64_t groups : {0, 2}) {
    const auto context = prompt(groups), tokens = prompt(3, /*seed=*/9);
    const LogitRows got = forced(context, tokens);
    const auto want = reference_recgen_logits(folder.path(), context, tokens);
    double worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].size(), want[i].size()) << "token " << i;
      for (std::size_t v = 0; v < want[i].size(); ++v)
        worst = std::max(worst, std::abs(static_cast<double>(got[i][v]) - want[i][v]));
    }
    EXPECT_LE(worst, 2e-4) << groups << " groups before";
  }
}

TEST_P(ForcedRecGen, WhereATextEndsChangesNoLogitsBefore) {
  const auto tokens = prompt(3, /*seed=*/9);
  const LogitRows whole = forced({}, tokens);
  for (std::size_t n = 0; n < tokens.size(); ++n)
    EXPECT_EQ(forced({}, std::span(tokens).first(n)), LogitRows(whole.begin(), whole.begin() + static_cast<int>(n)));
}

// As in generation: the context's last group is finished by hiergen, then recgen goes on from true units.
TEST_P(ForcedRecGen, AContextThatEndsInsideAGroupIsFinishedByHiergen) {
  const auto text = prompt(4, /*seed=*/9);
  const std::int64_t T = group_tokens();
  LogitRows exact;
  Sequence sequence(model, pool);
  score(runner, sequence, text,
        [&](std::int64_t, std::span<const float> row) { exact.emplace_back(row.begin(), row.end()); });
  for (const std::int64_t n : {std::int64_t{1}, T / 2, T - 1, T + 1}) {
    const auto context = std::span(text).first(static_cast<std::size_t>(n));
    const auto boundary = static_cast<std::size_t>((n + T - 1) / T * T);
    const LogitRows got = forced(context, std::span(text).subspan(context.size()));
    const LogitRows after = forced(std::span(text).first(boundary), std::span(text).subspan(boundary));
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_EQ(got[i],
                context.size() + i < boundary ? exact[context.size() + i] : after[context.size() + i - boundary])
          << n << " tokens of context, token " << i;
    EXPECT_EQ(forced(context, std::span(text).subspan(context.size()).first(boundary - context.size())),
              LogitRows(exact.begin() + static_cast<int>(n), exact.begin() + static_cast<int>(boundary)));
  }
}

TEST_P(ForcedRecGen, TextsOfOneBatchDoNotTouchEachOther) {
  const auto text = prompt(4, /*seed=*/9);
  struct Part {
    std::size_t n_context, n_tokens;
  };
  const auto T = static_cast<std::size_t>(group_tokens());
  const Part parts[] = {{0, 2 * T}, {1, T - 1}, {T, 1}, {T + 1, 2 * T}, {3, 0}};
  std::vector<Sequence> sequences;
  std::vector<Extension> batch;
  for (std::size_t b = 0; b < std::size(parts); ++b) {
    prefill(runner, sequences.emplace_back(model, pool), std::span(text).first(parts[b].n_context));
  }
  std::vector<LogitRows> got;
  for (std::size_t b = 0; b < std::size(parts); ++b) {
    batch.push_back({&sequences[b], std::span(text).subspan(parts[b].n_context, parts[b].n_tokens)});
    got.emplace_back(parts[b].n_tokens);
  }
  runner.score(Protocol::recgen, batch, [&](std::size_t b, std::int64_t position, std::span<const float> row) {
    got[b].at(static_cast<std::size_t>(position) - parts[b].n_context).assign(row.begin(), row.end());
  });
  for (std::size_t b = 0; b < std::size(parts); ++b)
    EXPECT_EQ(got[b], forced(std::span(text).first(parts[b].n_context), batch[b].tokens)) << "text " << b;
}

// A sequence goes on group by group, so a long text needs no more memory than the logits that are kept; while hiergen
// finishes the context's last group, token by token.
TEST_P(ForcedRecGen, PiecesAreTheWhole) {
  const auto text = prompt(5, /*seed=*/9);
  const std::int64_t T = group_tokens();
  for (const std::int64_t n_context : {std::int64_t{0}, std::int64_t{1}, T + 1}) {
    const auto context = std::span(text).first(static_cast<std::size_t>(n_context));
    const LogitRows whole = forced(context, std::span(text).subspan(context.size()));
    Sequence sequence(model, pool);
    prefill(runner, sequence, context);
    const std::int64_t missing = (T - n_context % T) % T;
    for (const std::int64_t n : {missing / 2, missing - missing / 2, T, std::int64_t{0}, 2 * T, T}) {
      const auto rest = std::span(text).subspan(static_cast<std::size_t>(sequence.n_tokens));
      const Extension piece{&sequence, rest.first(std::min(rest.size(), static_cast<std::size_t>(n)))};
      runner.score(Protocol::recgen, {&piece, 1}, [&](std::size_t, std::int64_t position, std::span<const float> row) {
        EXPECT_TRUE(std::ranges::equal(row, whole.at(static_cast<std::size_t>(position - n_context)))) << position;
      });
    }
    EXPECT_GE(sequence.n_tokens, 4 * T);
  }
}

TEST_P(ForcedRecGen, ScoresAreLogProbabilitiesOfTheForcedTokens) {
  Engine engine(folder.path());
  const auto text = prompt(3, /*seed=*/9);
  const auto tokens = std::span(text).first(text.size() - 1);
  const LogitRows logits = forced({}, tokens);
  const Score score = engine.score(tokens, Protocol::recgen);
  ASSERT_EQ(score.logprobs.size(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    double sum = 0;
    for (const float x : logits[i]) sum += std::exp(static_cast<double>(x));
    EXPECT_NEAR(static_cast<double>(score.logprobs[i]),
                static_cast<double>(logits[i][static_cast<std::size_t>(tokens[i])]) - std::log(sum), 1e-5);
    EXPECT_EQ(score.argmax[i], argmax(logits[i]));
  }
}

TEST(RecGenScore, NeedsALevel) {
  const TestModel vanilla(tiny_spec("vanilla"));
  Engine engine(vanilla.path());
  EXPECT_THROW(engine.score(std::vector<std::int32_t>{1}, Protocol::recgen), InputError);
}

// The paper's geometry: C = (4, 4), R = 2.  Its four chunks of tokens begin with their prefixes in one step, and then
// take a row each.
TEST(RecGenOfThePaper, StartsAGroupWithEightRowsOfTheTokenDecoder) {
  set_threads(1);
  const TestModel folder(tiny_spec("paper_exact"));
  Runner runner(load_model(folder.path()));
  const auto row_bytes = [&](std::int64_t l) {
    return kv_bytes_per_position(runner.spec().level(l).decoder, DType::f32);
  };
  Sequence sequence = runner.sequence();
  runner.start_recgen(sequence);
  Sequence* const batch[] = {&sequence};
  std::vector<std::int64_t> written;  // to the caches, when the first chunk's tokens are chosen
  runner.recgen_group(batch, [&](std::size_t, std::int64_t position, std::span<const float> logits) {
    if (position < 4) written.push_back(sequence.kv_traffic().bytes_written);
    return argmax(logits);
  });
  ASSERT_EQ(written.size(), 4u);
  EXPECT_EQ(written[0], 5 * row_bytes(2) + 8 * row_bytes(1));  // R + C - 1 rows of the level above
  for (std::size_t slot = 1; slot < 4; ++slot) EXPECT_EQ(written[slot] - written[slot - 1], 4 * row_bytes(1));
}

}  // namespace
}  // namespace photon
