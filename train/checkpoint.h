// Checkpoints: RUN/checkpoints/step-000100/ appears whole or not at all, and a damaged one is never trusted.
//   model.safetensors      float32 weights
//   optimizer.safetensors  "m.<tensor>" and "v.<tensor>"
//   state.json             step, position in the data, best validation loss, time
//   complete.json          SHA-256 of the other three, written last
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "train/data.h"
#include "train/model.h"
#include "train/optimizer.h"

namespace photon {

/// What a run knows besides weights and optimiser moments.  No generator states: every random choice is a function of
/// the seed and of a position that stands here.
struct TrainerState {
  std::int64_t step = 0;  // optimiser steps done
  DataPosition data;
  std::optional<double> best_loss;  // of the validations so far
  std::int64_t best_step = 0;
  double elapsed_s = 0;                     // of training, over all starts
  std::string recipe;                       // SHA-256 of RUN/recipe.toml
  std::vector<std::string> data_checksums;  // of the training shards, then of the validation shards
};

/// Writes RUN/checkpoints/step-<state.step>: temporary folder, fsync, marker, rename.  An existing one is replaced.
void save_checkpoint(const std::filesystem::path& run, const Optimizer& optimizer, const TrainerState& state);

struct FoundCheckpoint {
  std::filesystem::path folder;
  TrainerState state;
};
/// The newest complete checkpoint whose hashes hold; logs a warning for each newer one that is skipped.
std::optional<FoundCheckpoint> newest_checkpoint(const std::filesystem::path& run);

/// Copies weights, moments and step count.  @throws WeightsError if the checkpoint is of another model.
void load_checkpoint(const FoundCheckpoint& checkpoint, Optimizer& optimizer);

/// Deletes all but the `keep_last` newest checkpoints up to `step` and that of `best_step`: also later ones, which were
/// found damaged, and what an interrupted save left.
void prune_checkpoints(const std::filesystem::path& run, std::int64_t step, std::int64_t keep_last,
                       std::int64_t best_step);

/// Puts the folder `made` in the place of `folder`, atomically also where that exists (which is deleted then).
void publish_folder(const std::filesystem::path& made, const std::filesystem::path& folder);

}  // namespace photon
