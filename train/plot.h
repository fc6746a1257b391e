// The picture of a run: losses over tokens, drawn by gnuplot from log.jsonl.
#pragma once

#include <filesystem>

namespace photon {

/// Writes RUN/loss.gp (data and commands) from RUN/log.jsonl and draws it as RUN/loss.svg.
/// Returns false if gnuplot is not installed or fails; then loss.gp can be drawn elsewhere.
bool plot_losses(const std::filesystem::path& run);

}  // namespace photon
