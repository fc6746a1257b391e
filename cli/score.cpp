// photon score: teacher-forced log-probabilities of a token sequence, the loss on a text, or what a model predicts
// beside a reference.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "engine/compare.h"
#include "text/documents.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct ScoreArguments {
  EngineArguments engine;
  std::string tokens, file, compare;
  CLI::Option* tokens_option = nullptr;
  std::int64_t window = 0;
  bool json = false;

  bool from_tokens() const { return tokens_option->count() > 0; }
};

std::vector<std::int32_t> given_tokens(const ScoreArguments& arguments) {
  try {
    return parse_token_ids(arguments.tokens);
  } catch (const InputError& e) {
    throw InputError(fmt::format("--tokens: {}", e.what()));
  }
}

// The documents of a text file, each [bos, tokens …], or windows of that many tokens of them, each begun with bos.
struct Text {
  std::size_t n_bytes = 0, n_tokens = 0;  // without the bos
  std::vector<std::vector<std::int32_t>> pieces;
};

Text read_pieces(const ScoreArguments& arguments, const Engine& engine) {
  const MappedFile file(arguments.file);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(engine.model());
  if (!tokenizer)
    throw InputError(fmt::format("{}: has no tokenizer.model, so --file cannot be encoded; use --tokens 1,2,3",
                                 arguments.engine.model));
  Text text;
  for (const std::string_view document : documents(file)) {
    const std::vector<std::int32_t> tokens = tokenizer->encode(document);
    text.n_bytes += document.size(), text.n_tokens += tokens.size();
    const std::size_t window = arguments.window > 0 ? static_cast<std::size_t>(arguments.window) : tokens.size();
    for (std::size_t first = 0; first < tokens.size(); first += window) {
      const auto part = std::span(tokens).subspan(first, std::min(window, tokens.size() - first));
      auto& piece = text.pieces.emplace_back(1, static_cast<std::int32_t>(engine.spec().bos_token_id));
      piece.insert(piece.end(), part.begin(), part.end());
    }
  }
  if (text.n_tokens == 0) throw InputError(fmt::format("{}: holds no text to score", arguments.file));
  return text;
}

void score_tokens(const ScoreArguments& arguments) {
  const std::vector<std::int32_t> tokens = given_tokens(arguments);
  Engine engine = arguments.engine.open();
  const Score score = engine.score(tokens);
  if (arguments.json) {
    std::cout << ordered_json{{"logprobs", score.logprobs}, {"argmax", score.argmax}}.dump() << std::endl;
    return;
  }
  fmt::print("{:>8}{:>12}{:>8}\n", "token", "logprob", "argmax");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    fmt::print("{:>8}{:>12.5f}{:>8}\n", tokens[i], score.logprobs[i], score.argmax[i]);
}

void score_text(const ScoreArguments& arguments) {
  Engine engine = arguments.engine.open();
  const Text text = read_pieces(arguments, engine);
  double nats = 0;
  for (const auto& piece : text.pieces) {
    const Score score = engine.score(piece);
    for (std::size_t i = 1; i < score.logprobs.size(); ++i) nats -= static_cast<double>(score.logprobs[i]);
  }
  const double nats_per_token = nats / static_cast<double>(text.n_tokens);
  const double bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(text.n_bytes);
  if (arguments.json)
    std::cout << ordered_json{{"tokens", text.n_tokens},
                              {"bytes", text.n_bytes},
                              {"nats_per_token", nats_per_token},
                              {"bits_per_byte", bits_per_byte}}
                     .dump()
              << std::endl;
  else
    fmt::print("{:.4f} nats/token, {:.4f} bits/byte ({} tokens, {} bytes)\n", nats_per_token, bits_per_byte,
               text.n_tokens, text.n_bytes);
}

// The same ids must mean the same text.
void require_same_tokenizer(const Model& reference, const Model& model) {
  if (reference.tokenizer && model.tokenizer && sha256_file(*reference.tokenizer) != sha256_file(*model.tokenizer))
    throw InputError(fmt::format("{} and {} differ: the models do not speak of the same tokens",
                                 reference.tokenizer->string(), model.tokenizer->string()));
}

void score_beside(const ScoreArguments& arguments) {
  const std::vector<std::int32_t> tokens =
      arguments.from_tokens() ? given_tokens(arguments) : std::vector<std::int32_t>();
  EngineArguments as_stored = arguments.engine;
  as_stored.dtype.clear(), as_stored.kv_dtype.clear();
  const Engine reference = as_stored.open(arguments.compare), model = arguments.engine.open();
  require_same_tokenizer(reference.model(), model.model());
  Comparer comparer(reference, model);
  if (arguments.from_tokens()) {
    comparer.add(tokens);
  } else {
    for (const auto& piece : read_pieces(arguments, model).pieces) comparer.add(piece, /*n_given=*/1);
  }
  const Comparison c = comparer.result();
  if (c.n_tokens == 0) throw InputError("--tokens: there is nothing to compare on");
  const double difference = c.model_nats - c.reference_nats;
  if (arguments.json) {
    std::cout << ordered_json{{"model", arguments.engine.model},
                              {"reference", arguments.compare},
                              {"tokens", c.n_tokens},
                              {"kl", c.kl},
                              {"kl_standard_error", c.kl_standard_error},
                              {"kl_max", c.kl_max},
                              {"top1_agreement", c.top1_agreement},
                              {"nats_per_token", c.model_nats},
                              {"reference_nats_per_token", c.reference_nats},
                              {"nats_per_token_difference", difference},
                              {"nats_per_token_difference_standard_error", c.difference_standard_error}}
                     .dump()
              << std::endl;
    return;
  }
  fmt::print("KL(reference || model)  {:.6f} ± {:.6f} nats/token, at most {:.4f}\n", c.kl, c.kl_standard_error,
             c.kl_max);
  fmt::print("top-1 agreement         {:.2f} %\n", 100 * c.top1_agreement);
  fmt::print("loss, nats/token        {:.5f}, reference {:.5f}: {:+.5f} ± {:.5f}\n", c.model_nats, c.reference_nats,
             difference, c.difference_standard_error);
  fmt::print("tokens                  {}\n", c.n_tokens);
}

}  // namespace

void add_score(CLI::App& app) {
  auto arguments = std::make_shared<ScoreArguments>();
  CLI::App* command = app.add_subcommand("score", "Log-probabilities of a token sequence, or the loss on a text");
  arguments->engine.add_to(*command);
  auto* source = command->add_option_group("input", "What to score");
  arguments->tokens_option = source->add_option("--tokens", arguments->tokens,
                                                "Token ids 1,2,3: one entry each, the first given the empty context");
  source->add_option("--file", arguments->file,
                     "UTF-8 text: mean nats per token and bits per byte; documents may end with a line <|endoftext|>");
  source->require_option(1);
  command
      ->add_option("--window", arguments->window, "Cut documents into windows of this many tokens; 0: whole documents")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--compare", arguments->compare,
                      "Model folder to take as the reference, as it is stored: print how far -m is from it, by KL "
                      "divergence, top-1 agreement and loss (default: none)");
  command->add_flag("--json", arguments->json, "Print one JSON object (default: off)");
  command->footer(
      "Example: photon score -m models/photon-stories --tokens 1,2,3 --json\n"
      "What int4 costs: photon score -m models/photon-stories --dtype int4 --compare models/photon-stories --tokens "
      "1,2,3");
  command->callback([arguments] {
    if (!arguments->compare.empty())
      score_beside(*arguments);
    else if (arguments->from_tokens())
      score_tokens(*arguments);
    else
      score_text(*arguments);
  });
}

}  // namespace photon
