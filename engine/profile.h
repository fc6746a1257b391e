// Where the time goes: the thread that drives the engine notes what it has just finished.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace photon {

/// Seconds by kind of work since the last reset.  Off, note() costs a branch.
class Profile {
 public:
  enum Part { matmul, attention, norms, head, rest, n_parts };  // norms: with RoPE and the conversion of inputs
  static constexpr std::array<const char*, n_parts> names{"matmul", "attention", "norms", "head", "rest"};

  void enable(bool on) { on_ = on, last_ = Clock::now(), seconds_ = {}; }
  /// The time since the last note (or enable) went into this part.
  void note(Part part) {
    if (!on_) return;
    const auto now = Clock::now();
    seconds_[part] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  const std::array<double, n_parts>& seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool on_ = false;
  Clock::time_point last_{};
  std::array<double, n_parts> seconds_{};
};

}  // namespace photon
