// Tokens that arrive one by one as text that can be shown at once.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace photon {

/// The texts that add() and finish() return, one after another, are what Tokenizer::decode() makes of all tokens.
/// Without a tokenizer they are the ids, "1,2,3".
class TextStream {
 public:
  /// @param tokenizer  outlives the stream; null: none
  /// @param before     the tokens that the text follows: only the first text after bos loses the space that encode()
  ///                   puts before a text
  TextStream(const Tokenizer* tokenizer, std::span<const std::int32_t> before);

  std::string add(std::int32_t token);  ///< whole UTF-8 characters; @throws InputError for an id outside the vocabulary
  std::string finish();                 ///< the end: an unfinished character becomes U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool at_start_;
  Utf8Stream utf8_;
};

}  // namespace photon
