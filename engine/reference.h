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

/// Of one position's logits.
std::vector<double> log_softmax(std::vector<double> logits);

/// recgen, docs/architecture.md §3: logits of each generated token, given that these came out.  The prompt is a whole
/// number of top-level groups, so is what was generated.
std::vector<std::vector<double>> reference_recgen_logits(const std::filesystem::path& model_folder,
                                                         std::span<const std::int32_t> prompt,
                                                         std::span<const std::int32_t> generated);

/// Units of the levels between tokens and the top, encoded from the true units below and as the decoders predict them.
struct ReferenceUnits {
  std::vector<std::vector<std::vector<double>>> encoded, predicted;  // [l] [unit] [D_l], l = 0 … L; 1 … L-1 are filled
};
/// Of the teacher-forced forward pass, or of recgen from the empty context; there tokens are a whole number of groups.
ReferenceUnits reference_units(const std::filesystem::path& model_folder, std::span<const std::int32_t> tokens,
                               bool recgen);

}  // namespace photon
