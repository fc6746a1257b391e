// Attention to the own span and to what is remembered of the past, in one softmax.  docs/architecture.md §2.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "spec/spec.h"
#include "train/torch.h"

namespace photon {

/// The rows of the stack that predicts tokens, as it lays out one sequence: groups of `period` rows for C tokens each
/// (a trunk: one row a token).  Row s sees the text before its top-level group and predicts one token.
struct RowLayout {
  int64_t period = 1, prefix = 1, chunk = 1;  // rows of a group: R + C of a stream, R + C - 1 of chunks; R; C
  int64_t group_tokens = 1;                   // C_≤L

  int64_t visible_tokens(int64_t row) const { return row / period * chunk / group_tokens * group_tokens; }
  int64_t predicted_token(int64_t row) const;
};
/// Of the model's level-1 decoder, or of its trunk.
RowLayout row_layout(const Spec& spec);

/// Keys and values of what is remembered, in the dtype of activations.
struct Remembered {
  torch::Tensor k{}, v{};    // [B, N, K_m, h]
  torch::Tensor offset{};    // [H] float: added to every score
  torch::Tensor rate{};      // [H] float, or undefined: score -= rate·ln(1 + distance)
  int64_t entry_tokens = 1;  // of an entry: 1 for text, C_≤L for units
  bool rotated = false;      // its keys carry positions, so queries do
};

/// Row s attends to the positions that the span shows it and to the entries before its top-level group.  The scores
/// never exist for all rows at once: pieces of rows are computed one after another, and again for their gradients.
/// @param q, q_rotated  [B, S, H, h]    @param k, v  [B, S, K, h], k rotated
/// @return [B, S, H·h]
torch::Tensor attend_and_remember(const torch::Tensor& q, const torch::Tensor& q_rotated, const torch::Tensor& k,
                                  const torch::Tensor& v, const Span& span, const RowLayout& layout,
                                  const std::vector<Remembered>& memories);

}  // namespace photon
