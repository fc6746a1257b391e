// Metrics against numbers worked out by hand.
#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace photon {
namespace {

const Task& choice = find_task("piqa");
const Task& last_word = find_task("lambada");
const Task& rolling = find_task("wikitext");

Document question(std::size_t gold, std::vector<std::int64_t> lengths) {
  Document document{.id = "0", .gold = gold, .choice_lengths = std::move(lengths)};
  document.requests.resize(std::max<std::size_t>(2, document.choice_lengths.size()));
  return document;
}

double part(const Document& document, std::vector<double> loglikelihoods, const std::string& metric) {
  const DocumentScore score{.loglikelihoods = std::move(loglikelihoods), .greedy = {}};
  for (const auto& [name, value] : judge(choice, document, score))
    if (name == metric) return value;
  return -1;
}

TEST(Accuracy, IsTheLikeliestChoiceAndTheFirstOfEquals) {
  EXPECT_EQ(part(question(1, {5, 5}), {-3, -2}, "acc"), 1);
  EXPECT_EQ(part(question(0, {5, 5}), {-3, -2}, "acc"), 0);
  EXPECT_EQ(part(question(0, {5, 5}), {-2, -2}, "acc"), 1);
  EXPECT_EQ(part(question(1, {5, 5}), {-2, -2}, "acc"), 0);
  EXPECT_EQ(part(question(2, {5, 5, 5}), {-3, -2, -1}, "acc"), 1);
}

TEST(AccuracyByLength, DividesByCharacters) {
  EXPECT_EQ(part(question(1, {4, 10}), {-8, -10}, "acc"), 0);
  EXPECT_EQ(part(question(1, {4, 10}), {-8, -10}, "acc_norm"), 1);  // -2 and -1 a character
  EXPECT_EQ(part(question(0, {4, 8}), {-8, -16}, "acc_norm"), 1);   // a tie
  EXPECT_EQ(part(question(1, {4, 8}), {-8, -16}, "acc_norm"), 0);
  EXPECT_EQ(part(question(1, {0, 8}), {-1, -16}, "acc_norm"), 1);  // an empty choice is infinitely unlikely
  EXPECT_EQ(part(question(1, {}), {-8, -10}, "acc_norm"), -1) << "without lengths there is no acc_norm";
}

TEST(Metrics, OfChoicesAreMeansWithTheirStandardErrors) {
  const std::vector<Document> documents{question(0, {1, 1}), question(0, {1, 9}), question(1, {1, 1}),
                                        question(1, {1, 1})};
  const std::vector<DocumentScore> scores{{.loglikelihoods = {-1, -2}, .greedy = {false, false}},
                                          {.loglikelihoods = {-1, -2}, .greedy = {false, false}},
                                          {.loglikelihoods = {-1, -2}, .greedy = {false, false}},
                                          {.loglikelihoods = {-2, -1}, .greedy = {false, false}}};
  const auto got = metrics(choice, documents, scores);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].name, "acc");
  EXPECT_DOUBLE_EQ(got[0].value, 0.75);
  EXPECT_DOUBLE_EQ(*got[0].standard_error, std::sqrt(0.75 / 3) / 2);  // squares 3·(1/4)² + (3/4)²
  EXPECT_EQ(got[1].name, "acc_norm");
  EXPECT_DOUBLE_EQ(got[1].value, 0.5);
  EXPECT_DOUBLE_EQ(*got[1].standard_error, std::sqrt(1.0 / 3) / 2);
}

TEST(Metrics, OfOneDocumentHaveNoStandardError) {
  const std::vector<Document> documents{question(0, {1, 1})};
  const std::vector<DocumentScore> scores{{.loglikelihoods = {-1, -2}, .greedy = {false, false}}};
  EXPECT_FALSE(metrics(choice, documents, scores)[0].standard_error);
}

TEST(Metrics, OfLastWordsAreGreedyShareAndPerplexityOfAWord) {
  const std::vector<Document> documents(2, Document{.id = "0", .requests = std::vector<ScoreRequest>(1)});
  const std::vector<DocumentScore> scores{{.loglikelihoods = {-1}, .greedy = {true}},
                                          {.loglikelihoods = {-3}, .greedy = {false}}};
  const auto got = metrics(last_word, documents, scores);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_DOUBLE_EQ(got[0].value, 0.5);
  EXPECT_EQ(got[1].name, "perplexity");
  EXPECT_DOUBLE_EQ(got[1].value, std::exp(2));
  // Samples of two give e¹, e², e², e³ equally often.
  const double e1 = std::exp(1), e2 = std::exp(2), e3 = std::exp(3), m = (e1 + 2 * e2 + e3) / 4;
  const double deviation = std::sqrt(((e1 - m) * (e1 - m) + 2 * (e2 - m) * (e2 - m) + (e3 - m) * (e3 - m)) / 4);
  EXPECT_NEAR(*got[1].standard_error, deviation, 0.1 * deviation);
}

TEST(Metrics, OfTextsAreWeightedByTheirLength) {
  const std::vector<Document> documents{
      {.id = "0", .requests = std::vector<ScoreRequest>(1), .n_words = 4, .n_bytes = 20},
      {.id = "1", .requests = std::vector<ScoreRequest>(1), .n_words = 1, .n_bytes = 12}};
  const std::vector<DocumentScore> scores{{.loglikelihoods = {-10}, .greedy = {false}},
                                          {.loglikelihoods = {-6}, .greedy = {false}}};
  const auto got = metrics(rolling, documents, scores);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].name, "word_perplexity");
  EXPECT_DOUBLE_EQ(got[0].value, std::exp(16.0 / 5));
  EXPECT_EQ(got[1].name, "byte_perplexity");
  EXPECT_DOUBLE_EQ(got[1].value, std::exp(0.5));
  EXPECT_EQ(got[2].name, "bits_per_byte");
  EXPECT_DOUBLE_EQ(got[2].value, 0.5 / std::log(2));
  EXPECT_NEAR(*got[2].standard_error, 0, 1e-12);  // both have half a nat a byte
  EXPECT_GT(*got[0].standard_error, 1);
}

// For a mean the bootstrap is known: the standard deviation over √n.
TEST(Bootstrap, AgreesWithTheStandardErrorOfAMean) {
  std::vector<Weighted> items;
  std::vector<double> values;
  for (int i = 0; i < 200; ++i) {
    values.push_back(static_cast<double>(i % 7));
    items.emplace_back(values.back(), 1);
  }
  const auto identity = [](double x) { return x; };
  EXPECT_NEAR(*bootstrap_standard_error(items, identity), *mean_standard_error(values),
              0.08 * *mean_standard_error(values));
  EXPECT_EQ(bootstrap_standard_error(items, identity), bootstrap_standard_error(items, identity));
  EXPECT_FALSE(bootstrap_standard_error(std::span(items).first(1), identity));
}

TEST(Metrics, OfRecallAreToldApartByDistance) {
  std::vector<Document> documents(3);
  std::vector<DocumentScore> scores;
  for (std::size_t d = 0; d < 3; ++d) {
    documents[d] = {.id = std::to_string(d), .gold = 1};
    documents[d].requests.resize(2);
    documents[d].distance = d < 2 ? 256 : 1024;
    scores.push_back({.loglikelihoods = {-2, d == 1 ? -3.0 : -1.0}, .greedy = {false, d == 0}});
  }
  std::map<std::string, double> got;
  for (const Metric& metric : metrics(find_task("recall"), documents, scores)) got[metric.name] = metric.value;
  EXPECT_EQ(got, (std::map<std::string, double>{{"acc", 2.0 / 3},
                                                {"acc@256", 0.5},
                                                {"acc@1024", 1},
                                                {"greedy@256", 0.5},
                                                {"greedy@1024", 0},
                                                {"nats@256", 2},
                                                {"nats@1024", 1}}));
}

}  // namespace
}  // namespace photon
