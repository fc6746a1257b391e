// The runner's one forward call under the names of what tests do with it.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "engine/runner.h"

namespace photon {

inline void prefill(Runner& runner, Sequence& sequence, std::span<const std::int32_t> tokens) {
  const Extension prompt{.sequence = &sequence, .tokens = tokens};
  runner.forward({&prompt, 1});
}

// Consumes tokens; logits [batch, V] of what follows them.
inline Matrix<float> step(Runner& runner, std::span<const Extension> batch) {
  std::vector<Extension> wanted(batch.begin(), batch.end());
  for (Extension& e : wanted) e.logits = Logits::next;
  Matrix<float> logits(std::ssize(wanted), runner.spec().vocab_size);
  runner.forward(wanted, [&](std::size_t b, std::int64_t, std::span<const float> row) {
    std::ranges::copy(row, logits.row(static_cast<std::int64_t>(b)).begin());
  });
  return logits;
}

inline Matrix<float> next_logits(Runner& runner, std::span<Sequence* const> batch) {
  std::vector<Extension> nothing;
  for (Sequence* s : batch) nothing.push_back({.sequence = s});
  return step(runner, nothing);
}

inline void score(Runner& runner, Sequence& sequence, std::span<const std::int32_t> tokens,
                  const std::function<void(std::int64_t position, std::span<const float> logits)>& visit) {
  const Extension given{.sequence = &sequence, .tokens = tokens, .logits = Logits::given};
  runner.forward({&given, 1},
                 [&](std::size_t, std::int64_t position, std::span<const float> row) { visit(position, row); });
}

}  // namespace photon
