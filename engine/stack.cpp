#include "engine/stack.h"

#include <cassert>

namespace photon {
namespace {

// One pre-norm block over n rows, docs/architecture.md §2.  x [n, D] is read and updated; returns the rows that go on:
// all, but of the last layer only those with output.
MatView<float> block(const StackWeights& stack, std::int64_t layer, Ops& ops, StackScratch& t, MatView<float> x) {
  const StackSpec& s = stack.spec;
  const BlockWeights& w = stack.layers[layer];
  MatView<float> qkv = t.qkv, att = t.att, ff = t.ff;

  ops.norm(x, w.attn_norm, t.normed);                                        // normed [n, D]
  ops.product(t.normed, w.qkv, qkv);                                         // qkv [n, (H + 2K)·h]
  ops.ask_memory(stack.memory, layer, qkv, Ops::Queries::plain);             // with q as it is
  ops.rotate({qkv.data, qkv.rows, s.q_width() + s.kv_width(), qkv.stride});  // q and k, in place
  ops.ask_memory(stack.memory, layer, qkv, Ops::Queries::rotated);           // of keys that have positions
  ops.write_and_attend(layer, qkv, att);                                     // att [n, H·h], with what memory said
  if (layer == s.n_layers - 1) {
    x = ops.keep_outputs(x, att);  // x [m, D], and so the rest
    att = att.slice(0, x.rows), ff = ff.slice(0, x.rows);
  }
  ops.product(att, w.o, x, Epilogue::add);                 // x += att oᵀ
  ops.norm(x, w.mlp_norm, t.normed);                       // normed [m, D]
  ops.product(t.normed, w.gate_up, ff, Epilogue::swiglu);  // ff [m, d_ff] = silu(normed gateᵀ) ∘ (normed upᵀ)
  ops.product(ff, w.down, x, Epilogue::add);               // x += ff downᵀ
  return x;
}

}  // namespace

MatView<float> forward(const StackWeights& stack, std::span<const Row> rows, Ops& ops, StackScratch& t,
                       MatView<float> x) {
  const StackSpec& s = stack.spec;
  assert(x.rows == std::ssize(rows) && x.cols == s.d_model);
  if (x.rows == 0) return x;
  ops.begin(s, rows);
  t.qkv.resize(x.rows, s.q_width() + 2 * s.kv_width());
  t.att.resize(x.rows, s.q_width());
  t.ff.resize(x.rows, s.d_ff);
  for (std::int64_t layer = 0; layer < s.n_layers; ++layer) x = block(stack, layer, ops, t, x);
  ops.norm(x, stack.norm);
  return x;
}

}  // namespace photon
