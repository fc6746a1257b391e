// photon score: teacher-forced log-probabilities of a token sequence, the loss on a text, or what a model predicts
// beside a reference.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "eval/compare.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct ScoreArguments {
  EngineArguments engine;
  TextArguments input;
  std::string protocol = "hiergen", compare;
  bool by_context = false, json = false;
  std::int64_t slots = 0;
};

// Mean losses by position within a document or window: bos is position 0 and not counted.
class LossByPosition {
 public:
  void add(std::int64_t position, double nats) {
    if (position >= std::ssize(at_)) at_.resize(static_cast<std::size_t>(position) + 1);
    at_[static_cast<std::size_t>(position)].add(nats);
  }
  // Positions 1, 2 to 3, 4 to 7 …: `tokens` tell how much each mean is worth.
  ordered_json by_context() const {
    ordered_json bins = ordered_json::array();
    for (std::int64_t from = 1; from < std::ssize(at_); from *= 2) {
      const std::int64_t to = std::min(2 * from, std::ssize(at_));
      Sum sum;
      for (std::int64_t p = from; p < to; ++p) sum.add(at_[static_cast<std::size_t>(p)]);
      bins.push_back({{"from", from}, {"to", to - 1}, {"tokens", sum.n}, {"nats", sum.mean()}});
    }
    return bins;
  }
  ordered_json by_slot(std::int64_t n_slots) const {
    ordered_json slots = ordered_json::array();
    for (std::int64_t slot = 0; slot < n_slots; ++slot) {
      Sum sum;
      for (std::int64_t p = slot; p < std::ssize(at_); p += n_slots) sum.add(at_[static_cast<std::size_t>(p)]);
      slots.push_back({{"slot", slot}, {"tokens", sum.n}, {"nats", sum.n > 0 ? ordered_json(sum.mean()) : nullptr}});
    }
    return slots;
  }

 private:
  struct Sum {
    double nats = 0;
    std::int64_t n = 0;
    void add(double x) { nats += x, ++n; }
    void add(const Sum& other) { nats += other.nats, n += other.n; }
    double mean() const { return nats / static_cast<double>(n); }
  };
  std::vector<Sum> at_;
};

void score_tokens(const ScoreArguments& arguments) {
  const Protocol protocol = parse_protocol(arguments.protocol);
  const std::vector<std::int32_t> tokens = arguments.input.token_ids();
  Engine engine = arguments.engine.open();
  const Score score = engine.score(tokens, protocol);
  if (arguments.json) {
    std::cout << ordered_json{{"logprobs", score.logprobs}, {"argmax", score.argmax}}.dump() << std::endl;
    return;
  }
  fmt::print("{:>8}{:>12}{:>8}\n", "token", "logprob", "argmax");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    fmt::print("{:>8}{:>12.5f}{:>8}\n", tokens[i], score.logprobs[i], score.argmax[i]);
}

void score_text(const ScoreArguments& arguments) {
  constexpr std::size_t batch = 64;  // pieces at a time: they share each pass through the weights
  const Protocol protocol = parse_protocol(arguments.protocol);
  Engine engine = arguments.engine.open();
  const Text text = arguments.input.read(engine.model());
  const std::vector<std::span<const std::int32_t>> pieces(text.pieces.begin(), text.pieces.end());
  double nats = 0;
  LossByPosition by_position;
  for (std::size_t first = 0; first < pieces.size(); first += batch)
    for (const Score& score :
         engine.score(std::span(pieces).subspan(first, std::min(batch, pieces.size() - first)), protocol))
      for (std::size_t i = 1; i < score.logprobs.size(); ++i) {
        nats -= static_cast<double>(score.logprobs[i]);
        by_position.add(static_cast<std::int64_t>(i), -static_cast<double>(score.logprobs[i]));
      }
  const double nats_per_token = nats / static_cast<double>(text.n_tokens);
  const double bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(text.n_bytes);
  const ordered_json bins = arguments.by_context ? by_position.by_context() : ordered_json(),
                     slots = arguments.slots > 0 ? by_position.by_slot(arguments.slots) : ordered_json();
  if (arguments.json) {
    ordered_json json{{"protocol", to_string(protocol)},
                      {"tokens", text.n_tokens},
                      {"bytes", text.n_bytes},
                      {"nats_per_token", nats_per_token},
                      {"bits_per_byte", bits_per_byte}};
    if (!bins.is_null()) json["by_context"] = bins;
    if (!slots.is_null()) json["by_slot"] = slots;
    std::cout << json.dump() << std::endl;
    return;
  }
  fmt::print("{:.4f} nats/token, {:.4f} bits/byte ({} tokens, {} bytes)\n", nats_per_token, bits_per_byte,
             text.n_tokens, text.n_bytes);
  for (const auto& bin : bins)
    fmt::print("positions {:>8} to {:>8}  {:.4f} nats/token ({} tokens)\n", bin["from"].get<std::int64_t>(),
               bin["to"].get<std::int64_t>(), bin["nats"].get<double>(), bin["tokens"].get<std::int64_t>());
  for (const auto& slot : slots)
    if (!slot["nats"].is_null())
      fmt::print("slot {:>4}  {:.4f} nats/token ({} tokens)\n", slot["slot"].get<std::int64_t>(),
                 slot["nats"].get<double>(), slot["tokens"].get<std::int64_t>());
}

// The same ids must mean the same text.
void require_same_tokenizer(const Model& reference, const Model& model) {
  if (reference.tokenizer && model.tokenizer && sha256_file(*reference.tokenizer) != sha256_file(*model.tokenizer))
    throw InputError(fmt::format("{} and {} differ: the models do not speak of the same tokens",
                                 reference.tokenizer->string(), model.tokenizer->string()));
}

void score_beside(const ScoreArguments& arguments) {
  if (parse_protocol(arguments.protocol) != Protocol::hiergen)
    throw InputError("--compare is about models, under hiergen; what recgen changes is what photon agree measures");
  const TextArguments& input = arguments.input;
  const std::vector<std::int32_t> tokens = input.from_tokens() ? input.token_ids() : std::vector<std::int32_t>();
  EngineArguments as_stored = arguments.engine;
  as_stored.dtype.clear(), as_stored.kv_dtype.clear();
  Engine reference = as_stored.open(arguments.compare), model = arguments.engine.open();
  require_same_tokenizer(reference.model(), model.model());
  Comparer comparer(reference.runner(), model.runner());
  if (input.from_tokens()) {
    comparer.add(tokens);
  } else {
    for (const auto& piece : input.read(model.model()).pieces) comparer.add(piece, /*n_given=*/1);
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

void add_score(Command app) {
  auto arguments = std::make_shared<ScoreArguments>();
  Command command = app.subcommand("score", "Log-probabilities of a token sequence, or the loss on a text");
  arguments->engine.add_to(command);
  arguments->input.add_to(command, "score");
  command
      .option("--protocol", arguments->protocol,
              "hiergen: the teacher-forced forward pass; recgen: its own states, from the text's first token on")
      .one_of({"hiergen", "recgen"});
  command.option("--compare", arguments->compare,
                 "Model folder to take as the reference, as it is stored: print how far -m is from it, by KL "
                 "divergence, top-1 agreement and loss (default: none)");
  command.flag("--by-context", arguments->by_context,
               "Also the loss by position in a document or window of --file, in powers of two (default: off)");
  command
      .option("--slots", arguments->slots,
              "Also the loss by position modulo this, as the model's top-level chunk lays it out; 0: not")
      .range(0, 65536);
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  command.footer(
      "Example: photon score -m models/photon-stories --tokens 1,2,3 --json\n"
      "What int4 costs: photon score -m models/photon-stories --dtype int4 --compare models/photon-stories --tokens "
      "1,2,3");
  command.runs([arguments] {
    if ((arguments->by_context || arguments->slots > 0) &&
        (!arguments->compare.empty() || !arguments->input.from_file()))
      throw InputError("--by-context and --slots tell the loss on a text: they need --file, and no --compare");
    if (!arguments->compare.empty())
      score_beside(*arguments);
    else if (arguments->input.from_tokens())
      score_tokens(*arguments);
    else
      score_text(*arguments);
  });
}

}  // namespace photon
