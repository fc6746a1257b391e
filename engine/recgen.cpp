#include "engine/recgen.h"

#include <algorithm>
#include <cassert>

namespace photon {

void Recgen::start(Sequence& sequence) {
  const Spec& spec = hierarchy_.model().spec;
  assert(spec.n_levels() >= 1 && sequence.n_tokens % spec.group_tokens() == 0);
  for (std::int64_t l = 1; l <= spec.n_levels();
       ++l)  // lower levels first: their conditions take the higher decoders along
    hierarchy_.catch_up(l, sequence, sequence.n_tokens / spec.chunk_tokens(l - 1));
  sequence.keep_top_only();
  hierarchy_.forget(sequence);
}

void Recgen::group(std::span<Sequence* const> batch, const Choose& choose, bool one_by_one) {
  const std::int64_t L = hierarchy_.L(), group_tokens = hierarchy_.model().spec.group_tokens();
  conditions_.clear();
  for (Sequence* s : batch) {
    assert(s->protocol == Protocol::recgen);
    const std::int64_t g = s->n_tokens / group_tokens;
    conditions_.push_back({.sequence = s, .from = g, .to = g + 1});
  }
  MatView<const float> units = hierarchy_.predict(L, conditions_);                            // X⁽ᴸ⁾_{g-1}
  for (std::int64_t l = L; l >= 1; --l) units = unroll(l, batch, units, choose, one_by_one);  // X̂⁽ˡ⁻¹⁾ of the group
  hierarchy_.encode_level(L, batch);  // X⁽ᴸ⁾_g from X̂⁽ᴸ⁻¹⁾
  for (Sequence* s : batch) {
    s->advance(group_tokens);
    s->n_predicted = s->n_tokens;
    hierarchy_.forget(*s);
  }
}

// X̂⁽ˡ⁻¹⁾ of the n groups of level l in each sequence's top-level group, from their conditions [B·n, …]: slot by slot,
// each output being the next slot's content.  Groups of a `chunk` decoder know nothing of each other and go together;
// those of a `stream` decoder, or chunks of tokens `one_by_one`, go one after another.
MatView<const float> Recgen::unroll(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> conds,
                                    const Choose& choose, bool one_by_one) {
  const GroupLayout layout(hierarchy_.model().spec.level(l));
  const std::int64_t B = std::ssize(batch), n = conds.rows / B;
  const std::int64_t together = layout.stream || (one_by_one && l == 1) ? 1 : n;
  const MatView<const float> prefixes = hierarchy_.convert(l, conds);  // U⁽ˡ⁾ [B·n, R·E]
  unrolled_.resize(std::max<std::size_t>(unrolled_.size(), l + 1));
  unrolled_[l].resize(B * n * layout.C, hierarchy_.model().spec.content_width(l));
  if (l == 1) tokens_.resize(B * n * layout.C);

  for (std::int64_t first = 0; first < n; first += together) {
    take_chunks(l, batch, prefixes, first, together);
    for (std::int64_t j = 0; j < layout.C; ++j) {
      rows_.clear();
      for (const Chunk& chunk : chunks_) j == 0 ? feed_prefix(l, chunk) : feed_content(l, chunk, j - 1);
      const MatView<const float> x = hierarchy_.run_decoder(l, rows_);  // X̂⁽ˡ⁻¹⁾ of slot j [B·together, E]
      if (l == 1)
        keep_tokens(x, j, choose);
      else
        for (std::int64_t c = 0; c < x.rows; ++c) std::ranges::copy(x.row(c), chunks_[c].content.row(j).begin());
    }
  }
  for (std::int64_t b = 0; b < B; ++b) {
    UnitBuffer& units = batch[b]->units_of(l - 1);
    const MatView<const float> x = unrolled_[l].view().slice(b * n * layout.C, n * layout.C);
    if (l == 1) {
      append_tokens(*batch[b], std::span(tokens_).subspan(b * n * layout.C, n * layout.C), x);
      continue;
    }
    hierarchy_.show(*batch[b], l - 1, units.end(), /*predicted=*/true, x);
    units.append(x);
  }
  return unrolled_[l];
}

// Groups [first, first + n) of every sequence's top-level group.
void Recgen::take_chunks(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> prefixes,
                         std::int64_t first, std::int64_t n) {
  const Spec& spec = hierarchy_.model().spec;
  const GroupLayout layout(spec.level(l));
  const std::int64_t per_sequence = prefixes.rows / std::ssize(batch), E = prefixes.cols / layout.R;
  chunks_.clear();
  for (std::size_t b = 0; b < batch.size(); ++b)
    for (std::int64_t k = first; k < first + n; ++k) {
      Sequence& s = *batch[b];
      const std::int64_t g = s.n_tokens / spec.chunk_tokens(l) + k,
                         row = static_cast<std::int64_t>(b) * per_sequence + k;
      chunks_.push_back(
          {.b = b,
           .sequence = &s,
           .cache = &s.decoder(l).caches[k - first],
           .first_unit = g * layout.C,
           .start = layout.stream ? layout.start_of(g) : 0,
           .prefix = {prefixes.row(row).data(), layout.R, E, E},
           .content = unrolled_[l].view().slice(row * layout.C, layout.C),
           .tokens = l == 1 ? std::span(tokens_).subspan(row * layout.C, layout.C) : std::span<std::int32_t>()});
    }
}

// [U_1 … U_R], whose last row predicts slot 1.
void Recgen::feed_prefix(std::int64_t l, const Chunk& chunk) {
  const GroupLayout layout(hierarchy_.model().spec.level(l));
  DecoderState& decoder = chunk.sequence->decoder(l);
  if (layout.stream) {  // the group before still has its content C to give, if anyone will see it
    const std::int64_t begin = hierarchy_.begin_of(l, *chunk.sequence, chunk.first_unit);
    assert(begin >= chunk.start - 1);
    if (begin > decoder.fed) chunk.cache->restart(begin);
    UnitBuffer& units = chunk.sequence->content_of(l);
    if (begin < chunk.start) {
      const bool own = chunk.first_unit > units.end();  // of this top-level group, so not among the units yet
      feed(chunk, begin,
           own ? std::span<const float>(chunk.content.data - chunk.content.stride, chunk.content.cols)
               : units.at(chunk.first_unit - 1),
           hierarchy_.past_of(l, *chunk.sequence, chunk.first_unit - layout.C, chunk.first_unit));
    }
    decoder.fed = chunk.start + layout.R;
  }
  for (std::int64_t r = 0; r < layout.R; ++r)
    rows_.push_back({.cache = chunk.cache,
                     .position = chunk.start + r,
                     .prefix = chunk.prefix.row(r).data(),
                     .past = hierarchy_.past_of(l, *chunk.sequence, chunk.first_unit, chunk.first_unit)});
  rows_.back().output = true;
}

// Content j, which predicts slot j + 1.
void Recgen::feed_content(std::int64_t l, const Chunk& chunk, std::int64_t j) {
  const GroupLayout layout(hierarchy_.model().spec.level(l));
  feed(chunk, chunk.start + layout.R + j, chunk.content.row(j),
       hierarchy_.past_of(l, *chunk.sequence, chunk.first_unit, chunk.first_unit + j + 1));
  rows_.back().output = true;
  if (layout.stream) chunk.sequence->decoder(l).fed = chunk.start + layout.R + j + 1;
}

void Recgen::feed(const Chunk& chunk, std::int64_t position, std::span<const float> unit, const Past& past) {
  rows_.push_back({.cache = chunk.cache, .position = position, .content = unit.data(), .past = past});
}

// Slot j of every chunk of tokens: chosen from the logits, and fed on as what the decoder reads of it.
void Recgen::keep_tokens(MatView<const float> x, std::int64_t j, const Choose& choose) {
  const MatView<const float> logits = hierarchy_.head(x);
  for (std::int64_t c = 0; c < logits.rows; ++c) {
    const Chunk& chunk = chunks_[c];
    const std::int32_t token = chunk.tokens[j] = choose(chunk.b, chunk.first_unit + j, logits.row(c));
    if (chunk.sequence->decoder_tokens)
      hierarchy_.ops().embed_for_decoder({&token, 1}, chunk.content.slice(j, 1));
    else
      hierarchy_.ops().embed({&token, 1}, chunk.content.slice(j, 1));
  }
}

// A whole group of tokens, with their content as the decoder reads it.  Above level 1 nobody reads their X⁽⁰⁾.
void Recgen::append_tokens(Sequence& sequence, std::span<const std::int32_t> tokens, MatView<const float> content) {
  sequence.content_of(1).append(content);
  if (sequence.text) sequence.text->append(tokens);
  if (!sequence.decoder_tokens) return;
  UnitBuffer& units = sequence.units_of(0);
  if (hierarchy_.L() > 1) {
    units.skip(std::ssize(tokens));
    return;
  }
  embedded_.resize(std::ssize(tokens), hierarchy_.model().spec.d_embed);
  hierarchy_.ops().embed(tokens, embedded_);
  units.append(embedded_);
}

}  // namespace photon
