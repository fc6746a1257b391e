// For the tests of cli/: a command runs inside the test, as the program would run it.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

namespace photon::testing_support {

/// What `photon NAME ARGUMENTS…` prints on standard output.  Its exceptions come through.
inline std::string run_command(void (*add)(CLI::App&), const std::string& name, std::vector<std::string> arguments) {
  if (!spdlog::get("photon")) spdlog::set_default_logger(spdlog::stderr_color_mt("photon"));  // logs are no output
  CLI::App app;
  add(app);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  arguments.push_back(name);
  ::testing::internal::CaptureStdout();
  try {
    app.parse(arguments);
  } catch (...) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

}  // namespace photon::testing_support
