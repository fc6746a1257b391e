#include "engine/stack.h"

#include <omp.h>

#include <algorithm>
#include <cassert>

#include "kernels/kernels.h"

namespace photon {
namespace {

using Together = StackScratch::Together;

// Below this many multiply-adds a parallel region costs more than it saves.
constexpr std::int64_t parallel_attention = 1 << 17;

MatView<float> columns(MatView<float> x, std::int64_t first, std::int64_t n) {
  return {x.data + first, x.rows, n, x.stride};
}

// Groups the rows: neighbourhoods that share a cache, and in them the rows that are written before any of them attends.
void plan(std::span<const Row> rows, StackScratch& t) {
  t.together.clear(), t.segments.clear(), t.positions.clear(), t.visible.clear();
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
    const auto& [cache, position, output] = rows[static_cast<std::size_t>(r)];
    const Row* before = r == 0 ? nullptr : &rows[static_cast<std::size_t>(r - 1)];
    const bool same_cache = before != nullptr && before->cache == cache;
    if (!same_cache) t.segments.push_back(std::ssize(t.together));
    if (same_cache && position == before->position + 1 && output >= before->output &&
        position <= cache->last_together(rows[static_cast<std::size_t>(t.together.back().first)].position))
      ++t.together.back().n;
    else
      t.together.push_back({.first = r, .n = 1});
    t.together.back().silent += !output;
    t.positions.push_back(position);
    t.visible.push_back(cache->visible(position));
  }
  t.segments.push_back(std::ssize(t.together));
}

// Writes the keys and values of qkv, then attends; rows without output only if `all`.  Different caches and kv heads do
// not touch each other, so they are what threads share; within one, order matters: a ring may overwrite what an earlier
// row still saw.
void write_and_attend(const StackSpec& s, std::int64_t layer, std::span<const Row> rows, bool all, StackScratch& t) {
  const std::int64_t h = s.head_dim, H = s.n_heads, K = s.n_kv_heads, G = H / K;  // G query heads read one kv head
  const MatView<float> q = columns(t.qkv, 0, H * h), k = columns(t.qkv, H * h, K * h),
                       v = columns(t.qkv, (H + K) * h, K * h);
  const auto part = [h](std::span<float> row, std::int64_t head) {
    return row.subspan(static_cast<std::size_t>(head * h), static_cast<std::size_t>(h));
  };
  const std::int64_t n_items = (std::ssize(t.segments) - 1) * K;
  std::int64_t work = 0;
  for (const std::int64_t visible : t.visible) work += visible * s.q_width() * 2;
  const std::int64_t n_threads = work >= parallel_attention ? std::min(threads(), n_items) : 1;

#pragma omp parallel for schedule(dynamic) if (n_threads > 1) num_threads(static_cast <int>(n_threads))
  for (std::int64_t item = 0; item < n_items; ++item) {
    auto& runs = t.runs[static_cast<std::size_t>(omp_get_thread_num())];
    const auto segment = static_cast<std::size_t>(item / K);
    const std::int64_t head = item % K;
    for (std::int64_t i = t.segments[segment]; i < t.segments[segment + 1]; ++i) {
      const Together& together = t.together[static_cast<std::size_t>(i)];
      const Row* const row = &rows[static_cast<std::size_t>(together.first)];
      for (std::int64_t r = 0; r < together.n; ++r)
        row->cache->write(layer, head, row[r].position, part(k.row(together.first + r), head),
                          part(v.row(together.first + r), head));
      const std::int64_t first = together.first + (all ? 0 : together.silent), n = together.first + together.n - first;
      if (n == 0) continue;
      row->cache->see(layer, head, row[together.n - 1].position, runs);
      attend(row->cache->type(), h, columns(q, head * G * h, G * h).slice(first, n),
             std::span(t.visible).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)), runs,
             columns(t.att, head * G * h, G * h).slice(first, n));
    }
  }
}

// Moves the rows with output to the front, of x and of att; returns how many there are.
std::int64_t keep_outputs(std::span<const Row> rows, MatView<float> x, MatView<float> att) {
  std::int64_t n = 0;
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
    if (!rows[static_cast<std::size_t>(r)].output) continue;
    if (n < r) std::ranges::copy(x.row(r), x.row(n).begin()), std::ranges::copy(att.row(r), att.row(n).begin());
    ++n;
  }
  return n;
}

// One pre-norm block over n rows, docs/architecture.md §2.  x [n, D] is read and updated; returns the rows that go on:
// all, but of the last layer only those with output.
MatView<float> block(const StackWeights& stack, std::int64_t layer, std::span<const Row> rows, StackScratch& t,
                     MatView<float> x) {
  const StackSpec& s = stack.spec;
  const BlockWeights& w = stack.layers[static_cast<std::size_t>(layer)];
  const bool last = layer == s.n_layers - 1;
  const InputForm form = input_form(w.qkv.type);

  t.in.assign_normed(x, w.attn_norm, stack.norm_eps, form);
  t.profile.note(Profile::norms);
  product(t.in, w.qkv, t.qkv, t);  // qkv [n, (H + 2K)·h]
  t.profile.note(Profile::matmul);
  rotate(t.cos_sin, s.head_dim, columns(t.qkv, 0, s.q_width() + s.kv_width()));  // q and k, in place
  t.profile.note(Profile::norms);
  write_and_attend(s, layer, rows, /*all=*/!last, t);  // att [n, H·h]
  if (last) x = x.slice(0, keep_outputs(rows, x, t.att));
  t.profile.note(Profile::attention);
  t.in.assign(t.att.view().slice(0, x.rows), form);
  t.profile.note(Profile::norms);
  product(t.in, w.o, x, t, Epilogue::add);  // x += att oᵀ
  t.profile.note(Profile::matmul);
  t.in.assign_normed(x, w.mlp_norm, stack.norm_eps, form);
  t.profile.note(Profile::norms);
  const MatView<float> ff = t.ff.view().slice(0, x.rows);
  product(t.in, w.gate_up, ff, t, Epilogue::swiglu);  // ff [n, d_ff] = silu(x gateᵀ) ∘ (x upᵀ)
  t.profile.note(Profile::matmul);
  t.in.assign(ff, form);
  t.profile.note(Profile::norms);
  product(t.in, w.down, x, t, Epilogue::add);  // x += ff downᵀ
  t.profile.note(Profile::matmul);
  return x;
}

}  // namespace

void product(const Inputs& x, const PackedWeight& w, MatView<float> y, StackScratch& t, Epilogue epilogue) {
  if (y.rows == 0) return;
  matmul(x.view(), w, y, epilogue);
  t.work.weight_bytes_read += w.bytes();
  t.work.matmul_flops += 2.0 * static_cast<double>(y.rows) * static_cast<double>(w.outputs) * static_cast<double>(w.k);
}

MatView<float> forward(const StackWeights& stack, std::span<const Row> rows, StackScratch& t, MatView<float> x) {
  const StackSpec& s = stack.spec;
  const std::int64_t n = std::ssize(rows);
  assert(x.rows == n && x.cols == s.d_model);
  if (n == 0) return x;

  t.profile.note(Profile::rest);
  std::int64_t max_runs = 0;
  for (const auto& [cache, position, output] : rows) {
    cache->reserve(position);
    const std::int64_t layers_attended = s.n_layers - !output;
    cache->count(position, layers_attended);
    t.work.attention_flops += static_cast<double>(4 * s.q_width() * layers_attended * cache->visible(position));
    max_runs = std::max(max_runs, cache->max_runs());
  }
  plan(rows, t);
  if (std::ssize(t.runs) < threads()) t.runs.resize(static_cast<std::size_t>(threads()));
  for (auto& list : t.runs) list.reserve(static_cast<std::size_t>(max_runs));  // nothing throws in a parallel region
  t.qkv.resize(n, s.q_width() + 2 * s.kv_width());
  t.att.resize(n, s.q_width());
  t.ff.resize(n, s.d_ff);
  t.cos_sin.resize(n, s.head_dim / 2 * 2);
  rope_table(t.positions, s.rope_theta, s.head_dim, t.cos_sin);
  t.profile.note(Profile::norms);

  for (std::int64_t i = 0; i < s.n_layers; ++i) x = block(stack, i, rows, t, x);
  for (std::int64_t r = 0; r < x.rows; ++r) kernels().rms_norm(x.row(r), stack.norm, stack.norm_eps, x.row(r));
  t.profile.note(Profile::norms);
  return x;
}

}  // namespace photon
