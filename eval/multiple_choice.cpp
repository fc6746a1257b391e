// Questions with several answers, of which the likeliest is the model's choice: hellaswag, piqa, arc_easy, sciq; and
// winogrande, where the contexts differ and the continuation is the same.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "eval/python_text.h"
#include "eval/task.h"

namespace photon {
namespace {

// One context, and choices that follow it after a space.
Document choices_after(std::string id, const std::string& context, std::span<const std::string> choices,
                       std::size_t gold) {
  Document document{.id = std::move(id), .gold = gold, .answer = choices[gold]};
  for (const std::string& choice : choices) {
    document.requests.push_back({.context = context, .continuation = fmt::format(" {}", choice)});
    document.choice_lengths.push_back(code_points(choice));
  }
  return document;
}

std::string question_and_answer(const std::string& question) { return fmt::format("Question: {}\nAnswer:", question); }

// Labels 0 or 1 of the documents, in their order.
std::vector<std::size_t> read_labels(const FoundFile& file, std::size_t n_records) {
  const std::vector<std::string> lines = read_lines(file.labels);
  if (lines.size() != n_records)
    throw InputError(fmt::format("{}: has {} labels, {} has {} records", file.labels.string(), lines.size(),
                                 file.path.string(), n_records));
  std::vector<std::size_t> labels;
  for (const std::string& line : lines) {
    if (line != "0" && line != "1")
      throw InputError(
          fmt::format("{}: line {} is '{}', wanted 0 or 1", file.labels.string(), labels.size() + 1, line));
    labels.push_back(line == "1");
  }
  return labels;
}

// re.sub(r"\[.*?\]", "", text): a dot is no newline.
std::string remove_bracketed(std::string_view text) {
  std::string result;
  for (auto at = text.find('['); at != text.npos; at = text.find('[')) {
    const auto end = text.find_first_of("]\n", at + 1);
    const bool match = end != text.npos && text[end] == ']';
    result.append(text.substr(0, match ? at : at + 1));
    text.remove_prefix(match ? end + 1 : at + 1);
  }
  return result.append(text);
}

}  // namespace

std::string hellaswag_clean(std::string_view text) {
  return replace_all(remove_bracketed(replace_all(strip(text), " [title]", ". ")), "  ", " ");
}

// As published, or in the plain form {ctx, endings, label}, whose contexts are taken as they stand: where ctx_b begins,
// which is to be capitalised, cannot be told any more.
std::vector<Document> read_hellaswag(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    const bool published = record.has("ctx_a") || record.has("ctx_b") || record.has("activity_label");
    const std::string context = published ? fmt::format("{}: {} {}", record.string("activity_label"),
                                                        record.string("ctx_a"), capitalize(record.string("ctx_b")))
                                          : record.string("ctx");
    std::vector<std::string> endings = record.strings("endings");
    if (endings.empty()) record.fail("endings", "is empty");
    for (std::string& ending : endings) ending = hellaswag_clean(ending);
    documents.push_back(choices_after(published ? record.id("ind") : std::to_string(documents.size()),
                                      hellaswag_clean(context), endings, record.index("label", endings.size())));
  }
  return documents;
}

std::vector<Document> read_piqa(const FoundFile& file) {
  const std::vector<Record> records = read_records(file.path);
  const std::vector<std::size_t> labels = read_labels(file, records.size());
  std::vector<Document> documents;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::array choices{records[i].string("sol1"), records[i].string("sol2")};
    documents.push_back(
        choices_after(std::to_string(i), question_and_answer(records[i].string("goal")), choices, labels[i]));
  }
  return documents;
}

// As published, question {stem, choices [{text, label}]} and answerKey; or in the plain form question, choices [text]
// and gold, counted from 0.
std::vector<Document> read_arc(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    if (record.has("gold")) {
      const auto choices = record.strings("choices");
      if (choices.empty()) record.fail("choices", "is empty");
      documents.push_back(choices_after(record.id("id"), question_and_answer(record.string("question")), choices,
                                        record.index("gold", choices.size())));
      continue;
    }
    const Record question = record.object("question");
    const std::string& key = record.string("answerKey");  // A to E or 1 to 5, whichever the labels are
    std::vector<std::string> choices;
    std::optional<std::size_t> gold;
    for (const Record& choice : question.objects("choices")) {
      if (!gold && choice.string("label") == key) gold = choices.size();
      choices.push_back(choice.string("text"));
    }
    if (!gold) record.fail("answerKey", fmt::format("is '{}', which labels no choice", key));
    documents.push_back(choices_after(record.id("id"), question_and_answer(question.string("stem")), choices, *gold));
  }
  return documents;
}

std::vector<Document> read_sciq(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    const std::array choices{record.string("distractor1"), record.string("distractor2"), record.string("distractor3"),
                             record.string("correct_answer")};
    const std::string context =
        fmt::format("{}\n{}", left_strip(record.string("support")), question_and_answer(record.string("question")));
    documents.push_back(choices_after(std::to_string(documents.size()), context, choices, 3));
  }
  return documents;
}

std::vector<Document> read_winogrande(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    const std::string& sentence = record.string("sentence");
    const auto blank = sentence.find('_');
    if (blank == sentence.npos) record.fail("sentence", "has no '_'");
    const std::string& answer = record.string("answer");
    if (answer != "1" && answer != "2") record.fail("answer", fmt::format("is '{}', wanted 1 or 2", answer));
    const std::string before = sentence.substr(0, blank), rest(strip(std::string_view(sentence).substr(blank + 1)));
    documents.push_back({.id = record.has("qID") ? record.id("qID") : std::to_string(documents.size()),
                         .requests = {{before + record.string("option1"), fmt::format(" {}", rest)},
                                      {before + record.string("option2"), fmt::format(" {}", rest)}},
                         .gold = answer == "1" ? std::size_t{0} : std::size_t{1},
                         .answer = rest});
  }
  return documents;
}

}  // namespace photon
