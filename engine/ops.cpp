#include "engine/ops.h"

#include <omp.h>

#include <algorithm>
#include <cassert>

#include "kernels/kernels.h"

namespace photon {
namespace {

// Below this many multiply-adds a parallel region costs more than it saves.
constexpr std::int64_t parallel_attention = 1 << 17;

}  // namespace

Ops::Ops(const Model& model)
    : model_(model), norm_eps_(static_cast<float>(model.spec.norm_eps)), form_(input_form(model.dtype)) {}

// ---- rows of numbers ----

void Ops::embed(std::span<const std::int32_t> tokens, MatView<float> x) const {
  for (std::int64_t r = 0; r < std::ssize(tokens); ++r) model_.embedding(tokens[r], x.row(r));
}

void Ops::embed_for_decoder(std::span<const std::int32_t> tokens, MatView<float> x) const {
  for (std::int64_t r = 0; r < std::ssize(tokens); ++r) model_.decoder_embedding(tokens[r], x.row(r));
}

void Ops::gather(std::span<const float* const> rows, MatView<float> x) const {
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) std::copy_n(rows[r], x.cols, x.row(r).begin());
}

void Ops::add_bias(MatView<float> x, std::span<const float> bias) const {
  if (bias.empty()) return;
  for (std::int64_t r = 0; r < x.rows; ++r)
    for (std::int64_t i = 0; i < x.cols; ++i) x.row(r)[i] += bias[i];
}

void Ops::norm(MatView<float> x, std::span<const float> w) {
  for (std::int64_t r = 0; r < x.rows; ++r) kernels().rms_norm(x.row(r), w, norm_eps_, x.row(r));
  profile.note(Profile::norms);
}

// ---- products ----

void Ops::norm(MatView<const float> x, std::span<const float> w, Inputs& normed) {
  normed.assign_normed(x, w, norm_eps_, form_);
  profile.note(Profile::norms);
}

void Ops::product(const Inputs& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue) {
  multiply(x, w, y, epilogue, Profile::matmul);
}

void Ops::product(MatView<const float> x, const PackedWeight& w, MatView<float> y, Epilogue epilogue) {
  if (x.rows == 0) return;
  converted_.assign(x, form_);
  profile.note(Profile::norms);
  multiply(converted_, w, y, epilogue, Profile::matmul);
}

void Ops::head(MatView<const float> x, const PackedWeight& w, MatView<float> logits) {
  if (x.rows == 0) return;
  profile.note(Profile::rest);
  converted_.assign(x, form_);
  multiply(converted_, w, logits, Epilogue::set, Profile::head);
}

void Ops::multiply(const Inputs& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue, Profile::Part part) {
  if (y.rows == 0) return;
  matmul(x.view(), w, y, epilogue);
  work.weight_bytes_read += w.bytes();
  work.matmul_flops += 2.0 * static_cast<double>(y.rows) * static_cast<double>(w.outputs) * static_cast<double>(w.k);
  profile.note(part);
}

// ---- the rows of a stack ----

void Ops::begin(const StackSpec& stack, std::span<const Row> rows) {
  profile.note(Profile::rest);
  stack_ = &stack;
  std::int64_t max_runs = 0;
  for (const auto& [cache, position, output, past, global_cache] : rows) {
    const std::int64_t layers_attended = stack.n_layers - !output;
    const auto prepare = [&](KvCache& its, std::int64_t layers) {
      its.reserve(position);
      its.count(position, layers);
      work.attention_flops += static_cast<double>(4 * stack.q_width() * layers * its.visible(position));
      max_runs = std::max(max_runs, its.max_runs());
    };
    const std::int64_t n_global = stack.n_global_before(layers_attended);
    prepare(*cache, layers_attended - n_global);
    if (global_cache != nullptr) prepare(*global_cache, n_global);
    for (const MemorySpec& memory : stack.memory) {
      const std::int64_t n = std::ranges::count_if(memory.layers, [&](std::int64_t l) { return l < layers_attended; });
      if (memory.kind == MemorySpec::Kind::text) {
        past.text->count_read(n * past.n_tokens);
        work.attention_flops += static_cast<double>(n * past.n_tokens * stack.n_heads * (memory.context + 1));
      } else {
        past.units->count_read(n * past.n_units);
        work.attention_flops += static_cast<double>(4 * stack.q_width() * n * past.n_units);
        max_runs = std::max(max_runs, past.units->max_runs());
      }
    }
  }
  plan_.assign(rows, &Row::cache);
  if (!stack.global_layers.empty()) global_plan_.assign(rows, &Row::global_cache);
  if (std::ssize(runs_) < threads()) runs_.resize(threads());
  for (auto& list : runs_) list.reserve(max_runs);  // nothing throws in a parallel region
  cos_sin_.resize(std::ssize(rows), stack.head_dim / 2 * 2);
  rope_table(plan_.positions, stack.rope_theta, stack.head_dim, cos_sin_);
  asked_ = false;
  if (stack.memory_of(MemorySpec::Kind::text) != nullptr) find_texts();
  profile.note(Profile::norms);
}

void Ops::rotate(MatView<float> x) {
  photon::rotate(cos_sin_, stack_->head_dim, x);
  profile.note(Profile::norms);
}

// Different caches and kv heads do not touch each other, so they are what threads share; within one, order matters: a
// ring may overwrite what an earlier row still saw.
void Ops::write_and_attend(std::int64_t layer, MatView<const float> qkv, MatView<float> att) {
  const StackSpec& s = *stack_;
  const std::int64_t h = s.head_dim, H = s.n_heads, K = s.n_kv_heads, G = H / K;  // G query heads read one kv head
  const bool all = layer < s.n_layers - 1;
  const MatView<const float> q = qkv.columns(0, H * h), k = qkv.columns(H * h, K * h),
                             v = qkv.columns((H + K) * h, K * h);
  const bool is_global = s.is_global(layer);
  const RowPlan& plan = is_global ? global_plan_ : plan_;
  const std::int64_t n_global = s.n_global_before(layer),
                     cache_layer = is_global ? n_global : layer - n_global;  // among those of its cache
  const std::int64_t n_items = (std::ssize(plan.segments) - 1) * K;
  std::int64_t multiply_adds = 0;
  for (const std::int64_t visible : plan.visible) multiply_adds += visible * s.q_width() * 2;
  const std::int64_t n_threads = multiply_adds >= parallel_attention ? std::min(threads(), n_items) : 1;
  if (asked_) own_.top.resize(qkv.rows, H), own_.sum.resize(qkv.rows, H);

#pragma omp parallel for schedule(dynamic) if (n_threads > 1) num_threads(static_cast <int>(n_threads))
  for (std::int64_t item = 0; item < n_items; ++item) {
    auto& runs = runs_[omp_get_thread_num()];
    const std::int64_t segment = item / K, head = item % K;
    for (std::int64_t i = plan.segments[segment]; i < plan.segments[segment + 1]; ++i) {
      const RowPlan::Together& together = plan.together[i];
      const Row* const row = &plan.rows[together.first];
      KvCache& cache = is_global ? *row->global_cache : *row->cache;
      for (std::int64_t r = 0; r < together.n; ++r)
        cache.write(cache_layer, head, row[r].position, k.row(together.first + r).subspan(head * h, h),
                    v.row(together.first + r).subspan(head * h, h));
      const std::int64_t first = together.first + (all ? 0 : together.silent), n = together.first + together.n - first;
      if (n == 0) continue;
      cache.see(cache_layer, head, row[together.n - 1].position, runs);
      const auto told = [&](Matrix<float>& x) {  // to whom the softmax is to be joined
        return asked_ ? x.view().columns(head * G, G).slice(first, n) : MatView<float>();
      };
      attend(cache.type(), h, q.columns(head * G * h, G * h).slice(first, n), std::span(plan.visible).subspan(first, n),
             runs, att.columns(head * G * h, G * h).slice(first, n), told(own_.top), told(own_.sum));
    }
  }
  if (asked_) join_memory(layer, att);
  profile.note(Profile::attention);
}

MatView<float> Ops::keep_outputs(MatView<float> x, MatView<float> att) const {
  std::int64_t n = 0;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    if (!plan_.rows[r].output) continue;
    if (n < r) std::ranges::copy(x.row(r), x.row(n).begin()), std::ranges::copy(att.row(r), att.row(n).begin());
    ++n;
  }
  return x.slice(0, n);
}

}  // namespace photon
