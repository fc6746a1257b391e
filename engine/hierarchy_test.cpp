// The engine against the teacher-forced reference: scoring, hiergen, causality, batching, caches and counters.
#include "engine/runner_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "engine/models_testing.h"
#include "engine/reference.h"
#include "kernels/kernels.h"
#include "spec/accounting.h"

namespace photon {
namespace {

using LogitRows = std::vector<std::vector<float>>;

std::vector<float> copy(std::span<const float> row) { return {row.begin(), row.end()}; }

LogitRows score(Runner& runner, std::span<const std::int32_t> tokens) {
  Sequence sequence = runner.sequence();
  LogitRows logits;
  score(runner, sequence, tokens, [&](std::int64_t position, std::span<const float> row) {
    EXPECT_EQ(position, std::ssize(logits));
    logits.push_back(copy(row));
  });
  return logits;
}

// Largest |got - want|; infinite for NaN.
double distance(std::span<const float> got, std::span<const double> want) {
  double largest = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - want[i]);
    largest = d <= largest ? largest : std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return largest;
}

constexpr double tolerance = 2e-4;

class EverySpec : public testing::TestWithParam<NamedSpec> {
 protected:
  EverySpec() { set_threads(1); }  // tiny models are faster so
  const Spec& spec() const { return GetParam().spec; }
  std::int64_t group_tokens() const { return spec().group_tokens(); }  // C_≤L

  TestModel folder{GetParam().spec};
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
};
INSTANTIATE_TEST_SUITE_P(Specs, EverySpec, testing::ValuesIn(tiny_specs()), testing::PrintToStringParamName());

TEST_P(EverySpec, ScoreEqualsTheReference) {
  const auto tokens = random_tokens(3 * group_tokens() + 20, spec().vocab_size, 7);
  const auto want = reference_logits(folder.path(), tokens);
  const LogitRows got = score(runner, tokens);
  ASSERT_EQ(got.size(), tokens.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_LE(distance(got[i], want[i]), tolerance) << "position " << i;
}

TEST_P(EverySpec, ThreadsDoNotChangeABit) {
  const auto tokens = random_tokens(300, spec().vocab_size, 20);
  const LogitRows alone = score(runner, tokens);
  set_threads(3);
  EXPECT_EQ(score(runner, tokens), alone);
}

TEST_P(EverySpec, HiergenEqualsTheReferenceForEveryPromptLength) {
  const std::int64_t longest = 3 * group_tokens() + 1, further = 2 * group_tokens();
  const auto tokens = random_tokens(longest + further, spec().vocab_size, 8);
  const auto want = reference_logits(folder.path(), tokens);
  for (std::int64_t n = 0; n <= longest; ++n) {
    KvPool pool;
    Sequence sequence(model, pool);
    Sequence* const batch[] = {&sequence};
    prefill(runner, sequence, std::span(tokens).first(static_cast<std::size_t>(n)));
    double worst = distance(next_logits(runner, batch).row(0), want[static_cast<std::size_t>(n)]);
    for (std::int64_t i = n; i < n + further; ++i) {
      const Extension next{&sequence, std::span(tokens).subspan(static_cast<std::size_t>(i), 1)};
      worst = std::max(worst, distance(step(runner, {&next, 1}).row(0), want[static_cast<std::size_t>(i + 1)]));
    }
    EXPECT_LE(worst, tolerance) << "prompt of " << n;
  }
}

TEST_P(EverySpec, PromptsMayComeInPieces) {
  const auto tokens = random_tokens(3 * group_tokens() + 5, spec().vocab_size, 9);
  const auto want = reference_logits(folder.path(), tokens);
  KvPool pool;
  Sequence sequence(model, pool);
  Sequence* const batch[] = {&sequence};
  for (std::size_t at = 0, n = 0; at < tokens.size(); at += n) {
    n = std::min(tokens.size() - at, (at * 7 + 3) % 11);  // also pieces of nothing
    prefill(runner, sequence, std::span(tokens).subspan(at, n));
    if (n == 0) n = 1, prefill(runner, sequence, std::span(tokens).subspan(at, 1));
    EXPECT_LE(distance(next_logits(runner, batch).row(0), want[at + n]), tolerance) << "after " << at + n;
  }
}

TEST_P(EverySpec, LogitsDependOnEarlierTokensOnlyAndOnAllOfThem) {
  const auto tokens = random_tokens(2 * group_tokens() + 7, spec().vocab_size, 10);
  const LogitRows before = score(runner, tokens);
  for (std::size_t p = 0; p + 1 < tokens.size(); ++p) {
    auto changed = tokens;
    changed[p] = (changed[p] + 1) % static_cast<std::int32_t>(spec().vocab_size);
    const LogitRows after = score(runner, changed);
    for (std::size_t i = 0; i <= p; ++i) ASSERT_EQ(before[i], after[i]) << "token " << p << " reaches back to " << i;
    EXPECT_FALSE(std::equal(before.begin() + static_cast<std::ptrdiff_t>(p) + 1, before.end(),
                            after.begin() + static_cast<std::ptrdiff_t>(p) + 1))
        << "token " << p << " changes nothing";
  }
}

// Slices of the prefill and of scoring, window upon window, and replays far from the start.
TEST_P(EverySpec, LongSequencesEqualTheReference) {
  const auto tokens = random_tokens(620, spec().vocab_size, 11);
  const auto want = reference_logits(folder.path(), tokens);
  const LogitRows got = score(runner, tokens);
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, distance(got[i], want[i]));
  EXPECT_LE(worst, tolerance);

  KvPool pool;
  Sequence sequence(model, pool);
  Sequence* const batch[] = {&sequence};
  prefill(runner, sequence, tokens);
  EXPECT_LE(distance(next_logits(runner, batch).row(0), want.back()), tolerance);
  for (const UnitBuffer& units : sequence.units) EXPECT_LE(units.end() - units.first(), 64) << "units pile up";
}

TEST_P(EverySpec, SequencesInOneBatchDoNotTouchEachOther) {
  const std::int64_t steps = 2 * group_tokens() + 3;
  const std::vector<std::vector<std::int32_t>> texts{
      random_tokens(5 + steps, spec().vocab_size, 12),
      random_tokens(2 * group_tokens() + 1 + steps, spec().vocab_size, 13),
      random_tokens(steps, spec().vocab_size, 14)};
  const auto run = [&](const std::vector<std::size_t>& which) {
    KvPool pool;
    std::vector<Sequence> sequences;
    for (std::size_t s = 0; s < which.size(); ++s) sequences.emplace_back(model, pool);
    std::vector<LogitRows> logits(which.size());
    for (std::size_t s = 0; s < which.size(); ++s)
      prefill(runner, sequences[s],
              std::span(texts[which[s]]).first(texts[which[s]].size() - static_cast<std::size_t>(steps)));
    for (std::int64_t i = steps; i > 0; --i) {
      std::vector<Extension> batch;
      for (std::size_t s = 0; s < which.size(); ++s)
        batch.push_back({&sequences[s], std::span(texts[which[s]]).last(static_cast<std::size_t>(i)).first(1)});
      const auto rows = step(runner, batch);
      for (std::size_t s = 0; s < which.size(); ++s) logits[s].push_back(copy(rows.row(static_cast<std::int64_t>(s))));
    }
    return logits;
  };
  const auto together = run({0, 1, 2});
  for (std::size_t s = 0; s < texts.size(); ++s) EXPECT_EQ(together[s], run({s})[0]) << "sequence " << s;
}

TEST_P(EverySpec, PrefillEqualsTokenByTokenBitForBit) {
  const auto tokens = random_tokens(4 * group_tokens() + 3, spec().vocab_size, 15);
  KvPool pool;
  Sequence at_once(model, pool), stepwise(model, pool), decoded(model, pool);
  prefill(runner, at_once, tokens);
  prefill(runner, decoded, {});
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    prefill(runner, stepwise, std::span(tokens).subspan(i, 1));
    const Extension next{&decoded, std::span(tokens).subspan(i, 1)};
    if (i + 1 < tokens.size())
      step(runner, {&next, 1});  // its decoders see every position
    else
      prefill(runner, decoded, next.tokens);
  }
  Sequence* const batch[] = {&at_once, &stepwise, &decoded};
  const auto logits = next_logits(runner, batch);
  EXPECT_EQ(copy(logits.row(0)), copy(logits.row(1)));
  EXPECT_EQ(copy(logits.row(0)), copy(logits.row(2)));
}

TEST_P(EverySpec, CachesHoldTheBytesThatTheAccountingSays) {
  for (const auto dtype : {DType::f32, DType::bf16}) {
    Runner typed_runner(load_model(folder.path(), {.weights = dtype}));
    const Model& typed = typed_runner.model();
    const DType kv = typed.kv;
    KvPool pool;
    {
      Sequence sequence(typed, pool);
      prefill(typed_runner, sequence, {});
      for (const std::int64_t n : {0, 1, 2, 3, 15, 16, 17, 60, 200, 511}) {
        const auto tokens = random_tokens(n - sequence.n_tokens, spec().vocab_size, 16);
        for (const std::int32_t token : tokens) {
          const Extension next{&sequence, {&token, 1}};
          step(typed_runner, {&next, 1});
        }
        EXPECT_EQ(sequence.kv_bytes_growing() + sequence.kv_bytes_constant(),
                  kv_bytes_allocated(spec(), Protocol::hiergen, n, kv))
            << n << " tokens";
        EXPECT_EQ(sequence.kv_bytes_constant(), kv_bytes_constant(spec(), Protocol::hiergen, kv));
        EXPECT_EQ(pool.bytes_in_use(), sequence.kv_bytes_growing() + sequence.kv_bytes_constant());
      }
    }
    EXPECT_EQ(pool.bytes_in_use(), 0);
  }
}

// Tokens come and go; whatever stays has the logits of the forward pass over it, bit for bit.
TEST_P(EverySpec, TokensThatAreTakenBackLeaveNoTrace) {
  const std::int64_t V = spec().vocab_size;
  for (const std::int64_t spare : {std::int64_t{1}, std::int64_t{3}, group_tokens() + 1, 3 * group_tokens() + 2}) {
    Random random(static_cast<std::uint64_t>(spare));
    Sequence sequence = runner.sequence(spare);
    std::vector<std::int32_t> text;
    for (int turn = 0; turn < 40; ++turn) {
      const auto more = random_tokens(random.below(2 * group_tokens() + 4), V, random.next());
      const Logits logits =
          std::array{Logits::none, Logits::next, Logits::given, Logits::given_and_next}[random.below(4)];
      if (logits != Logits::none && more.empty()) continue;
      text.insert(text.end(), more.begin(), more.end());
      const LogitRows want = score(runner, [&] { return text.push_back(0), text; }());
      text.pop_back();
      const Extension extension{.sequence = &sequence, .tokens = more, .logits = logits};
      runner.forward({&extension, 1}, [&](std::size_t, std::int64_t position, std::span<const float> row) {
        EXPECT_TRUE(std::ranges::equal(row, want[position])) << "spare " << spare << ", position " << position;
      });
      const std::int64_t n = std::min(random.below(spare + 1), sequence.may_take_back());
      sequence.take_back(n);
      text.resize(text.size() - static_cast<std::size_t>(n));
      ASSERT_EQ(sequence.n_tokens, std::ssize(text));
      EXPECT_EQ(sequence.kv_bytes_growing() + sequence.kv_bytes_constant(),
                kv_bytes_allocated(spec(), Protocol::hiergen, std::ssize(text), model.kv, spare));
      for (const UnitBuffer& units : sequence.units)
        EXPECT_LE(units.end() - units.first(), 64 + 2 * spare) << "units pile up";
    }
  }
}

// Logits come once, of every token that they are wanted of, whatever was asked for before.
TEST_P(EverySpec, NobodysLogitsComeTwice) {
  const auto text = random_tokens(3 * group_tokens() + 9, spec().vocab_size, 30);
  Sequence sequence = runner.sequence();
  std::vector<int> visits(text.size() + 1);
  const auto visit = [&](std::size_t, std::int64_t position, std::span<const float>) { ++visits[position]; };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = std::min<std::size_t>(1 + at % 5, text.size() - at);
    const Extension extension{
        .sequence = &sequence, .tokens = std::span(text).subspan(at, n), .logits = Logits::given_and_next};
    runner.forward({&extension, 1}, visit);
    at += n;
  }
  EXPECT_EQ(visits, std::vector<int>(visits.size(), 1));
}

// Positions that the rows of one stack see, by the spans' definition.
struct ExpectedTraffic {
  std::int64_t read = 0, written = 0;
  void add(const StackSpec& s, std::int64_t visible, bool output = true) {
    const std::int64_t bytes = kv_bytes_per_position(s, DType::f32);
    written += bytes;
    read += visible * bytes / s.n_layers * (s.n_layers - !output);  // the last layer attends only for an output
  }
  // A row of the stack that predicts tokens, with so many tokens before its top-level group.
  void add_memory(const Spec& spec, std::int64_t tokens, bool output = true) {
    for (const MemorySpec& m : spec.token_stack().memory) {
      const std::int64_t n = std::ranges::count_if(
          m.layers, [&](std::int64_t layer) { return output || layer < spec.token_stack().n_layers - 1; });
      read += n * (m.kind == MemorySpec::Kind::text
                       ? tokens * text_bytes_per_token(spec)
                       : tokens / spec.group_tokens() * memory_bytes_per_unit(spec, DType::f32));
    }
  }
};

TEST_P(EverySpec, TrafficCountersEqualTheFormula) {
  const std::int64_t n = 3 * group_tokens() + 2;
  const auto tokens = random_tokens(n, spec().vocab_size, 17);
  KvPool pool;
  Sequence sequence(model, pool);
  Sequence* const batch[] = {&sequence};
  prefill(runner, sequence, {});
  next_logits(runner, batch);
  for (const std::int32_t token : tokens) {
    const Extension next{&sequence, {&token, 1}};
    step(runner, {&next, 1});
  }
  ExpectedTraffic want;
  const auto encoder_row = [&](const StackSpec& stack, std::int64_t u) {
    const Span e = stack.span;
    want.add(stack, e.kind == Span::Kind::window  ? std::min(u + 1, e.size)
                    : e.kind == Span::Kind::block ? u % e.size + 1
                                                  : u + 1);
  };
  if (spec().trunk)
    for (std::int64_t p = 0; p <= n; ++p) {
      for (const StackSpec& stack : spec().trunk->by_cache()) encoder_row(stack, p);
      want.add_memory(spec(), p);
    }
  want.written += n * text_bytes_per_token(spec()) + n / group_tokens() * memory_bytes_per_unit(spec(), DType::f32);
  for (std::int64_t l = 1; l <= spec().n_levels(); ++l) {
    const LevelSpec& level = spec().level(l);
    const Span d = level.decoder.span;
    for (std::int64_t u = 0; u < n / spec().chunk_tokens(l); ++u) encoder_row(level.encoder, u);
    const std::int64_t R = level.converter_len, C = level.chunk_size;
    const std::int64_t units = n / spec().chunk_tokens(l - 1);  // the last prediction is of unit `units`
    const std::int64_t rows = units / C * (R + C) + R + units % C;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t slot = row % (R + C);
      // Content C is left out where no later prediction depends on it: a chunk, or a reach that ends within the prefix.
      const bool last_content = slot == R + C - 1, output = slot >= R - 1 && !last_content;
      if (d.kind == Span::Kind::stream && !(last_content && level.decoder.n_layers * (d.size - 1) < R))
        want.add(level.decoder, std::min(row + 1, d.size), output);
      else if (d.kind == Span::Kind::chunk && !last_content)
        want.add(level.decoder, slot + 1, output);
      else
        continue;
      if (l == 1) want.add_memory(spec(), row / (R + C) * C / group_tokens() * group_tokens(), output);
    }
  }
  EXPECT_EQ(sequence.kv_traffic().bytes_read, want.read);
  EXPECT_EQ(sequence.kv_traffic().bytes_written, want.written);
}

TEST_P(EverySpec, Bfloat16StaysNearFloat32) {
  const TestModel stored(spec(), 1, DType::bf16);
  Runner b16(load_model(stored.path())), f32(load_model(stored.path(), {.weights = DType::f32}));
  ASSERT_EQ(b16.model().dtype, DType::bf16);
  ASSERT_EQ(f32.model().dtype, DType::f32);
  const auto tokens = random_tokens(2 * group_tokens() + 3, spec().vocab_size, 18);
  const auto want = reference_logits(stored.path(), tokens);
  const LogitRows got = score(b16, tokens), exact = score(f32, tokens);
  double error = 0, size = 0;  // squared
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(distance(exact[i], want[i]), tolerance);
    for (std::size_t v = 0; v < want[i].size(); ++v)
      error += std::pow(static_cast<double>(got[i][v]) - want[i][v], 2), size += want[i][v] * want[i][v];
  }
  EXPECT_LE(std::sqrt(error / size), 0.05);  // 8 bits of mantissa through up to 12 layers
  EXPECT_GT(error, 0);
}

// n_layers·(w-1) positions back from the next prediction, rounded to its group, and nothing older.
TEST(Prefill, StreamDecodersReplayTheirReachAlone) {
  const TestModel folder(tiny_spec("window_stream"));
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
  const auto tokens = random_tokens(403, model.spec.vocab_size, 21);
  KvPool pool;
  Sequence sequence(model, pool);
  Sequence* const batch[] = {&sequence};
  prefill(runner, sequence, tokens);
  next_logits(runner, batch);
  const GroupLayout layout(model.spec.level(1));  // R = 1, C = 4, two layers of stream(7)
  const std::int64_t last = layout.row_of(403), first = (last - 2 * 6) / 5 * 5;
  ExpectedTraffic want;
  for (std::int64_t row = first; row <= last; ++row)
    want.add(model.spec.level(1).decoder, std::min<std::int64_t>(row - first + 1, 7), row == last);
  EXPECT_EQ(sequence.decoder(1).caches.front().traffic().bytes_read, want.read);
  EXPECT_EQ(sequence.decoder(1).caches.front().traffic().bytes_written, want.written);
}

TEST(Prefill, CrossesItsSlices) {
  const TestModel folder(tiny_spec("window_stream"));
  Runner runner{load_model(folder.path())};
  const Model& model = runner.model();
  const auto tokens = random_tokens(2050, model.spec.vocab_size, 19);
  const LogitRows want = score(runner, tokens);
  KvPool pool;
  Sequence sequence(model, pool);
  Sequence* const batch[] = {&sequence};
  prefill(runner, sequence, std::span(tokens).first(2049));
  const std::vector<double> last(want.back().begin(), want.back().end());
  EXPECT_LE(distance(next_logits(runner, batch).row(0), last), tolerance);
}

}  // namespace
}  // namespace photon
