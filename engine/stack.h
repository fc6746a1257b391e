// One Transformer stack over a batch of rows: the engine's only forward pass.  docs/architecture.md §2.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "kernels/kernels.h"

namespace photon {

/// One position of one sequence's stream.  Rows that share a cache are neighbours and come in the order in which their
/// positions are to be written; a `chunk` cache may see several groups one after another, each from position 0.
struct Row {
  KvCache* cache = nullptr;
  std::int64_t position = 0;
};

/// Buffers that forward() keeps between calls (no allocation once they have grown), and what it has read.
struct StackScratch {
  Matrix<float> normed, q, k, v, att, gate, up;     // [n, …]
  std::vector<std::int64_t> positions;              // [n]
  std::vector<std::int64_t> first_row;              // of each neighbourhood of rows that share a cache; then n
  std::vector<std::vector<KvRun<float>>> runs_f32;  // one list a thread
  std::vector<std::vector<KvRun<bf16>>> runs_bf16;
  std::int64_t weight_bytes_read = 0;
};

/// x [n, D] becomes the stack's output, final norm included; the caches hold the rows afterwards.  Prefill, decoding,
/// parallel chunks and batches of sequences are this call with other rows.  A row's result depends on its cache and its
/// own x alone, bit for bit where matmul() uses our kernels.
void forward(const StackWeights& stack, std::span<const Row> rows, StackScratch& t, MatView<float> x);

}  // namespace photon
