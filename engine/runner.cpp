#include "engine/runner.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace photon {

Runner::Runner(Model model) : model_(std::move(model)) {}

void Runner::score(Protocol protocol, std::span<const Extension> batch, const Visit& visit) {
  if (protocol == Protocol::recgen) return score_recgen(batch, visit);
  std::vector<Extension> given(batch.begin(), batch.end());
  for (Extension& e : given) e.logits = Logits::given;
  forward(given, visit);
}

void Runner::score_recgen(std::span<const Extension> batch, const Visit& visit) {
  const std::int64_t group_tokens = spec().group_tokens();
  // What is missing of a sequence's group, by hiergen.
  std::vector<Extension> forced(batch.begin(), batch.end()), beginnings;
  std::vector<std::size_t> begins;  // whose
  for (std::size_t b = 0; b < forced.size(); ++b) {
    auto& [sequence, tokens, logits] = forced[b];
    if (sequence->protocol == Protocol::recgen) continue;
    const std::int64_t missing = (group_tokens - sequence->n_tokens % group_tokens) % group_tokens;
    const std::int64_t n = std::min(std::ssize(tokens), missing);
    beginnings.push_back({sequence, tokens.first(n), Logits::given});
    begins.push_back(b);
    tokens = tokens.subspan(n);
  }
  forward(beginnings, [&](std::size_t i, std::int64_t position, std::span<const float> logits) {
    visit(begins[i], position, logits);
  });
  for (const Extension& e : beginnings)
    if (e.sequence->n_tokens % group_tokens == 0) start_recgen(*e.sequence);

  // The rest group by group, all sequences in step.
  std::vector<std::size_t> active;
  std::vector<Sequence*> sequences;
  for (;;) {
    active.clear(), sequences.clear();
    for (std::size_t b = 0; b < forced.size(); ++b)
      if (!forced[b].tokens.empty()) active.push_back(b), sequences.push_back(forced[b].sequence);
    if (active.empty()) return;
    recgen_group(sequences, [&](std::size_t i, std::int64_t position, std::span<const float> logits) {
      const auto& [sequence, tokens, unused] = forced[active[i]];
      const std::int64_t token = position - sequence->n_tokens;
      if (token >= std::ssize(tokens)) return std::int32_t{0};  // any: no earlier position sees it
      visit(active[i], position, logits);
      return tokens[token];
    });
    for (const std::size_t b : active)
      forced[b].tokens = forced[b].tokens.subspan(std::min(std::ssize(forced[b].tokens), group_tokens));
  }
}

}  // namespace photon
