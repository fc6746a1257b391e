// One Transformer stack over a batch of rows: the engine's only forward pass.  docs/architecture.md §2.
#pragma once

#include <span>

#include "base/matrix.h"
#include "engine/model.h"
#include "engine/ops.h"
#include "engine/rows.h"

namespace photon {

/// Activations of the blocks, kept between calls: no allocation once they have grown.
struct StackScratch {
  Inputs normed;               // [n, D], in the form of the products
  Matrix<float> qkv, att, ff;  // [n, (H + 2K)·h], [n, H·h], [n, d_ff]
};

/// x [n, D] becomes the stack's output of the rows that want one, in order, final norm included; returns these [m, D].
/// The caches hold all rows afterwards.  Prefill, decoding, parallel chunks and batches of sequences are this call with
/// other rows.  A row's result depends on its cache and its own x alone, bit for bit.
MatView<float> forward(const StackWeights& stack, std::span<const Row> rows, Ops& ops, StackScratch& t,
                       MatView<float> x);

}  // namespace photon
