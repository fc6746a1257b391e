// Properties of serve/integrate.h: votes, ties and answers.
#include "serve/integrate.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace photon {
namespace {

TEST(Integrate, AnswersAreNormalisedTexts) {
  EXPECT_EQ(answer_of("  Blue \n\tSKY ", nullptr), "Blue SKY");
  EXPECT_EQ(answer_of(" \n ", nullptr), std::nullopt);
}

TEST(Integrate, APatternExtractsTheAnswer) {
  const RE2 group("answer is (\\d+)"), whole("\\d+"), none("x(y)?");
  EXPECT_EQ(answer_of("So the answer is 42.", &group), "42");
  EXPECT_EQ(answer_of("about 17 or 18", &whole), "17");
  EXPECT_EQ(answer_of("no number", &whole), std::nullopt);
  EXPECT_EQ(answer_of("x", &none), std::nullopt);  // the group is empty
}

TEST(Integrate, MostVotesWinAndTheLikeliestTellsThem) {
  const std::vector<Candidate> candidates{{"red", -0.1}, {"blue", -0.9}, {"green", -0.2}, {"Blue ", -0.3}};
  const Integration result = majority(candidates, nullptr);
  EXPECT_EQ(result.answer, "Blue");  // as the winner spells it
  EXPECT_EQ(result.winner, 3u);
  ASSERT_EQ(result.votes.size(), 3u);
  EXPECT_EQ(result.votes[0].count, 2);
  EXPECT_EQ(result.votes[1].answer, "red");  // of equal counts the likelier first
  EXPECT_EQ(result.votes[2].answer, "green");
}

TEST(Integrate, TiesGoToTheLikelierAnswerAndThenToTheFirst) {
  EXPECT_EQ(majority(std::vector<Candidate>{{"a", -2}, {"b", -1}}, nullptr).winner, 1u);
  EXPECT_EQ(majority(std::vector<Candidate>{{"b", -1}, {"a", -1}}, nullptr).winner, 0u);
  EXPECT_EQ(best(std::vector<Candidate>{{"a", -2}, {"b", -1}, {"c", -1}}), 1u);
}

TEST(Integrate, WithoutAnAnswerTheLikeliestTextIsTheAnswer) {
  const RE2 pattern("\\d+");
  const Integration result = majority(std::vector<Candidate>{{"a", -2}, {"b", -1}}, &pattern);
  EXPECT_EQ(result.winner, 1u);
  EXPECT_EQ(result.answer, std::nullopt);
  EXPECT_EQ(result.without_answer, 2);
}

TEST(Integrate, PatternsTakeLinearTime) {
  const RE2 bomb("(a+)+$");  // exponential for backtracking matchers
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(answer_of(std::string(100'000, 'a').append("b"), &bomb), std::nullopt);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace photon
