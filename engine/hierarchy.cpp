#include "engine/hierarchy.h"

#include <algorithm>
#include <cassert>

namespace photon {
namespace {

constexpr std::int64_t score_slice = 512;  // tokens decoded at once
constexpr std::int64_t logits_slice = 64;  // rows of logits held at once

}  // namespace

Hierarchy::Hierarchy(const Model& model) : model_(model), levels_(static_cast<std::size_t>(model.n_levels() + 1)) {}

// ---- bottom-up ----

// The logits of the new tokens themselves are wanted only `to_score`, otherwise those that follow them.
void Hierarchy::encode(std::span<const Extension> batch, bool to_score) {
  sequences_.clear(), wanted_.clear();
  for (const Extension& e : batch) {
    sequences_.push_back(e.sequence);
    wanted_.push_back(first_condition(*e.sequence, e.sequence->n_tokens + (to_score ? 0 : std::ssize(e.tokens))));
  }
  if (model_.trunk)
    encode_trunk(batch);
  else
    encode_tokens(batch);                                               // X⁽⁰⁾ = embed(t)
  for (std::int64_t l = 1; l <= L(); ++l) encode_level(l, sequences_);  // X⁽ˡ⁾ = Encoder_l(Chunker_l(X⁽ˡ⁻¹⁾))
  for (const Extension& e : batch) e.sequence->n_tokens += std::ssize(e.tokens);
}

void Hierarchy::encode_tokens(std::span<const Extension> batch) {
  LevelScratch& t = scratch(0);
  t.units.resize(1, model_.spec.d_embed);
  for (const Extension& e : batch)
    for (const std::int32_t token : e.tokens) {
      model_.embedding(token, t.units.row(0));
      e.sequence->units_of(0).append(t.units.row(0));
    }
}

// The vanilla model: Trunk(embed([bos, t …])).  Position p of the trunk is unit p - 1, which predicts token p.
void Hierarchy::encode_trunk(std::span<const Extension> batch) {
  LevelScratch& t = scratch(0);
  std::int64_t n = 0;
  for (const Extension& e : batch) n += std::ssize(e.tokens) + (e.sequence->units_of(0).end() < 0);
  t.rows.clear(), t.owners.clear();
  t.units.resize(n, model_.spec.d_embed);
  for (std::size_t b = 0; b < batch.size(); ++b) {
    Sequence& s = *batch[b].sequence;
    std::int64_t unit = s.units_of(0).end();
    const auto add = [&](std::int64_t token) {
      model_.embedding(token, t.units.row(std::ssize(t.rows)));
      t.rows.push_back({.cache = &s.encoders.front(), .position = unit + 1, .output = unit >= wanted_[b]});
      t.owners.push_back(&s);
      ++unit;
    };
    if (unit < 0) add(model_.spec.bos_token_id);
    for (const std::int32_t token : batch[b].tokens) add(token);
  }
  append_units(0, forward(*model_.trunk, t.rows, stack_, t.units));
}

// Every complete chunk of level l-1 that has no unit of level l yet gets one.
void Hierarchy::encode_level(std::int64_t l, std::span<Sequence* const> batch) {
  LevelScratch& t = scratch(l);
  const LevelWeights& w = model_.level(l);
  const std::int64_t C = model_.spec.level(l).chunk_size;
  t.rows.clear(), t.owners.clear();
  for (std::size_t b = 0; b < batch.size(); ++b)
    for (std::int64_t g = batch[b]->units_of(l).end(); (g + 1) * C <= batch[b]->units_of(l - 1).end(); ++g) {
      t.rows.push_back({.cache = &batch[b]->encoder(l), .position = g, .output = l < L() || g >= wanted_[b]});
      t.owners.push_back(batch[b]);
    }
  if (t.rows.empty()) return;

  const std::int64_t n = std::ssize(t.rows);
  t.chunks.resize(n, C * model_.spec.width(l - 1));
  for (std::int64_t r = 0; r < n; ++r) {
    const auto i = static_cast<std::size_t>(r);
    std::ranges::copy(t.owners[i]->units_of(l - 1).at(t.rows[i].position * C, C), t.chunks.row(r).begin());
  }
  Matrix<float>& x = w.chunker ? t.units : t.chunks;  // A⁽ˡ⁾ [n, D_l], then X⁽ˡ⁾
  if (w.chunker) {
    x.resize(n, model_.spec.width(l));
    project(t.chunks, *w.chunker, x);
  }
  append_units(l, forward(w.encoder, t.rows, stack_, x));
}

// The units of scratch(l).rows go to their owners: x holds those with output.
void Hierarchy::append_units(std::int64_t l, MatView<const float> x) {
  const LevelScratch& t = scratch(l);
  std::int64_t r = 0;
  for (std::size_t i = 0; i < t.rows.size(); ++i) {
    UnitBuffer& units = t.owners[i]->units_of(l);
    if (!t.rows[i].output) {
      units.skip();
      continue;
    }
    show(*t.owners[i], l, units.end(), /*predicted=*/false, x.slice(r, 1));
    units.append(x.row(r++));
  }
}

// Units `first` … of a level, for whoever watches.
void Hierarchy::show(const Sequence& sequence, std::int64_t level, std::int64_t first, bool predicted,
                     MatView<const float> x) const {
  if (!watch_unit_ || level < 1 || level >= L()) return;
  for (std::int64_t r = 0; r < x.rows; ++r)
    watch_unit_({.sequence = &sequence, .level = level, .index = first + r, .predicted = predicted, .x = x.row(r)});
}

// ---- top-down ----

// X̂⁽ˡ⁾ [n, width of cond⁽ˡ⁾] of units of level l: what their groups are decoded from.  At the top the shifted X⁽ᴸ⁾.
MatView<const float> Hierarchy::predict(std::int64_t l, std::span<const Units> units) {
  if (l == L()) {
    Matrix<float>& conds = scratch(l).conds;
    std::int64_t n = 0;
    for (const Units& u : units) n += u.to - u.from;
    conds.resize(n, model_.spec.width(l));
    for (std::int64_t r = 0; const Units& u : units)
      for (std::int64_t g = u.from; g < u.to; ++g)
        std::ranges::copy(u.sequence->units_of(l).at(g - 1), conds.row(r++).begin());
    return conds;
  }
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

// Where Decoder_l has to begin, or to go on, so that its predictions from `unit` on are exact.
std::int64_t Hierarchy::begin_of(std::int64_t l, Sequence& sequence, std::int64_t unit) const {
  const GroupLayout layout(model_.spec.level(l));
  return std::max(sequence.decoder(l).fed, layout.replay_from(layout.row_of(unit)));
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
    if (layout.stream && b.begin > decoder.fed) cache.restart(b.begin);
    for (std::int64_t row = b.begin; row < b.end; ++row) {
      const std::int64_t g = row / layout.period(), slot = row % layout.period();
      DecoderRow r{.cache = &cache, .position = layout.stream ? row : slot};
      if (slot < R) {
        r.prefix = prefix;
        prefix += E;
      } else if (slot - R < C - 1 || layout.stream) {
        r.content = b.sequence->units_of(l - 1).at(g * C + slot - R).data();
      } else {
        continue;
      }
      r.output = row >= b.wanted && R - 1 <= slot && slot < R + C - 1;
      t.decoder_rows.push_back(r);
    }
    decoder.fed = b.end;
  }
  return run_decoder(l);
}

// U⁽ˡ⁾ = Converter_l(cond⁽ˡ⁾)  [n, R·E]: vector r of a group at columns r·E …
MatView<const float> Hierarchy::convert(std::int64_t l, MatView<const float> conds) {
  Matrix<float>& prefixes = scratch(l).prefixes;
  prefixes.resize(conds.rows, model_.level(l).converter.outputs);
  project(conds, model_.level(l).converter, prefixes);
  return prefixes;
}

// Decoder_l over scratch(l).decoder_rows; the outputs [n, E] of the marked ones.
MatView<const float> Hierarchy::run_decoder(std::int64_t l) {
  LevelScratch& t = scratch(l);
  const LevelWeights& w = model_.level(l);
  const std::int64_t D = model_.spec.width(l - 1), E = w.decoder.spec.d_model;
  const auto is_content = [](const DecoderRow& r) { return r.content != nullptr; };

  t.contents.resize(std::ranges::count_if(t.decoder_rows, is_content), D);
  for (std::int64_t c = 0; const DecoderRow& r : t.decoder_rows)
    if (is_content(r)) std::copy_n(r.content, D, t.contents.row(c++).begin());
  if (w.content_proj) {
    t.projected.resize(t.contents.rows(), E);
    project(t.contents, *w.content_proj, t.projected);
  }
  const Matrix<float>& contents = w.content_proj ? t.projected : t.contents;  // P_l X⁽ˡ⁻¹⁾ [n, E]

  t.rows.clear();
  t.x.resize(std::ssize(t.decoder_rows), E);
  for (std::int64_t c = 0; const DecoderRow& r : t.decoder_rows) {
    std::copy_n(is_content(r) ? contents.row(c++).data() : r.prefix, E, t.x.row(std::ssize(t.rows)).begin());
    t.rows.push_back({.cache = r.cache, .position = r.position, .output = r.output});
  }
  return forward(w.decoder, t.rows, stack_, t.x);
}

MatView<const float> Hierarchy::head(MatView<const float> x) {
  logits_.resize(x.rows, model_.spec.vocab_size);
  stack_.profile.note(Profile::rest);
  project(x, model_.lm_head, logits_);
  stack_.profile.note(Profile::head);
  return logits_;
}

void Hierarchy::project(MatView<const float> x, const PackedWeight& w, MatView<float> y) {
  if (x.rows == 0) return;
  stack_.in.assign(x, input_form(w.type));
  product(stack_.in, w, y, stack_);
}

// ---- hiergen ----

// The first unit of the top level that predictions from token `from` on are conditioned on.
std::int64_t Hierarchy::first_condition(Sequence& sequence, std::int64_t from) const {
  std::int64_t unit = from;  // of level l-1
  for (std::int64_t l = 1; l <= L(); ++l)
    unit = GroupLayout(model_.spec.level(l)).group_from(begin_of(l, sequence, unit));
  return unit - 1;
}

// Drops the units that neither a chunk in progress nor a prediction from n_tokens on will want.
void Hierarchy::forget(Sequence& sequence) const {
  std::int64_t unit = sequence.n_tokens;  // of level l-1: the first that may still be predicted
  for (std::int64_t l = 1; l <= L(); ++l) {
    const GroupLayout layout(model_.spec.level(l));
    const std::int64_t begin = begin_of(l, sequence, unit),
                       next_chunk = std::max<std::int64_t>(0, sequence.units_of(l).end()) * layout.C;
    sequence.units_of(l - 1).drop_before(std::min(next_chunk, layout.content_from(begin)));
    unit = layout.group_from(begin);
  }
  sequence.units_of(L()).drop_before(first_condition(sequence, sequence.n_tokens));
}

void Hierarchy::prefill(Sequence& sequence, std::span<const std::int32_t> tokens) {
  do {
    const auto n = std::min(tokens.size(), static_cast<std::size_t>(prefill_slice));
    const Extension slice{&sequence, tokens.first(n)};
    encode({&slice, 1});
    forget(sequence);
    tokens = tokens.subspan(n);
  } while (!tokens.empty());
}

MatView<const float> Hierarchy::next_logits(std::span<Sequence* const> batch) {
  next_.clear();
  for (Sequence* s : batch) next_.push_back({.sequence = s, .from = s->n_tokens, .to = s->n_tokens + 1});
  return head(predict(0, next_));
}

void Hierarchy::consume(std::span<const Extension> batch) {
  encode(batch);
  for (Sequence* s : sequences_) forget(*s);
}

MatView<const float> Hierarchy::step(std::span<const Extension> batch) {
  consume(batch);
  return next_logits(sequences_);
}

void Hierarchy::score(Sequence& sequence, std::span<const std::int32_t> tokens, const Visit& visit) {
  while (!tokens.empty()) {
    const auto n = std::min(tokens.size(), static_cast<std::size_t>(score_slice));
    const Extension slice{&sequence, tokens.first(n)};
    std::int64_t position = sequence.n_tokens;
    encode({&slice, 1}, /*to_score=*/true);
    const Units units{.sequence = &sequence, .from = position, .to = sequence.n_tokens};
    const MatView<const float> x = predict(0, {&units, 1});  // X̂⁽⁰⁾ [n, E_1]
    for (std::int64_t r = 0; r < x.rows; r += logits_slice) {
      const MatView<const float> logits = head(x.slice(r, std::min(logits_slice, x.rows - r)));
      for (std::int64_t i = 0; i < logits.rows; ++i) visit(position++, logits.row(i));
    }
    forget(sequence);
    tokens = tokens.subspan(n);
  }
}

}  // namespace photon
