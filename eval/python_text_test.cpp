// What Python would answer.
#include "eval/python_text.h"

#include <gtest/gtest.h>

namespace photon {
namespace {

TEST(PythonText, StripKnowsAllWhiteSpaceOfUnicodeAndNothingElse) {
  EXPECT_EQ(strip(" \t\r\n\x1C\u00a0\u2003 a b \u3000\u2028\v\f"), "a b");
  EXPECT_EQ(left_strip("  a "), "a ");
  EXPECT_EQ(right_strip("  a "), "  a");
  EXPECT_EQ(strip("\u200b\u2060a\ufeff"), "\u200b\u2060a\ufeff");  // no spaces to Python
  EXPECT_EQ(strip(" \n"), "");
  EXPECT_EQ(strip(""), "");
}

TEST(PythonText, ReplacementsDoNotOverlapAndAreNotReplacedAgain) {
  EXPECT_EQ(replace_all("    ", "  ", " "), "  ");
  EXPECT_EQ(replace_all("aaa", "aa", "b"), "ba");
  EXPECT_EQ(replace_all("a b", " ", " x "), "a x b");
  EXPECT_EQ(replace_all("abc", "d", "e"), "abc");
}

TEST(PythonText, CapitalizeLowersTheRest) {
  EXPECT_EQ(capitalize("hELLO World"), "Hello world");
  EXPECT_EQ(capitalize("élan VITAL À LA"), "Élan vital à la");
  EXPECT_EQ(capitalize("ǆUNGLA"), "ǅungla");  // the title's form, not the upper case
  EXPECT_EQ(capitalize("дА НЕТ"), "Да нет");
  EXPECT_EQ(capitalize(" A"), " a");
  EXPECT_EQ(capitalize("1ST 𐐀"), "1st 𐐨");
  EXPECT_EQ(capitalize(""), "");
}

TEST(PythonText, LengthsAndWordsAreCountedAsPythonCounts) {
  EXPECT_EQ(code_points("aé北𝄞"), 4);
  EXPECT_EQ(split_count(""), 1);
  EXPECT_EQ(split_count("one"), 1);
  EXPECT_EQ(split_count(" one  two\n\u00a0three "), 5);
  EXPECT_EQ(split_count(" \n "), 2);
}

}  // namespace
}  // namespace photon
