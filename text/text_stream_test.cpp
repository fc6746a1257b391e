// Properties of text/text_stream.h: what streams is what decode() says, in whole characters.
#include "text/text_stream.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::tokenizer, testing_support::tokenizer_path;

std::string streamed(std::span<const std::int32_t> before, std::span<const std::int32_t> tokens) {
  TextStream stream(&tokenizer(), before);
  std::string text;
  for (const std::int32_t token : tokens) {
    const std::string more = stream.add(token);
    EXPECT_TRUE(is_valid_utf8(more));
    text += more;
  }
  return text + stream.finish();
}

TEST(TextStream, TextAndItsContinuationAreTheDecodedWhole) {
  Random random(1);
  for (int i = 0; i < 300; ++i) {  // ids of whole texts; where a character is cut in two, both parts are replaced
    std::vector<std::int32_t> tokens = tokenizer().encode(testing_support::some_text(random.next(), 1));
    tokens.insert(tokens.begin(), 1);
    for (const std::size_t cut : {0, 1, 2, 5}) {
      const auto before = std::span(tokens).first(cut), after = std::span(tokens).subspan(cut);
      if (tokenizer().decode(before).find("\xEF\xBF\xBD") != std::string::npos) continue;
      EXPECT_EQ(tokenizer().decode(before) + streamed(before, after), tokenizer().decode(tokens));
    }
  }
}

TEST(TextStream, OnlyTheFirstTextLosesTheAddedSpace) {
  const std::vector<std::int32_t> tokens = tokenizer().encode("the");
  EXPECT_EQ(streamed({}, tokens), "the");
  const std::vector<std::int32_t> bos{1}, word = tokenizer().encode("mi");
  EXPECT_EQ(streamed(bos, tokens), "the");
  EXPECT_EQ(streamed(word, tokens), " the");
}

TEST(TextStream, HoldsACharacterBackUntilItIsWhole) {
  TextStream stream(&tokenizer(), {});
  EXPECT_EQ(stream.add(3 + 0xF0), "");
  EXPECT_EQ(stream.add(3 + 0x9F), "");
  EXPECT_EQ(stream.add(3 + 0x98), "");
  EXPECT_EQ(stream.add(3 + 0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.add(3 + 0xE2), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(TextStream, WritesIdsWithoutATokenizer) {
  TextStream alone(nullptr, {});
  EXPECT_EQ(alone.add(7), "7");
  EXPECT_EQ(alone.add(12), ",12");
  EXPECT_EQ(alone.finish(), "");
  const std::vector<std::int32_t> before{1};
  EXPECT_EQ(TextStream(nullptr, before).add(7), ",7");
}

TEST(TextStream, NamesTokensAsTheModelFileDoes) {
  EXPECT_EQ(tokenizer().name(2), "</s>");
  EXPECT_EQ(tokenizer().name(3 + 10), "<0x0A>");
  EXPECT_THROW(tokenizer().name(400), InputError);
  EXPECT_THROW(tokenizer().first_piece(-1), InputError);
}

}  // namespace
}  // namespace photon
