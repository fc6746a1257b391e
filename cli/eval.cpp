// photon eval: quality on the tasks that language models are compared by.
#include "eval/evaluate.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/table.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/task_progress.h"
#include "eval/fetch.h"
#include "eval/results.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct EvalArguments {
  EngineArguments engine;
  std::vector<std::string> tasks{"all"};
  std::string protocol{to_string(Protocol::hiergen)};
  std::string data, out, fetch;
  std::int64_t few_shot = 0, limit = 0, max_length = 2048;
  bool json = false;
};

std::vector<std::string> task_names(const EvalArguments& arguments) {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  };
  for (const std::string& name : arguments.tasks)
    if (name == "all")
      for (const Task& task : all_tasks()) add(task.name);
    else
      add(find_task(name).name);
  return names;
}

// Figures of other data cannot be compared with anybody's.
void warn_of_other_data(const TaskData& data) {
  for (const Download& d : downloads())
    if (d.task == data.task->name && d.sha256[0] != '\0') {
      if (data.file.sha256 != d.sha256)
        spdlog::warn("{}: {} is not the published file: its SHA-256 is {}, not {}", data.task->name,
                     data.file.path.string(), data.file.sha256, d.sha256);
      return;  // the first is what is evaluated
    }
}

ordered_json to_json(const TaskData& data, const TaskResult& result) {
  ordered_json values = ordered_json::object();
  for (const Metric& m : result.metrics)
    values[m.name] = {{"value", m.value},
                      {"standard_error", m.standard_error ? ordered_json(*m.standard_error) : ordered_json()}};
  return {{"task", data.task->name},
          {"data", data_record(data)},
          {"documents", result.scores.size()},
          {"of_documents", data.documents.size()},
          {"few_shot", data.few_shot},
          {"tokens_scored", result.n_tokens},
          {"documents_cut", result.n_cut_documents},
          {"tokens_cut", result.n_cut_tokens},
          {"metrics", values}};
}

void add_rows(std::vector<TextTable::Column>& columns, const TaskData& data, const TaskResult& result) {
  for (const Metric& m : result.metrics) {
    const std::string cells[] = {data.task->name,
                                 data.file.split,
                                 std::to_string(result.scores.size()),
                                 std::to_string(data.few_shot),
                                 m.name,
                                 fmt::format("{:.4f}", m.value),
                                 m.standard_error ? fmt::format("± {:.4f}", *m.standard_error) : ""};
    for (std::size_t c = 0; c < columns.size(); ++c) columns[c].cells.push_back(cells[c]);
  }
}

void run_eval(const EvalArguments& arguments) {
  const Protocol protocol = parse_protocol(arguments.protocol);
  std::vector<TaskData> tasks;  // all of them before the first is run: what is broken shows at once
  for (const std::string& name : task_names(arguments))
    warn_of_other_data(tasks.emplace_back(load_task(find_task(name), arguments.data, arguments.few_shot)));
  Engine engine = arguments.engine.open();
  const Tokenizer tokenizer = arguments.engine.tokenizer(engine.model());
  const ordered_json settings{{"model", model_record(engine.model())},
                              {"protocol", to_string(protocol)},
                              {"few_shot", arguments.few_shot},
                              {"max_length", arguments.max_length}};
  std::optional<ResultFolder> folder;
  if (!arguments.out.empty()) {
    folder.emplace(arguments.out, settings);
    if (const std::string program = folder->other_program(); !program.empty())
      spdlog::warn("{}: was begun by version {} of this program; figures of one version need another --out",
                   arguments.out, program);
  }

  Scorer scorer(engine.runner(), protocol);
  Evaluator evaluator(scorer, tokenizer, static_cast<std::int32_t>(engine.spec().bos_token_id), arguments.max_length);
  ordered_json report{{"model", arguments.engine.model}, {"settings", settings}, {"tasks", ordered_json::array()}};
  using enum TextTable::Align;
  std::vector<TextTable::Column> columns{{"task", left},   {"split", left}, {"n"},     {"few-shot", right, true},
                                         {"metric", left}, {"value"},       {"", left}};
  ProgressLine line;
  for (const TaskData& data : tasks) {
    const std::unique_ptr<TaskLog> log = folder ? folder->open(data) : nullptr;
    const TaskResult result =
        evaluate(evaluator, data, arguments.limit, log.get(), TaskProgress(line, data.task->name));
    line.finish();
    if (result.n_resumed > 0)
      spdlog::info("{}: {} documents were in {} already", data.task->name, result.n_resumed, arguments.out);
    if (result.n_cut_documents > 0)
      spdlog::warn("{}: the contexts of {} documents were cut on the left, by {} tokens in all: --max-length is {}",
                   data.task->name, result.n_cut_documents, result.n_cut_tokens, arguments.max_length);
    report["tasks"].push_back(to_json(data, result));
    add_rows(columns, data, result);
  }
  if (folder) folder->write_report(report);
  if (arguments.json) {
    std::cout << report.dump() << std::endl;
    return;
  }
  TextTable table;
  for (TextTable::Column& column : columns) table.add(std::move(column));
  fmt::print("{}", table.text());
}

}  // namespace

void add_eval(Command app) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  auto arguments = std::make_shared<EvalArguments>();
  Command command = app.subcommand("eval", "Quality on wikitext, lambada, hellaswag, piqa, arc_easy, sciq, winogrande");
  const Argument model = arguments->engine.add_to(command).required(false);
  const Argument data =
      command.option("--data", arguments->data, "Folder of the datasets' files, as published: docs/evaluation.md");
  command.option("--tasks", arguments->tasks, "Tasks, separated by commas (default: all)")
      .separated_by_commas()
      .no_default();
  command.option("--few-shot", arguments->few_shot, "Examples before each document; wikitext has none").range(0, most);
  command.option("--limit", arguments->limit, "Documents of each task, from the first on; 0: all").range(0, most);
  command
      .option("--max-length", arguments->max_length,
              "Most tokens that the model reads for one answer: longer contexts are cut on the left, and wikitext's "
              "windows have this length")
      .range(1, most);
  command.option("--protocol", arguments->protocol,
                 "hiergen: the exact likelihood; recgen: the one that recursive generation assigns");
  command.option("--out", arguments->out,
                 "Folder for results, a line for each document; an interrupted run goes on there (default: none)");
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  Argument fetch = command.option("--fetch", arguments->fetch,
                                  "Only download the files of --tasks into this folder, with curl and unzip");
  fetch.excludes(model).excludes(data);
  command.footer(
      "Example: photon eval -m models/photon-stories --data data/eval --tasks hellaswag,lambada --limit 200\n"
      "Data:    photon eval --fetch data/eval --tasks hellaswag,lambada");
  command.runs([arguments, model, data] {
    if (!arguments->fetch.empty()) {
      photon::fetch(task_names(*arguments), arguments->fetch,
                    [](const std::string& line) { fmt::print("{}\n", line); });
      return;
    }
    for (const Argument& argument : {model, data})
      if (!argument.given()) throw UsageError(argument.name() + " is required");
    run_eval(*arguments);
  });
}

}  // namespace photon
