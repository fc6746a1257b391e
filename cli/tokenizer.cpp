// photon tokenizer: train, encode, decode.
#include "text/tokenizer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/arguments.h"
#include "cli/commands.h"

namespace photon {
namespace {

std::string read_stdin() { return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()}; }

struct Source {  // where the tokenizer comes from, and the text or ids
  std::string tokenizer, model, input;
  bool json = false;
  std::optional<Argument> input_option;

  void add_to(Command command, const char* input_help) {
    Command places = command.group("tokenizer", "Which tokenizer to use", 1, 1);
    places.option("-t,--tokenizer", tokenizer, "SentencePiece model file");
    places.option("-m,--model", model, "model folder that holds tokenizer.model");
    input_option = command.option("input", input, input_help);
    command.flag("--json", json, "print JSON");
  }
  Tokenizer open() const {
    return Tokenizer(model.empty() ? std::filesystem::path(tokenizer)
                                   : std::filesystem::path(model) / "tokenizer.model");
  }
  std::string text() const { return input_option->given() ? input : read_stdin(); }
};

void add_train(Command parent) {
  Command command = parent.subcommand("train", "Train a byte-fallback BPE on text files");
  auto options = std::make_shared<TokenizerTraining>();
  command.option("inputs", options->inputs, "UTF-8 text files; documents end with a line <|endoftext|>").required();
  command.option("-o,--output", options->output, "model file to write").required();
  command.option("--vocab-size", options->vocab_size, "number of pieces");
  command.option("--max-sentences", options->max_sentences, "lines to train on, sampled if there are more");
  command.option("--seed", options->seed, "seed of that sample");
  command.footer("Example: photon tokenizer train stories.txt -o tokenizer.model --vocab-size 4096");
  command.runs([options] { train_tokenizer(*options); });
}

void add_encode(Command parent) {
  Command command = parent.subcommand("encode", "Text to token ids (no bos or eos is added)");
  auto source = std::make_shared<Source>();
  source->add_to(command, "text; standard input if absent");
  command.footer("Example: photon tokenizer encode -t tokenizer.model \"Once upon a time\"");
  command.runs([source] {
    const auto ids = source->open().encode(source->text());
    if (source->json) {
      std::cout << nlohmann::json{{"tokens", ids}, {"n_tokens", ids.size()}}.dump() << '\n';
    } else {
      std::cout << fmt::format("{}\n", fmt::join(ids, ","));
    }
  });
}

void add_decode(Command parent) {
  Command command = parent.subcommand("decode", "Token ids to text");
  auto source = std::make_shared<Source>();
  source->add_to(command, "ids as 1,2,3; standard input if absent");
  command.footer("Example: photon tokenizer decode -t tokenizer.model 403,407,261");
  command.runs([source] {
    const std::string text = source->open().decode(parse_token_ids(source->text()));
    std::cout << (source->json ? nlohmann::json{{"text", text}}.dump() : text) << '\n';
  });
}

}  // namespace

void add_tokenizer(Command app) {
  Command command = app.subcommand("tokenizer", "SentencePiece tokenizers: train, encode, decode");
  command.needs_subcommand();
  command.footer("Example: photon tokenizer encode -t tokenizer.model \"Once upon a time\"");
  add_train(command);
  add_encode(command);
  add_decode(command);
}

}  // namespace photon
