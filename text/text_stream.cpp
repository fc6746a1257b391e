#include "text/text_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace photon {

TextStream::TextStream(const Tokenizer* tokenizer, std::span<const std::int32_t> before)
    : tokenizer_(tokenizer),
      at_start_(tokenizer == nullptr ? before.empty() : std::ranges::all_of(before, [&](std::int32_t token) {
        return tokenizer->piece(token).empty();
      })) {}

std::string TextStream::add(std::int32_t token) {
  if (tokenizer_ == nullptr) return fmt::format("{}{}", std::exchange(at_start_, false) ? "" : ",", token);
  const std::string piece = at_start_ ? tokenizer_->first_piece(token) : tokenizer_->piece(token);
  at_start_ = at_start_ && tokenizer_->piece(token).empty();  // bos is no text
  return utf8_.push(piece);
}

std::string TextStream::finish() { return utf8_.finish(); }

}  // namespace photon
