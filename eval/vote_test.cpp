// What counts as an answer, who wins a vote, and that a vote over a model's samples is made of what the engine
// generates.
#include "eval/vote.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "engine/models_testing.h"
#include "eval/scorer.h"
#include "kernels/kernels.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

const Task& lambada = find_task("lambada");
const Task& sciq = find_task("sciq");

Document question() {
  return {.id = "0",
          .requests = {{"Of what is it made?", " red Clay"}, {"Of what is it made?", " old iron"}},
          .gold = 1,
          .answer = " old iron"};
}

TEST(Answers, OfALastWordTaskAreTheFirstWordWithoutPunctuation) {
  const Document document{.id = "0", .requests = {{"The cat is", " Tom"}}, .answer = " Tom"};
  EXPECT_EQ(answer_in(lambada, document, " Tom. He"), "Tom");
  EXPECT_EQ(answer_in(lambada, document, "\"Tom,\" she"), "Tom");
  EXPECT_EQ(answer_in(lambada, document, " tomato"), "tomato");
  EXPECT_EQ(answer_in(lambada, document, " \n"), "");
  EXPECT_EQ(right_answer(lambada, document), "Tom");
}

TEST(Answers, AmongChoicesAreTheOneWithMostWordsInCommon) {
  EXPECT_EQ(answer_in(sciq, question(), " the Iron, of course"), "old iron");
  EXPECT_EQ(answer_in(sciq, question(), " clay that is red, iron"), "red Clay");
  EXPECT_EQ(answer_in(sciq, question(), " red iron"), "red Clay") << "a tie goes to the first";
  EXPECT_EQ(answer_in(sciq, question(), " of nothing"), "");
  EXPECT_EQ(right_answer(sciq, question()), "old iron");
}

TEST(Votes, AreWonByTheMostFrequentAnswerThatIsOne) {
  const std::vector<SampledAnswer> samples{{"", -1}, {"a", -3}, {"", -1}, {"b", -2}, {"", -9}, {"b", -0.5}};
  EXPECT_EQ(samples[majority(samples)].text, "b");
  EXPECT_EQ(majority(std::span(samples).first(4)), 1u) << "a tie goes to the first";
  EXPECT_EQ(majority(std::span(samples).first(1)), 0u);
  EXPECT_EQ(likeliest(samples), 5u);
}

TEST(Votes, CurvesAreMeansOverGroupsAndDocuments) {
  const SampledAnswer right{"a", -1, true}, wrong{"b", -2, false}, likely{"b", -0.1, false};
  const std::vector<std::vector<SampledAnswer>> documents{{right, right, wrong, right, wrong},
                                                          {wrong, wrong, likely, right, right}};
  const auto curve = vote_curve(documents);  // n = 1, 2, 4: of five samples the last is in no group of two or four
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[0].n, 1);
  EXPECT_DOUBLE_EQ(curve[0].majority, (3.0 / 5 + 2.0 / 5) / 2);
  EXPECT_DOUBLE_EQ(curve[0].any, curve[0].majority);
  EXPECT_DOUBLE_EQ(curve[1].majority, (0.5 + 0) / 2) << "of wrong, right the first is taken";
  EXPECT_DOUBLE_EQ(curve[1].best, (1.0 + 0) / 2);
  EXPECT_DOUBLE_EQ(curve[1].any, (1.0 + 0.5) / 2);
  EXPECT_EQ(curve[2].n, 4);
  EXPECT_DOUBLE_EQ(curve[2].majority, (1.0 + 0) / 2);
  EXPECT_DOUBLE_EQ(*curve[2].majority_standard_error, 0.5);
}

Spec spec_of(const std::string& name) {
  Spec spec = tiny_spec(name);
  spec.vocab_size = 400, spec.bos_token_id = 1, spec.eos_token_id = 2;
  return spec;
}

TEST(Votes, AreTakenOverWhatTheEngineGenerates) {
  set_threads(1);
  const TestModel folder(spec_of("window_mixed"));
  Engine engine(folder.path());
  const Tokenizer tokenizer(testing_support::tokenizer_path());
  const VoteOptions options{.n_answers = 5, .n_tokens = 4, .protocol = Protocol::recgen};
  const DocumentVote got = vote(engine, tokenizer, 1, sciq, question(), 3, options, 64);
  const DocumentVote again = vote(engine, tokenizer, 1, sciq, question(), 3, options, 64);
  ASSERT_EQ(got.samples.size(), 5u);
  EXPECT_GT(got.kv_bytes, 0);

  Request request{.prompt = {1},
                  .n_tokens = 4,
                  .n_continuations = 5,
                  .protocol = Protocol::recgen,
                  .sampler = {.temperature = 1.0}};
  for (const std::int32_t token : tokenizer.encode("Of what is it made?")) request.prompt.push_back(token);
  EXPECT_EQ(got.n_prompt, std::ssize(request.prompt));
  request.sampler.seed = Random(0, 3).next();
  const Generation generation = engine.generate(request);
  std::vector<std::vector<std::int32_t>> tokens;
  for (const GeneratedTokens& c : generation.continuations) tokens.push_back(c.tokens);
  const auto scores = Scorer(engine.runner(), Protocol::recgen).score(request.prompt, tokens);
  for (std::size_t i = 0; i < 5; ++i) {
    std::string text;
    for (const std::int32_t token : tokens[i]) text += tokenizer.piece(token);
    EXPECT_EQ(got.samples[i].text, answer_in(sciq, question(), text));
    EXPECT_EQ(got.samples[i].text, again.samples[i].text);
    double nats = 0;
    for (const TokenScore& score : scores[i]) nats += static_cast<double>(score.logprob);
    ASSERT_FALSE(tokens[i].empty());
    EXPECT_NEAR(got.samples[i].logprob, nats / static_cast<double>(tokens[i].size()), 1e-9);
  }
}

TEST(Votes, AreRefusedWhereNothingIsAsked) {
  const TestModel folder(spec_of("vanilla"));
  Engine engine(folder.path());
  const Tokenizer tokenizer(testing_support::tokenizer_path());
  Document other = question();
  other.requests[0].context = "Another?";
  EXPECT_THROW(vote(engine, tokenizer, 1, find_task("winogrande"), other, 0, {}, 64), InputError);
  EXPECT_THROW(vote(engine, tokenizer, 1, sciq, question(), 0, {.n_tokens = 64}, 64), InputError);
}

}  // namespace
}  // namespace photon
