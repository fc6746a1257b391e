#include "engine/prefix_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace photon {

PrefixCache::Match PrefixCache::find(std::span<const std::int32_t> prompt) {
  Match match;
  auto best = states_.end();
  const std::vector<std::int32_t>* text = nullptr;
  std::int64_t n_common = 0;  // of the prompt and `text`
  for (auto state = states_.begin(); state != states_.end(); ++state) {
    if (state->text.get() != text) {  // states of one text are often neighbours
      text = state->text.get();
      n_common = std::ranges::mismatch(*text, prompt).in2 - prompt.begin();
      match.n_common = std::max(match.n_common, n_common);
    }
    const std::int64_t n = state->sequence.n_tokens;
    if (n <= match.n_tokens || n > n_common || (state->predicted() && n == std::ssize(prompt))) continue;
    match.n_tokens = n;
    best = state;
  }
  if (best != states_.end()) {
    match.state = &best->sequence;
    use(best);
  }
  return match;
}

void PrefixCache::keep(Text text, Sequence state) {
  assert(state.n_tokens <= std::ssize(*text));
  const auto tokens = std::span(*text).first(state.n_tokens);
  const auto same =
      std::ranges::find_if(states_, [&](const State& s) { return std::ranges::equal(s.tokens(), tokens); });
  if (same != states_.end()) drop(same);
  if (states_.size() == max_states) drop_oldest();
  state.for_each_page([this](const std::shared_ptr<KvPool::Page>& page) {
    Held& held = pages_[page.get()];
    if (held.times++ > 0) return;
    held.page = page;
    bytes_ += page->bytes();
  });
  states_.push_front({.text = std::move(text), .sequence = std::move(state)});
}

bool PrefixCache::touch(std::span<const std::int32_t> tokens) {
  const auto same = std::ranges::find_if(
      states_, [&](const State& s) { return !s.predicted() && std::ranges::equal(s.tokens(), tokens); });
  if (same == states_.end()) return false;
  use(same);
  return true;
}

bool PrefixCache::drop_oldest() {
  if (states_.empty()) return false;
  drop(std::prev(states_.end()));
  return true;
}

void PrefixCache::drop(States::iterator state) {
  state->sequence.for_each_page([this](const std::shared_ptr<KvPool::Page>& page) {
    const auto held = pages_.find(page.get());
    if (--held->second.times > 0) return;
    pages_.erase(held);
    bytes_ -= page->bytes();
  });
  states_.erase(state);
}

std::int64_t PrefixCache::bytes_alone() const {
  std::int64_t bytes = 0;
  for (const auto& [page, held] : pages_)
    if (held.page.use_count() == held.times) bytes += page->bytes();
  return bytes;
}

}  // namespace photon
