#include "eval/python_text.h"

#include <locale.h>
#include <wctype.h>
#include <memory>
#include <type_traits>

#include "base/error.h"

namespace photon {
namespace {

struct Character {
  char32_t value = 0;
  std::size_t length = 1;  // bytes
};

// The first character of valid UTF-8 that is not empty.
Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t value = lead & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length && i < text.size(); ++i) value = value << 6 | (byte(i) & 0x3F);
  return {value, length};
}

Character last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return first_character(text.substr(begin));
}

void append(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

// The C library's Unicode tables; the program's own locale is not touched.
class CaseTables {
 public:
  CaseTables() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (!locale_) throw Error("this system has no locale C.UTF-8, whose letter cases hellaswag needs");
    to_title_ = ::wctrans_l("totitle", locale_.get());
  }
  char32_t lower(char32_t c) const {
    return static_cast<char32_t>(::towlower_l(static_cast<wint_t>(c), locale_.get()));
  }
  char32_t title(char32_t c) const {
    return static_cast<char32_t>(::towctrans_l(static_cast<wint_t>(c), to_title_, locale_.get()));
  }

 private:
  struct Free {
    void operator()(locale_t l) const { ::freelocale(l); }
  };
  std::unique_ptr<std::remove_pointer_t<locale_t>, Free> locale_;
  wctrans_t to_title_{};
};

}  // namespace

bool is_space(char32_t c) {
  return (0x09 <= c && c <= 0x0D) || (0x1C <= c && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (0x2000 <= c && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view left_strip(std::string_view text) {
  while (!text.empty()) {
    const Character c = first_character(text);
    if (!is_space(c.value)) break;
    text.remove_prefix(c.length);
  }
  return text;
}

std::string_view right_strip(std::string_view text) {
  while (!text.empty()) {
    const Character c = last_character(text);
    if (!is_space(c.value)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

std::string_view strip(std::string_view text) { return left_strip(right_strip(text)); }

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (auto at = text.find(from); at != text.npos; at = text.find(from)) {
    result.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return result.append(text);
}

std::string capitalize(std::string_view text) {
  static const CaseTables cases;
  std::string result;
  while (!text.empty()) {
    const Character c = first_character(text);
    append(result, result.empty() ? cases.title(c.value) : cases.lower(c.value));
    text.remove_prefix(c.length);
  }
  return result;
}

std::int64_t code_points(std::string_view text) {
  std::int64_t n = 0;
  for (const char byte : text) n += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return n;
}

std::int64_t split_count(std::string_view text) {
  std::int64_t n = 1;
  for (bool in_space = false; !text.empty();) {
    const Character c = first_character(text);
    const bool space = is_space(c.value);
    n += space && !in_space;
    in_space = space;
    text.remove_prefix(c.length);
  }
  return n;
}

}  // namespace photon
