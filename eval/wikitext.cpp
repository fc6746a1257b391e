// wikitext: articles of WikiText-2 raw, detokenised; the likelihood of each as a whole.
#include <fmt/format.h>

#include "base/error.h"
#include "eval/python_text.h"
#include "eval/task.h"

namespace photon {
namespace {

// re.sub(r"OPEN\s*([^CLOSE]*?)\s*CLOSE", r"OPEN\1CLOSE"): no white space inside a pair of brackets or quotes.
std::string tighten(std::string_view text, char open, char close) {
  std::string result;
  while (true) {
    const auto begin = text.find(open);
    const auto end = begin == text.npos ? text.npos : text.find(close, begin + 1);
    if (end == text.npos) break;
    result.append(text.substr(0, begin + 1));
    result.append(strip(text.substr(begin + 1, end - begin - 1)));
    result += close;
    text.remove_prefix(end + 1);
  }
  return result.append(text);
}

// re.sub(r"/' [0-9]/", r"/'[0-9]/"): the replacement is no pattern, so the digit is lost and its place names a class.
std::string replace_slashed_digit(std::string_view text) {
  constexpr std::string_view before = "/' ", after = "/'[0-9]/";
  std::string result;
  for (auto at = text.find(before); at != text.npos; at = text.find(before)) {
    const std::string_view rest = text.substr(at + before.size());
    const bool match = rest.size() >= 2 && '0' <= rest[0] && rest[0] <= '9' && rest[1] == '/';
    result.append(text.substr(0, at)).append(match ? after : text.substr(at, 1));
    text.remove_prefix(at + (match ? before.size() + 2 : 1));
  }
  return result.append(text);
}

bool is_article_heading(std::string_view line) {  // " = Title = ", not " = = Section = = "
  const std::string merged = replace_all(replace_all(line, "= = =", "==="), "= =", "==");
  const std::string_view heading = strip(merged);
  return heading.starts_with("= ") && heading.ends_with(" =");
}

}  // namespace

std::string wikitext_detokenize(std::string_view page) {
  std::string text = replace_all(page, "s '", "s'");
  text = replace_slashed_digit(text);
  constexpr std::string_view spacing[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                             {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},
                                             {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
  for (const auto& [from, to] : spacing) text = replace_all(text, from, to);
  text = tighten(text, '(', ')');
  text = tighten(text, '[', ']');
  text = tighten(text, '{', '}');
  text = tighten(text, '"', '"');
  text = tighten(text, '\'', '\'');
  constexpr std::string_view rest[][2] = {{"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" ° ", "°"},
                                          {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
  for (const auto& [from, to] : rest) text = replace_all(text, from, to);
  return text;
}

std::vector<std::string> wikitext_pages(std::string_view text) {
  std::vector<std::string> pages;
  std::size_t page = 0;  // where it begins
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::string_view line = text.substr(begin, text.substr(begin).find('\n'));
    if (begin > page && is_article_heading(line)) {
      const std::string_view before = text.substr(page, begin - 1 - page);  // the newline between the two is neither's
      if (!strip(before).empty()) pages.emplace_back(before);
      page = begin;
    }
    begin += line.size() + 1;
  }
  pages.emplace_back(text.substr(page));
  return pages;
}

std::vector<Document> read_wikitext(const FoundFile& file) {
  const std::string text = replace_all(read_utf8(file.path), "\r\n", "\n");  // as Python reads a text file
  const std::string_view beginning = left_strip(text);
  if (!is_article_heading(beginning.substr(0, beginning.find('\n'))))
    throw InputError(fmt::format("{}: does not begin with an article's heading, ' = Title = '; is it wiki.test.raw?",
                                 file.path.string()));
  std::vector<Document> documents;
  for (const std::string& page : wikitext_pages(text))
    documents.push_back({.id = std::to_string(documents.size()),
                         .requests = {{.context = "", .continuation = wikitext_detokenize(page)}},
                         .n_words = split_count(page),
                         .n_bytes = std::ssize(page)});
  return documents;
}

}  // namespace photon
