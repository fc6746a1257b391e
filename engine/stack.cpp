#include "engine/stack.h"

#include <omp.h>

#include <algorithm>
#include <cassert>

namespace photon {
namespace {

// Below this many rows, or multiply-adds, a parallel region costs more than it saves.
constexpr std::int64_t parallel_rows = 16;
constexpr std::int64_t parallel_attention = 1 << 17;

void rms_norm(MatView<const float> x, std::span<const float> w, float eps, MatView<float> y) {
#pragma omp parallel for schedule(static) if (x.rows >= parallel_rows) num_threads(static_cast <int>(threads()))
  for (std::int64_t r = 0; r < x.rows; ++r) kernels().rms_norm(x.row(r), w, eps, y.row(r));
}

void swiglu(MatView<float> gate, MatView<const float> up) {
#pragma omp parallel for schedule(static) if (gate.rows >= parallel_rows) num_threads(static_cast <int>(threads()))
  for (std::int64_t r = 0; r < gate.rows; ++r) kernels().swiglu(gate.row(r), up.row(r));
}

template <class T>
constexpr auto attend_kernel(const Kernels& k) {
  if constexpr (std::is_same_v<T, float>)
    return k.attend_f32;
  else
    return k.attend_bf16;
}

// Writes each row's key and value, then attends, row by row: a ring may overwrite what the row before still saw.  Rows
// of different caches and kv heads do not touch each other, so they are what threads share.
template <class T>
void write_and_attend(const StackSpec& s, std::int64_t layer, std::span<const Row> rows, StackScratch& t,
                      std::vector<std::vector<KvRun<T>>>& runs) {
  const std::int64_t h = s.head_dim, K = s.n_kv_heads, G = s.n_heads / K;  // G query heads read one kv head
  const std::int64_t n_items = (std::ssize(t.first_row) - 1) * K;
  const auto attend = attend_kernel<T>(kernels());

  std::int64_t work = 0;
  std::size_t max_runs = 0;
  for (const Row& row : rows) {
    work += row.cache->visible(row.position) * s.q_width() * 2;
    max_runs = std::max(max_runs, static_cast<std::size_t>(row.cache->max_runs()));
  }
  const std::int64_t n_threads = work >= parallel_attention ? std::min(threads(), n_items) : 1;
  if (std::ssize(runs) < n_threads) runs.resize(static_cast<std::size_t>(n_threads));
  for (auto& list : runs) list.reserve(max_runs);  // so that nothing allocates, hence throws, below

#pragma omp parallel for schedule(dynamic) if (n_threads > 1) num_threads(static_cast <int>(n_threads))
  for (std::int64_t item = 0; item < n_items; ++item) {
    auto& visible = runs[static_cast<std::size_t>(omp_get_thread_num())];
    const auto segment = static_cast<std::size_t>(item / K);
    const std::int64_t head = item % K;
    const auto part = [](auto row, std::int64_t first, std::int64_t n) {
      return row.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    };
    for (std::int64_t r = t.first_row[segment]; r < t.first_row[segment + 1]; ++r) {
      const auto& [cache, position] = rows[static_cast<std::size_t>(r)];
      cache->write<T>(layer, head, position, part(t.k.row(r), head * h, h), part(t.v.row(r), head * h, h));
      cache->see<T>(layer, head, position, visible);
      attend({.n_heads = G, .n_kv_heads = 1, .head_dim = h}, part(t.q.row(r), head * G * h, G * h), visible,
             part(t.att.row(r), head * G * h, G * h));
    }
  }
}

void write_and_attend(const StackSpec& s, std::int64_t layer, std::span<const Row> rows, Weight::Type kv_dtype,
                      StackScratch& t) {
  if (kv_dtype == Weight::Type::f32)
    write_and_attend<float>(s, layer, rows, t, t.runs_f32);
  else
    write_and_attend<bf16>(s, layer, rows, t, t.runs_bf16);
}

// One pre-norm block over n rows, docs/architecture.md §2.  x [n, D] is read and updated.
void block(const BlockWeights& w, const StackSpec& s, float eps, std::int64_t layer, std::span<const Row> rows,
           StackScratch& t, MatView<float> x) {
  rms_norm(x, w.attn_norm, eps, t.normed);           // normed [n, D]
  matmul(t.normed, w.q, t.q);                        // q [n, H*h]
  matmul(t.normed, w.k, t.k);                        // k [n, K*h]
  matmul(t.normed, w.v, t.v);                        // v [n, K*h]
  rope(t.positions, s.rope_theta, s.head_dim, t.q);  // rotate-half, in place
  rope(t.positions, s.rope_theta, s.head_dim, t.k);
  write_and_attend(s, layer, rows, w.k.type, t);  // att [n, H*h]
  matmul(t.att, w.o, x, /*add=*/true);            // x += att oᵀ
  rms_norm(x, w.mlp_norm, eps, t.normed);
  matmul(t.normed, w.gate, t.gate);         // gate [n, d_ff]
  matmul(t.normed, w.up, t.up);             // up [n, d_ff]
  swiglu(t.gate, t.up);                     // gate = silu(gate) ∘ up
  matmul(t.gate, w.down, x, /*add=*/true);  // x += gate downᵀ
}

}  // namespace

void forward(const StackWeights& stack, std::span<const Row> rows, StackScratch& t, MatView<float> x) {
  const StackSpec& s = stack.spec;
  const std::int64_t n = std::ssize(rows);
  assert(x.rows == n && x.cols == s.d_model);
  if (n == 0) return;

  t.positions.clear(), t.first_row.clear();
  for (std::int64_t r = 0; r < n; ++r) {
    const Row& row = rows[static_cast<std::size_t>(r)];
    row.cache->reserve(row.position);
    row.cache->count(row.position);
    t.positions.push_back(row.position);
    if (r == 0 || row.cache != rows[static_cast<std::size_t>(r - 1)].cache) t.first_row.push_back(r);
  }
  t.first_row.push_back(n);
  t.normed.resize(n, s.d_model);
  t.q.resize(n, s.q_width()), t.att.resize(n, s.q_width());
  t.k.resize(n, s.kv_width()), t.v.resize(n, s.kv_width());
  t.gate.resize(n, s.d_ff), t.up.resize(n, s.d_ff);

  for (std::int64_t i = 0; i < s.n_layers; ++i)
    block(stack.layers[static_cast<std::size_t>(i)], s, stack.norm_eps, i, rows, t, x);
  rms_norm(x, stack.norm, stack.norm_eps, x);
  t.weight_bytes_read += stack.bytes;
}

}  // namespace photon
