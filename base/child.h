// Runs another program and collects what it prints.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace photon {

/// Runs arguments[0] (searched in PATH if it has no slash) in `folder`, with its stderr dropped and signals that this
/// process catches left alone until it ends.  Returns its stdout; nothing if it cannot be started or fails.
std::optional<std::string> run_program(const std::vector<std::string>& arguments, const std::filesystem::path& folder);

}  // namespace photon
