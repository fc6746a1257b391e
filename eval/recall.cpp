// recall: a fact told in real prose and asked for in other words, over rising distances (recipes/recall/generate.py).
#include <fmt/format.h>

#include "base/error.h"
#include "eval/task.h"

namespace photon {

std::vector<Document> read_recall(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    const auto row = static_cast<std::int64_t>(documents.size());
    const std::string& context = record.string("context");
    std::vector<std::string> choices = record.strings("wrong");
    if (choices.empty())
      throw InputError(fmt::format("{}: row {} has no wrong answers to choose among", file.path.string(), row + 1));
    const std::size_t gold = static_cast<std::size_t>(row) % (choices.size() + 1);  // no place is the right one's
    choices.insert(choices.begin() + static_cast<std::ptrdiff_t>(gold), record.string("answer"));
    Document document{.id = std::to_string(row), .gold = gold, .answer = choices[gold]};
    document.distance = static_cast<std::int64_t>(record.index("distance", std::size_t{1} << 40));
    for (const std::string& choice : choices)
      document.requests.push_back({.context = context, .continuation = " " + choice});
    documents.push_back(std::move(document));
  }
  return documents;
}

}  // namespace photon
