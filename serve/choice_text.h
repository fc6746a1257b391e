// A continuation's tokens as the text that a client sees: whole characters, up to the first stop string, and never a
// part of one.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/scheduler.h"
#include "text/text_stream.h"

namespace photon {

/// A token of a text.
struct TextToken {
  std::int32_t token = 0;
  std::int64_t offset = 0;  // characters of the text before it
  std::optional<TokenLogprob> logprob{};
};

/// What is new of a text.
struct TextDelta {
  std::string text;
  std::vector<TextToken> tokens{};  // those that begin in it
  bool empty() const { return text.empty() && tokens.empty(); }
};

class ChoiceText {
 public:
  /// @param tokenizer  outlives it; null: texts are ids
  /// @param before  the tokens that the text follows
  /// @param stops   not empty strings; outlive it
  ChoiceText(const Tokenizer* tokenizer, std::span<const std::int32_t> before, std::span<const std::string> stops);

  /// A token of the prompt, to be echoed: no stop string is looked for.
  void echo(std::int32_t token, std::optional<TokenLogprob> logprob);
  /// The next token; false: the text ended with a stop string, which is no part of it.
  bool add(std::int32_t token, std::optional<TokenLogprob> logprob);
  /// The eos that ends the text: an entry without text.
  void add_eos(std::int32_t token, std::optional<TokenLogprob> logprob) { enter(token, std::move(logprob)); }
  /// No more tokens.
  void finish();
  bool stopped() const { return stopped_; }
  /// What can be shown and was not taken yet.
  TextDelta take();

 private:
  void search();
  std::size_t stop_begun() const;  // bytes at the end of held_ that may be the beginning of a stop string
  void enter(std::int32_t token, std::optional<TokenLogprob> logprob);

  struct Entry {
    TextToken token;
    std::int64_t first_byte;  // of the text
  };
  TextStream stream_;
  std::span<const std::string> stops_;
  std::string ready_, held_;                       // to be taken; perhaps a stop string's beginning
  std::int64_t bytes_released_ = 0, n_chars_ = 0;  // of the text: up to held_; of all of it
  std::deque<Entry> entries_;                      // that were not taken
  bool stopped_ = false, finished_ = false;
};

/// Whole characters of valid UTF-8.
std::int64_t count_characters(std::string_view text);

}  // namespace photon
