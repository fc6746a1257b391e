// What Python's str and re do to text, as far as the tasks' rules are written in them.  Text is valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace photon {

bool is_space(char32_t c);  ///< str.isspace() of one character, and what \s matches

std::string_view left_strip(std::string_view text);   ///< str.lstrip()
std::string_view right_strip(std::string_view text);  ///< str.rstrip()
std::string_view strip(std::string_view text);        ///< str.strip()

/// str.replace(): every occurrence from left to right; what was put in is not looked at again.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// str.capitalize(): the first character as a title's, the others in lower case, one character for one: what Python
/// makes longer (a first "ß" or "ﬁ", "İ") or by its place (Σ at a word's end) is left as the one-character mapping has
/// it.
std::string capitalize(std::string_view text);

std::int64_t code_points(std::string_view text);  ///< len()
std::int64_t split_count(std::string_view text);  ///< len(re.split(r"\s+", text)): empty strings at the ends count

}  // namespace photon
