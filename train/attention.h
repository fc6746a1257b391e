// Causal attention within a span in plain LibTorch: bounded spans cost T·size, never a dense T×T mask.
#pragma once

#include "spec/spec.h"
#include "train/torch.h"

namespace photon {

/// softmax(q kᵀ / sqrt(h)) v over the positions that the span lets each position see; softmax in float32 at least.
/// q [B, S, H, h], k and v [B, S, K, h] with H a multiple of K, RoPE already applied; returns [B, S, H, h].
/// A `chunk` stream is one group: groups are entries of the batch.
torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const Span& span);

}  // namespace photon
