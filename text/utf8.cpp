// UTF-8 after Unicode 15 table 3-7: overlong forms and surrogates are invalid, one U+FFFD per maximal subpart.
#include "text/utf8.h"

#include <cstdint>
#include <cstring>

namespace photon {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

enum class Kind { whole, invalid, unfinished };
struct Sequence {  // what the text begins with
  std::size_t length = 1;
  Kind kind = Kind::invalid;
};

// text is not empty.  An unfinished sequence reaches to the end of the text.
Sequence first_sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, Kind::whole};
  if (lead < 0xC2 || lead > 0xF4) return {1, Kind::invalid};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Only the second byte's range depends on the lead: no overlong forms, surrogates or values above U+10FFFF.
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, Kind::unfinished};
    if (byte(i) < low || byte(i) > high) return {i, Kind::invalid};
    low = 0x80, high = 0xBF;
  }
  return {length, Kind::whole};
}

std::size_t ascii_prefix(std::string_view text) {
  std::size_t n = 0;
  for (std::uint64_t eight = 0; n + sizeof eight <= text.size(); n += sizeof eight) {
    std::memcpy(&eight, text.data() + n, sizeof eight);
    if ((eight & 0x8080808080808080u) != 0) break;
  }
  return n;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string_view rest = pending_;
  std::string text;
  while (!rest.empty()) {
    const Sequence sequence = first_sequence(rest);
    if (sequence.kind == Kind::unfinished) break;
    text += sequence.kind == Kind::whole ? rest.substr(0, sequence.length) : replacement;
    rest.remove_prefix(sequence.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

std::string Utf8Stream::finish() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return std::string(unfinished ? replacement : std::string_view());
}

bool is_valid_utf8(std::string_view text) {
  while (true) {
    text.remove_prefix(ascii_prefix(text));
    if (text.empty()) return true;
    const Sequence sequence = first_sequence(text);
    if (sequence.kind != Kind::whole) return false;
    text.remove_prefix(sequence.length);
  }
}

}  // namespace photon
