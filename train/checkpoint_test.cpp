// Checkpoints are whole or ignored, and give back every bit.
#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "train/runs_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using testing_support::names_in;
using testing_support::TemporaryFolder;

struct SavedRun {
  explicit SavedRun(std::uint64_t seed)
      : model(spec_zoo().back().spec, {.seed = seed, .shake = true}), optimizer(model, {}) {
    for (const auto& state : optimizer.states()) state.m.normal_(), state.v.uniform_();
  }
  Photon model;
  Optimizer optimizer;
};

TrainerState state_at(std::int64_t step) {
  TrainerState state;
  state.step = step;
  state.data.sources = {{3, 17, 80}, {0, 5, 5}};
  state.best_loss = 1.0 / 3.0;
  state.best_step = step - 1;
  state.elapsed_s = 12.5;
  state.recipe = "abc";
  state.data_checksums = {"x", "y"};
  return state;
}

void save(const TemporaryFolder& folder, const SavedRun& run, std::int64_t step) {
  save_checkpoint(folder.path(), run.optimizer, state_at(step));
}

TEST(Checkpoint, GivesBackEveryBit) {
  const TemporaryFolder folder;
  const SavedRun saved(1);
  save(folder, saved, 7);
  EXPECT_EQ(names_in(folder / "checkpoints"), std::vector<std::string>{"step-000007"});
  SavedRun loaded(2);
  const auto found = newest_checkpoint(folder.path());
  ASSERT_TRUE(found);
  load_checkpoint(*found, loaded.optimizer);
  const TrainerState wanted = state_at(7), &got = found->state;
  EXPECT_EQ(got.step, 7);
  EXPECT_EQ(got.data, wanted.data);
  EXPECT_EQ(got.best_loss, wanted.best_loss);
  EXPECT_EQ(got.best_step, 6);
  EXPECT_EQ(got.elapsed_s, 12.5);
  EXPECT_EQ(got.recipe, "abc");
  EXPECT_EQ(got.data_checksums, wanted.data_checksums);
  EXPECT_EQ(loaded.optimizer.steps(), 7);
  for (std::size_t i = 0; i < saved.optimizer.states().size(); ++i) {
    const auto &a = saved.optimizer.states()[i], &b = loaded.optimizer.states()[i];
    EXPECT_TRUE(torch::equal(a.parameter, b.parameter) && torch::equal(a.m, b.m) && torch::equal(a.v, b.v)) << a.name;
  }
}

TEST(Checkpoint, OfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  save(folder, SavedRun(1), 7);
  Photon other(spec_zoo().front().spec);
  Optimizer optimizer(other, {});
  EXPECT_THROW(load_checkpoint(*newest_checkpoint(folder.path()), optimizer), WeightsError);
}

TEST(Checkpoint, ADamagedNewestOneFallsBackToTheOneBefore) {
  const TemporaryFolder folder;
  const SavedRun run(1);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json", "complete.json"}) {
    save(folder, run, 100), save(folder, run, 200);
    const fs::path path = folder.path() / "checkpoints/step-000200" / file;
    const std::string whole = read_text(path);
    std::string one_bit_flipped = whole;
    one_bit_flipped[whole.size() / 2] ^= 1;
    const auto damages = std::vector<std::string>{"", whole.substr(0, whole.size() / 2),
                                                  whole.substr(0, whole.size() - 1), whole + "x", one_bit_flipped};
    for (std::size_t i = 0; i < damages.size(); ++i) {
      std::ofstream(path, std::ios::binary) << damages[i];
      const auto found = newest_checkpoint(folder.path());
      ASSERT_TRUE(found);
      const bool only_lost_its_newline = std::string(file) == "complete.json" && i == 2;
      EXPECT_EQ(found->state.step, only_lost_its_newline ? 200 : 100) << file << " damage " << i;
    }
    fs::remove(path);
    EXPECT_EQ(newest_checkpoint(folder.path())->state.step, 100) << file << " missing";
  }
}

TEST(Checkpoint, LeftoversOfAnInterruptedSaveAreNoCheckpoint) {
  const TemporaryFolder folder;
  EXPECT_FALSE(newest_checkpoint(folder.path()));
  const SavedRun run(1);
  save(folder, run, 100);
  fs::copy(folder / "checkpoints/step-000100", folder / "checkpoints/.step-000200.tmp");
  fs::create_directory(folder / "checkpoints/step-000300");
  fs::create_directory(folder / "checkpoints/step-12x");
  EXPECT_EQ(newest_checkpoint(folder.path())->state.step, 100);
  save(folder, run, 200);
  EXPECT_EQ(newest_checkpoint(folder.path())->state.step, 200);
}

TEST(Checkpoint, PruningKeepsTheNewestTheBestAndNothingDamaged) {
  const TemporaryFolder folder;
  const SavedRun run(1);
  for (const std::int64_t step : {1, 2, 3, 4, 5, 9}) save(folder, run, step);
  fs::create_directory(folder / "checkpoints/.step-000006.tmp");
  prune_checkpoints(folder.path(), /*step=*/5, /*keep_last=*/2, /*best_step=*/2);  // 9 was found damaged
  EXPECT_EQ(names_in(folder / "checkpoints"), (std::vector<std::string>{"step-000002", "step-000004", "step-000005"}));
}

TEST(PublishFolder, ReplacesAnOlderOneWhole) {
  const TemporaryFolder folder;
  for (const char* text : {"old", "new"}) {
    fs::create_directory(folder / "made");
    write_atomically(folder / (std::string("made/") + text), text);
    publish_folder(folder / "made", folder / "model");
    EXPECT_EQ(names_in(folder / "model"), std::vector<std::string>{text});
    EXPECT_FALSE(fs::exists(folder / "made"));
  }
}

}  // namespace
}  // namespace photon
