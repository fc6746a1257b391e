// Runs a command of `photon` inside a test.
#include "cli/command_testing.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>

namespace photon::testing_support {

std::string run_command(void (*add)(Command), const std::string& name, std::vector<std::string> arguments,
                        std::string* printed) {
  if (!spdlog::get("photon")) spdlog::set_default_logger(spdlog::stderr_color_mt("photon"));  // logs are no output
  CommandLine line("photon in a test", "");
  add(line.command());
  arguments.insert(arguments.begin(), name);
  ::testing::internal::CaptureStdout();
  try {
    line.run(arguments);
  } catch (...) {
    const std::string text = ::testing::internal::GetCapturedStdout();
    if (printed != nullptr) *printed = text;
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace photon::testing_support
