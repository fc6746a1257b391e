// Attention over cached keys and values, and the layout of a cache page that makes it fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/matrix.h"

namespace photon {

/// One kv head's part of a page with room for S positions ("slots").  Keys lie dimension-major, so that one vector
/// holds the same dimensions of 16 positions and a score needs no horizontal sum; values lie row by row.
///
///   f32    keys [h][S],               values [S][h]
///   bf16   keys [h/2][S][2], if h is odd then [S][1];     values [S][h]
///   int8   keys [h/4][S][4], then [S][h mod 4]; values [S][h]; key scales [S] bf16, value scales [S] bf16
///
/// int8: a value is q times its position's scale, q in [-127, 127]; keys are stored as q + 128.
/// It takes slots · kv_position_bytes(type, head_dim) bytes.

/// Writes a position.  k, v [h] float32, finite.
void kv_store(DType type, std::byte* head, std::int64_t slots, std::int64_t slot, std::span<const float> k,
              std::span<const float> v);

/// Consecutive slots of one head's part of a page: [first, first + n).
struct KvRun {
  const std::byte* head = nullptr;
  std::int64_t slots = 0, first = 0, n = 0;
};

/// Queries of n rows that read one kv head: out = softmax(q Kᵀ / sqrt(h)) V.
///
/// Row r sees the first visible[r] >= 1 positions of the runs; visible does not decrease from row to row (causal).
/// Scores never materialise beyond a block of positions.  A row's result depends on its own queries and on what it sees
/// alone, bit for bit: whether it comes alone (decoding) or with others (prefill) is the same.
/// @param q    [n, G*h] float32: the G query heads of the kv head.  bf16 and int8 caches: rounded where the kernels say
/// so.
/// @param out  [n, G*h]
/// @param top,sum  [n, G], for others to join the softmax: the largest score, and Σ exp(score - top).  No data: not
/// asked for.
void attend(DType type, std::int64_t head_dim, MatView<const float> q, std::span<const std::int64_t> visible,
            std::span<const KvRun> runs, MatView<float> out, MatView<float> top = {}, MatView<float> sum = {});

/// RoPE, rotate-half: pairs (i, i + ⌈h/2⌉); the middle element of odd h stays.  Frequencies theta^(-2i/h) and angles in
/// double: no maximal position.  The table serves all layers of a stack.
/// @param cos_sin  [n, 2·(h/2)]: cosines, then sines
void rope_table(std::span<const std::int64_t> positions, double theta, std::int64_t head_dim, MatView<float> cos_sin);
/// Rotates every head of x [n, heads*h] in place.
void rotate(MatView<const float> cos_sin, std::int64_t head_dim, MatView<float> x);

}  // namespace photon
