// For the tests of text/ and what uses it: made-up text, and a small tokenizer trained once per program.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/folder_testing.h"
#include "base/random.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace photon::testing_support {

/// Lines of made-up words, the same for the same seed.
inline std::string some_text(std::uint64_t seed, int n_lines) {
  static constexpr const char* syllables[] = {"ka", "lo", "mi", "the", "ren", "su", "ta", "é", "ing", "o"};
  Random random(seed);
  std::string text;
  for (int line = 0; line < n_lines; ++line) {
    for (auto words = 3 + random.below(8); words > 0; --words) {
      for (auto parts = 1 + random.below(3); parts > 0; --parts) text += syllables[random.below(10)];
      text += words == 1 ? ".\n" : " ";
    }
  }
  return text;
}

/// A model of 400 pieces trained on some_text().
inline const std::filesystem::path& tokenizer_path() {
  static const TemporaryFolder folder;
  static const std::filesystem::path path = [] {
    const auto model = folder / "tokenizer.model";
    train_tokenizer({.inputs = {folder.write("text", some_text(1, 300))}, .output = model, .vocab_size = 400});
    return model;
  }();
  return path;
}
inline const Tokenizer& tokenizer() {
  static const Tokenizer model(tokenizer_path());
  return model;
}

inline std::string repaired(std::string_view bytes) {
  Utf8Stream stream;
  const std::string text = stream.push(bytes);
  return text + stream.finish();
}

}  // namespace photon::testing_support
