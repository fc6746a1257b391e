// Arguments that several subcommands take, each parsed in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generate.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace photon {

/// "1,2 3\n" to ids: separators are commas and white space.  @throws InputError naming the first word that is none.
std::vector<std::int32_t> parse_token_ids(std::string_view text);
/// Empty, or why a text is no 64-bit seed.  CLI11 itself lets larger numbers saturate.
std::string seed_problem(const std::string& text);

/// -m, --dtype, --kv-dtype and --threads.
struct EngineArguments {
  std::string model, dtype, kv_dtype;
  std::int64_t threads = 0;  // 0: usable_cpus()

  void add_to(CLI::App& command);
  Engine open(const std::string& folder) const;
  Engine open() const { return open(model); }
};

/// The tokenizer of a model folder, where it has one.  @throws InputError if it belongs to another vocabulary.
std::optional<Tokenizer> tokenizer_of(const Model& model);

}  // namespace photon
