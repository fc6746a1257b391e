#include "engine/logprob.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "kernels/kernels.h"

namespace photon {

TokenLogprob token_logprob(std::span<const float> logits, std::int32_t token, std::int64_t n_top) {
  assert(0 <= n_top && n_top <= std::ssize(logits));
  const float total = kernels().log_sum_exp(logits);
  const auto logprob = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)] - total; };
  TokenLogprob result{.logprob = logprob(token)};
  if (n_top == 0) return result;

  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::ranges::partial_sort(ids, ids.begin() + n_top, likelier);
  for (std::int64_t i = 0; i < n_top; ++i) {
    const std::int32_t id = ids[static_cast<std::size_t>(i)];
    result.top.emplace_back(id, logprob(id));
  }
  return result;
}

}  // namespace photon
