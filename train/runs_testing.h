// For the tests of the training loop: shards and the recipe of a run of seconds, in a folder of their own.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/folder_testing.h"
#include "base/random.h"
#include "text/shard.h"
#include "train/recipe.h"
#include "train/specs_testing.h"

namespace photon::testing_support {

inline constexpr std::int64_t tiny_vocab = 40;

/// A shard of a noisy cycle through the vocabulary: there is something to learn.
inline std::filesystem::path write_tiny_shard(const std::filesystem::path& path, std::int64_t n_tokens,
                                              std::uint64_t seed, const std::string& tokenizer_hash = "",
                                              std::int64_t vocab_size = tiny_vocab) {
  Random random(seed);
  std::vector<std::int32_t> tokens;
  std::int64_t token = 0;
  for (std::int64_t i = 0; i < n_tokens; ++i) {
    token = random.below(10) == 0 ? random.below(vocab_size) : (token + 7) % vocab_size;
    tokens.push_back(static_cast<std::int32_t>(token));
  }
  write_shard(path, tokens, vocab_size, tokenizer_hash, 3 * n_tokens);
  return path;
}

/// Two training shards (5 : 3) and two held-out ones in `folder`, an L = 2 model of width 16, windows of 8 tokens, and
/// the run in folder/run.
inline Recipe tiny_recipe(const TemporaryFolder& folder) {
  Recipe recipe;
  recipe.model.vocab_size = tiny_vocab;
  recipe.model.d_embed = 16;
  recipe.model.levels = {level(2, 1, 16, {Span::Kind::window, 3}, 16, {Span::Kind::chunk}),
                         level(2, 1, 16, {Span::Kind::global}, 16, {Span::Kind::chunk})};
  recipe.data.train = {{write_tiny_shard(folder / "a.shard", 300, 1), 5.0},
                       {write_tiny_shard(folder / "b.shard", 150, 2), 3.0}};
  recipe.data.valid = {{"near", write_tiny_shard(folder / "near.shard", 100, 3)},
                       {"far", write_tiny_shard(folder / "far.shard", 50, 4)}};
  recipe.run.out = folder / "run";
  recipe.run.seed = 5;
  recipe.run.steps = 20;
  recipe.run.eval_every = 5;
  recipe.run.checkpoint_every = 5;
  recipe.run.log_every = 1000;
  recipe.batch = {.sequences = 2, .tokens = 8, .accumulate = 3};
  recipe.optimizer.lr = 1e-2;
  recipe.schedule.warmup_steps = 3;
  recipe.compute = {.precision = DType::f32, .device = Device::cpu, .threads = 1};
  return recipe;
}

inline std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace photon::testing_support
