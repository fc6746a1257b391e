#include "engine/hiergen.h"

#include <algorithm>
#include <cassert>

namespace photon {
namespace {

// Tokens that one pass takes along, over all sequences: bounds memory, fills the matrix units.  Fewer where each of
// them goes through the decoders, too.
constexpr std::int64_t prefill_slice = 2048, score_slice = 512;
constexpr std::int64_t logits_slice = 64;  // rows of logits held at once, if a batch does not need more

bool wants_given(Logits logits) { return logits == Logits::given || logits == Logits::given_and_next; }
bool wants_next(Logits logits) { return logits == Logits::next || logits == Logits::given_and_next; }

}  // namespace

void Hiergen::forward(std::span<const Extension> batch, const Visit& visit) {
  taken_.assign(batch.size(), -1);
  while (take_slices(batch)) {
    hierarchy_.encode(given_);
    wanted_.clear();
    for (std::size_t i = 0; i < slices_.size(); ++i)
      if (slices_[i].from < slices_[i].to)
        wanted_.push_back({.sequence = given_[i].sequence, .from = slices_[i].from, .to = slices_[i].to});
    const MatView<const float> x =
        wanted_.empty() ? MatView<const float>() : hierarchy_.predict(0, wanted_);  // X̂⁽⁰⁾ [n, E_1]
    for (const Hierarchy::Units& u : wanted_) u.sequence->n_predicted = u.to;
    for (const Hierarchy::Given& g : given_) hierarchy_.forget(*g.sequence);
    visit_logits(x, visit);  // last: whoever hears of logits may move the sequence
  }
}

// The next pass: as many tokens as fit, first come first served.  false: everything is consumed.
bool Hiergen::take_slices(std::span<const Extension> batch) {
  given_.clear(), slices_.clear();
  const bool scores = std::ranges::any_of(batch, wants_given, &Extension::logits);
  std::int64_t room = scores ? score_slice : prefill_slice;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const Extension& e = batch[b];
    std::int64_t& taken = taken_[b];
    const std::int64_t left = std::ssize(e.tokens) - std::max<std::int64_t>(0, taken), n = std::min(left, room);
    if (left == 0 ? taken >= 0 : n == 0) continue;
    taken = std::max<std::int64_t>(0, taken);
    const auto tokens = e.tokens.subspan(taken, n);
    taken += n, room -= n;

    const bool last = taken == std::ssize(e.tokens);
    const std::int64_t begin = e.sequence->n_tokens, end = begin + n;
    const std::int64_t from = wants_given(e.logits) ? std::max(begin, e.sequence->n_predicted) : end;
    const std::int64_t to = end + (last && wants_next(e.logits));
    // Of a text whose logits are not wanted, nothing before what follows it.
    const std::int64_t first_wanted = wants_given(e.logits) ? from : begin + left;
    assert(!(last && wants_next(e.logits)) || e.sequence->n_predicted <= end);  // not asked for before
    slices_.push_back({.b = b, .from = from, .to = to});
    given_.push_back({.sequence = e.sequence,
                      .tokens = tokens,
                      .first_wanted = std::min(first_wanted, e.sequence->earliest_after(left))});
  }
  return !given_.empty();
}

void Hiergen::visit_logits(MatView<const float> x, const Visit& visit) {
  const std::int64_t at_once = std::max(logits_slice, static_cast<std::int64_t>(wanted_.size()));
  MatView<const float> logits;
  std::int64_t row = 0;
  for (const Slice& slice : slices_)
    for (std::int64_t position = slice.from; position < slice.to; ++position, ++row) {
      if (row % at_once == 0) logits = hierarchy_.head(x.slice(row, std::min(at_once, x.rows - row)));
      visit(slice.b, position, logits.row(row % at_once));
    }
}

}  // namespace photon
