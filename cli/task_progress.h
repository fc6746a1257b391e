// How far a command is in the documents of a task.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "base/progress_line.h"

namespace photon {

/// "hellaswag 1200/10042  31.5 documents/s  4m40s left", now and then.
class TaskProgress {
 public:
  TaskProgress(ProgressLine& line, std::string task) : line_(line), task_(std::move(task)) {}

  void operator()(std::int64_t done, std::int64_t n) {
    const auto now = std::chrono::steady_clock::now();
    ++computed_;
    if (now - shown_ < (line_.on_terminal() ? std::chrono::milliseconds(100) : std::chrono::seconds(30)) && done < n)
      return;
    shown_ = now;
    const double per_s = static_cast<double>(computed_) / std::chrono::duration<double>(now - start_).count();
    line_.show(fmt::format("{} {}/{}  {:.3g} documents/s  {} left", task_, done, n, per_s,
                           duration_text(static_cast<double>(n - done) / per_s)));
  }

 private:
  ProgressLine& line_;
  std::string task_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), shown_ = start_;
  std::int64_t computed_ = 0;
};

}  // namespace photon
