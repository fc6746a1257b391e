// The training loop: data, model, optimiser and run folder put together.  docs/training.md describes the run folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/file.h"
#include "train/checkpoint.h"
#include "train/data.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/progress.h"
#include "train/recipe.h"

namespace photon {

enum class Outcome {
  finished,     ///< all steps are done; RUN/model is final
  interrupted,  ///< asked to stop; a checkpoint of the last whole step is saved
};

/// One run.  Everything that a user can have done wrong is reported by the constructor, before the first step.
/// Sets LibTorch's thread count for the process; not thread-safe.
class Trainer {
 public:
  /// Starts the run, or resumes it if recipe.run.out already holds one.
  /// @param interrupted  asked before every forward pass; true ends run()
  /// @throws InputError if the folder's run has another recipe, other data, or is being trained by another process
  explicit Trainer(
      const Recipe& recipe, std::function<bool()> interrupted = [] { return false; });

  /// Trains up to recipe.run.steps.  @throws Error at a non-finite loss or gradient norm, with weights, moments and
  /// checkpoints as they were after the last good step.
  Outcome run();

  const TrainerState& state() const { return state_; }
  Photon& model() { return *model_; }
  const Optimizer& optimizer() const { return *optimizer_; }

 private:
  struct Held {
    double nats = 0;                      // per token
    std::optional<double> bits_per_byte;  // unless the shard does not say how much text it holds
  };
  void open_run_folder();
  void write_header();
  bool train_step();
  std::map<std::string, Held> validate();
  void validate_and_log();
  void sample_and_log();
  std::filesystem::path write_model(const char* name);
  void save();
  void draw();
  void export_model();

  Recipe recipe_;
  LockedFile lock_;  // of the run folder, for as long as this object or the process lives
  std::function<bool()> interrupted_;
  torch::Device device_;
  TrainingData data_;
  std::shared_ptr<Photon> model_;
  std::optional<Optimizer> optimizer_;
  std::optional<Mixture> mixture_;
  std::optional<RunLog> log_;
  std::optional<Progress> progress_;
  TrainerState state_;
  double flops_per_token_ = 0, peak_flops_ = 0;
  bool sample_failed_ = false, plot_failed_ = false;
};

}  // namespace photon
