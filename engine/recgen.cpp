// recgen: the decoders unroll a whole top-level group from its condition, level by level.  docs/architecture.md §3.
#include <algorithm>
#include <cassert>
#include <functional>

#include "engine/hierarchy.h"

namespace photon {

void Hierarchy::start_recgen(Sequence& sequence) {
  assert(L() >= 1 && sequence.n_tokens % model_.spec.chunk_tokens(L()) == 0);
  for (std::int64_t l = 1; l <= L(); ++l) {  // lower levels first: their conditions take the higher decoders along
    const GroupLayout layout(model_.spec.level(l));
    const std::int64_t unit = sequence.n_tokens / model_.spec.chunk_tokens(l - 1);
    const std::int64_t begin = begin_of(l, sequence, unit), end = layout.start_of(unit / layout.C);
    const LayoutRows past{.sequence = &sequence, .begin = begin, .end = end, .wanted = end};
    if (layout.stream && begin < end) decode(l, {&past, 1});
    assert(!layout.stream || sequence.decoder(l).fed <= end);
  }
  sequence.keep_top_only();
  forget(sequence);
}

void Hierarchy::recgen_group(std::span<Sequence* const> batch, const Choose& choose, bool one_by_one) {
  const std::int64_t group_tokens = model_.spec.chunk_tokens(L());
  next_.clear();
  for (Sequence* s : batch) {
    assert(s->protocol == Protocol::recgen);
    const std::int64_t g = s->n_tokens / group_tokens;
    next_.push_back({.sequence = s, .from = g, .to = g + 1});
  }
  MatView<const float> units = predict(L(), next_);                                             // X⁽ᴸ⁾_{g-1}
  for (std::int64_t l = L(); l >= 1; --l) units = unroll(l, batch, units, choose, one_by_one);  // X̂⁽ˡ⁻¹⁾ of the group
  wanted_.assign(batch.size(), -1);
  encode_level(L(), batch);  // Encoder_L(Chunker_L(X̂⁽ᴸ⁻¹⁾))
  for (Sequence* s : batch) {
    s->n_tokens += group_tokens;
    forget(*s);
  }
}

void Hierarchy::score_recgen(std::span<const Extension> batch, const VisitOf& visit) {
  const std::int64_t group_tokens = model_.spec.chunk_tokens(L());
  struct Forced {
    std::size_t b = 0;
    Sequence* sequence = nullptr;
    std::span<const std::int32_t> tokens;  // from its next group on
  };
  std::vector<Forced> active;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    Forced& f = active.emplace_back(Forced{.b = b, .sequence = batch[b].sequence, .tokens = batch[b].tokens});
    if (f.sequence->protocol == Protocol::recgen) continue;
    const std::int64_t missing = (group_tokens - f.sequence->n_tokens % group_tokens) % group_tokens;
    const std::size_t n = std::min(f.tokens.size(), static_cast<std::size_t>(missing));
    score(*f.sequence, f.tokens.first(n), std::bind_front(visit, b));
    f.tokens = f.tokens.subspan(n);
    if (f.sequence->n_tokens % group_tokens == 0) start_recgen(*f.sequence);
  }
  std::vector<Sequence*> sequences;
  while (std::erase_if(active, [](const Forced& f) { return f.tokens.empty(); }), !active.empty()) {
    sequences.clear();
    for (const Forced& f : active) sequences.push_back(f.sequence);
    recgen_group(sequences, [&](std::size_t i, std::int64_t position, std::span<const float> logits) {
      const Forced& f = active[i];
      const std::int64_t token = position - f.sequence->n_tokens;
      if (token >= std::ssize(f.tokens)) return std::int32_t{0};  // any: no earlier position sees it
      visit(f.b, position, logits);
      return f.tokens[static_cast<std::size_t>(token)];
    });
    for (Forced& f : active)
      f.tokens = f.tokens.subspan(std::min(f.tokens.size(), static_cast<std::size_t>(group_tokens)));
  }
}

// Decodes the n groups of level l that a top-level group holds, in each sequence, from their conditions [B·n, …]: slot
// by slot, each output being the next slot's content (at level 1: the embedding of the token chosen from it).  Groups
// of a `chunk` decoder know nothing of each other and go together; those of a `stream` decoder go one after another.
MatView<const float> Hierarchy::unroll(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> conds,
                                       const Choose& choose, bool one_by_one) {
  const GroupLayout layout(model_.spec.level(l));
  const std::int64_t R = layout.R, C = layout.C, E = model_.spec.level(l).decoder.d_model;
  const std::int64_t B = std::ssize(batch), n = conds.rows / B;
  const std::int64_t together = layout.stream || (one_by_one && l == 1) ? 1 : n;
  LevelScratch& t = scratch(l);
  const MatView<const float> prefixes = convert(l, conds);  // [B·n, R·E]
  t.unrolled.resize(B * n * C, model_.spec.width(l - 1));
  const auto content = [&](std::int64_t b, std::int64_t k, std::int64_t j) {
    return t.unrolled.row((b * n + k) * C + j);
  };

  for (std::int64_t first = 0; first < n; first += together) {
    for (std::int64_t j = 0; j < C; ++j) {
      t.decoder_rows.clear();
      for (std::int64_t b = 0; b < B; ++b) {
        Sequence& s = *batch[static_cast<std::size_t>(b)];
        DecoderState& decoder = s.decoder(l);
        for (std::int64_t k = first; k < first + together; ++k) {
          const std::int64_t g = s.n_tokens / model_.spec.chunk_tokens(l) + k;
          const std::int64_t start = layout.stream ? layout.start_of(g) : 0;
          KvCache* const cache = &decoder.caches[static_cast<std::size_t>(k - first)];
          const auto add_content = [&](std::int64_t position, std::span<const float> unit) {
            t.decoder_rows.push_back({.cache = cache, .position = position, .content = unit.data()});
          };
          if (j == 0) {
            if (layout.stream) {  // the group before still has its content C to give, if anyone will see it
              const std::int64_t begin = begin_of(l, s, g * C);
              assert(begin >= start - 1);
              if (begin > decoder.fed) cache->restart(begin);
              if (begin < start) add_content(begin, k > 0 ? content(b, k - 1, C - 1) : s.units_of(l - 1).at(g * C - 1));
            }
            for (std::int64_t r = 0; r < R; ++r)
              t.decoder_rows.push_back({.cache = cache,
                                        .position = start + r,
                                        .prefix = &prefixes.row(b * n + k)[static_cast<std::size_t>(r * E)]});
          } else {
            add_content(start + R + j - 1, content(b, k, j - 1));
          }
          t.decoder_rows.back().output = true;
          if (layout.stream) decoder.fed = start + R + j;
        }
      }
      const MatView<const float> out = run_decoder(l);  // X̂⁽ˡ⁻¹⁾ of slot j [B·together, E]
      const MatView<const float> logits = l == 1 ? head(out) : out;
      for (std::int64_t b = 0, r = 0; b < B; ++b)
        for (std::int64_t k = first; k < first + together; ++k, ++r) {
          if (l > 1) {
            std::ranges::copy(out.row(r), content(b, k, j).begin());
          } else {
            const auto index = static_cast<std::size_t>(b);
            model_.embedding(choose(index, batch[index]->n_tokens + k * C + j, logits.row(r)), content(b, k, j));
          }
        }
    }
  }
  for (std::int64_t b = 0; b < B; ++b) {
    UnitBuffer& units = batch[static_cast<std::size_t>(b)]->units_of(l - 1);
    const MatView<const float> x = t.unrolled.view().slice(b * n * C, n * C);
    show(*batch[static_cast<std::size_t>(b)], l - 1, units.end(), /*predicted=*/true, x);
    units.append(x);
  }
  return t.unrolled;
}

}  // namespace photon
