#include "eval/task.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "eval/python_text.h"

namespace photon {
namespace {

// Paths below --data: first as `photon eval --fetch` and the published archives lay them out.
const std::vector<Task>& tasks() {
  using enum Task::Kind;
  static const std::vector<Task> all{
      {"wikitext",
       rolling,
       {{"wikitext-2-raw/wiki.test.raw", nullptr, "test"}, {"wiki.test.raw", nullptr, "test"}},
       {},
       read_wikitext},
      {"lambada",
       last_word,
       {{"lambada_test.jsonl", nullptr, "test"}, {"lambada-test.jsonl", nullptr, "test"}},
       {},
       read_lambada},
      {"hellaswag",
       multiple_choice,
       {{"hellaswag_val.jsonl", nullptr, "validation"}, {"hellaswag-val.jsonl", nullptr, "validation"}},
       {{"hellaswag_train.jsonl", nullptr, "train"}},
       read_hellaswag},
      {"piqa",
       multiple_choice,
       {{"piqa/valid.jsonl", "piqa/valid-labels.lst", "validation"},
        {"piqa-valid.jsonl", "piqa-valid-labels.lst", "validation"}},
       {{"piqa/train.jsonl", "piqa/train-labels.lst", "train"}},
       read_piqa},
      {"arc_easy",
       multiple_choice,
       {{"ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", nullptr, "test"},
        {"ARC-Easy-Test.jsonl", nullptr, "test"},
        {"arc-easy-test.jsonl", nullptr, "test"}},
       {{"ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Train.jsonl", nullptr, "train"},
        {"ARC-Easy-Train.jsonl", nullptr, "train"}},
       read_arc},
      {"sciq",
       multiple_choice,
       {{"SciQ dataset-2 3/test.json", nullptr, "test"},
        {"sciq/test.json", nullptr, "test"},
        {"sciq-valid.jsonl", nullptr, "validation"}},
       {{"SciQ dataset-2 3/train.json", nullptr, "train"}, {"sciq/train.json", nullptr, "train"}},
       read_sciq},
      {"winogrande",
       multiple_choice,
       {{"winogrande_1.1/dev.jsonl", nullptr, "validation"},
        {"winogrande/dev.jsonl", nullptr, "validation"},
        {"winogrande-valid.jsonl", nullptr, "validation"}},
       {{"winogrande_1.1/train_xl.jsonl", nullptr, "train"}, {"winogrande/train_xl.jsonl", nullptr, "train"}},
       read_winogrande},
  };
  return all;
}

}  // namespace

std::span<const Task> all_tasks() { return tasks(); }

std::span<const Task> made_tasks() {
  static const std::vector<Task> made{
      {"recall", Task::Kind::multiple_choice, {{"recall-test.jsonl", nullptr, "test"}}, {}, read_recall},
      {"copy", Task::Kind::last_word, {{"copy-test.jsonl", nullptr, "test"}}, {}, read_lambada}};
  return made;
}

const Task& find_task(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto known : {all_tasks(), made_tasks()})
    for (const Task& task : known) {
      if (task.name == name) return task;
      names.push_back(task.name);
    }
  throw InputError(fmt::format("there is no task '{}'; tasks are {}", name, fmt::join(names, ", ")));
}

// A space between question and answer unless there is white space already; an empty line behind.
std::string as_example(const Document& document) {
  const std::string &question = document.requests[document.gold].context, &answer = document.answer;
  const bool spaced = question.empty() || answer.empty() || right_strip(question).size() != question.size() ||
                      left_strip(answer).size() != answer.size();
  return fmt::format("{}{}{}\n\n", question, spaced ? "" : " ", answer);
}

TaskData load_task(const Task& task, const std::filesystem::path& folder, std::int64_t few_shot) {
  TaskData data{.task = &task, .file = find_data(folder, task.files, task.name), .examples = {}, .documents = {}};
  data.documents = task.read(data.file);
  if (data.documents.empty()) throw InputError(fmt::format("{}: holds no documents", data.file.path.string()));
  data.few_shot = task.kind == Task::Kind::rolling ? 0 : few_shot;
  if (data.few_shot == 0) return data;

  const bool from_itself = task.examples.empty();
  data.examples = from_itself ? data.file : find_data(folder, task.examples, task.name + " --few-shot");
  const std::vector<Document> examples = from_itself ? data.documents : task.read(data.examples);
  const std::size_t k = static_cast<std::size_t>(data.few_shot), n_wanted = k + (from_itself ? 1 : 0);
  if (examples.size() < n_wanted)
    throw InputError(fmt::format("{}: --few-shot {} needs {} documents, it has {}", data.examples.path.string(), k,
                                 n_wanted, examples.size()));
  for (std::size_t d = 0; d < data.documents.size(); ++d) {
    std::string before;
    for (std::size_t e = 0, taken = 0; taken < k; ++e) {
      if (from_itself && e == d) continue;
      before += as_example(examples[e]);
      ++taken;
    }
    for (ScoreRequest& request : data.documents[d].requests) request.context.insert(0, before);
  }
  return data;
}

}  // namespace photon
