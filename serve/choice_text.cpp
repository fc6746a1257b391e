#include "serve/choice_text.h"

#include <algorithm>
#include <utility>

namespace photon {

std::int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

ChoiceText::ChoiceText(const Tokenizer* tokenizer, std::span<const std::int32_t> before,
                       std::span<const std::string> stops)
    : stream_(tokenizer, before), stops_(stops) {}

void ChoiceText::enter(std::int32_t token, std::optional<TokenLogprob> logprob) {
  entries_.push_back({{token, n_chars_, std::move(logprob)}, bytes_released_ + std::ssize(held_)});
}

void ChoiceText::echo(std::int32_t token, std::optional<TokenLogprob> logprob) {
  enter(token, std::move(logprob));
  const std::string text = stream_.add(token);
  ready_ += text;
  bytes_released_ += std::ssize(text);
  n_chars_ += count_characters(text);
}

bool ChoiceText::add(std::int32_t token, std::optional<TokenLogprob> logprob) {
  if (stopped_) return false;
  enter(token, std::move(logprob));
  const std::string text = stream_.add(token);
  held_ += text;
  n_chars_ += count_characters(text);
  search();
  return !stopped_;
}

void ChoiceText::finish() {
  if (std::exchange(finished_, true) || stopped_) return;
  held_ += stream_.finish();
  search();
}

void ChoiceText::search() {
  std::size_t end = std::string::npos;  // where the text ends: the first stop string's beginning
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  stopped_ = end != std::string::npos;
  if (!stopped_) end = held_.size() - (finished_ ? 0 : stop_begun());
  ready_.append(held_, 0, end);
  held_.erase(0, stopped_ ? std::string::npos : end);
  bytes_released_ += static_cast<std::int64_t>(end);
  if (stopped_)
    while (!entries_.empty() && entries_.back().first_byte >= bytes_released_) entries_.pop_back();
}

std::size_t ChoiceText::stop_begun() const {
  std::size_t longest = 0;
  for (const std::string& stop : stops_)
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
      if (held_.ends_with(std::string_view(stop).substr(0, n))) longest = n;
  return longest;
}

TextDelta ChoiceText::take() {
  TextDelta delta{.text = std::exchange(ready_, {})};
  while (!entries_.empty() && (finished_ || stopped_ || entries_.front().first_byte < bytes_released_)) {
    delta.tokens.push_back(std::move(entries_.front().token));
    entries_.pop_front();
  }
  return delta;
}

}  // namespace photon
