// For the tests of cli/: a command runs inside the test, as the program would run it.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"

namespace photon::testing_support {

/// What `photon NAME ARGUMENTS…` prints on standard output.  Its exceptions come through; `printed` has the text then,
/// too.
std::string run_command(void (*add)(Command), const std::string& name, std::vector<std::string> arguments,
                        std::string* printed = nullptr);

}  // namespace photon::testing_support
