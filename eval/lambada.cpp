// lambada: the last word of a passage, given the rest of it.
#include <fmt/format.h>

#include "eval/task.h"

namespace photon {

std::vector<Document> read_lambada(const FoundFile& file) {
  std::vector<Document> documents;
  for (const Record& record : read_records(file.path)) {
    const std::string& text = record.string("text");
    const auto space = text.rfind(' ');  // only this character separates words here
    const std::string context = space == text.npos ? "" : text.substr(0, space),
                      word = space == text.npos ? fmt::format(" {}", text) : text.substr(space);
    documents.push_back({.id = std::to_string(documents.size()),
                         .requests = {{.context = context, .continuation = word}},
                         .answer = word});
  }
  return documents;
}

}  // namespace photon
