// photon agree: how far each protocol is from the teacher-forced forward pass on a text.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "eval/agreement.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct AgreeArguments {
  EngineArguments engine;
  TextArguments input;
  std::int64_t greedy = 0, prompt_tokens = 64;
  bool json = false;
};

struct Report {
  std::string model, dtype, kv_dtype;
  std::int64_t n_texts = 0;
  std::vector<ProtocolAgreement> protocols;
  std::optional<GreedyAgreement> greedy;
};

double median(std::vector<std::int64_t> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? static_cast<double>(values[half])
                                : 0.5 * static_cast<double>(values[half - 1] + values[half]);
}

double mean(const std::vector<std::int64_t>& values) {
  Mean mean;
  for (const std::int64_t value : values) mean.add(static_cast<double>(value));
  return mean.value();
}

Report measure(const AgreeArguments& arguments) {
  std::vector<std::vector<std::int32_t>> texts;
  if (arguments.input.from_tokens()) texts.push_back(arguments.input.token_ids());
  Engine engine = arguments.engine.open();
  const Model& model = engine.model();
  if (arguments.greedy > 0) check_protocol(model.spec, Protocol::recgen);
  if (!arguments.input.from_tokens()) texts = arguments.input.read(model).pieces;

  Report report{.model = arguments.engine.model,
                .dtype = std::string(to_string(model.dtype)),
                .kv_dtype = std::string(to_string(model.kv)),
                .n_texts = std::ssize(texts),
                .protocols = {},
                .greedy = {}};
  const std::int64_t n_given = arguments.input.from_tokens() ? 0 : 1;  // bos
  Agreement agreement(engine.runner());
  agreement.add(texts, n_given);
  report.protocols = agreement.result();
  if (report.protocols.front().tokens.n_tokens == 0) throw InputError("--tokens: there is nothing to compare on");
  if (arguments.greedy > 0) {
    const auto n = static_cast<std::size_t>(arguments.prompt_tokens);
    std::erase_if(texts, [n](const auto& text) { return text.size() <= n; });
    for (auto& prompt : texts) prompt.resize(n);
    if (texts.empty())
      throw InputError(fmt::format("no text is longer than the {} tokens of --prompt-tokens", arguments.prompt_tokens));
    report.greedy = greedy_agreement(engine, texts, arguments.greedy);
  }
  return report;
}

// Null where nothing was measured.
ordered_json value(const Mean& mean) { return mean.n() > 0 ? ordered_json(mean.value()) : ordered_json(); }
ordered_json standard_error(const Mean& mean) {
  return mean.n() > 1 ? ordered_json(mean.standard_error()) : ordered_json();
}
ordered_json slots(const UnitCosine& cosine) {
  ordered_json values = ordered_json::array();
  for (const Mean& slot : cosine.by_slot) values.push_back(value(slot));
  return values;
}
std::string text(const Mean& mean) { return mean.n() > 0 ? fmt::format("{:.4f}", mean.value()) : "-"; }
std::string text_with_error(const Mean& mean) {
  return mean.n() > 1 ? fmt::format("{:.4f} ± {:.4f}", mean.value(), mean.standard_error()) : text(mean);
}

ordered_json to_json(const Report& report) {
  ordered_json protocols;
  for (const ProtocolAgreement& p : report.protocols) {
    const Comparison& c = p.tokens;
    ordered_json units = ordered_json::array();
    for (const UnitCosine& cosine : p.units)
      units.push_back({{"level", cosine.level},
                       {"n", cosine.all.n()},
                       {"cosine", value(cosine.all)},
                       {"cosine_standard_error", standard_error(cosine.all)},
                       {"cosine_by_slot", slots(cosine)}});
    protocols[std::string(to_string(p.protocol))] = {
        {"kl", c.kl},
        {"kl_standard_error", c.kl_standard_error},
        {"kl_max", c.kl_max},
        {"top1_agreement", c.top1_agreement},
        {"logit_difference_max", c.logit_difference_max},
        {"nats_per_token", c.model_nats},
        {"nats_per_token_difference", c.model_nats - c.reference_nats},
        {"nats_per_token_difference_standard_error", c.difference_standard_error},
        {"units", units}};
  }
  const Comparison& first = report.protocols.front().tokens;
  ordered_json json{{"model", report.model},       {"dtype", report.dtype},
                    {"kv_dtype", report.kv_dtype}, {"texts", report.n_texts},
                    {"tokens", first.n_tokens},    {"forward_nats_per_token", first.reference_nats},
                    {"protocols", protocols}};
  if (const auto& g = report.greedy)
    json["greedy"] = {{"prompts", g->n_prompts},
                      {"tokens", g->n_tokens},
                      {"equal", g->equal.value()},
                      {"first_difference_mean", mean(g->first_difference)},
                      {"first_difference_median", median(g->first_difference)}};
  return json;
}

void print(const Report& report) {
  const Comparison& first = report.protocols.front().tokens;
  fmt::print("{}, {} weights, {} KV: {} tokens of {} text{}, beside the teacher-forced forward pass\n\n", report.model,
             report.dtype, report.kv_dtype, first.n_tokens, report.n_texts, report.n_texts == 1 ? "" : "s");
  const auto row = [&](const std::string& name, const auto& cell) {
    fmt::print("{:<28}", name);
    for (const ProtocolAgreement& p : report.protocols) fmt::print("{:>24}", cell(p));
    fmt::print("\n");
  };
  row("", [](const ProtocolAgreement& p) { return std::string(to_string(p.protocol)); });
  row("KL(forward || it), nats", [](const ProtocolAgreement& p) {
    return fmt::format("{:.6f} ± {:.6f}", p.tokens.kl, p.tokens.kl_standard_error);
  });
  row("  at most", [](const ProtocolAgreement& p) { return fmt::format("{:.4g}", p.tokens.kl_max); });
  row("top-1 agreement",
      [](const ProtocolAgreement& p) { return fmt::format("{:.2f} %", 100 * p.tokens.top1_agreement); });
  row("max |Δlogit|", [](const ProtocolAgreement& p) { return fmt::format("{:.4g}", p.tokens.logit_difference_max); });
  row("loss, nats/token", [](const ProtocolAgreement& p) { return fmt::format("{:.5f}", p.tokens.model_nats); });
  row(fmt::format("  forward {:.5f}:", first.reference_nats), [](const ProtocolAgreement& p) {
    return fmt::format("{:+.5f} ± {:.5f}", p.tokens.model_nats - p.tokens.reference_nats,
                       p.tokens.difference_standard_error);
  });
  for (std::size_t u = 0; u < report.protocols.front().units.size(); ++u) {
    const UnitCosine& units = report.protocols.front().units[u];
    row(fmt::format("cos(X, X^), level {} units", units.level),
        [u](const ProtocolAgreement& p) { return text_with_error(p.units[u].all); });
    for (std::size_t slot = 0; slot < units.by_slot.size(); ++slot)
      row(fmt::format("  slot {}", slot + 1),
          [u, slot](const ProtocolAgreement& p) { return text(p.units[u].by_slot[slot]); });
  }
  if (const auto& g = report.greedy)
    fmt::print(
        "\ngreedy, {} prompt{}, {} tokens each: {:.1f} % of recgen's are hiergen's; first difference after {:.1f} "
        "tokens (median {:g})\n",
        g->n_prompts, g->n_prompts == 1 ? "" : "s", g->n_tokens, 100 * g->equal.value(), mean(g->first_difference),
        median(g->first_difference));
}

}  // namespace

void add_agree(Command app) {
  auto arguments = std::make_shared<AgreeArguments>();
  Command command = app.subcommand("agree", "How far each protocol is from the forward pass on a text");
  arguments->engine.add_to(command);
  arguments->input.add_to(command, "decode, every token given");
  command
      .option("--greedy", arguments->greedy,
              "Also continue the beginning of each text greedily by this many tokens with both protocols, and "
              "count equal ones; 0: do not")
      .range(0, max_context);
  command
      .option("--prompt-tokens", arguments->prompt_tokens,
              "The beginning that --greedy continues, bos included; shorter texts are left out")
      .range(1, max_context);
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  command.footer(
      "Example: photon agree -m models/photon-stories --file my-text.txt --limit 40 --greedy 64\n"
      "hiergen computes the forward pass, recgen something else: the losses are the likelihoods that they give a "
      "text.");
  command.runs([arguments] {
    const Report report = measure(*arguments);
    arguments->json ? void(std::cout << to_json(report).dump() << std::endl) : print(report);
  });
}

}  // namespace photon
