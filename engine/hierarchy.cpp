#include "engine/hierarchy.h"

#include <algorithm>
#include <cassert>

namespace photon {
namespace {

// The first row of a decoder that predictions from `unit` on may run.  What may be taken back may make it begin anew.
std::int64_t first_row(const Sequence& sequence, const DecoderState& decoder, const GroupLayout& layout,
                       std::int64_t unit) {
  return sequence.spare_tokens() == 0 ? decoder.begin_of(layout, unit) : layout.replay_from(layout.row_of(unit));
}

}  // namespace

Hierarchy::Hierarchy(const Model& model) : model_(model), ops_(model), levels_(model.n_levels() + 1) {}

// ---- bottom-up ----

void Hierarchy::encode(std::span<const Given> batch) {
  sequences_.clear(), wanted_.clear();
  for (const Given& g : batch) {
    sequences_.push_back(g.sequence);
    wanted_.push_back(first_condition(*g.sequence, g.first_wanted));
  }
  for (const Given& g : batch)
    if (g.sequence->text) g.sequence->text->append(g.tokens);
  if (model_.trunk)
    encode_trunk(batch, wanted_);
  else
    encode_tokens(batch);                                                        // X⁽⁰⁾ = embed(t)
  for (std::int64_t l = 1; l <= L(); ++l) encode_level(l, sequences_, wanted_);  // X⁽ˡ⁾
  for (const Given& g : batch) g.sequence->advance(std::ssize(g.tokens));
}

void Hierarchy::encode_tokens(std::span<const Given> batch) {
  Matrix<float>& x = scratch(0).units;
  for (const Given& g : batch) {
    x.resize(std::ssize(g.tokens), model_.spec.d_embed);
    ops_.embed(g.tokens, x);
    g.sequence->units_of(0).append(x);
    if (g.sequence->decoder_tokens) keep_for_decoder(g);
  }
}

// Of the tokens, those that the level-1 decoder may still read.
void Hierarchy::keep_for_decoder(const Given& given) {
  UnitBuffer& units = *given.sequence->decoder_tokens;
  const GroupLayout layout(model_.spec.level(1));
  const std::int64_t begin = first_row(*given.sequence, given.sequence->decoder(1), layout, given.first_wanted);
  const std::int64_t n = std::ssize(given.tokens),
                     skipped = std::clamp<std::int64_t>(layout.content_from(begin) - units.end(), 0, n);
  units.skip(skipped);
  Matrix<float>& x = scratch(1).contents;
  x.resize(n - skipped, model_.spec.content_width(1));
  ops_.embed_for_decoder(given.tokens.subspan(skipped), x);
  units.append(x);
}

// The vanilla model: Trunk(embed([bos, t …])).  Position p of the trunk is unit p - 1, which predicts token p.  What
// the first unit that is wanted does not depend on is left out.
void Hierarchy::encode_trunk(std::span<const Given> batch, std::span<const std::int64_t> wanted) {
  LevelScratch& t = scratch(0);
  const auto bos = static_cast<std::int32_t>(model_.spec.bos_token_id);
  const std::int64_t reach = trunk_reach(model_.spec);
  t.rows.clear(), t.owners.clear(), tokens_.clear();
  for (std::size_t b = 0; b < batch.size(); ++b) {
    Sequence& s = *batch[b].sequence;
    UnitBuffer& units = s.units_of(0);
    const std::int64_t end = s.n_tokens + std::ssize(batch[b].tokens);
    const std::int64_t skipped = std::clamp<std::int64_t>(wanted[b] - reach - units.end(), 0, end - units.end());
    units.skip(skipped);
    if (skipped > 0) s.encoders.front().restart(units.end() + 1);
    for (std::int64_t unit = units.end(); unit < end; ++unit) {
      const Past past{.text = s.text ? &*s.text : nullptr, .n_tokens = unit + 1, .predicted = unit + 1};
      t.rows.push_back({.cache = &s.encoders.front(),
                        .position = unit + 1,
                        .output = unit >= wanted[b],
                        .past = past,
                        .global_cache = s.encoders.size() > 1 ? &s.encoders.back() : nullptr});
      t.owners.push_back(&s);
      tokens_.push_back(unit < 0 ? bos : batch[b].tokens[unit - s.n_tokens]);
    }
  }
  t.units.resize(std::ssize(t.rows), model_.spec.d_embed);
  ops_.embed(tokens_, t.units);
  append_units(0, forward(*model_.trunk, t.rows, ops_, stack_, t.units));
}

void Hierarchy::encode_level(std::int64_t l, std::span<Sequence* const> batch, std::span<const std::int64_t> wanted) {
  LevelScratch& t = scratch(l);
  const LevelWeights& w = model_.level(l);
  const std::int64_t C = model_.spec.level(l).chunk_size, D = model_.spec.width(l - 1);
  t.rows.clear(), t.owners.clear(), t.sources.clear();
  for (std::int64_t b = 0; b < std::ssize(batch); ++b)
    for (std::int64_t g = batch[b]->units_of(l).end(); (g + 1) * C <= batch[b]->units_of(l - 1).end(); ++g) {
      const bool output = l < L() || wanted.empty() || g >= wanted[b] || batch[b]->remembered_units;
      t.rows.push_back({.cache = &batch[b]->encoder(l), .position = g, .output = output});
      t.owners.push_back(batch[b]);
      t.sources.push_back(batch[b]->units_of(l - 1).at(g * C, C).data());
    }
  if (t.rows.empty()) return;

  t.chunks.resize(std::ssize(t.rows), C * D);
  ops_.gather(t.sources, t.chunks);
  Matrix<float>& x = w.chunker ? t.units : t.chunks;  // A⁽ˡ⁾ [n, D_l], then X⁽ˡ⁾
  if (w.chunker) {
    x.resize(t.chunks.rows(), model_.spec.width(l));
    if (!w.chunker_norm.empty()) ops_.norm(t.chunks, w.chunker_norm);
    ops_.product(t.chunks, *w.chunker, x);
    ops_.add_bias(x, w.chunker_bias);
  }
  const MatView<const float> units = forward(w.encoder, t.rows, ops_, stack_, x);
  if (l == L()) remember_units(units);
  append_units(l, units);
}

// Top-level units of scratch(L).rows, all of them with output, as the memory keeps them.
void Hierarchy::remember_units(MatView<const float> x) {
  LevelScratch& t = scratch(L());
  for (const MemoryWeights& memory : model_.token_stack().memory) {
    if (memory.spec.kind != MemorySpec::Kind::units) continue;
    const GroupLayout layout(model_.spec.level(1));
    const std::int64_t rows = model_.spec.group_tokens() / layout.C * layout.period();  // of a group in the layout
    remembered_.clear();
    for (std::size_t i = 0; i < t.rows.size(); ++i)
      remembered_.push_back({.cache = &*t.owners[i]->remembered_units,
                             .unit = t.rows[i].position,
                             .position = (t.rows[i].position + 1) * rows - 1});
    ops_.remember(memory, model_.token_stack().spec, x, remembered_);
  }
}

// The units of scratch(l).rows go to their owners: x holds those with output.
void Hierarchy::append_units(std::int64_t l, MatView<const float> x) {
  const LevelScratch& t = scratch(l);
  for (std::int64_t i = 0, r = 0; i < std::ssize(t.rows); ++i) {
    UnitBuffer& units = t.owners[i]->units_of(l);
    if (!t.rows[i].output) {
      units.skip();
      continue;
    }
    show(*t.owners[i], l, units.end(), /*predicted=*/false, x.slice(r, 1));
    units.append(x.row(r++));
  }
}

void Hierarchy::show(const Sequence& sequence, std::int64_t level, std::int64_t first, bool predicted,
                     MatView<const float> x) const {
  if (!watch_unit || level < 1 || level >= L()) return;
  for (std::int64_t r = 0; r < x.rows; ++r)
    watch_unit({.sequence = &sequence, .level = level, .index = first + r, .predicted = predicted, .x = x.row(r)});
}

// ---- top-down ----

MatView<const float> Hierarchy::predict(std::int64_t l, std::span<const Units> units) {
  if (l == L()) return conditions(units);
  const GroupLayout layout(model_.spec.level(l + 1));
  auto& batch = scratch(l + 1).layout_rows;
  batch.clear();
  for (const Units& u : units) {
    const std::int64_t begin = begin_of(l + 1, *u.sequence, u.from), end = layout.row_of(u.to - 1) + 1;
    assert(begin <= layout.row_of(u.from));
    batch.push_back({.sequence = u.sequence, .begin = begin, .end = end, .wanted = layout.row_of(u.from)});
  }
  const MatView<const float> x = decode(l + 1, batch);
  for (std::int64_t r = 0; const Units& u : units) {
    show(*u.sequence, l, u.from, /*predicted=*/true, x.slice(r, u.to - u.from));
    r += u.to - u.from;
  }
  return x;
}

// cond⁽ᴸ⁾_g = X⁽ᴸ⁾_{g-1}
MatView<const float> Hierarchy::conditions(std::span<const Units> units) {
  LevelScratch& t = scratch(L());
  t.sources.clear();
  for (const Units& u : units)
    for (std::int64_t g = u.from; g < u.to; ++g) t.sources.push_back(u.sequence->units_of(L()).at(g - 1).data());
  t.conds.resize(std::ssize(t.sources), model_.spec.width(L()));
  ops_.gather(t.sources, t.conds);
  return t.conds;
}

// Decoder_l over rows of its layout; X̂⁽ˡ⁻¹⁾ [n, E_l] of those that predict a unit, from `wanted` on.
MatView<const float> Hierarchy::decode(std::int64_t l, std::span<const LayoutRows> batch) {
  const GroupLayout layout(model_.spec.level(l));
  const std::int64_t R = layout.R, C = layout.C, E = model_.spec.level(l).decoder.d_model;
  LevelScratch& t = scratch(l);
  t.groups.clear();
  for (const LayoutRows& b : batch)
    if (const auto from = layout.group_from(b.begin), to = layout.group_from(b.end); from < to)
      t.groups.push_back({.sequence = b.sequence, .from = from, .to = to});
  const float* prefix = t.groups.empty() ? nullptr : convert(l, predict(l, t.groups)).data;

  t.decoder_rows.clear();
  for (const LayoutRows& b : batch) {
    DecoderState& decoder = b.sequence->decoder(l);
    KvCache& cache = decoder.caches.front();
    if (layout.stream && b.begin > decoder.fed) cache.restart(b.begin), decoder.exact_from = b.wanted;
    for (std::int64_t row = b.begin; row < b.end; ++row) {
      const std::int64_t g = row / layout.period(), slot = row % layout.period();
      DecoderRow r{.cache = &cache, .position = layout.stream ? row : slot};
      if (slot < R) {
        r.prefix = prefix;
        prefix += E;
      } else if (slot - R < C - 1 || layout.stream) {
        r.content = b.sequence->content_of(l).at(g * C + slot - R).data();
      } else {
        continue;
      }
      r.output = row >= b.wanted && R - 1 <= slot && slot < R + C - 1;
      r.past = past_of(l, *b.sequence, g * C, g * C + std::max<std::int64_t>(0, slot - R + 1));
      t.decoder_rows.push_back(r);
    }
    decoder.fed = b.end;
  }
  return run_decoder(l, t.decoder_rows);
}

Past Hierarchy::past_of(std::int64_t l, Sequence& sequence, std::int64_t first_unit, std::int64_t predicted) const {
  if (l != 1 || (!sequence.text && !sequence.remembered_units)) return {};
  const std::int64_t group_tokens = model_.spec.group_tokens(), group = first_unit / group_tokens;
  return {.text = sequence.text ? &*sequence.text : nullptr,
          .units = sequence.remembered_units ? &*sequence.remembered_units : nullptr,
          .n_tokens = group * group_tokens,
          .n_units = group,
          .predicted = predicted};
}

MatView<const float> Hierarchy::convert(std::int64_t l, MatView<const float> conds) {
  Matrix<float>& prefixes = scratch(l).prefixes;
  prefixes.resize(conds.rows, model_.level(l).converter.outputs);
  ops_.product(conds, model_.level(l).converter, prefixes);
  ops_.add_bias(prefixes, model_.level(l).converter_bias);
  return prefixes;
}

MatView<const float> Hierarchy::run_decoder(std::int64_t l, std::span<const DecoderRow> rows) {
  LevelScratch& t = scratch(l);
  const LevelWeights& w = model_.level(l);
  const std::int64_t E = w.decoder.spec.d_model;

  t.sources.clear();
  for (const DecoderRow& r : rows)
    if (r.content != nullptr) t.sources.push_back(r.content);
  t.contents.resize(std::ssize(t.sources), model_.spec.content_width(l));
  ops_.gather(t.sources, t.contents);
  if (w.content_proj) {
    t.projected.resize(t.contents.rows(), E);
    ops_.product(t.contents, *w.content_proj, t.projected);
  }
  const Matrix<float>& contents = w.content_proj ? t.projected : t.contents;  // P_l X⁽ˡ⁻¹⁾ [n, E]

  t.rows.clear(), t.sources.clear();
  for (std::int64_t c = 0; const DecoderRow& r : rows) {
    t.sources.push_back(r.content != nullptr ? contents.row(c++).data() : r.prefix);
    t.rows.push_back({.cache = r.cache, .position = r.position, .output = r.output, .past = r.past});
  }
  t.x.resize(std::ssize(rows), E);
  ops_.gather(t.sources, t.x);
  return forward(w.decoder, t.rows, ops_, stack_, t.x);
}

MatView<const float> Hierarchy::head(MatView<const float> x) {
  logits_.resize(x.rows, model_.spec.vocab_size);
  ops_.head(x, model_.lm_head, logits_);
  return logits_;
}

// ---- what of the past is wanted ----

std::int64_t Hierarchy::begin_of(std::int64_t l, Sequence& sequence, std::int64_t unit) const {
  return sequence.decoder(l).begin_of(GroupLayout(model_.spec.level(l)), unit);
}

void Hierarchy::catch_up(std::int64_t l, Sequence& sequence, std::int64_t unit) {
  const GroupLayout layout(model_.spec.level(l));
  if (!layout.stream) return;
  const std::int64_t begin = begin_of(l, sequence, unit), end = layout.start_of(unit / layout.C);
  const LayoutRows past{.sequence = &sequence, .begin = begin, .end = end, .wanted = end};
  if (begin < end) decode(l, {&past, 1});
  assert(sequence.decoder(l).fed <= end);
}

// The first unit of the top level that predictions from token `from` on are conditioned on.
std::int64_t Hierarchy::first_condition(Sequence& sequence, std::int64_t from) const {
  std::int64_t unit = from;  // of level l-1
  for (std::int64_t l = 1; l <= L(); ++l) {
    const GroupLayout layout(model_.spec.level(l));
    unit = layout.group_from(first_row(sequence, sequence.decoder(l), layout, unit));
  }
  return unit - 1;
}

void Hierarchy::forget(Sequence& sequence) const {
  const std::int64_t from = sequence.earliest_after(0);
  std::int64_t unit = from;  // of level l-1: the first that may still be predicted
  for (std::int64_t l = 1; l <= L(); ++l) {
    const GroupLayout layout(model_.spec.level(l));
    const std::int64_t begin = first_row(sequence, sequence.decoder(l), layout, unit);
    const std::int64_t units = std::min(sequence.units_of(l).end(), from / model_.spec.chunk_tokens(l));
    const std::int64_t next_chunk = std::max<std::int64_t>(0, units) * layout.C;
    const std::int64_t next_content = layout.content_from(begin);
    const bool apart = l == 1 && sequence.decoder_tokens;
    if (apart) sequence.decoder_tokens->drop_before(std::min(sequence.decoder_tokens->end(), next_content));
    sequence.units_of(l - 1).drop_before(apart ? next_chunk : std::min(next_chunk, next_content));
    unit = layout.group_from(begin);
  }
  sequence.units_of(L()).drop_before(first_condition(sequence, from));
}

}  // namespace photon
