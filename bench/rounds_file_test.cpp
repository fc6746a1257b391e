// A run that was interrupted goes on where it stopped, from a file that is whole at any moment or refused.
#include "bench/rounds_file.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "base/error.h"
#include "base/file.h"
#include "base/folder_testing.h"
#include "bench/bench_testing.h"
#include "bench/plan.h"

namespace photon {
namespace {

using testing_support::source_of;
using testing_support::TemporaryFolder;

const BenchOptions quick{.repeats = 2, .probe_bytes = 1 << 20};

struct TinyRun {
  std::vector<BenchSource> sources{source_of("vanilla"), source_of("paper")};
  std::vector<BenchCase> cases = paper_cases(sources, {.workloads = {{32, 16}}, .most_streams = 2, .samples = 1});
};

class RoundsFileTest : public testing::Test {
 protected:
  std::string refusal(const std::string& text) {
    write_atomically(path, text);
    try {
      RoundsFile file(path, 1);
    } catch (const InputError& e) {
      EXPECT_EQ(read_text(path), text) << "a file that is refused stays as it is";
      return e.what();
    }
    return "accepted";
  }

  TemporaryFolder folder;
  const std::filesystem::path path = folder / "rounds.json";
  TinyRun run;
};

TEST_F(RoundsFileTest, AnInterruptedRunGoesOnWhereItStopped) {
  ASSERT_EQ(run.cases.size(), 3u);  // vanilla; hiergen and recgen
  int n_measured = 0;
  {
    RoundsFile kept(path, quick.seed);
    const auto stop = [&](const std::string& line) {
      if (line.starts_with("round") && ++n_measured == 4) throw std::runtime_error("killed");
    };
    EXPECT_THROW(run_bench(run.sources, run.cases, quick, stop, &kept), std::runtime_error);
  }
  RoundsFile kept(path, quick.seed);
  std::vector<Round> before;
  for (const BenchCase& c : run.cases)
    for (const Round& round : kept.rounds(run.sources[c.source], c, quick.repeats)) before.push_back(round);
  EXPECT_EQ(before.size(), 4u);

  std::vector<std::string> lines;
  const auto results = run_bench(
      run.sources, run.cases, quick, [&](const std::string& line) { lines.push_back(line); }, &kept);
  ASSERT_EQ(lines.size(), 3u);  // one model, and the two rounds that were missing
  EXPECT_TRUE(lines[0].starts_with("loading paper"));
  EXPECT_TRUE(lines[1].starts_with("round 2 of 2: paper hiergen")) << lines[1];
  EXPECT_TRUE(lines[2].starts_with("round 2 of 2: paper recgen")) << lines[2];

  lines.clear();
  RoundsFile again(path, quick.seed);
  const auto same = run_bench(
      run.sources, run.cases, quick, [&](const std::string& line) { lines.push_back(line); }, &again);
  EXPECT_TRUE(lines.empty()) << lines.front();
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(same[i].tokens_per_s.min, results[i].tokens_per_s.min);
    EXPECT_EQ(same[i].tokens_per_s.max, results[i].tokens_per_s.max);
    EXPECT_EQ(same[i].kv_bytes_read_per_token, results[i].kv_bytes_read_per_token);
    EXPECT_EQ(same[i].logits_hash, results[i].logits_hash);
  }
}

TEST_F(RoundsFileTest, FindsACaseByWhatItsFiguresDependOn) {
  RoundsFile kept(path, 1);
  const BenchSource source = run.sources[1];
  const BenchCase what = run.cases[1];
  const Round round{.tokens_per_s = 5, .tokens = 16, .logits_hash = "ab", .profile = {1, 2}, .seconds = 3};
  kept.keep(source, what, round);
  kept.keep(source, what, round);
  EXPECT_EQ(RoundsFile(path, 1).rounds(source, what, 5), std::vector({round, round}));
  EXPECT_EQ(kept.rounds(source, what, 1).size(), 1u);
  for (const auto& change : std::vector<void (*)(BenchSource&, BenchCase&)>{
           [](BenchSource&s, BenchCase&) { s.dtype = DType::int8; },
           [](BenchSource&s, BenchCase&) { s.kv = DType::int8; },
           [](BenchSource&s, BenchCase&) { s.path = "other.json"; },
           [](BenchSource&s, BenchCase&) { s.spec.norm_eps = 1e-6; }, [](BenchSource&, BenchCase&c) { c.threads = 7; },
           [](BenchSource&, BenchCase&c) { c.workload.protocol = Protocol::recgen; },
           [](BenchSource&, BenchCase&c) { c.workload.streams = 9; },
           [](BenchSource&, BenchCase&c) { c.workload.tokens = 32; },
           [](BenchSource&, BenchCase&c) { c.contexts.push_back(64); },
           [](BenchSource&, BenchCase&c) { c.label = "1+1"; }}) {
    BenchSource other = source;
    BenchCase changed = what;
    change(other, changed);
    EXPECT_TRUE(kept.rounds(other, changed, 5).empty());
  }
}

TEST_F(RoundsFileTest, AnythingElseIsRefusedWithOneReason) {
  const auto names_file_and_says = [&](const std::string& message, const std::string& what) {
    EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_NE(message.find("name another file"), std::string::npos) << message;
  };
  names_file_and_says(refusal(""), "is no file of rounds");
  names_file_and_says(refusal("tokens: 3"), "is no file of rounds");
  names_file_and_says(refusal("[1, 2]"), "is no file of rounds");
  names_file_and_says(refusal(R"({"format": "photon-log", "version": 1})"), "is no file of rounds");
  {
    std::filesystem::remove(path);
    RoundsFile kept(path, 1);
    kept.keep(run.sources[0], run.cases[0], {.tokens_per_s = 5, .tokens = 16, .seconds = 3});
  }
  const std::string good = read_text(path);
  EXPECT_EQ(refusal(good), "accepted");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return refusal(text);
  };
  names_file_and_says(with("\"version\": 1", "\"version\": 2"), "another version");
  names_file_and_says(with("\"seed\": 1", "\"seed\": 2"), "was measured with seed 2 where this is 1");
  names_file_and_says(with("\"tokens_per_s\": 5.0", "\"tokens_per_s\": 0.0"), "without tokens or time");
  names_file_and_says(with("\"tokens_per_s\": 5.0", "\"tokens_per_s\": \"5\""), "is no file of rounds");
  names_file_and_says(with("\"kv_bytes\"", "\"kv\""), "is no file of rounds");
  names_file_and_says(refusal(good.substr(0, good.size() / 2)), "is no file of rounds");
}

TEST_F(RoundsFileTest, WhatCannotBeWrittenShowsBeforeAnythingIsMeasured) {
  EXPECT_THROW(RoundsFile(folder / "nowhere" / "rounds.json", 1), InputError);
  EXPECT_THROW(RoundsFile(folder / "", 1), InputError);
}

}  // namespace
}  // namespace photon
