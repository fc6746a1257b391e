// Runs a command of `photon` inside a test.
#include "cli/command_testing.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>

namespace photon::testing_support {

std::string run_command(void (*add)(CLI::App&), const std::string& name, std::vector<std::string> arguments,
                        std::string* printed) {
  if (!spdlog::get("photon")) spdlog::set_default_logger(spdlog::stderr_color_mt("photon"));  // logs are no output
  CLI::App app;
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as main() does
  add(app);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  arguments.push_back(name);
  ::testing::internal::CaptureStdout();
  try {
    app.parse(arguments);
  } catch (...) {
    const std::string text = ::testing::internal::GetCapturedStdout();
    if (printed != nullptr) *printed = text;
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace photon::testing_support
