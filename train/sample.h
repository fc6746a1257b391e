// Text from the model in training, written by the engine that will serve it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace photon {

/// Continues `prompt` with the model folder `model` by up to n_tokens tokens: what `photon generate` prints.  The
/// program is looked for beside this one, in its build folder, and in PATH.  Nothing if it is not there or fails.
///
/// A process of its own because libsentencepiece and LibTorch each bring a protobuf, which do not mix.
std::optional<std::string> sample_text(const std::filesystem::path& model, const std::string& prompt,
                                       std::int64_t n_tokens, std::uint64_t seed);

/// Writes RUN/samples.md from the samples in RUN/log.jsonl, newest first.
void write_samples_page(const std::filesystem::path& run);

}  // namespace photon
