// What a run tells: a progress line for people, log.jsonl for machines, and the peak that MFU is measured against.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/line_log.h"
#include "base/progress_line.h"
#include "train/recipe.h"

namespace photon {

/// RUN/log.jsonl, one record a line; each is in the file when append() returns.
class RunLog {
 public:
  /// Opens the log to go on after `step`: later records, and a line that a kill cut off, are removed.
  /// @throws InputError if the file cannot be written or is damaged before its last line
  RunLog(const std::filesystem::path& path, std::int64_t step);
  void append(const nlohmann::json& record);
  bool empty() const { return log_.empty(); }
  /// On the disk, not only in the system's cache: before a checkpoint counts on it.
  void sync() { log_.sync(); }

 private:
  LineLog log_;
};

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Highest matrix-product rate of this machine in FLOP/s, from ~0.3 s of products in the run's precision on its device.
double measure_peak_flops(const ComputeRecipe& compute);

/// CPU model, threads, LibTorch version, GPU: what a result depends on besides recipe and data.
nlohmann::json machine_record(const ComputeRecipe& compute);

/// One line on stderr: rewritten in place on a terminal, otherwise printed every run.log_every steps.
class Progress {
 public:
  Progress(const Recipe& recipe, double flops_per_token, double peak_flops);

  struct Step {
    std::int64_t step = 0;
    double loss = 0, lr = 0, grad_norm = 0;
    double seconds = 0;  // of this step
  };
  void report(const Step& step);
  /// Prints a line of its own, above the progress line on a terminal.
  void say(const std::string& text) { line_.say(text); }
  /// Ends the line in place.
  void finish() { line_.finish(); }

 private:
  const Recipe& recipe_;
  double flops_per_token_, peak_flops_;
  ProgressLine line_;
  double smoothed_s_ = 0;  // seconds a step
  std::int64_t reported_ = 0;
};

}  // namespace photon
