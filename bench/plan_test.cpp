#include "bench/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "bench/bench_testing.h"

namespace photon {
namespace {

using testing_support::source_of;

template <class Act>
std::string message_of(const Act& act) {
  try {
    act();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

constexpr auto decode = BenchCase::Kind::decode, prefill = BenchCase::Kind::prefill;

TEST(CasesOf, AreTheCrossProduct) {
  const std::vector sources{source_of("paper")};
  const auto cases = cases_of(decode, sources,
                              {.protocols = {Protocol::hiergen, Protocol::recgen},
                               .threads = {1, 2},
                               .streams = {1, 8, 64},
                               .contexts = {0, 32},
                               .tokens = {16}});
  EXPECT_EQ(cases.size(), 2u * 2 * 3 * 2);
  for (const BenchCase& c : cases) {
    EXPECT_EQ(c.contexts, std::vector{c.workload.context});
    EXPECT_EQ(c.context_label, c.workload.context);
  }
}

TEST(CasesOf, LeaveOutWhatWouldBeMeasuredTwice) {
  const std::vector sources{source_of("vanilla"), source_of("block"), source_of("paper")};
  const auto cases = cases_of(decode, sources,
                              {.protocols = {Protocol::hiergen, Protocol::recgen},
                               .streams = {1, 2},
                               .phases = {Phases::aligned, Phases::staggered}});
  const auto count = [&](std::size_t source, std::int64_t streams) {
    return std::ranges::count_if(
        cases, [&](const BenchCase& c) { return c.source == source && c.workload.streams == streams; });
  };
  EXPECT_EQ(count(0, 1), 1);  // vanilla: no recgen, no phases
  EXPECT_EQ(count(0, 2), 1);
  EXPECT_EQ(count(1, 1), 1);  // one level: recgen is hiergen
  EXPECT_EQ(count(1, 2), 2);
  EXPECT_EQ(count(2, 1), 2);  // one stream has no phases
  EXPECT_EQ(count(2, 2), 3);  // nor has recgen
}

TEST(CasesOf, RefuseAModelOfWhichNothingIsLeft) {
  const std::vector sources{source_of("vanilla")};
  EXPECT_EQ(message_of([&] { cases_of(decode, sources, {.protocols = {Protocol::recgen}}); }),
            "--protocol recgen needs a model with two levels or more, vanilla has 0; add hiergen, or leave the model "
            "out");
}

TEST(CasesOf, RefuseBrokenGroupsAndEndlessContexts) {
  const std::vector sources{source_of("paper")};
  EXPECT_EQ(message_of([&] {
              cases_of(decode, sources, {.tokens = {16, 24}});
            }),
            "--tokens 24: paper is measured over groups of 16 tokens; take a multiple");
  EXPECT_EQ(message_of([&] { cases_of(decode, sources, {.protocols = {Protocol::recgen}, .contexts = {8}}); }),
            "--context 8: paper decodes under recgen groups of 16 tokens; take a multiple");
  EXPECT_EQ(cases_of(decode, sources, {.contexts = {8}}).size(), 1u);  // hiergen begins anywhere
  EXPECT_EQ(cases_of(prefill, sources, {.tokens = {24}}).size(), 1u);  // and so does encoding
  EXPECT_EQ(message_of([&] { cases_of(prefill, sources, {.contexts = {max_context}, .tokens = {1}}); }),
            "paper: a context of 67108864 and 1 more tokens exceeds the longest context, 67108864");
}

TEST(ParseWorkload, TakesPromptPlusGenerated) {
  const PaperWorkload w = parse_workload("2048+128");
  EXPECT_EQ(w.prompt, 2048);
  EXPECT_EQ(w.generated, 128);
  EXPECT_EQ(parse_workload("0+1").prompt, 0);
  for (const char* bad : {"", "2048", "2048+", "+128", "2048+0", "-1+5", "2048+128x", "1+99999999999", "a+b", "1 + 2"})
    EXPECT_THROW(parse_workload(bad), InputError) << bad;
}

TEST(PaperCases, TakeAsManyStreamsAsTheBudgetAdmits) {
  const std::vector sources{source_of("vanilla"), source_of("paper")};
  PaperLists lists{.workloads = {{64, 16}, {16, 64}}, .most_streams = 7};
  lists.kv_budget = 5 * kv_bytes_peak(sources[0], Protocol::hiergen, lists.workloads[0], 1) + 1;
  const auto cases = paper_cases(sources, lists);
  ASSERT_EQ(cases.size(), 2u * 3);
  for (const BenchCase& c : cases) {
    const PaperWorkload w = parse_workload(c.label);
    const auto peak = [&](std::int64_t streams) {
      return kv_bytes_peak(sources[c.source], c.workload.protocol, w, streams);
    };
    EXPECT_EQ(c.kv_bytes_peak, peak(c.workload.streams));
    EXPECT_EQ(c.kv_bytes_alone, peak(1));
    EXPECT_LE(c.kv_bytes_peak, lists.kv_budget);
    if (c.workload.streams < 7) {
      EXPECT_GT(peak(c.workload.streams + 1), lists.kv_budget);
    }
    EXPECT_EQ(c.context_label, w.prompt + w.generated);
  }
  EXPECT_EQ(cases.front().workload.streams, 5);
}

TEST(PaperCases, RefuseABudgetTooSmallForOneStream) {
  const std::vector sources{source_of("vanilla")};
  // 2 layers · 2 · 2 heads of 5 · 4 bytes, pages of 16 positions: 65 of them, with the bos, take 5 · 16.
  EXPECT_EQ(kv_bytes_peak(sources[0], Protocol::hiergen, {48, 16}, 1), 160 * 80);
  const std::string message = message_of([&] {
    paper_cases(sources, {.workloads = {{48, 16}}, .kv_budget = 160 * 80 - 1});
  });
  EXPECT_NE(message.find("1.19e-05 GiB"), std::string::npos) << message;
  EXPECT_EQ(paper_cases(sources, {.workloads = {{48, 16}}, .kv_budget = 160 * 80}).front().workload.streams, 1);
}

TEST(PaperCases, SampleInsideTheGenerationAtWholeGroups) {
  for (const NamedSpec& named : tiny_specs()) {
    const std::vector<BenchSource> sources{{.path = named.name, .spec = named.spec}};
    const std::int64_t group = whole_groups(named.spec, 1);
    for (const PaperWorkload w : {PaperWorkload{0, 400}, {7, 100}, {100, group}, {128, 2048}})
      for (const BenchCase& c : paper_cases(sources, {.protocols = {Protocol::hiergen}, .workloads = {w}})) {
        EXPECT_EQ(c.workload.tokens % group, 0);
        EXPECT_FALSE(c.contexts.empty());
        for (const std::int64_t context : c.contexts) {
          EXPECT_EQ(context % group, 0) << named.name;
          EXPECT_GE(context, w.prompt);
          EXPECT_LE(context + c.workload.tokens, w.prompt + w.generated + 2 * group) << named.name;
        }
      }
  }
  const std::vector<BenchSource> vanilla{source_of("vanilla")};
  const auto cases = paper_cases(vanilla, {.workloads = {{128, 2048}}, .tokens = 16, .samples = 4});
  EXPECT_EQ(cases[0].contexts, (std::vector<std::int64_t>{376, 888, 1400, 1912}));  // centred at 384, 896, …
}

// Encoding the last prompt holds the lower encoders' caches for a moment, which recgen then gives back.
TEST(KvBytesPeak, CountsThePromptBeingEncoded) {
  const BenchSource source = source_of("paper");
  const auto bytes = [&](Protocol protocol, std::int64_t T) {
    return kv_bytes_allocated(source.spec, protocol, T, source.kv);
  };
  const PaperWorkload w{4096, 16};
  ASSERT_GT(bytes(Protocol::hiergen, 4096), bytes(Protocol::recgen, 4112));
  EXPECT_EQ(kv_bytes_peak(source, Protocol::recgen, w, 1), bytes(Protocol::hiergen, 4096));
  EXPECT_EQ(kv_bytes_peak(source, Protocol::recgen, w, 3),
            bytes(Protocol::hiergen, 4096) + 2 * bytes(Protocol::recgen, 4096));
  EXPECT_EQ(kv_bytes_peak(source, Protocol::hiergen, w, 3), 3 * bytes(Protocol::hiergen, 4112));
}

}  // namespace
}  // namespace photon
