// Runs end to end: resuming is exact to the bit however a run ended, and nothing bad is ever stepped on or saved.
#include "train/trainer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "train/export.h"
#include "train/runs_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing_support::lines_of;
using testing_support::names_in;
using testing_support::TemporaryFolder;
using testing_support::tiny_recipe;

// true at the n-th question, 0 = never.
std::function<bool()> stop_at(std::int64_t n) {
  return [n, asked = std::int64_t{0}]() mutable { return ++asked == n; };
}

// The records that must not depend on interruptions, without times.
std::vector<json> losses_of(const fs::path& run) {
  std::vector<json> records;
  for (const std::string& line : lines_of(run / "log.jsonl")) {
    json record = json::parse(line);
    for (const char* key : {"tok_s", "elapsed_s"}) record.erase(key);
    if (record.contains("loss") || record.contains("valid")) records.push_back(std::move(record));
  }
  return records;
}

void expect_same_end(const fs::path& a, const fs::path& b) {
  EXPECT_EQ(losses_of(a), losses_of(b));
  for (const char* folder : {"model", "checkpoints"}) ASSERT_EQ(names_in(a / folder), names_in(b / folder));
  EXPECT_EQ(sha256_file(a / "model/model.safetensors"), sha256_file(b / "model/model.safetensors"));
  for (const std::string& step : names_in(a / "checkpoints"))
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
      EXPECT_EQ(sha256_file(a / "checkpoints" / step / file), sha256_file(b / "checkpoints" / step / file)) << step;
}

class Runs : public testing::Test {
 protected:
  Recipe whole() const { return run_in("whole"); }
  Recipe run_in(const std::string& name) const {
    Recipe recipe = base;
    recipe.run.out = folder / name;
    return recipe;
  }
  TemporaryFolder folder;
  Recipe base = tiny_recipe(folder);
};

TEST_F(Runs, TwoHundredStepsEqualOneHundredAndResumeInEveryWeightAndLoss) {
  for (const DType precision : {DType::f32, DType::bf16}) {
    base.run.steps = 200;
    base.run.eval_every = 40, base.run.checkpoint_every = 40;
    base.compute.precision = precision;
    const std::string name = std::string(to_string(precision));
    ASSERT_EQ(Trainer(run_in(name)).run(), Outcome::finished);
    // Interrupted in the second of the three forward passes of step 101, then in the third of step 140.
    const Recipe parts = run_in(name + "-parts");
    EXPECT_EQ(Trainer(parts, stop_at(3 * 100 + 2)).run(), Outcome::interrupted);
    EXPECT_EQ(Trainer(parts, stop_at(3 * 39 + 3)).run(), Outcome::interrupted);
    Trainer rest(parts);
    EXPECT_EQ(rest.state().step, 139);
    EXPECT_GT(rest.state().data.sources[1].epoch, 3) << "the test must cross passes over the data";
    EXPECT_EQ(rest.run(), Outcome::finished);
    expect_same_end(run_in(name).run.out, parts.run.out);
    EXPECT_EQ(losses_of(parts.run.out).size(), 200u + 5u);
  }
}

TEST_F(Runs, ResumeIsExactWithSeveralThreadsToo) {
  base.run.steps = 4;
  base.run.keep_last = 1;
  base.batch = {.sequences = 64, .tokens = 32, .accumulate = 1};  // enough work to be split among threads
  base.compute.threads = 2;
  Trainer(whole()).run();
  Trainer(run_in("parts"), stop_at(3)).run();
  Trainer(run_in("parts")).run();
  expect_same_end(folder / "whole", folder / "parts");
}

TEST_F(Runs, DrawnSpansAreTheSameAfterAResumeAndMakeAnotherRun) {
  base.model.levels.front().decoder.span = {Span::Kind::stream, 24};
  Trainer(run_in("own")).run();
  base.batch.window_min = 6;
  Trainer(whole()).run();
  Trainer(run_in("parts"), stop_at(3 * 7 + 3)).run();
  Trainer(run_in("parts")).run();
  expect_same_end(folder / "whole", folder / "parts");
  EXPECT_NE(losses_of(folder / "whole"), losses_of(folder / "own"));
}

TEST_F(Runs, AnInterruptedTrainerCanBeRunOnWithTheSameResult) {
  Trainer(whole()).run();
  Trainer trainer(run_in("parts"), stop_at(3 * 7 + 3));
  EXPECT_EQ(trainer.run(), Outcome::interrupted);
  EXPECT_EQ(trainer.run(), Outcome::finished);
  expect_same_end(folder / "whole", folder / "parts");
}

TEST_F(Runs, AFinishedRunHasNothingLeftToDo) {
  Trainer(whole()).run();
  Trainer again(whole());
  EXPECT_EQ(again.state().step, 20);
  EXPECT_EQ(again.run(), Outcome::finished);
  EXPECT_EQ(losses_of(folder / "whole").size(), 20u + 4u);
}

// SIGKILL in the third forward pass of step 9; the newest checkpoint is that of step 5.
TEST_F(Runs, AKilledRunGoesOnFromItsCheckpointIdentically) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // the child runs this test anew, up to here
  const char* inherited = ::getenv("PHOTON_TEST_RUN");
  const Recipe parts = [&] {
    Recipe recipe = base;
    recipe.run.out = inherited != nullptr ? fs::path(inherited) : folder / "parts";
    return recipe;
  }();
  ::setenv("PHOTON_TEST_RUN", parts.run.out.c_str(), 1);
  EXPECT_EXIT(
      {
        std::int64_t asked = 0;
        Trainer(parts, [&] {
          if (++asked == 3 * 8 + 3) ::raise(SIGKILL);
          return false;
        }).run();
      },
      testing::KilledBySignal(SIGKILL), "");
  ::unsetenv("PHOTON_TEST_RUN");
  EXPECT_EQ(losses_of(parts.run.out).size(), 8u + 1u);
  std::ofstream(parts.run.out / "log.jsonl", std::ios::app) << R"({"step": 9, "lo)";  // a line cut off by the kill
  Trainer rest(parts);
  EXPECT_EQ(rest.state().step, 5);
  rest.run();
  Trainer(whole()).run();
  expect_same_end(folder / "whole", parts.run.out);
}

TEST_F(Runs, ADamagedNewestCheckpointCostsOnlyTheStepsSinceTheOneBefore) {
  Trainer(whole()).run();
  const Recipe parts = run_in("parts");
  Trainer(parts, stop_at(3 * 13 + 1)).run();  // checkpoints of steps 5, 10 and 13; the best of 10
  std::ofstream(parts.run.out / "checkpoints/step-000013/model.safetensors", std::ios::app) << "x";
  Trainer rest(parts);
  EXPECT_EQ(rest.state().step, 10);
  rest.run();
  expect_same_end(folder / "whole", parts.run.out);
}

TEST_F(Runs, WithoutAnyCheckpointAKilledRunStartsAgain) {
  Trainer(whole()).run();
  const Recipe parts = run_in("parts");
  Trainer(parts, stop_at(3 * 2 + 1)).run();
  fs::remove_all(parts.run.out / "checkpoints");
  Trainer rest(parts);
  EXPECT_EQ(rest.state().step, 0);
  rest.run();
  expect_same_end(folder / "whole", parts.run.out);
}

TEST_F(Runs, AnotherRecipeOtherDataAndAForeignFolderAreRefused) {
  Trainer(whole(), stop_at(1)).run();
  const auto problem_with = [&](const Recipe& recipe) -> std::string {
    try {
      Trainer trainer(recipe);
    } catch (const InputError& e) {
      return e.what();
    }
    return "no error";
  };
  Recipe other = whole();
  other.optimizer.lr = 0.5;
  other.compute.threads = 2;
  EXPECT_NE(problem_with(other).find("compute.threads: here 2, there 1"), std::string::npos) << problem_with(other);
  EXPECT_NE(problem_with(other).find("optimizer.lr: here 0.5, there 0.01"), std::string::npos);

  Trainer(whole(), stop_at(3 * 6)).run();
  testing_support::write_tiny_shard(folder / "a.shard", 300, 99);
  EXPECT_NE(problem_with(whole()).find("other tokens"), std::string::npos);

  testing_support::write_tiny_shard(folder / "a.shard", 300, 1);
  EXPECT_EQ(problem_with(whole()), "no error");
  write_atomically(folder / "whole/recipe.toml", read_text(folder / "whole/recipe.toml") + "# edited\n");
  EXPECT_NE(problem_with(whole()).find("saved under another recipe"), std::string::npos);

  const Recipe foreign = run_in("foreign");
  fs::create_directory(foreign.run.out);
  write_atomically(foreign.run.out / "thesis.txt", "important");
  EXPECT_NE(problem_with(foreign).find("is no run folder"), std::string::npos);
}

TEST_F(Runs, AFolderIsTrainedInByOneProcessAtATime) {
  Trainer first(whole());
  EXPECT_THROW(Trainer second(whole()), InputError);
}

TEST_F(Runs, ANonFiniteLossStopsBeforeTheOptimizerStepsAndKeepsTheCheckpoint) {
  base.run.checkpoint_every = 1;
  Trainer(whole(), stop_at(3 * 4 + 1)).run();
  Trainer trainer(whole());
  torch::NoGradGuard no_grad;
  for (const auto& [name, weight] : trainer.model().weights())
    if (name == "levels.1.converter.weight") weight[0][0] = NAN;
  std::vector<torch::Tensor> before;
  for (const auto& state : trainer.optimizer().states())
    for (const auto& tensor : {state.parameter, state.m, state.v}) before.push_back(tensor.detach().clone());
  const auto checkpoints = names_in(folder / "whole/checkpoints");
  torch::AutoGradMode gradients(true);
  try {
    trainer.run();
    FAIL() << "trained on NaN";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("step 5: the loss is nan"), std::string::npos) << e.what();
  }
  std::size_t i = 0;
  for (const auto& state : trainer.optimizer().states())
    for (const auto& tensor : {state.parameter, state.m, state.v})
      EXPECT_TRUE(torch::allclose(tensor, before[i++], 0, 0, /*equal_nan=*/true)) << state.name;
  EXPECT_EQ(trainer.state().step, 4);
  EXPECT_EQ(names_in(folder / "whole/checkpoints"), checkpoints);
  EXPECT_EQ(newest_checkpoint(folder / "whole")->state.step, 4);
}

TEST_F(Runs, ANonFiniteGradientAtAFiniteLossStopsBeforeTheOptimizerSteps) {
  Trainer trainer(whole());
  auto weight = trainer.model().weights().back().second;
  weight.register_hook([](const torch::Tensor& grad) { return grad * INFINITY; });
  const auto before = weight.detach().clone();
  try {
    trainer.run();
    FAIL() << "stepped on an infinite gradient";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("step 1: the gradient norm is"), std::string::npos) << e.what();
  }
  EXPECT_TRUE(torch::equal(weight, before));
  EXPECT_EQ(trainer.optimizer().steps(), 0);
}

// Files of at most 64 KB: the log fits, the weights do not.
TEST_F(Runs, ASaveThatTheDiskRefusesLeavesTheCheckpointBefore) {
  Trainer(whole(), stop_at(3 * 6 + 1)).run();
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{64 << 10, before.rlim_max};
  const auto on_signal = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  Trainer trainer(whole());
  EXPECT_THROW(trainer.run(), Error);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, on_signal);
  EXPECT_EQ(newest_checkpoint(folder / "whole")->state.step, 6);
}

TEST_F(Runs, ADivergingRunStopsAtTheFirstNonFiniteNumber) {
  base.optimizer.lr = 1e30;
  base.optimizer.clip = 0;
  base.run.steps = 100;
  Trainer trainer(whole());
  EXPECT_THROW(trainer.run(), Error);
  EXPECT_LT(trainer.state().step, 20);
}

TEST_F(Runs, KeepTheLastCheckpointsAndTheBest) {
  base.run.steps = 30;
  base.run.keep_last = 2;
  base.run.checkpoint_every = 3;
  base.run.eval_every = 4;
  base.data.train = {{testing_support::write_tiny_shard(folder / "one.shard", 9, 7), 1.0}};  // soon known by heart
  base.optimizer.lr = 0.03;
  Trainer trainer(whole());
  trainer.run();
  const std::int64_t best = trainer.state().best_step;
  ASSERT_LT(best, 27) << "this run's best validation must not be among the last two";
  EXPECT_EQ(names_in(folder / "whole/checkpoints"),
            (std::vector<std::string>{fmt::format("step-{:06}", best), "step-000027", "step-000030"}));
  const auto exported = load_model_folder(folder / "whole/model");
  const auto stored = SafeTensors(folder.path() / fmt::format("whole/checkpoints/step-{:06}/model.safetensors", best));
  for (const auto& [name, weight] : exported->weights())
    EXPECT_EQ(std::memcmp(weight.data_ptr(), stored.at(name).bytes.data(), stored.at(name).bytes.size()), 0) << name;
}

TEST_F(Runs, LearnAndLogWhatTheyAreMadeOf) {
  base.run.steps = 60;
  Trainer(whole()).run();
  const auto lines = lines_of(folder / "whole/log.jsonl");
  const json header = json::parse(lines.front());
  EXPECT_EQ(header["format"], "photon-log");
  EXPECT_EQ(header["recipe"]["batch"]["accumulate"], 3);
  EXPECT_EQ(header["model"]["vocab_size"], 40);
  EXPECT_EQ(header["data"]["train"][1]["sha256"], Shard(folder / "b.shard").checksum());
  EXPECT_EQ(header["machine"]["threads"], 1);
  EXPECT_EQ(header["seed"], 5);
  EXPECT_GT(header["peak_flops"], 0);
  const auto records = losses_of(folder / "whole");
  EXPECT_NEAR(records.front()["loss"], std::log(40.0), 0.2);
  EXPECT_EQ(records.front()["tokens"], 48);
  const json last = json::parse(lines.back())["valid"]["far"];
  EXPECT_LT(last["nats"], 3.0);
  EXPECT_NEAR(last["bits_per_byte"].get<double>(), last["nats"].get<double>() / std::log(2.0) / 3.0, 1e-9);
  EXPECT_EQ(load_spec(folder / "whole/model"), base.model);
}

TEST_F(Runs, AccumulationEqualsALargerBatch) {
  base.run.steps = 4;
  base.optimizer.lr = 1e-3;
  Recipe one = run_in("one"), three = run_in("three");
  one.batch = {.sequences = 6, .tokens = 8, .accumulate = 1};
  Trainer(one).run(), Trainer(three).run();
  const auto a = losses_of(one.run.out), b = losses_of(three.run.out);
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].contains("loss")) {
      EXPECT_NEAR(a[i]["loss"], b[i]["loss"], 1e-4);
      EXPECT_NEAR(a[i]["grad_norm"], b[i]["grad_norm"], 1e-3);
    }
}

TEST_F(Runs, TheModelCanBeExportedWithoutValidationData) {
  base.data.valid.clear();
  Trainer(whole()).run();
  EXPECT_EQ(names_in(folder / "whole/model"), (std::vector<std::string>{"config.json", "model.safetensors"}));
}

}  // namespace
}  // namespace photon
