// Properties of text/utf8.h: what is valid, and that splitting a stream anywhere changes nothing.
#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::repaired;
using namespace std::string_literals;

const std::string replacement = "\xEF\xBF\xBD";

std::string encoded(std::uint32_t c) {  // by the textbook, surrogates and beyond included
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

TEST(Utf8, EveryScalarValueIsValidAndEverySurrogateIsNot) {
  for (std::uint32_t c = 0; c < 0x11FFFF; ++c) {
    const bool scalar = c < 0x110000 && (c < 0xD800 || c > 0xDFFF);
    ASSERT_EQ(is_valid_utf8(encoded(c)), scalar) << c;
    ASSERT_EQ(repaired(encoded(c)) == encoded(c), scalar) << c;
  }
}

TEST(Utf8, EachMaximalSubpartBecomesOneReplacement) {
  const std::vector<std::pair<std::string, int>> cases = {
      {"\xC0\xAF", 2},          // overlong: no part of it begins a character
      {"\xE0\x80\xAF", 3},      // overlong
      {"\xF0\x80\x80\xAF", 4},  // overlong
      {"\xED\xA0\x80", 3},      // a surrogate
      {"\xF4\x90\x80\x80", 4},  // above U+10FFFF
      {"\xF5", 1},
      {"\xFF\xFE", 2},
      {"\x80\xBF", 2},
      {"\xE2\x82", 1},      // unfinished
      {"\xF0\x9F\x99", 1},  // unfinished
      {"\xF0\x9F\x99\xE2\x82", 2},
  };
  for (const auto& [bytes, replacements] : cases) {
    std::string expected = "a";
    for (int i = 0; i < replacements; ++i) expected += replacement;
    EXPECT_FALSE(is_valid_utf8(bytes));
    EXPECT_EQ(repaired("a" + bytes), expected);
    EXPECT_EQ(repaired("a" + bytes + "z"), expected + "z");
  }
}

TEST(Utf8, EverySplitGivesTheSameText) {
  const std::string mixed = "a\0é€\xE2\x82🙂\xF0\x9F\xED\xA0\x80\xC0\xAFz\xFF漢\xF4\x8F"s;
  const std::string expected = repaired(mixed);
  EXPECT_TRUE(is_valid_utf8(expected));
  for (std::size_t i = 0; i <= mixed.size(); ++i)
    for (std::size_t j = i; j <= mixed.size(); ++j) {
      Utf8Stream stream;
      std::string text;
      for (const auto& part : {mixed.substr(0, i), mixed.substr(i, j - i), mixed.substr(j)}) {
        const std::string whole = stream.push(part);
        ASSERT_TRUE(is_valid_utf8(whole)) << i << ' ' << j;
        text += whole;
      }
      ASSERT_EQ(text + stream.finish(), expected) << i << ' ' << j;
    }
}

TEST(Utf8, RandomBytesByteByByteEqualTheWhole) {
  Random random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (auto n = random.below(12); n > 0; --n)
      bytes += static_cast<char>(random.below(2) == 0 ? 0xE0 + random.below(32) : 0x80 + random.below(64));
    Utf8Stream stream;
    std::string text;
    for (const char byte : bytes) text += stream.push({&byte, 1});
    text += stream.finish();
    ASSERT_TRUE(is_valid_utf8(text));
    ASSERT_EQ(text, repaired(bytes));
    ASSERT_EQ(is_valid_utf8(bytes), text == bytes);
  }
}

TEST(Utf8, WholeCharactersAreNotHeldBack) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xE2"), "a");
  EXPECT_EQ(stream.push("\x82"), "");
  EXPECT_EQ(stream.push("\xAC"), "€");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace photon
