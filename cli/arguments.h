// Arguments that several subcommands take, each parsed in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/command_line.h"
#include "engine/generate.h"
#include "text/tokenizer.h"

namespace photon {

/// "1,2 3\n" to ids: separators are commas and white space.  @throws InputError naming the first word that is none.
std::vector<std::int32_t> parse_token_ids(std::string_view text);
/// Empty, or why a text is no 64-bit seed: larger numbers would saturate.
std::string seed_problem(const std::string& text);

/// The error in a user's words: the flag in place of the field.
std::string in_flags(const FieldError& error);

/// -m, --dtype, --kv-dtype and --threads.
struct EngineArguments {
  std::string model, dtype, kv_dtype;
  std::int64_t threads = 0;  // 0: usable_cpus()

  Argument add_to(Command command);  ///< that of --model
  Engine open(const std::string& folder) const;
  Engine open() const { return open(model); }
  /// That of the opened model.  @throws InputError if it has none.
  Tokenizer tokenizer(const Model& opened) const;
};

/// Documents of a text file as tokens, each [bos, tokens …].
struct Text {
  std::size_t n_bytes = 0, n_tokens = 0;  // without the bos
  std::vector<std::vector<std::int32_t>> pieces;
};

/// --tokens, --file, --window and --limit: what a model is shown.
struct TextArguments {
  std::string tokens, file;
  std::int64_t window = 0, limit = 0;  // 0: none

  /// @param use  "score": what is done with it, for the help.
  /// @param optional  neither has to be given
  void add_to(Command command, const std::string& use, bool optional = false);
  bool from_tokens() const;
  bool from_file() const { return !file.empty(); }
  std::vector<std::int32_t> token_ids() const;  ///< of --tokens.  @throws InputError naming the first word that is none
  /// The documents of --file, or windows of them, each begun with bos; the first --limit of them.
  /// @throws InputError if the file holds no text, or the model no tokenizer.
  Text read(const Model& model) const;

 private:
  std::optional<Argument> tokens_option_;
};

/// The tokenizer of a model folder, where it has one.  @throws InputError if it belongs to another vocabulary.
std::optional<Tokenizer> tokenizer_of(const Model& model);

}  // namespace photon
