// One Transformer stack over a batch of rows: the engine's only forward pass.  docs/architecture.md §2.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/profile.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace photon {

/// One position of one sequence's stream.  Rows that share a cache are neighbours and come in the order in which their
/// positions are to be written; a `chunk` cache may see several groups one after another, each from position 0.
struct Row {
  KvCache* cache = nullptr;
  std::int64_t position = 0;
  bool output = true;  // false: only its key and value are wanted, so the last layer leaves out the rest
};

/// What was done: counted, not estimated.
struct Work {
  std::int64_t weight_bytes_read = 0;  // of matrices: each once a call, whatever the number of rows
  double matmul_flops = 0;             // a multiply-add is two
  double attention_flops = 0;          // QKᵀ and AV over what rows see
  friend Work operator-(const Work& a, const Work& b) {
    return {a.weight_bytes_read - b.weight_bytes_read, a.matmul_flops - b.matmul_flops,
            a.attention_flops - b.attention_flops};
  }
};

/// Buffers that forward() keeps between calls (no allocation once they have grown), and what it has read.
struct StackScratch {
  Inputs in;                                     // what the next product reads
  Matrix<float> qkv, att, ff;                    // [n, (H + 2K)·h], [n, H·h], [n, d_ff]
  Matrix<float> cos_sin;                         // [n, 2·(h/2)]
  std::vector<std::int64_t> positions, visible;  // [n]
  struct Together {  // rows [first, first + n) of one cache that may all be written before they attend
    std::int64_t first = 0, n = 0;
    std::int64_t silent = 0;  // the first of them without output
  };
  std::vector<Together> together;
  std::vector<std::int64_t> segments;    // of each neighbourhood of rows that share a cache, its first `together`
  std::vector<std::vector<KvRun>> runs;  // one list a thread
  Work work;
  Profile profile;
};

/// matmul(), counted: y [n, o] from x [n, k] in the form that w wants.
void product(const Inputs& x, const PackedWeight& w, MatView<float> y, StackScratch& t,
             Epilogue epilogue = Epilogue::set);

/// x [n, D] becomes the stack's output of the rows that want one, in order, final norm included; returns these [m, D].
/// The caches hold all rows afterwards.  Prefill, decoding, parallel chunks and batches of sequences are this call with
/// other rows.  A row's result depends on its cache and its own x alone, bit for bit.
MatView<float> forward(const StackWeights& stack, std::span<const Row> rows, StackScratch& t, MatView<float> x);

}  // namespace photon
