#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>

#include "base/error.h"
#include "kernels/kernels.h"

namespace photon {

std::vector<std::int32_t> parse_token_ids(std::string_view text) {
  constexpr std::string_view separators = ", \t\r\n";
  std::vector<std::int32_t> ids;
  for (auto begin = text.find_first_not_of(separators); begin != std::string_view::npos;
       begin = text.find_first_not_of(separators)) {
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(separators));
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size())
      throw InputError(fmt::format("'{}' is no token id; give ids as 1,2,3", word));
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
  return ids;
}

std::string seed_problem(const std::string& text) {
  std::uint64_t seed = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, seed);
  return error == std::errc() && end == last ? "" : fmt::format("'{}' is no integer from 0 to 2^64 - 1", text);
}

void EngineArguments::add_to(CLI::App& command) {
  constexpr std::int64_t most_threads = 4096;
  command.add_option("-m,--model", model, "Model folder")->required();
  command.add_option("--dtype", dtype, "Weights in memory: f32, bf16, int8 or int4 (default: as stored)");
  command.add_option("--kv-dtype", kv_dtype, "KV caches: f32, bf16 or int8 (default: f32 for f32 weights, else bf16)");
  command.add_option("--threads", threads, "Threads (default: the CPUs that this process may use)")
      ->check(CLI::Range(std::int64_t{1}, most_threads));
}

Engine EngineArguments::open(const std::string& folder) const {
  if (threads > 0) set_threads(threads);
  Precision precision;
  if (!dtype.empty()) precision.weights = parse_weight_type(dtype);
  if (!kv_dtype.empty()) precision.kv = parse_kv_type(kv_dtype);
  return Engine(folder, precision);
}

std::optional<Tokenizer> tokenizer_of(const Model& model) {
  if (!model.tokenizer) return std::nullopt;
  Tokenizer tokenizer(*model.tokenizer);
  if (tokenizer.vocab_size() != model.spec.vocab_size)
    throw InputError(fmt::format("{}: has {} pieces, config.json says vocab_size {}; is it another model's tokenizer?",
                                 model.tokenizer->string(), tokenizer.vocab_size(), model.spec.vocab_size));
  return tokenizer;
}

}  // namespace photon
