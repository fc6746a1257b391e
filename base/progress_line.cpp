#include "base/progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

namespace photon {

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& line) {
  if (terminal_) {
    winsize size{};  // a longer line would wrap, and could not be rewritten
    const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    fmt::print(stderr, "\r\x1b[K{}", line.substr(0, known ? size.ws_col - 1u : line.npos));
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
  open_ = terminal_;
}

void ProgressLine::say(const std::string& line) {
  finish();
  fmt::print(stderr, "{}\n", line);
}

void ProgressLine::finish() {
  if (open_) fmt::print(stderr, "\n");
  open_ = false;
}

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
}

}  // namespace photon
