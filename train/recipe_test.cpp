// Recipes are read strictly, overridden as strictly, and written back without loss.
#include "train/recipe.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "train/runs_testing.h"

namespace photon {
namespace {

using testing_support::TemporaryFolder;
using testing_support::tiny_recipe;

constexpr const char* minimal = R"(
[model.spec]
format = "photon-lm"
version = 1
vocab_size = 100
d_embed = 8
norm_eps = 1e-5
bos_token_id = 1
eos_token_id = 2
tie_embeddings = false
levels = []
[model.spec.trunk]
d_model = 8
n_layers = 1
n_heads = 1
n_kv_heads = 1
head_dim = 8
d_ff = 8
rope_theta = 10000.0
span = { kind = "global" }
[data]
train = [{ path = "a.shard" }]
[run]
out = "runs/x"
)";

std::string message_of(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  try {
    parse_recipe(toml, "r.toml", overrides);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << "\nin\n" << message;
}

TEST(Recipe, MinimalRecipeHasTheDocumentedDefaults) {
  const Recipe recipe = parse_recipe(minimal, "r.toml");
  EXPECT_EQ(recipe.model.vocab_size, 100);
  EXPECT_EQ(recipe.data.train.at(0).weight, 1.0);
  EXPECT_TRUE(recipe.run.out.is_absolute());
  EXPECT_EQ(recipe.batch.tokens, 512);
  EXPECT_GE(recipe.compute.threads, 1);
}

TEST(Recipe, EveryKeySurvivesWritingAndReading) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  recipe.data.tokenizer = folder / "t.model";
  recipe.run.sample_prompt = "He said: \"a\\b\"\n";
  recipe.optimizer.lr = 0.1 + 0.2;
  recipe.schedule.kind = ScheduleKind::wsd;
  recipe.loss.alpha = 1.0 / 3.0;
  recipe.loss.rec_levels = RecLevels::all;
  const Recipe again = parse_recipe(to_toml(recipe), "again.toml");
  EXPECT_EQ(to_toml(again), to_toml(recipe));
  EXPECT_EQ(again.model, recipe.model);
  EXPECT_EQ(again.data.train, recipe.data.train);
  EXPECT_EQ(again.data.valid, recipe.data.valid);
  EXPECT_EQ(again.data.tokenizer, recipe.data.tokenizer);
  EXPECT_EQ(again.run.out, recipe.run.out);
  EXPECT_EQ(again.run.sample_prompt, recipe.run.sample_prompt);
  EXPECT_EQ(again.optimizer.lr, recipe.optimizer.lr);
  EXPECT_EQ(again.loss.rec_levels, RecLevels::all);
  EXPECT_TRUE(differences(again, recipe).empty());
}

TEST(Recipe, AllProblemsAreReportedAtOnceWithTheirPlaces) {
  const std::string message = message_of(R"(
[data]
train = [{ path = "a.shard", wieght = 2 }, { weight = 0 }]
valid = [{ name = "x", path = 3 }]
[run]
steps = "many"
seed = -1
[batch]
sequence = 8
[optimizer]
lr = nan
beta2 = 1.0
[schedule]
kind = "linear"
[extra]
a = 1
)");
  expect_parts(
      message,
      {"[model] wants", "unknown key 'data.train[0].wieght'", "data.train[1].path is missing",
       "r.toml:3: data.train[1].weight is 0, wanted more than 0",
       "r.toml:4: data.valid[0].path is of type integer, wanted a string", "run.out is missing",
       "r.toml:6: run.steps is of type string, wanted an integer", "r.toml:7: run.seed is -1, wanted at least 0",
       "r.toml:9: unknown key 'batch.sequence'", "r.toml:11: optimizer.lr is nan, wanted more than 0",
       "r.toml:12: optimizer.beta2 is 1, wanted at least 0, less than 1",
       "r.toml:14: schedule.kind is 'linear', wanted cosine or wsd", "r.toml:15: unknown key 'extra'"});
}

TEST(Recipe, ASectionMustBeATable) { expect_parts(message_of("run = 3\n"), {"r.toml:1: 'run' must be a section"}); }

TEST(Recipe, BrokenTomlNamesItsLine) { expect_parts(message_of("[run]\nsteps = \n"), {"r.toml:2:"}); }

TEST(Recipe, ProblemsOfTheModelAreReportedBesideTheOthers) {
  std::string text = minimal;
  text.replace(text.find("d_embed = 8"), 11, "d_embed = 0");
  text += "stepz = 3\n";
  expect_parts(message_of(text), {"d_embed", "unknown key 'run.stepz'"});
}

TEST(Recipe, ANarrowestSpanIsBelowTheModelsOwn) {
  std::string text = minimal;
  const std::string global = "{ kind = \"global\" }";
  expect_parts(message_of(text, {"batch.window_min=4"}),
               {"batch.window_min needs a stream or window span", "trunk is global"});
  text.replace(text.find(global), global.size(), "{ kind = \"window\", size = 16 }");
  expect_parts(message_of(text, {"batch.window_min=17"}), {"batch.window_min 17 is above the model's own span"});
  EXPECT_EQ(parse_recipe(text, "r.toml", {"batch.window_min=4"}).batch.window_min, 4);
  text.replace(text.find("d_embed = 8"), 11, "d_embed = 0");
  expect_parts(message_of(text, {"batch.window_min=17"}), {"d_embed"});
}

TEST(Recipe, OverridesReplaceValuesOfEveryType) {
  const Recipe recipe =
      parse_recipe(minimal, "r.toml",
                   {"batch.sequences=3", "optimizer.lr=1", "schedule.kind=wsd", "run.sample_prompt=Once",
                    "data.train=[{path = \"b.shard\", weight = 2}]", "run.out=runs/other place"});
  EXPECT_EQ(recipe.batch.sequences, 3);
  EXPECT_EQ(recipe.optimizer.lr, 1.0);
  EXPECT_EQ(recipe.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(recipe.run.sample_prompt, "Once");
  EXPECT_EQ(recipe.data.train.at(0).path.filename(), "b.shard");
  EXPECT_EQ(recipe.run.out.filename(), "other place");
}

TEST(Recipe, OverridesAreAsStrictAsTheFile) {
  expect_parts(message_of(minimal, {"batch.sequences=many", "batch.foo=1", "foo=1", "run.steps", "run.steps.x=1",
                                    "run.seed=1", "run.seed=2", "run.out=1\nsteps=5"}),
               {"--set batch.sequences=many: batch.sequences is of type string, wanted an integer",
                "--set batch.foo=1: unknown key 'batch.foo'", "--set foo=1: unknown key 'foo'",
                "--set run.steps: wanted section.key=value", "--set run.seed=2: this key is set twice",
                "--set run.out=1\nsteps=5: wanted one value"});
}

TEST(Recipe, ImpossibleSchedulesAreRefused) {
  expect_parts(message_of(minimal, {"run.steps=10", "schedule.warmup_steps=10"}),
               {"schedule.warmup_steps 10 leaves nothing"});
  expect_parts(message_of(minimal, {"run.steps=100", "schedule.kind=wsd", "schedule.warmup_steps=60",
                                    "schedule.decay_fraction=0.5"}),
               {"overlap"});
}

TEST(Recipe, LevelsWhoseWidthsForbidAComparisonAreRefused) {
  const TemporaryFolder folder;
  Recipe recipe = tiny_recipe(folder);
  LevelSpec level;
  level.chunk_size = 2, level.converter_len = 1;
  level.encoder = level.decoder = {8, 1, 1, 1, 8, 8, 1e4, {}};
  level.decoder.span.kind = Span::Kind::chunk;
  recipe.model.trunk.reset();
  recipe.model.levels = {level};
  recipe.loss.rec_levels = RecLevels::all;
  recipe.model.d_embed = 6;
  expect_parts(message_of(to_toml(recipe)), {"loss.rec_levels \"all\" compares the level 1 decoder's outputs, 8 wide, "
                                             "with rows of embed.weight, 6 wide"});
  recipe.model.decoder_embedding = true;
  EXPECT_NO_THROW(parse_recipe(to_toml(recipe), "r.toml"));
  recipe.model.decoder_embedding = false, recipe.model.d_embed = 8;
  EXPECT_NO_THROW(parse_recipe(to_toml(recipe), "r.toml"));
  recipe.loss.rec_levels = RecLevels::above_tokens;
  expect_parts(message_of(to_toml(recipe), {"loss.rec_levels=some"}),
               {"loss.rec_levels is 'some', wanted above_tokens or all"});
}

TEST(Recipe, DifferencesNameTheKeysAndIgnorePaths) {
  const TemporaryFolder folder;
  const Recipe recipe = tiny_recipe(folder);
  Recipe other = recipe;
  other.run.out = "/elsewhere";
  other.data.train[0].path = "/elsewhere/a.shard";
  EXPECT_TRUE(differences(recipe, other).empty());
  other.data.train[0].weight = 6;
  other.batch.accumulate = 4;
  other.model.norm_eps = 1e-6;
  const auto keys = differences(recipe, other);
  ASSERT_EQ(keys.size(), 3u);
  EXPECT_EQ(keys[0], "batch.accumulate: here 3, there 4");
  EXPECT_NE(keys[1].find("data.train: "), std::string::npos);
  EXPECT_EQ(keys[2], "model: the specs differ");
}

TEST(Recipe, ThoseThatAreShippedCanBeReadAndEveryKeyIsDocumented) {
  namespace fs = std::filesystem;
  const fs::path root = PHOTON_SOURCE_DIR, here = fs::current_path();
  fs::current_path(root);  // their paths count from there
  for (const auto& entry : fs::directory_iterator("recipes"))
    if (entry.path().extension() == ".toml") {
      EXPECT_NO_THROW(load_recipe(entry.path())) << entry.path();
    }
  const std::string page = read_text("docs/training.md");
  fs::current_path(here);
  std::istringstream keys(recipe_keys());
  for (std::string line; std::getline(keys, line);) {
    const std::string key = line.substr(2, line.find(' ', 2) - 2);
    EXPECT_NE(page.find("`" + key + "`"), std::string::npos) << key;
  }
}

}  // namespace
}  // namespace photon
