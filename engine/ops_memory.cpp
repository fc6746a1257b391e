// What rows ask of the past beside their span: of the text, of top-level units.  docs/architecture.md §2.
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

#include "engine/ops.h"
#include "kernels/kernels.h"
#include "kernels/text_memory.h"
#include "spec/accounting.h"

namespace photon {
namespace {

constexpr std::int64_t part_entries = std::int64_t{1} << 16;    // of a text that one thread reads in one go
constexpr std::int64_t scores_at_once = std::int64_t{1} << 22;  // floats, of the rows that go together
constexpr std::int64_t entries_worth_a_thread = std::int64_t{1} << 12;

// A softmax's average over some positions joins that over others: (out, top, sum) takes in (more, its top and sum).
void join(std::span<float> out, float& top, float& sum, std::span<const float> more, float more_top, float more_sum) {
  if (more_sum == 0) return;
  const float new_top = sum == 0 ? more_top : std::max(top, more_top);
  const float weight = sum == 0 ? 0.0f : sum * std::exp(top - new_top),
              more_weight = more_sum * std::exp(more_top - new_top);
  const float total = weight + more_weight;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = (weight == 0 ? 0.0f : out[i] * (weight / total)) + more[i] * (more_weight / total);
  top = new_top, sum = total;
}

}  // namespace

bool Ops::attends(std::int64_t row, std::int64_t layer) const {
  return plan_.rows[row].output || layer < stack_->n_layers - 1;
}

void Ops::ask_memory(std::span<const MemoryWeights> memories, std::int64_t layer, MatView<const float> x,
                     Queries queries) {
  if (queries == Queries::plain) asked_ = false;
  for (const MemoryWeights& memory : memories) {
    if (!memory.spec.is_read_by(layer) || memory.spec.rope != (queries == Queries::rotated)) continue;
    if (!asked_) {
      shown_.out.resize(x.rows, stack_->q_width());
      shown_.top.resize(x.rows, stack_->n_heads), shown_.sum.resize(x.rows, stack_->n_heads);
      std::fill_n(shown_.sum.data(), x.rows * stack_->n_heads, 0.0f);
      asked_ = true;
    }
    const MatView<const float> q = x.columns(0, stack_->q_width());
    memory.spec.kind == MemorySpec::Kind::text ? read_text(memory, layer, q) : read_units(memory, layer, q);
  }
  profile.note(Profile::attention);
}

void Ops::join_memory(std::int64_t layer, MatView<float> att) {
  const std::int64_t h = stack_->head_dim;
  for (std::int64_t r = 0; r < att.rows; ++r)
    for (std::int64_t head = 0; head < stack_->n_heads && attends(r, layer); ++head)
      join(att.row(r).subspan(head * h, h), own_.top.row(r)[head], own_.sum.row(r)[head],
           std::as_const(shown_.out).row(r).subspan(head * h, h), shown_.top.row(r)[head], shown_.sum.row(r)[head]);
}

// ---- units ----

void Ops::remember(const MemoryWeights& memory, const StackSpec& stack, MatView<const float> x,
                   std::span<const RememberedUnit> units) {
  if (units.empty()) return;
  const std::int64_t h = stack.head_dim, K = memory.spec.n_kv_heads, n = x.rows;
  assert(n == std::ssize(units));
  units_.resize(n, x.cols), unit_kv_.resize(n, 2 * K * h);
  for (std::int64_t i = 0; i < n; ++i) std::ranges::copy(x.row(i), units_.row(i).begin());
  norm(units_, memory.norm);
  product(units_, *memory.kv, unit_kv_);
  const MatView<float> keys = unit_kv_.view().columns(0, K * h), values = unit_kv_.view().columns(K * h, K * h);
  if (memory.spec.rope) {
    std::vector<std::int64_t> positions;
    for (const RememberedUnit& unit : units) positions.push_back(unit.position);
    unit_angles_.resize(n, h / 2 * 2);
    rope_table(positions, stack.rope_theta, h, unit_angles_);
    photon::rotate(unit_angles_, h, keys);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    units[i].cache->reserve(units[i].unit);
    units[i].cache->count(units[i].unit, 0);
    for (std::int64_t head = 0; head < K; ++head)
      units[i].cache->write(0, head, units[i].unit, keys.row(i).subspan(head * h, h),
                            values.row(i).subspan(head * h, h));
  }
}

void Ops::read_units(const MemoryWeights& memory, std::int64_t layer, MatView<const float> q) {
  const std::int64_t h = stack_->head_dim, K = memory.spec.n_kv_heads, G = stack_->n_heads / K;
  asking_.clear();
  std::int64_t work_of_all = 0;
  for (std::int64_t r = 0; r < q.rows; ++r)
    if (attends(r, layer) && plan_.rows[r].past.n_units > 0)
      asking_.push_back(r), work_of_all += plan_.rows[r].past.n_units * stack_->q_width() * 2;
  part_out_.resize(q.rows, stack_->q_width()), part_top_.resize(q.rows, stack_->n_heads);
  part_sum_.resize(q.rows, stack_->n_heads);
  const std::int64_t n_items = std::ssize(asking_) * K;
  const std::int64_t n_threads = work_of_all >= (1 << 17) ? std::min(threads(), n_items) : 1;
#pragma omp parallel for schedule(dynamic) if (n_threads > 1) num_threads(static_cast <int>(n_threads))
  for (std::int64_t item = 0; item < n_items; ++item) {
    auto& runs = runs_[omp_get_thread_num()];
    const std::int64_t r = asking_[item / K], kv = item % K;
    const Past& past = plan_.rows[r].past;
    past.units->see(0, kv, past.n_units - 1, runs);
    attend(past.units->type(), h, q.columns(kv * G * h, G * h).slice(r, 1), {&past.n_units, 1}, runs,
           part_out_.view().columns(kv * G * h, G * h).slice(r, 1), part_top_.view().columns(kv * G, G).slice(r, 1),
           part_sum_.view().columns(kv * G, G).slice(r, 1));
    for (std::int64_t head = kv * G; head < (kv + 1) * G; ++head)
      join(shown_.out.row(r).subspan(head * h, h), shown_.top.row(r)[head], shown_.sum.row(r)[head],
           std::as_const(part_out_).row(r).subspan(head * h, h), part_top_.row(r)[head] + memory.offset[head],
           part_sum_.row(r)[head]);
  }
}

// ---- text ----

// The texts of the rows at hand, each once, and the panels of tables that hold an id which occurs in one of them.
void Ops::find_texts() {
  texts_.clear(), panels_.clear();
  text_of_.assign(plan_.rows.size(), 0);
  std::int64_t furthest = 0;
  std::vector<std::uint64_t> occurring;
  for (std::size_t r = 0; r < plan_.rows.size(); ++r) {
    const Past& past = plan_.rows[r].past;
    furthest = std::max(furthest, past.predicted);
    auto found = std::ranges::find(texts_, past.text, &Text::text);
    text_of_[r] = found - texts_.begin();
    if (found != texts_.end()) continue;
    Text& text = texts_.emplace_back(Text{.text = past.text, .ids = {}, .pages = {}});
    const auto bits = past.text->occurring();
    occurring.resize(bits.size());
    for (std::size_t i = 0; i < bits.size(); ++i) {
      occurring[i] |= bits[i];
      for (std::uint64_t left = bits[i]; left != 0; left &= left - 1)
        text.ids.push_back(static_cast<std::int32_t>(64 * i + std::countr_zero(left)));
    }
    for (const auto& page : past.text->pages()) text.pages.push_back(page->data());
  }
  const std::int64_t n_panels = (model_.spec.vocab_size + panel_outputs - 1) / panel_outputs;
  for (std::int64_t panel = 0; panel < n_panels; ++panel) {
    const std::int64_t id = panel * panel_outputs;
    if ((occurring[id / 64] >> (id % 64) & 0xffff) == 0) continue;
    if (!panels_.empty() && panels_.back().last == panel)
      ++panels_.back().last;
    else
      panels_.push_back({.first = panel, .last = panel + 1});
  }
  for (auto d = std::ssize(log_distances_); d <= furthest; ++d)
    log_distances_.push_back(static_cast<float>(std::log1p(static_cast<double>(d))));
}

void Ops::read_text(const MemoryWeights& memory, std::int64_t layer, MatView<const float> q) {
  asking_.clear();
  for (std::int64_t r = 0; r < q.rows; ++r)
    if (attends(r, layer) && plan_.rows[r].past.n_tokens > 0) asking_.push_back(r);
  const std::int64_t scores_of_row = stack_->n_heads * memory.spec.context * model_.spec.vocab_size;
  const std::int64_t at_once = std::max<std::int64_t>(1, scores_at_once / scores_of_row);
  const std::span<const std::int64_t> rows(asking_);
  for (std::int64_t first = 0; first < std::ssize(rows); first += at_once)
    read_text_rows(memory, rows.subspan(first, std::min(at_once, std::ssize(rows) - first)), q);
}

void Ops::read_text_rows(const MemoryWeights& memory, std::span<const std::int64_t> rows, MatView<const float> q) {
  const std::int64_t h = stack_->head_dim, H = stack_->n_heads, K = memory.spec.n_kv_heads, G = H / K;
  const std::int64_t V = model_.spec.vocab_size, context = memory.spec.context, n = std::ssize(rows);

  // Scores of every id that occurs, for each head and place of the context: rows by kv head, row, head of these.
  const auto query_of = [&](std::int64_t i, std::int64_t head) { return (head / G * n + i) * G + head % G; };
  queries_.resize(n * H, h), scores_.resize(n * H, context * V);
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t head = 0; head < H; ++head)
      std::ranges::transform(q.row(rows[i]).subspan(head * h, h), queries_.row(query_of(i, head)).begin(),
                             [scale](float x) { return x * scale; });
  std::int64_t n_panels = 0;
  for (const PanelRange& range : panels_) n_panels += range.last - range.first;
  for (std::int64_t kv = 0; kv < K; ++kv) {
    query_inputs_.assign(queries_.view().slice(kv * n * G, n * G), input_form(memory.keys.front().type));
    for (std::int64_t o = 0; o < context; ++o) {
      const PackedWeight& keys = memory.keys[o * K + kv];
      matmul(query_inputs_.view(), keys, panels_, scores_.view().slice(kv * n * G, n * G).columns(o * V, V));
      work.weight_bytes_read += n_panels * panel_bytes(keys.type, h);
      work.matmul_flops += 2.0 * static_cast<double>(n * G * n_panels * panel_outputs * h);
    }
  }
  const std::int64_t value_bytes = h * (memory.value_type == DType::f32 ? 4 : 2);
  for (const Text& text : texts_) work.weight_bytes_read += std::ssize(text.ids) * value_bytes * K;

  struct Part {
    std::int64_t i, head, first, last;  // row, first of up to 4 heads, entries
  };
  std::vector<Part> parts;
  std::int64_t entries = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t head = 0; head < H; head += text_heads)
      for (std::int64_t first = 0, end = plan_.rows[rows[i]].past.n_tokens; first < end; first += part_entries) {
        parts.push_back({i, head, first, std::min(first + part_entries, end)});
        entries += parts.back().last - first;
      }
  const std::int64_t n_parts = std::ssize(parts);
  part_out_.resize(n_parts, text_heads * h), part_top_.resize(n_parts, text_heads);
  part_sum_.resize(n_parts, text_heads);
  const std::int64_t n_threads =
      std::max<std::int64_t>(1, std::min({threads(), n_parts, entries / entries_worth_a_thread}));
  if (std::ssize(text_scratch_) < threads()) text_scratch_.resize(threads());
  for (std::int64_t t = 0; t < n_threads; ++t) {  // nothing throws in a parallel region
    text_scratch_[t].table.resize(context * (V + 1), text_heads);
    text_scratch_[t].weights.resize(V + 1, text_heads);
    text_scratch_[t].weighed.resize(V);
  }
#pragma omp parallel for schedule(dynamic) if (n_threads > 1) num_threads(static_cast <int>(n_threads))
  for (std::int64_t p = 0; p < n_parts; ++p) {
    const auto& [i, first_head, first, last] = parts[p];
    TextScratch& t = text_scratch_[omp_get_thread_num()];
    for (std::int64_t o = 0; o < context; ++o) std::ranges::fill(t.table.row(o * (V + 1) + V), 0.0f);
    const Past& past = plan_.rows[rows[i]].past;
    const Text& text = texts_[text_of_[rows[i]]];
    TextCall call{.vocab_size = V,
                  .context = context,
                  .head_dim = h,
                  .n_heads = std::min(text_heads, H - first_head),
                  .ids = text.ids.data(),
                  .n_ids = std::ssize(text.ids),
                  .score_stride = V,
                  .pages = text.pages.data(),
                  .page_tokens = text_page_tokens,
                  .id_bytes = past.text->id_bytes(),
                  .first = first,
                  .last = last,
                  .predicted = past.predicted,
                  .log_distances = memory.rates.empty() ? nullptr : log_distances_.data(),
                  .type = memory.value_type,
                  .table = t.table.data(),
                  .weights = t.weights.data(),
                  .weighed = t.weighed.data(),
                  .top = part_top_.row(p).data(),
                  .sum = part_sum_.row(p).data()};
    for (std::int64_t k = 0; k < call.n_heads; ++k) {
      const std::int64_t head = first_head + k;
      call.scores[k] = scores_.row(query_of(i, head)).data();
      if (!memory.rates.empty()) call.rates[k] = memory.rates[head];
      call.values[k] = memory.values[head / G];
      call.out[k] = part_out_.row(p).data() + k * h;
    }
    kernels().read_text(call);
  }
  for (std::int64_t p = 0; p < n_parts; ++p)
    for (std::int64_t k = 0; k < std::min(text_heads, H - parts[p].head); ++k) {
      const std::int64_t r = rows[parts[p].i], head = parts[p].head + k;
      const std::span<float> out = part_out_.row(p).subspan(k * h, h);
      const float sum = part_sum_.row(p)[k];
      for (float& x : out) x /= sum;
      join(shown_.out.row(r).subspan(head * h, h), shown_.top.row(r)[head], shown_.sum.row(r)[head], out,
           part_top_.row(p)[k] + memory.offset[head], sum);
    }
}

}  // namespace photon
