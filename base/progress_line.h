// One line on stderr that tells how far a long run is: rewritten in place on a terminal.
#pragma once

#include <string>

namespace photon {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { finish(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool on_terminal() const { return terminal_; }
  /// Shows this line instead of the last one, cut to the terminal's width; elsewhere prints it.
  void show(const std::string& line);
  /// Prints a line of its own, above the next one shown.
  void say(const std::string& line);
  /// Ends the line in place.
  void finish();

 private:
  bool terminal_;
  bool open_ = false;
};

/// "42s", "3m07s", "2h05m".
std::string duration_text(double seconds);

}  // namespace photon
