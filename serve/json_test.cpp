// Properties of serve/json.h: JSON passes, everything else is refused with a place.
#include "serve/json.h"

#include <gtest/gtest.h>

#include <string>

#include "serve/errors.h"

namespace photon {
namespace {

using namespace std::string_literals;
using nlohmann::json;

std::string refusal(const std::string& text, std::int64_t max_depth = 32) {
  try {
    parse_json(text, max_depth);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    return error.what();
  }
  return "";
}

TEST(Json, ReadsWhatTheLibraryReads) {
  for (const std::string& text :
       {R"({"a": [1, -2, 3.5, 1e3, true, false, null, "x\u00e9\ud83d\ude00\n", {}, []], "b": {"c": {"a": 1}}})"s, "7"s,
        " [ ] "s, R"("text")"s, "null"s, "[[[1],[2]],[[]]]"s, "18446744073709551615"s, "-9223372036854775808"s})
    EXPECT_EQ(parse_json(text, 32), json::parse(text)) << text;
  EXPECT_TRUE(parse_json("1", 1).is_number_unsigned());
  EXPECT_TRUE(parse_json("1.0", 1).is_number_float());
  EXPECT_TRUE(parse_json("18446744073709551616", 1).is_number_float());
}

TEST(Json, RefusesWhatIsNoJson) {
  for (const std::string& text : {""s,
                                  " "s,
                                  "{"s,
                                  "}"s,
                                  "{\"a\":1,}"s,
                                  "[1,]"s,
                                  "{a:1}"s,
                                  "{'a':1}"s,
                                  "nul"s,
                                  "NaN"s,
                                  "[Infinity]"s,
                                  "-"s,
                                  "01"s,
                                  "1."s,
                                  "[1] 2"s,
                                  "{} {}"s,
                                  "[1]\0"s,
                                  "\0[1]"s,
                                  "{\"a\":\"\0\"}"s,
                                  "\"\n\""s,
                                  "\"\\x\""s,
                                  "// c\n1"s,
                                  "+1"s,
                                  ".5"s})
    EXPECT_NE(refusal(text), "") << text;
}

TEST(Json, RefusesTextThatIsNoUnicode) {
  for (const std::string& text : {"\"\xff\""s, "\"\xc3\""s, "\"\xed\xa0\x80\""s, "\"\xc0\xaf\""s, "{\"\xfe\":1}"s})
    EXPECT_NE(refusal(text).find("UTF-8"), std::string::npos) << text;
  for (const std::string& text : {R"("\ud800")"s, R"("\udc00")"s, R"("\ud800x")"s, R"("\ud800\u0041")"s})
    EXPECT_NE(refusal(text), "") << text;
}

TEST(Json, RefusesNumbersBeyondDoubles) {
  EXPECT_NE(refusal("[1e999]").find("out of range"), std::string::npos);
  EXPECT_NE(refusal("[-1e999]").find("out of range"), std::string::npos);
}

TEST(Json, RefusesAKeyGivenTwiceInOneObject) {
  EXPECT_NE(refusal(R"({"a":1,"b":{"a":2},"a":3})").find("\"a\""), std::string::npos);
  EXPECT_NE(refusal(R"({"x":{"a":1,"\u0061":2}})"), "");
  EXPECT_EQ(refusal(R"([{"a":1},{"a":2}])"), "");
}

TEST(Json, RefusesDepthBeyondTheLimitAtOnce) {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(refusal(nested(32)), "");
  EXPECT_NE(refusal(nested(33)).find("32"), std::string::npos);
  EXPECT_NE(refusal(std::string(100'000, '[')), "");
  std::string objects;
  for (int i = 0; i < 40; ++i) objects += "{\"a\":";
  EXPECT_NE(refusal(objects).find("deeper"), std::string::npos);
}

TEST(Json, RefusesTooManyValues) {
  std::string text = "[0";
  for (std::int64_t i = 2; i < max_json_values; ++i) text += ",0";
  EXPECT_EQ(refusal(text + "]"), "");  // with the list itself
  EXPECT_NE(refusal(text + ",0]").find("values"), std::string::npos);
}

TEST(Json, SaysWhereTheMistakeIs) {
  EXPECT_NE(refusal("{\"a\": 1,\n \"b\": x}").find("line 2, byte 7"), std::string::npos)
      << refusal("{\"a\": 1,\n \"b\": x}");
  EXPECT_NE(refusal("[1").find("end"), std::string::npos) << refusal("[1");
}

TEST(Json, MessagesStayShortAndWhole) {
  EXPECT_LT(refusal("{\"" + std::string(5000, 'k') + "\":1,\"" + std::string(5000, 'k') + "\":2}").size(), 200u);
  std::string text;
  for (int i = 0; i < 100; ++i) text += "é";
  EXPECT_EQ(shown(text).find("\xEF\xBF\xBD"), std::string::npos);
  EXPECT_EQ(shown(json::array({1})), "a list");
  EXPECT_EQ(shown("a\nb"), "\"a\\nb\"");
}

}  // namespace
}  // namespace photon
