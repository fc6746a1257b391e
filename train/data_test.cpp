// The order of windows: every token once a pass, in proportion, replayable from its position; and the guards.
#include "train/data.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "train/runs_testing.h"

namespace photon {
namespace {

using testing_support::TemporaryFolder;
using testing_support::tiny_recipe;
using testing_support::write_tiny_shard;

// A shard whose token i is i: windows show where they come from.
std::filesystem::path write_counting_shard(const std::filesystem::path& path, std::int64_t n) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<std::int32_t>(i));
  write_shard(path, tokens, 1000, "", n);
  return path;
}

TEST(Mixture, APassTakesEachOfItsDisjointWindowsOnceInRandomOrder) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  recipe.data.train.resize(1);
  std::vector<Shard> shards;
  shards.emplace_back(write_counting_shard(folder / "n.shard", 203));
  Mixture mixture(shards, recipe);
  std::set<std::int64_t> phases;
  for (std::int64_t epoch = 0; epoch < 6; ++epoch) {
    std::vector<std::int64_t> firsts;
    while (mixture.position().sources[0].epoch == epoch) {
      const auto window = mixture.next(1);  // [1, 8]
      const auto* tokens = window.data_ptr<std::int64_t>();
      firsts.push_back(tokens[0]);
      for (std::int64_t j = 1; j < 8; ++j) EXPECT_EQ(tokens[j], tokens[0] + j);
    }
    EXPECT_FALSE(std::is_sorted(firsts.begin(), firsts.end()));
    std::sort(firsts.begin(), firsts.end());
    EXPECT_LT(firsts.front(), 8);
    EXPECT_GT(firsts.back(), 203 - 16);
    for (std::size_t i = 1; i < firsts.size(); ++i) EXPECT_EQ(firsts[i], firsts[i - 1] + 8);
    phases.insert(firsts.front());
  }
  EXPECT_GT(phases.size(), 1u) << "the phase must change from pass to pass";
}

TEST(Mixture, SourcesKeepTheirSharesAtEveryMoment) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);  // 5 : 3
  const TrainingData data = open_data(recipe);
  Mixture mixture(data.train, recipe);
  for (std::int64_t n = 1; n <= 200; ++n) {
    mixture.next(1);
    EXPECT_NEAR(static_cast<double>(mixture.position().sources[0].total), static_cast<double>(n) * 5 / 8, 1.0) << n;
  }
}

TEST(Mixture, APositionReplaysWhatFollowedItFromAnyBatch) {
  const TemporaryFolder folder;
  const Recipe recipe = tiny_recipe(folder);
  const TrainingData data = open_data(recipe);
  Mixture mixture(data.train, recipe);
  std::vector<DataPosition> positions;
  std::vector<torch::Tensor> batches;
  for (int i = 0; i < 60; ++i) {  // both sources cross several passes
    positions.push_back(mixture.position());
    batches.push_back(mixture.next(3));
  }
  EXPECT_GT(mixture.position().sources[1].epoch, 2);
  for (const std::size_t i : {0u, 17u, 42u}) {
    Mixture other(data.train, recipe);
    other.seek(positions[i]);
    for (std::size_t j = i; j < batches.size(); ++j)
      ASSERT_TRUE(torch::equal(other.next(3), batches[j])) << i << " " << j;
  }
}

TEST(Mixture, TheSeedChangesTheOrder) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  const TrainingData data = open_data(recipe);
  const auto first = Mixture(data.train, recipe).next(8);
  recipe.run.seed = 6;
  EXPECT_FALSE(torch::equal(first, Mixture(data.train, recipe).next(8)));
}

TEST(ValidationWindows, AreDisjointSpreadAndBounded) {
  const TemporaryFolder folder;
  const Shard shard(write_counting_shard(folder / "n.shard", 103));
  const auto all = validation_windows(shard, 10, 1000);
  EXPECT_EQ(all.sizes().vec(), (std::vector<std::int64_t>{10, 10}));
  EXPECT_TRUE(torch::equal(all.flatten(), torch::arange(100)));
  const auto some = validation_windows(shard, 10, 39);
  EXPECT_EQ(some.sizes().vec(), (std::vector<std::int64_t>{3, 10}));
  EXPECT_EQ(some[0][0].item<std::int64_t>(), 0);
  EXPECT_EQ(some[2][0].item<std::int64_t>(), 60);
  EXPECT_EQ(validation_windows(shard, 10, 1).size(0), 1) << "at least one window";
}

std::string problems_of(const Recipe& recipe) {
  try {
    open_data(recipe);
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

TEST(DataGuards, ReportEveryProblemAtOnce) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  const std::string a(64, 'a'), b(64, 'b');
  recipe.data.train = {{write_tiny_shard(folder / "short.shard", 7, 1, a), 1},
                       {write_tiny_shard(folder / "vocab.shard", 100, 2, a, 50), 1},
                       {write_tiny_shard(folder / "other.shard", 100, 3, b), 1},
                       {folder / "missing.shard", 1},
                       {write_tiny_shard(folder / "same.shard", 100, 4, a), 1}};
  recipe.data.valid = {{"copy", write_tiny_shard(folder / "copy.shard", 100, 4, a)}};
  std::ofstream(folder / "text.shard") << "no shard";
  recipe.data.train.push_back({folder / "text.shard", 1});
  const std::string message = problems_of(recipe);
  for (const char* part : {"short.shard: 7 tokens, shorter than a window of batch.tokens = 8",
                           "vocab.shard: made with a vocabulary of 50, but the model's vocab_size is 40",
                           "other.shard: made with the tokenizer bbbbbbbbbbbb",
                           "missing.shard: ", "text.shard: ", "copy.shard: holds the same tokens as"})
    EXPECT_NE(message.find(part), std::string::npos) << part << "\nin\n" << message;
}

TEST(DataGuards, ShardsMustComeFromTheRecipesTokenizer) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  recipe.data.tokenizer = folder / "tokenizer.model";
  EXPECT_NE(problems_of(recipe).find("tokenizer.model"), std::string::npos) << "missing file";
  write_atomically(recipe.data.tokenizer, "some model");
  EXPECT_NE(problems_of(recipe).find("a.shard: does not say which tokenizer"), std::string::npos)
      << problems_of(recipe);
  const std::string hash = sha256_file(recipe.data.tokenizer);
  recipe.data.valid.clear();
  recipe.data.train = {{write_tiny_shard(folder / "a.shard", 100, 1, hash), 1}};
  EXPECT_EQ(problems_of(recipe), "no error");
}

}  // namespace
}  // namespace photon
