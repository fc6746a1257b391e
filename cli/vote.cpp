// photon vote: what many sampled answers to a question give, by vote or by likelihood, and the KV cache they take.
#include "eval/vote.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/table.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/task_progress.h"
#include "eval/metrics.h"
#include "eval/results.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct VoteArguments {
  EngineArguments engine;
  std::vector<std::string> tasks;
  std::string data, protocol{to_string(Protocol::hiergen)}, seed = "0";
  std::int64_t limit = 100, max_length = 2048;
  double budget_mb = 0;
  VoteOptions options;
  bool json = false;
};

struct TaskVote {
  TaskData data;
  std::vector<std::vector<SampledAnswer>> samples;
  std::vector<double> kv_bytes_alone, kv_bytes_together, prompt_tokens;  // a document each
  double seconds = 0;
};

TaskVote run_task(Engine& engine, const Tokenizer& tokenizer, const VoteArguments& arguments, TaskData data,
                  ProgressLine& line) {
  TaskVote result{
      .data = std::move(data), .samples = {}, .kv_bytes_alone = {}, .kv_bytes_together = {}, .prompt_tokens = {}};
  const auto& documents = result.data.documents;
  const std::size_t n =
      arguments.limit > 0 ? std::min(documents.size(), static_cast<std::size_t>(arguments.limit)) : documents.size();
  const Model& model = engine.model();
  TaskProgress progress(line, result.data.task->name);
  for (std::size_t d = 0; d < n; ++d) {
    DocumentVote got = vote(engine, tokenizer, static_cast<std::int32_t>(model.spec.bos_token_id), *result.data.task,
                            documents[d], d, arguments.options, arguments.max_length);
    // What a sample with a cache of its own takes at its end, as the paper counts.
    result.kv_bytes_alone.push_back(static_cast<double>(
        kv_bytes_allocated(model.spec, arguments.options.protocol, got.n_prompt + got.n_tokens, model.kv)));
    result.kv_bytes_together.push_back(static_cast<double>(got.kv_bytes));
    result.prompt_tokens.push_back(static_cast<double>(got.n_prompt));
    result.seconds += got.seconds;
    result.samples.push_back(std::move(got.samples));
    progress(static_cast<std::int64_t>(d) + 1, static_cast<std::int64_t>(n));
  }
  line.finish();
  return result;
}

ordered_json number(const std::optional<double>& value) { return value ? ordered_json(*value) : ordered_json(); }

ordered_json to_json(const TaskVote& vote, const VoteArguments& arguments) {
  ordered_json points = ordered_json::array();
  const double alone = mean(vote.kv_bytes_alone);
  for (const VotePoint& p : vote_curve(vote.samples))
    points.push_back({{"n", p.n},
                      {"kv_bytes_alone", static_cast<double>(p.n) * alone},
                      {"majority", {{"value", p.majority}, {"standard_error", number(p.majority_standard_error)}}},
                      {"best", {{"value", p.best}, {"standard_error", number(p.best_standard_error)}}},
                      {"any", {{"value", p.any}, {"standard_error", number(p.any_standard_error)}}}});
  std::int64_t n_samples = 0, n_answers = 0;
  for (const auto& samples : vote.samples)
    for (const SampledAnswer& sample : samples) ++n_samples, n_answers += !sample.text.empty();
  ordered_json json{{"task", vote.data.task->name},
                    {"data", data_record(vote.data)},
                    {"documents", vote.samples.size()},
                    {"prompt_tokens_mean", mean(vote.prompt_tokens)},
                    {"samples", n_samples},
                    {"samples_with_an_answer", n_answers},
                    {"kv_bytes_a_sample_alone", alone},
                    {"kv_bytes_all_samples_sharing_the_prompt", mean(vote.kv_bytes_together)},
                    {"samples_per_s", static_cast<double>(n_samples) / vote.seconds},
                    {"points", points}};
  if (arguments.budget_mb > 0) json["samples_in_budget"] = static_cast<std::int64_t>(arguments.budget_mb * 1e6 / alone);
  return json;
}

void print(const ordered_json& task) {
  fmt::print(
      "{}: {} documents, {:.0f} tokens of prompt, {:.1f} samples/s; KV cache of a sample {:.3f} MB alone; of all, "
      "sharing the prompt, {:.3f} MB\n",
      task["task"].get<std::string>(), task["documents"].get<std::int64_t>(), task["prompt_tokens_mean"].get<double>(),
      task["samples_per_s"].get<double>(), task["kv_bytes_a_sample_alone"].get<double>() * 1e-6,
      task["kv_bytes_all_samples_sharing_the_prompt"].get<double>() * 1e-6);
  if (task.contains("samples_in_budget"))
    fmt::print("the budget holds {} samples\n", task["samples_in_budget"].get<std::int64_t>());
  std::vector<TextTable::Column> columns{{"samples"}, {"KV, MB"}, {"vote"}, {""}, {"likeliest"}, {""}, {"any"}, {""}};
  for (const auto& p : task["points"]) {
    std::vector<std::string> cells{std::to_string(p["n"].get<std::int64_t>()),
                                   fmt::format("{:.3f}", p["kv_bytes_alone"].get<double>() * 1e-6)};
    for (const char* way : {"majority", "best", "any"}) {
      const auto& error = p[way]["standard_error"];
      cells.push_back(fmt::format("{:.4f}", p[way]["value"].get<double>()));
      cells.push_back(error.is_null() ? "" : fmt::format("± {:.4f}", error.get<double>()));
    }
    for (std::size_t c = 0; c < columns.size(); ++c) columns[c].cells.push_back(cells[c]);
  }
  TextTable table;
  for (TextTable::Column& column : columns) table.add(std::move(column));
  fmt::print("{}\n", table.text());
}

void run_vote(VoteArguments arguments) {
  arguments.options.protocol = parse_protocol(arguments.protocol);
  arguments.options.sampler.seed = std::stoull(arguments.seed);
  check(arguments.options.sampler);
  std::vector<TaskData> tasks;
  for (const std::string& name : arguments.tasks) tasks.push_back(load_task(find_task(name), arguments.data, 0));
  Engine engine = arguments.engine.open();
  const Tokenizer tokenizer = arguments.engine.tokenizer(engine.model());
  const VoteOptions& options = arguments.options;
  ordered_json report{{"model", model_record(engine.model())},
                      {"protocol", to_string(options.protocol)},
                      {"samples", options.n_answers},
                      {"tokens", options.n_tokens},
                      {"temperature", options.sampler.temperature},
                      {"top_p", options.sampler.top_p},
                      {"seed", options.sampler.seed},
                      {"max_length", arguments.max_length},
                      {"tasks", ordered_json::array()}};
  ProgressLine line;
  for (TaskData& data : tasks) {
    report["tasks"].push_back(to_json(run_task(engine, tokenizer, arguments, std::move(data), line), arguments));
    if (!arguments.json) print(report["tasks"].back());
  }
  if (arguments.json) std::cout << report.dump() << std::endl;
}

}  // namespace

void add_vote(Command app) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  auto arguments = std::make_shared<VoteArguments>();
  VoteOptions& options = arguments->options;
  Command command = app.subcommand("vote", "Many sampled answers to a question: what a vote among them gives");
  arguments->engine.add_to(command);
  command.option("--data", arguments->data, "Folder of the datasets' files, as photon eval takes it").required();
  command.option("--tasks", arguments->tasks, "Tasks with one question and a short answer, separated by commas")
      .required()
      .separated_by_commas();
  command.option("--samples", options.n_answers, "Answers sampled to each question").range(1, std::int64_t{1} << 16);
  command.option("--tokens", options.n_tokens, "Of each answer; 0: of the longest choice, and two more")
      .range(0, max_context);
  command.option("--temperature", options.sampler.temperature, "Of sampling");
  command.option("--top-p", options.sampler.top_p, "Sample from the likeliest tokens of this share");
  command.option("--seed", arguments->seed, "Of sampling").check(seed_problem);
  command.option("--limit", arguments->limit, "Documents of each task, from the first on; 0: all").range(0, most);
  command
      .option("--max-length", arguments->max_length,
              "Most tokens of prompt and answer; longer prompts are cut on the left")
      .range(2, max_context);
  command.option("--protocol", arguments->protocol, "hiergen or recgen");
  command
      .option("--budget", arguments->budget_mb,
              "Also say how many samples fit into so many MB of KV cache, each alone; 0: do not")
      .range(0.0, 1e12);
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  command.footer(
      "Example: photon vote -m models/photon-stories --data data/eval --tasks lambada --samples 64 --limit 200");
  command.runs([arguments] { run_vote(*arguments); });
}

}  // namespace photon
