#include "cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "kernels/kernels.h"
#include "text/documents.h"

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

std::string in_flags(const FieldError& error) {
  static const std::map<std::string, std::string> flags{{"n_tokens", "-n"},
                                                        {"n_continuations", "--n"},
                                                        {"kv_budget_bytes", "the KV budget in bytes"},
                                                        {"max_context", "--n-ctx"},
                                                        {"prefill_tokens_per_step", "--prefill-tokens"}};
  const auto known = flags.find(error.field);
  std::string flag = "--" + error.field;
  std::ranges::replace(flag, '_', '-');
  return fmt::format("{} {}", known != flags.end() ? known->second : flag, error.problem);
}

Argument EngineArguments::add_to(Command command) {
  constexpr std::int64_t most_threads = 4096;
  Argument folder = command.option("-m,--model", model, "Model folder").required();
  command.option("--dtype", dtype, "Weights in memory: f32, bf16, int8 or int4 (default: as stored)");
  command.option("--kv-dtype", kv_dtype, "KV caches: f32, bf16 or int8 (default: f32 for f32 weights, else bf16)");
  command.option("--threads", threads, "Threads (default: the CPUs that this process may use)")
      .range(1, most_threads)
      .no_default();
  return folder;
}

Engine EngineArguments::open(const std::string& folder) const {
  if (threads > 0) set_threads(threads);
  Precision precision;
  if (!dtype.empty()) precision.weights = parse_dtype(dtype);
  if (!kv_dtype.empty()) precision.kv = parse_kv_dtype(kv_dtype);
  return Engine(folder, precision);
}

void TextArguments::add_to(Command command, const std::string& use, bool optional) {
  Command source = command.group("input", "What to " + use, optional ? 0 : 1, 1);
  tokens_option_ = source.option("--tokens", tokens,
                                 "Token ids 1,2,3, taken literally: the first is predicted from the empty context");
  source.option("--file", file,
                "UTF-8 text, each document begun with bos; documents may end with a line <|endoftext|>");
  command.option("--window", window, "Cut documents into windows of this many tokens; 0: whole documents")
      .range(0, std::int64_t{1} << 40);
  command.option("--limit", limit, "Only the first documents or windows; 0: all").range(0, std::int64_t{1} << 40);
}

bool TextArguments::from_tokens() const { return tokens_option_->given(); }

std::vector<std::int32_t> TextArguments::token_ids() const {
  try {
    return parse_token_ids(tokens);
  } catch (const InputError& e) {
    throw InputError(fmt::format("--tokens: {}", e.what()));
  }
}

Text TextArguments::read(const Model& model) const {
  const MappedFile mapped(file);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(model);
  if (!tokenizer)
    throw InputError(
        fmt::format("{}: cannot be encoded, the model folder has no tokenizer.model; use --tokens 1,2,3", file));
  Text text;
  const auto full = [&] { return limit > 0 && std::ssize(text.pieces) == limit; };
  for (const std::string_view document : documents(mapped)) {
    if (full()) break;
    const std::vector<std::int32_t> ids = tokenizer->encode(document);
    const std::size_t length = window > 0 ? static_cast<std::size_t>(window) : ids.size();
    std::size_t end = 0;
    while (end < ids.size() && !full()) {
      const auto part = std::span(ids).subspan(end, std::min(length, ids.size() - end));
      auto& piece = text.pieces.emplace_back(1, static_cast<std::int32_t>(model.spec.bos_token_id));
      piece.insert(piece.end(), part.begin(), part.end());
      end += part.size();
    }
    text.n_tokens += end;
    text.n_bytes += end == ids.size() ? document.size() : tokenizer->decode(std::span(ids).first(end)).size();
  }
  if (text.n_tokens == 0) throw InputError(fmt::format("{}: holds no text", file));
  return text;
}

Tokenizer EngineArguments::tokenizer(const Model& opened) const {
  std::optional<Tokenizer> tokenizer = tokenizer_of(opened);
  if (!tokenizer) throw InputError(fmt::format("{}: has no tokenizer.model, so texts cannot be encoded", model));
  return std::move(*tokenizer);
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
