// A training recipe: one TOML file that says everything that a run depends on.  docs/training.md lists the keys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "spec/spec.h"

namespace photon {

struct TrainSource {  // one shard of the mixture
  std::filesystem::path path;
  double weight = 1.0;  // share of the windows, relative to the other sources
  bool operator==(const TrainSource&) const = default;
};
struct ValidSource {  // one held-out shard
  std::string name;
  std::filesystem::path path;
  bool operator==(const ValidSource&) const = default;
};
enum class ScheduleKind { cosine, wsd };
enum class Device { cpu, cuda };
/// Which levels' reconstructions L_rec sums: those whose outputs generation feeds on (l = 2 … L), or level 1 as well,
/// where X̂⁽⁰⁾ is compared with the rows of the table that gives the decoder its content.
enum class RecLevels { above_tokens, all };

struct DataRecipe {
  std::vector<TrainSource> train;
  std::vector<ValidSource> valid;
  std::filesystem::path tokenizer;  // empty: no samples, and shards are only compared with each other
};
struct RunRecipe {
  std::filesystem::path out;
  std::int64_t seed = 0, steps = 1000;
  std::int64_t log_every = 10, eval_every = 500, eval_tokens = 100'000, sample_every = 0;  // *_every: 0 = never
  std::int64_t checkpoint_every = 500, keep_last = 2;
  double memory_offset = 0;  // where a memory's scores begin
  std::string sample_prompt = "Once upon a time";
  std::int64_t sample_tokens = 120;
};
struct BatchRecipe {  // one optimiser step sees sequences · accumulate windows of `tokens` tokens
  std::int64_t sequences = 16, tokens = 512, accumulate = 1;
  std::int64_t window_min = 0;  // narrowest span of the token stack in a forward pass; 0: always the model's own
};
struct OptimizerRecipe {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1.0;  // clip 0 = off
};
struct ScheduleRecipe {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup_steps = 100;
  double min_lr_ratio = 0.1, decay_fraction = 0.2;  // of lr; of steps (wsd only)
};
struct LossRecipe {
  double alpha = 0.0;  // weight of the reconstruction term, docs/architecture.md §2
  RecLevels rec_levels = RecLevels::above_tokens;
};
struct ComputeRecipe {
  DType precision = DType::bf16;  // or f32
  Device device = Device::cpu;
  std::int64_t threads = 0;  // 0 = every CPU that this process may use; resolved when the recipe is read
};

struct Recipe {
  Spec model;
  DataRecipe data;
  RunRecipe run;
  BatchRecipe batch;
  OptimizerRecipe optimizer;
  ScheduleRecipe schedule;
  LossRecipe loss;
  ComputeRecipe compute;

  std::int64_t tokens_per_step() const { return batch.sequences * batch.tokens * batch.accumulate; }
};

/// Parses a recipe and applies `overrides` ("section.key=value", value in TOML or a bare word) with equal strictness.
/// Relative paths count from the current folder and come back absolute.
/// @throws InputError listing ALL unknown keys, wrong types, missing keys and impossible values with their places.
Recipe parse_recipe(std::string_view toml, const std::string& origin, const std::vector<std::string>& overrides = {});
Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// Whether the level-1 decoder's outputs are as wide as the rows of its content table: RecLevels::all compares the two.
inline bool can_reconstruct_tokens(const Spec& spec) { return spec.head_width() == spec.content_width(1); }

/// The resolved recipe as TOML: every key, the model inline; parse_recipe(to_toml(r)) says the same.
std::string to_toml(const Recipe& recipe);

/// The keys by which two recipes describe different runs, as "key: here A, there B".  Paths do not count: what the
/// files hold is compared by checksum (data.h).
std::vector<std::string> differences(const Recipe& here, const Recipe& there);

/// The recipe without the model as JSON, for logs.
std::string recipe_json(const Recipe& recipe);

/// All keys with default and meaning, one a line.
std::string recipe_keys();

}  // namespace photon
