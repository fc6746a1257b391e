// photon score: teacher-forced log-probabilities of a token sequence, or the loss on a text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "engine/generate.h"

namespace photon {
namespace {

struct ScoreArguments {
  EngineArguments engine;
  std::string tokens, file;
  CLI::Option* tokens_option = nullptr;
  std::int64_t window = 0;
  bool json = false;
};

void score_tokens(const ScoreArguments& arguments) {
  std::vector<std::int32_t> tokens;
  try {
    tokens = parse_token_ids(arguments.tokens);
  } catch (const InputError& e) {
    throw InputError(fmt::format("--tokens: {}", e.what()));
  }
  Engine engine = arguments.engine.open();
  const Score score = engine.score(tokens);
  if (arguments.json) {
    std::cout << nlohmann::ordered_json{{"logprobs", score.logprobs}, {"argmax", score.argmax}}.dump() << std::endl;
    return;
  }
  fmt::print("{:>8}{:>12}{:>8}\n", "token", "logprob", "argmax");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    fmt::print("{:>8}{:>12.5f}{:>8}\n", tokens[i], score.logprobs[i], score.argmax[i]);
}

// A text as one document [bos, tokens …], or as windows of that many tokens, each begun with bos.
void score_text(const ScoreArguments& arguments) {
  const std::string text = read_text(arguments.file);
  Engine engine = arguments.engine.open();
  const std::optional<Tokenizer> tokenizer = tokenizer_of(engine.model());
  if (!tokenizer)
    throw InputError(fmt::format("{}: has no tokenizer.model, so --file cannot be encoded; use --tokens 1,2,3",
                                 arguments.engine.model));
  const std::vector<std::int32_t> tokens = tokenizer->encode(text);
  if (tokens.empty()) throw InputError(fmt::format("{}: holds no text to score", arguments.file));
  const std::size_t window = arguments.window > 0 ? static_cast<std::size_t>(arguments.window) : tokens.size();
  double nats = 0;
  std::vector<std::int32_t> document;
  for (std::size_t first = 0; first < tokens.size(); first += window) {
    const auto part = std::span(tokens).subspan(first, std::min(window, tokens.size() - first));
    document.assign(1, static_cast<std::int32_t>(engine.spec().bos_token_id));
    document.insert(document.end(), part.begin(), part.end());
    const Score score = engine.score(document);
    for (std::size_t i = 1; i < score.logprobs.size(); ++i) nats -= static_cast<double>(score.logprobs[i]);
  }
  const double nats_per_token = nats / static_cast<double>(tokens.size());
  const double bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(text.size());
  if (arguments.json)
    std::cout << nlohmann::ordered_json{{"tokens", tokens.size()},
                                        {"bytes", text.size()},
                                        {"nats_per_token", nats_per_token},
                                        {"bits_per_byte", bits_per_byte}}
                     .dump()
              << std::endl;
  else
    fmt::print("{:.4f} nats/token, {:.4f} bits/byte ({} tokens, {} bytes)\n", nats_per_token, bits_per_byte,
               tokens.size(), text.size());
}

}  // namespace

void add_score(CLI::App& app) {
  auto arguments = std::make_shared<ScoreArguments>();
  CLI::App* command = app.add_subcommand("score", "Log-probabilities of a token sequence, or the loss on a text");
  arguments->engine.add_to(*command);
  auto* source = command->add_option_group("input", "What to score");
  arguments->tokens_option = source->add_option("--tokens", arguments->tokens,
                                                "Token ids 1,2,3: one entry each, the first given the empty context");
  source->add_option("--file", arguments->file, "UTF-8 text: mean nats per token and bits per byte");
  source->require_option(1);
  command->add_option("--window", arguments->window, "Cut --file into windows of this many tokens; 0: one document")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object (default: off)");
  command->footer("Example: photon score -m models/stories --tokens 1,2,3 --json");
  command->callback([arguments] {
    if (arguments->tokens_option->count() > 0)
      score_tokens(*arguments);
    else
      score_text(*arguments);
  });
}

}  // namespace photon
