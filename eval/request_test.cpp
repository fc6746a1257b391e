// From texts to tokens: where a request is cut, by hand.
#include "eval/request.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using Tokens = std::vector<std::int32_t>;

Tokens from_to(std::int32_t first, std::int32_t end) {
  Tokens tokens(static_cast<std::size_t>(end - first));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class EncodedPair : public testing::Test {
 protected:
  static constexpr std::int32_t bos = 1;
  Tokenizer tokenizer{testing_support::tokenizer_path()};

  EncodedRequest encode(const std::string& context, const std::string& continuation) const {
    return encode_request(tokenizer, bos, {context, continuation});
  }
  Tokens with_bos(const std::string& text) const {
    Tokens tokens = tokenizer.encode(text);
    tokens.insert(tokens.begin(), bos);
    return tokens;
  }
  // The text of tokens that follow others.
  std::string text(const Tokens& tokens) const {
    std::string result;
    for (const std::int32_t token : tokens) result += tokenizer.piece(token);
    return result;
  }
};

TEST_F(EncodedPair, IsTheEncodingOfTheWholeTextCutBehindTheContextsOwnTokens) {
  const EncodedRequest request = encode("the kalo", " misu renta");
  EXPECT_EQ(request.context, with_bos("the kalo"));
  Tokens whole = request.context;
  whole.insert(whole.end(), request.continuation.begin(), request.continuation.end());
  EXPECT_EQ(whole, with_bos("the kalo misu renta"));
  EXPECT_EQ(text(request.continuation), " misu renta");
}

TEST_F(EncodedPair, WhiteSpaceAtTheContextsEndGoesToTheContinuation) {
  const EncodedRequest request = encode("the kalo \n", "misu");
  EXPECT_EQ(request.context, with_bos("the kalo"));
  EXPECT_EQ(text(request.continuation), " \nmisu");
  EXPECT_EQ(encode("the kalo ", " misu").continuation, encode("the kalo", "  misu").continuation);
  EXPECT_EQ(text(encode("the kalo\u00a0", "misu").continuation), "\u00a0misu");
}

TEST_F(EncodedPair, AnEmptyContextIsThePrefixTokenAlone) {
  for (const char* context : {"", " ", "\n"}) {
    const EncodedRequest request = encode(context, "the kalo");
    EXPECT_EQ(request.context, Tokens{bos});
    EXPECT_EQ(request.continuation, tokenizer.encode(std::string(context) + "the kalo"));
  }
}

// The rule counts tokens, not characters: where both texts together are encoded in another way than the context alone,
// the continuation is what is left behind as many tokens.
TEST_F(EncodedPair, ACutInsideAWordFollowsTheContextsTokenCount) {
  for (const auto& [context, continuation] :
       {std::pair("th", "e kalo"), std::pair("the ka", "lo"), std::pair("a", "b")}) {
    const EncodedRequest request = encode(context, continuation);
    const Tokens whole = tokenizer.encode(std::string(context) + continuation);
    const std::size_t n = tokenizer.encode(context).size();
    EXPECT_EQ(request.context, with_bos(context));
    EXPECT_EQ(request.continuation,
              Tokens(whole.begin() + static_cast<std::ptrdiff_t>(std::min(n, whole.size())), whole.end()));
  }
}

TEST(Truncation, KeepsTheLastTokensAndCountsTheOthers) {
  const auto cut = [](std::int32_t n_context, std::int32_t n_continuation, std::int64_t max_length) {
    EncodedRequest request{.context = from_to(0, n_context), .continuation = from_to(100, 100 + n_continuation)};
    truncate(request, max_length);
    EXPECT_EQ(request.continuation, from_to(100, 100 + n_continuation));
    EXPECT_EQ(request.context, from_to(static_cast<std::int32_t>(request.n_cut), n_context));
    return request.n_cut;
  };
  EXPECT_EQ(cut(8, 3, 10), 0);  // the model reads 8 + 2
  EXPECT_EQ(cut(9, 3, 10), 1);
  EXPECT_EQ(cut(30, 10, 10), 29);
  EXPECT_EQ(cut(1, 1, 1), 0);
  EXPECT_THROW(cut(5, 11, 10), InputError);
  EXPECT_THROW(cut(5, 0, 10), InputError);
}

TEST(RollingWindows, AreDisjointAndTheLastOneIsFilledFromTheLeft) {
  const auto windows = rolling_windows(from_to(0, 34), -100, 10);
  ASSERT_EQ(windows.size(), 4u);
  EXPECT_EQ(windows[0].context, Tokens{-100});
  EXPECT_EQ(windows[0].continuation, from_to(0, 10));
  EXPECT_EQ(windows[1].context, Tokens{9});
  EXPECT_EQ(windows[1].continuation, from_to(10, 20));
  EXPECT_EQ(windows[2].context, Tokens{19});
  EXPECT_EQ(windows[2].continuation, from_to(20, 30));
  EXPECT_EQ(windows[3].context, from_to(23, 30));  // the model reads 23 … 32
  EXPECT_EQ(windows[3].continuation, from_to(30, 34));
}

TEST(RollingWindows, ScoreEveryTokenOnceWhateverTheLengths) {
  for (const std::int32_t n : {0, 1, 2, 5, 9, 10, 11, 20, 21})
    for (const std::int64_t max_length : {1, 2, 5, 10, 40}) {
      Tokens scored;
      for (const EncodedRequest& window : rolling_windows(from_to(0, n), -1, max_length)) {
        EXPECT_LE(std::ssize(window.context) + std::ssize(window.continuation) - 1, max_length);
        EXPECT_EQ(window.context.back(), scored.empty() ? -1 : scored.back());
        scored.insert(scored.end(), window.continuation.begin(), window.continuation.end());
      }
      EXPECT_EQ(scored, from_to(0, n));
    }
}

}  // namespace
}  // namespace photon
