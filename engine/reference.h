// A second, slow opinion for tests: the teacher-forced forward pass of docs/architecture.md §2 in float64, over whole
// sequences, with explicit masks and no caches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace photon {

/// logits[i] [V] of token i + 1 given the tokens before it, for i = 0 … tokens.size(): the last one is the next
/// token's.
std::vector<std::vector<double>> reference_logits(const std::filesystem::path& model_folder,
                                                  std::span<const std::int32_t> tokens);

}  // namespace photon
