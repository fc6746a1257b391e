// Splits a corpus file into its documents.
#include "text/documents.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace photon {
namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";  // some editors' sign of UTF-8, no part of the text
constexpr std::string_view separator = "<|endoftext|>";

auto line_number(std::string_view text, std::size_t position) {
  return 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(position), '\n');
}

// Line by line, so that the message can name the line.
void check_utf8(std::string_view text, const MappedFile& file) {
  if (is_valid_utf8(text)) return;
  std::size_t begin = 0;
  while (is_valid_utf8(text.substr(begin, text.find('\n', begin) - begin))) begin = text.find('\n', begin) + 1;
  throw InputError(fmt::format("{}: line {} is not valid UTF-8; convert the file first, for example with iconv",
                               file.path().string(), line_number(text, begin)));
}

void add_document(std::string_view text, std::vector<std::string_view>& found) {
  const std::size_t begin = text.find_first_not_of("\r\n");
  if (begin == std::string_view::npos) return;
  found.push_back(text.substr(begin, text.find_last_not_of("\r\n") + 1 - begin));
}

}  // namespace

std::vector<std::string_view> documents(const MappedFile& file) {
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  check_utf8(text, file);
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  std::vector<std::string_view> found;
  std::size_t begin = 0;
  for (auto at = text.find(separator); at != std::string_view::npos; at = text.find(separator, begin)) {
    const std::string_view after = text.substr(at + separator.size());
    const bool ends_line = after.empty() || after.starts_with("\n") || after.starts_with("\r\n");
    if (!ends_line || (at > 0 && text[at - 1] != '\n'))
      throw InputError(fmt::format("{}: line {} has {} inside; a document's end must be a line of its own",
                                   file.path().string(), line_number(text, at), separator));
    add_document(text.substr(begin, at - begin), found);
    begin = at + separator.size();
  }
  add_document(text.substr(begin), found);
  return found;
}

}  // namespace photon
