// Properties of serve/choice_text.h: however tokens cut a text, what is shown ends before the first stop string, in
// whole characters, and nothing is shown that would have to be taken back.
#include "serve/choice_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::tokenizer, testing_support::tokenizer_path;

constexpr std::int32_t byte_token(unsigned char byte) { return 3 + byte; }

std::vector<std::int32_t> byte_tokens(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char byte : text) tokens.push_back(byte_token(static_cast<unsigned char>(byte)));
  return tokens;
}

struct Shown {
  std::string text;
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> offsets;
  bool stopped = false;
};

// Takes after every token, as a stream does; `only_at_end`: once.
Shown show(const std::vector<std::int32_t>& tokens, const std::vector<std::string>& stops, bool only_at_end = false) {
  ChoiceText choice(&tokenizer(), {}, stops);
  Shown result;
  const auto take = [&] {
    TextDelta delta = choice.take();
    EXPECT_TRUE(is_valid_utf8(delta.text));
    result.text += delta.text;
    for (const TextToken& t : delta.tokens) result.tokens.push_back(t.token), result.offsets.push_back(t.offset);
  };
  for (const std::int32_t token : tokens) {
    const bool more = choice.add(token, std::nullopt);
    EXPECT_EQ(more, !choice.stopped());
    if (!only_at_end) take();
    if (!more) break;
  }
  choice.finish();
  take();
  result.stopped = choice.stopped();
  return result;
}

TEST(ChoiceText, EndsBeforeTheFirstStopStringHoweverTokensCutIt) {
  Random random(1);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::int32_t> tokens;
    for (int n = 0; n < 30; ++n)
      tokens.push_back(random.below(2) == 0 ? byte_token(static_cast<unsigned char>("ab "[random.below(3)]))
                                            : static_cast<std::int32_t>(random.below(400)));
    std::vector<std::string> stops;
    for (auto n = random.below(4); n > 0; --n) {
      std::string stop;
      for (auto length = 1 + random.below(4); length > 0; --length) stop += "ab "[random.below(3)];
      stops.push_back(stop);
    }
    // The reference: the tokens until the text first holds a stop string, cut there.
    std::string expected;
    bool stopped = false;
    for (std::size_t n = 0; n <= tokens.size() && !stopped; ++n) {
      TextStream stream(&tokenizer(), {});
      expected.clear();
      for (std::size_t j = 0; j < n; ++j) expected += stream.add(tokens[j]);
      if (n == tokens.size()) expected += stream.finish();
      std::size_t cut = std::string::npos;
      for (const std::string& stop : stops) cut = std::min(cut, expected.find(stop));
      if (cut != std::string::npos) stopped = true, expected.resize(cut);
    }
    const Shown streamed = show(tokens, stops), whole = show(tokens, stops, true);
    EXPECT_EQ(streamed.text, expected);
    EXPECT_EQ(streamed.stopped, stopped);
    EXPECT_EQ(whole.text, expected);
    EXPECT_EQ(whole.tokens, streamed.tokens);
    EXPECT_EQ(whole.offsets, streamed.offsets);
  }
}

TEST(ChoiceText, HoldsBackWhatMayBecomeAStopStringAndNoMore) {
  const std::vector<std::string> stops{"END"};
  ChoiceText choice(&tokenizer(), {}, stops);
  const auto add = [&](char c) {
    choice.add(byte_token(static_cast<unsigned char>(c)), std::nullopt);
    return choice.take().text;
  };
  EXPECT_EQ(add('x'), "x");
  EXPECT_EQ(add('E'), "");
  EXPECT_EQ(add('N'), "");
  EXPECT_EQ(add('E'), "EN");  // the last E may begin another one
  EXPECT_EQ(add('N'), "");
  EXPECT_EQ(add('x'), "ENx");
  EXPECT_EQ(add('E'), "");
  choice.finish();
  EXPECT_EQ(choice.take().text, "E");  // it was none
}

TEST(ChoiceText, TheTokenLimitInsideACharacterLeavesAReplacement) {
  const Shown cut = show(byte_tokens("a\xF0\x9F\x98"), {});
  EXPECT_EQ(cut.text, "a\xEF\xBF\xBD");
  EXPECT_EQ(cut.tokens.size(), 4u);
  EXPECT_EQ(show(byte_tokens("a\xF0\x9F\x98\x80"), {"\xF0\x9F\x98\x80"}).text, "a");
}

TEST(ChoiceText, TokensComeWithTheTextTheyBeginIn) {
  const Shown all = show(byte_tokens("aé😀b"), {});
  EXPECT_EQ(all.offsets, (std::vector<std::int64_t>{0, 1, 1, 2, 2, 2, 2, 3}));
  EXPECT_EQ(all.tokens, byte_tokens("aé😀b"));
  const Shown stopped = show(byte_tokens("abcd"), {"cd"});  // those of the stop string are not shown
  EXPECT_EQ(stopped.tokens, byte_tokens("ab"));
  EXPECT_TRUE(show(byte_tokens("cd"), {"cd"}).tokens.empty());
}

TEST(ChoiceText, AnEchoIsNotSearchedForStopStrings) {
  const std::vector<std::string> stops{"ab"};
  ChoiceText choice(&tokenizer(), {}, stops);
  for (const std::int32_t token : byte_tokens("xaby")) choice.echo(token, std::nullopt);
  EXPECT_EQ(choice.take().text, "xaby");
  EXPECT_TRUE(choice.add(byte_token('a'), std::nullopt));
  EXPECT_FALSE(choice.add(byte_token('b'), std::nullopt));
  EXPECT_EQ(choice.take().text, "");
}

TEST(ChoiceText, KeepsLogprobsWithTheirTokens) {
  ChoiceText choice(&tokenizer(), {}, {});
  choice.add(byte_token('a'), TokenLogprob{.logprob = -1.5f});
  choice.add(byte_token('b'), std::nullopt);
  const TextDelta delta = choice.take();
  ASSERT_EQ(delta.tokens.size(), 2u);
  EXPECT_EQ(delta.tokens[0].logprob->logprob, -1.5f);
  EXPECT_FALSE(delta.tokens[1].logprob);
}

TEST(ChoiceText, CountsCharactersNotBytes) {
  EXPECT_EQ(count_characters(""), 0);
  EXPECT_EQ(count_characters("aé😀"), 3);
}

}  // namespace
}  // namespace photon
