// What is evaluated: a task is a dataset and the rules that make requests of its documents, those of EleutherAI's
// lm-evaluation-harness (docs/evaluation.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/data_file.h"

namespace photon {

/// ln p(continuation | context) is wanted.
struct ScoreRequest {
  std::string context, continuation;
  bool operator==(const ScoreRequest&) const = default;
};

struct Document {
  std::string id;                              // the dataset's own, or its number in the file from 0
  std::vector<ScoreRequest> requests{};        // one for each choice; without choices, one
  std::size_t gold = 0;                        // which choice is right
  std::string answer{};                        // the right one, as it stands in a few-shot example
  std::vector<std::int64_t> choice_lengths{};  // in characters: what acc_norm divides by; empty where there is none
  std::int64_t n_words = 0, n_bytes = 0;       // rolling: of the text as it is in the dataset
  std::optional<std::int64_t> distance{};      // characters from the fact to the question: metrics are told apart by it
};

struct Task {
  enum class Kind {
    rolling,          // the likelihood of whole texts
    last_word,        // the likelihood of one word, and whether it is what greedy generation writes
    multiple_choice,  // which of several requests is likeliest
  };
  std::string name;
  Kind kind;
  std::vector<DataFile> files;     // what is evaluated: the first that is there
  std::vector<DataFile> examples;  // few-shot examples; empty: the documents themselves, but never the one in question
  std::vector<Document> (*read)(const FoundFile& file);  ///< all documents.  @throws InputError naming file and line
};

std::span<const Task> all_tasks();  // whose data are published
/// recall: what was told far back in a text; copy: a word that stood a few sentences earlier.  Their data are made by the
/// generate.py of recipes/ of that name.
std::span<const Task> made_tasks();
/// @throws InputError naming all tasks.
const Task& find_task(std::string_view name);

/// A document with its answer, as it stands before another one.
std::string as_example(const Document& document);

/// The documents of a task with its requests complete: k few-shot examples before each, from the start of their file.
struct TaskData {
  const Task* task = nullptr;
  FoundFile file, examples;  // examples: path empty where there are none
  std::int64_t few_shot = 0;
  std::vector<Document> documents;
};
/// @param few_shot  k >= 0; rolling tasks take none, whatever it says.
/// @throws InputError naming file and line
TaskData load_task(const Task& task, const std::filesystem::path& folder, std::int64_t few_shot);

/// The pages of a WikiText file as it is published, one text for each article with its heading.
std::vector<std::string> wikitext_pages(std::string_view text);
/// Undoes WikiText's spacing by the harness's rules, in its order.
std::string wikitext_detokenize(std::string_view page);
/// Takes out what HellaSwag's WikiHow part left in its texts.
std::string hellaswag_clean(std::string_view text);

/// What tasks read their files with.
std::vector<Document> read_wikitext(const FoundFile& file);
std::vector<Document> read_lambada(const FoundFile& file);
std::vector<Document> read_hellaswag(const FoundFile& file);
std::vector<Document> read_piqa(const FoundFile& file);
std::vector<Document> read_arc(const FoundFile& file);
std::vector<Document> read_sciq(const FoundFile& file);
std::vector<Document> read_winogrande(const FoundFile& file);
std::vector<Document> read_recall(const FoundFile& file);

}  // namespace photon
