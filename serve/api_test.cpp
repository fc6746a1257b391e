// Properties of the API as its clients see them, with a tiny model: what streams is what does not, scores are the
// engine's, and no request depends on its neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/generate.h"
#include "serve/api_testing.h"
#include "text/utf8.h"

namespace photon {
namespace {

using namespace testing_support;

ApiUnderTest& api() {
  static ApiUnderTest shared;
  return shared;
}
ApiUnderTest& vanilla() {
  static ApiUnderTest shared("vanilla");
  return shared;
}

json with(json body, const json& more) {
  body.update(more);
  return body;
}

json answer(const json& body, ApiUnderTest& of = api()) {
  const auto responder = of.complete(body);
  EXPECT_EQ(responder->status(), 200) << responder->bytes();
  return responder->body();
}

// The events of a stream joined as a client joins them.
struct Joined {
  struct Choice {
    std::string text, finish_reason;
    json token_ids = json::array();
    json logprobs = {{"tokens", json::array()},
                     {"token_logprobs", json::array()},
                     {"top_logprobs", json::array()},
                     {"text_offset", json::array()}};
  };
  std::map<std::int64_t, Choice> choices;
  json usage;
};
Joined stream(const json& body, ApiUnderTest& of = api()) {
  const auto responder = of.complete(with(body, {{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  EXPECT_EQ(responder->status(), 200) << responder->bytes();
  EXPECT_TRUE(responder->is_stream());
  EXPECT_TRUE(is_valid_utf8(responder->bytes()));
  Joined joined;
  for (const json& event : responder->events()) {
    EXPECT_EQ(event["object"], "text_completion");
    if (event["choices"].empty()) {
      joined.usage = event["usage"];
      continue;
    }
    EXPECT_TRUE(event["usage"].is_null());
    const json& part = event["choices"][0];
    auto& choice = joined.choices[part["index"].get<std::int64_t>()];
    EXPECT_EQ(choice.finish_reason, "") << "a choice goes on after its end";
    choice.text += part["text"].get<std::string>();
    if (!part["finish_reason"].is_null()) choice.finish_reason = part["finish_reason"];
    if (part.contains("token_ids"))
      for (const json& id : part["token_ids"]) choice.token_ids.push_back(id);
    if (!part["logprobs"].is_null())
      for (auto& [key, list] : choice.logprobs.items())
        for (const json& item : part["logprobs"][key]) list.push_back(item);
  }
  return joined;
}

// ---- whole and streamed ----

TEST(Api, WhatStreamsIsWhatDoesNot) {
  const json prompts = {"", "the mi", "ka lo\nsu é", {1, 20, 300, 301}, {{1, 5}, {7, 8, 9}}, {"a", "kalo"}};
  const std::vector<json> variants{
      {{"max_tokens", 40}},
      {{"max_tokens", 33}, {"n", 3}, {"logprobs", 3}},
      {{"max_tokens", 40}, {"stop", {"a", "ren", "é", " k"}}, {"logprobs", 0}},
      {{"max_tokens", 12}, {"echo", true}},
      {{"max_tokens", 12}, {"echo", true}, {"logprobs", 2}, {"n", 2}},
      {{"max_tokens", 0}, {"echo", true}, {"logprobs", 1}},
      {{"max_tokens", 0}},
      {{"max_tokens", 25}, {"protocol", "recgen"}, {"logprobs", 1}, {"n", 2}, {"stop", "the"}},
      {{"max_tokens", 25},
       {"temperature", 2},
       {"presence_penalty", 1},
       {"frequency_penalty", -0.5},
       {"repetition_penalty", 1.2},
       {"top_k", 50},
       {"top_p", 0.9},
       {"min_p", 0.01},
       {"logit_bias", {{"30", 5}}}}};
  for (const json& prompt : prompts)
    for (const json& variant : variants) {
      const json body = with(variant, {{"prompt", prompt}, {"seed", 5}, {"return_token_ids", true}});
      const json whole = answer(body);
      const Joined joined = stream(body);
      ASSERT_EQ(joined.choices.size(), whole["choices"].size()) << body;
      for (const json& choice : whole["choices"]) {
        const auto& streamed = joined.choices.at(choice["index"].get<std::int64_t>());
        EXPECT_EQ(streamed.text, choice["text"]) << body;
        EXPECT_EQ(streamed.finish_reason, choice["finish_reason"]) << body;
        EXPECT_EQ(streamed.token_ids, choice["token_ids"]) << body;
        if (!choice["logprobs"].is_null()) {
          EXPECT_EQ(streamed.logprobs, choice["logprobs"]) << body;
        }
      }
      for (const char* count : {"prompt_tokens", "completion_tokens", "total_tokens"})
        EXPECT_EQ(joined.usage[count], whole["usage"][count]) << body;
    }
}

TEST(Api, UsageComesOnlyWhenAskedFor) {
  const auto responder = api().complete({{"prompt", "a"}, {"stream", true}, {"max_tokens", 3}});
  for (const json& event : responder->events()) {
    EXPECT_FALSE(event.contains("usage"));
    EXPECT_EQ(event["choices"].size(), 1u);
    EXPECT_FALSE(event.contains("error"));
  }
  EXPECT_TRUE(responder->bytes().ends_with("data: [DONE]\n\n"));
}

TEST(Api, TheFinishReasonIsNullUntilTheLastEvent) {
  const auto events =
      api().complete({{"prompt", "a"}, {"stream", true}, {"max_tokens", 5}, {"ignore_eos", true}})->events();
  for (std::size_t i = 0; i + 1 < events.size(); ++i) EXPECT_TRUE(events[i]["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "length");
}

TEST(Api, TextIsThatOfTheTokens) {
  const json whole = answer({{"prompt", "ka"}, {"max_tokens", 50}, {"seed", 3}, {"return_token_ids", true}});
  const json& choice = whole["choices"][0];
  const Tokenizer& tokenizer = api().tokenizer();
  std::vector<std::int32_t> tokens = tokenizer.encode("ka");
  const std::size_t n_prompt = tokens.size();
  tokens.insert(tokens.begin(), 1);
  for (const json& id : choice["token_ids"]) tokens.push_back(id);
  EXPECT_EQ(tokenizer.decode(tokens), std::string("ka").append(choice["text"].get<std::string>()));
  EXPECT_EQ(whole["usage"]["prompt_tokens"], n_prompt + 1);
  EXPECT_EQ(whole["usage"]["completion_tokens"], choice["token_ids"].size());
}

TEST(Api, AStopStringEndsTheTextBeforeIt) {
  const json body{{"prompt", "ka"}, {"max_tokens", 60}, {"seed", 3}};
  const std::string text = answer(body)["choices"][0]["text"];
  ASSERT_GT(text.size(), 20u);
  for (std::size_t begin = 3; begin < 15; ++begin) {
    std::string stop = text.substr(begin, 6);
    if (!is_valid_utf8(stop)) continue;  // it would be cut out of a character
    const json choice = answer(with(body, {{"stop", stop}}))["choices"][0];
    EXPECT_EQ(choice["text"], text.substr(0, text.find(stop)));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
}

TEST(Api, AStopStringEndsTheWorkToo) {
  const json body{{"prompt", "ka"}, {"max_tokens", 500}, {"seed", 3}, {"ignore_eos", true}};
  const std::string text = answer(with(body, {{"max_tokens", 20}}))["choices"][0]["text"];
  const json stopped = answer(with(body, {{"stop", text.substr(0, 1)}}));
  EXPECT_LT(stopped["usage"]["completion_tokens"], 20);
}

// ---- log-probabilities ----

TEST(Api, EchoWithLogprobsIsTheForwardPass) {
  for (ApiUnderTest* of : {&api(), &vanilla()}) {
    Engine engine(of->folder());
    const auto text = random_tokens(61, 400, 7);
    const std::vector<float> expected = engine.score(text).logprobs;
    for (const std::int64_t n_generated : {0, 1}) {
      const json choice = answer({{"prompt", text},
                                  {"max_tokens", n_generated},
                                  {"temperature", 0},
                                  {"echo", true},
                                  {"logprobs", 1},
                                  {"ignore_eos", true}},
                                 *of)["choices"][0];
      const json& logprobs = choice["logprobs"]["token_logprobs"];
      ASSERT_EQ(logprobs.size(), text.size() + static_cast<std::size_t>(n_generated));
      EXPECT_TRUE(logprobs[0].is_null());
      EXPECT_TRUE(choice["logprobs"]["top_logprobs"][0].is_null());
      for (std::size_t i = 1; i < text.size(); ++i)
        EXPECT_EQ(logprobs[i].get<float>(), expected[i]) << i;  // bit for bit
    }
  }
}

TEST(Api, LongAnswersAreToldLikeShortOnes) {  // they are written elsewhere
  const auto text = random_tokens(590, 400, 7);
  json body{{"prompt", text}, {"max_tokens", 5}, {"echo", true}, {"logprobs", 1}, {"seed", 1}, {"ignore_eos", true}};
  const json alone = answer(body)["choices"][0];
  body["n"] = 8;
  const json choices = answer(body)["choices"];
  ASSERT_EQ(choices.size(), 8u);
  EXPECT_EQ(choices[0], alone);
}

TEST(Api, TheChosenTokenIsAmongTheAlternativesWithTheSameNumber) {
  const json logprobs =
      answer({{"prompt", "ka lo"}, {"max_tokens", 30}, {"seed", 4}, {"echo", true}, {"logprobs", 4}})["choices"][0]
                                                                                                     ["logprobs"];
  for (std::size_t i = 1; i < logprobs["tokens"].size(); ++i) {
    const json& top = logprobs["top_logprobs"][i];
    const std::string token = logprobs["tokens"][i];
    EXPECT_GE(top.size(), 1u);
    EXPECT_LE(top.size(), 5u);
    ASSERT_TRUE(top.contains(token)) << token;
    EXPECT_GE(top[token], logprobs["token_logprobs"][i]);  // two tokens may have one text: then the better one
    double sum = 0;
    for (const auto& [text, logprob] : top.items()) sum += std::exp(logprob.get<double>());
    EXPECT_LE(sum, 1.0001);
  }
}

TEST(Api, GreedyTokensAreTheBestAlternatives) {
  const json logprobs =
      answer({{"prompt", "ka lo"}, {"max_tokens", 30}, {"temperature", 0}, {"logprobs", 1}})["choices"][0]["logprobs"];
  for (std::size_t i = 0; i < logprobs["tokens"].size(); ++i) {
    double best = -1e9;
    for (const auto& [text, logprob] : logprobs["top_logprobs"][i].items())
      best = std::max(best, logprob.get<double>());
    EXPECT_EQ(logprobs["token_logprobs"][i].get<double>(), best);
  }
}

TEST(Api, TheEosThatEndsATextHasAnEntry) {
  const json body{{"prompt", {1, 20, 30}}, {"max_tokens", 1},         {"temperature", 0},
                  {"echo", true},          {"logprobs", 1},           {"logit_bias", {{"2", 100}}},
                  {"seed", 1234},          {"return_token_ids", true}};
  const json choice = answer(body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  ASSERT_EQ(choice["logprobs"]["tokens"].size(), 4u);
  EXPECT_EQ(choice["logprobs"]["tokens"][3], "</s>");
  EXPECT_LT(choice["logprobs"]["token_logprobs"][3], 0.0);
  EXPECT_EQ(choice["text"].get<std::string>().find("</s>"), std::string::npos);
  EXPECT_EQ(stream(body).choices.at(0).logprobs, choice["logprobs"]);
}

TEST(Api, TextOffsetsCountTheCharactersBeforeAToken) {
  const json choice = answer({{"prompt", "ka é"},
                              {"max_tokens", 40},
                              {"seed", 2},
                              {"echo", true},
                              {"logprobs", 0},
                              {"return_token_ids", true}})["choices"][0];
  const Tokenizer& tokenizer = api().tokenizer();
  TextStream text(&tokenizer, {});
  std::int64_t characters = 0;
  for (std::size_t i = 0; i < choice["token_ids"].size(); ++i) {
    EXPECT_EQ(choice["logprobs"]["text_offset"][i], characters);
    characters += count_characters(text.add(choice["token_ids"][i]));
  }
}

// ---- many continuations ----

TEST(Api, ChoicesAreOrderedByPromptAndContinuation) {
  const json body{{"prompt", {"ka", "lo", "mi"}}, {"n", 2}, {"max_tokens", 10}, {"seed", 8}};
  const json all = answer(body)["choices"];
  ASSERT_EQ(all.size(), 6u);
  const std::vector<std::string> prompts{"ka", "lo", "mi"};
  for (std::size_t p = 0; p < 3; ++p) {
    const json alone = answer(with(body, {{"prompt", prompts[p]}}))["choices"];
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(all[2 * p + i]["index"], 2 * p + i);
      EXPECT_EQ(all[2 * p + i]["text"], alone[i]["text"]);  // a list of prompts is those prompts
    }
  }
}

TEST(Api, TheSameSeedSaysTheSameAndAnotherSomethingElse) {
  const json body{{"prompt", "ka"}, {"max_tokens", 20}};
  const auto text = [&](const json& more) { return answer(with(body, more))["choices"][0]["text"]; };
  EXPECT_EQ(text({{"seed", 1}}), text({{"seed", 1}}));
  EXPECT_NE(text({{"seed", 1}}), text({{"seed", 2}}));
  const json random = answer(body);  // a seed that nobody gave is told
  EXPECT_EQ(text({{"seed", random["usage"]["photon"]["seed"]}}), random["choices"][0]["text"]);
}

TEST(Api, EqualPromptsAreSamplesOfTheirOwnUnlessASeedIsGiven) {
  const json body{{"prompt", {"ka", "ka", "ka"}}, {"max_tokens", 20}, {"ignore_eos", true}};
  const json drawn = answer(body)["choices"], seeded = answer(with(body, {{"seed", 1}}))["choices"];
  EXPECT_NE(drawn[0]["text"], drawn[1]["text"]);
  EXPECT_NE(drawn[1]["text"], drawn[2]["text"]);
  EXPECT_EQ(seeded[0]["text"], seeded[1]["text"]);
  EXPECT_EQ(seeded[0]["text"], seeded[2]["text"]);
}

TEST(Api, BestOfAnswersTheContinuationsOfHighestMeanLogprob) {
  const json body{{"prompt", "ka"}, {"max_tokens", 12}, {"seed", 8}, {"ignore_eos", true}};
  const json all = answer(with(body, {{"n", 6}, {"logprobs", 0}}))["choices"];
  std::vector<std::pair<double, std::string>> ranked;
  for (const json& choice : all) {
    double sum = 0;
    for (const json& logprob : choice["logprobs"]["token_logprobs"]) sum += logprob.get<double>();
    ranked.emplace_back(-sum / 12, choice["text"]);
  }
  std::ranges::stable_sort(ranked, {}, &std::pair<double, std::string>::first);
  const json best = answer(with(body, {{"n", 2}, {"best_of", 6}}))["choices"];
  ASSERT_EQ(best.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(best[i]["text"], ranked[i].second);
    EXPECT_EQ(best[i]["index"], i);
    EXPECT_TRUE(best[i]["logprobs"].is_null());
  }
}

TEST(Api, IntegrationAnswersWithOneChoiceAndTheVotes) {
  const json body{{"prompt", "ka"}, {"max_tokens", 3}, {"seed", 8}, {"n", 16}, {"temperature", 0.5}};
  const json all = answer(body)["choices"];
  const json majority = answer(with(body, {{"integrate", "majority"}, {"integrate_regex", "^\\s*(\\S)"}}))["choices"];
  ASSERT_EQ(majority.size(), 1u);
  const json& own = majority[0]["photon"];
  std::int64_t votes = own["without_answer"];
  for (const json& vote : own["votes"]) {
    votes += vote["count"].get<std::int64_t>();
    EXPECT_LE(vote["count"], own["votes"][0]["count"]);
  }
  EXPECT_EQ(votes, 16);
  EXPECT_EQ(own["answer"], own["votes"][0]["answer"]);
  EXPECT_EQ(majority[0]["text"], all[own["continuation"].get<std::size_t>()]["text"]);
  const json best = answer(with(body, {{"integrate", "best"}}))["choices"];
  ASSERT_EQ(best.size(), 1u);
  EXPECT_EQ(best[0]["text"], answer(with(body, {{"n", 1}, {"best_of", 16}}))["choices"][0]["text"]);
}

// ---- neighbours ----

TEST(Api, ABatchOf32IsEachOfItsRequestsAlone) {
  std::vector<json> bodies;
  for (int i = 0; i < 32; ++i)
    bodies.push_back({{"prompt", random_tokens(1 + 5 * i, 400, static_cast<std::uint64_t>(i))},
                      {"max_tokens", 5 + i},
                      {"seed", i},
                      {"logprobs", 2},
                      {"echo", i % 4 == 0},
                      {"n", 1 + i % 3},
                      {"stream", i % 2 == 0},
                      {"protocol", i % 5 == 0 ? "recgen" : "hiergen"},
                      {"temperature", i % 3 == 0 ? 0.0 : 1.0}});
  const auto choices = [](const std::shared_ptr<RecordingResponder>& responder) {
    EXPECT_EQ(responder->status(), 200) << responder->bytes();
    if (!responder->is_stream()) return std::vector<json>{responder->body()["choices"]};
    // Continuations of one request may interleave otherwise, and a prompt's scores come in other pieces.
    std::map<std::int64_t, json> joined;
    for (const json& event : responder->events()) {
      const json& part = event["choices"][0];
      json& all = joined.try_emplace(part["index"].get<std::int64_t>(), json::object()).first->second;
      all["text"] = all.value("text", "") + part["text"].get<std::string>();
      for (const json& logprob : part["logprobs"]["token_logprobs"]) all["logprobs"].push_back(logprob);
    }
    std::vector<json> result;
    for (const auto& [index, all] : joined) result.push_back(all);
    return result;
  };
  ApiUnderTest fresh;  // nothing in its prefix cache
  std::vector<std::shared_ptr<RecordingResponder>> together;
  for (const json& body : bodies) together.push_back(fresh.ask("POST", "/v1/completions", body.dump()));
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    ASSERT_TRUE(together[i]->wait());
    const auto alone = fresh.complete(bodies[i]);  // with the prefix cache warm
    EXPECT_EQ(choices(alone), choices(together[i])) << bodies[i];
  }
}

TEST(Api, ARepeatedPromptIsFoundInTheCacheAndAnsweredAlike) {
  ApiUnderTest fresh;
  const json body{{"prompt", random_tokens(200, 400, 3)}, {"max_tokens", 10}, {"seed", 1}, {"logprobs", 1}};
  const json first = answer(body, fresh), second = answer(body, fresh);
  EXPECT_EQ(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_GT(second["usage"]["prompt_tokens_details"]["cached_tokens"], 100);
  EXPECT_EQ(first["choices"], second["choices"]);
}

TEST(Api, ADisconnectEndsTheWorkAndLeavesOthersAlone) {
  const json body{{"prompt", "ka lo"}, {"max_tokens", 590}, {"ignore_eos", true}, {"seed", 1}, {"n", 4}};
  const json expected = answer(body)["choices"];
  for (const bool streamed : {true, false}) {
    const auto survivor = api().ask("POST", "/v1/completions", body.dump());
    const auto leaver = api().ask("POST", "/v1/completions", with(body, {{"stream", streamed}, {"n", 8}}).dump());
    if (streamed) {
      ASSERT_TRUE(leaver->wait_for_bytes());
    }
    leaver->disconnect();
    ASSERT_TRUE(leaver->wait());  // its end, which nobody reads
    ASSERT_TRUE(survivor->wait());
    EXPECT_EQ(survivor->body()["choices"], expected);
    EXPECT_TRUE(streamed || leaver->status() == 503);
  }
}

TEST(Api, ClientsThatWaitHearWhenTheServerEnds) {
  std::shared_ptr<RecordingResponder> whole, streamed;
  {
    ApiUnderTest ending;
    const json body{{"prompt", "ka"}, {"max_tokens", 590}, {"ignore_eos", true}, {"n", 64}};
    streamed = ending.ask("POST", "/v1/completions", with(body, {{"stream", true}}).dump());
    ASSERT_TRUE(streamed->wait_for_bytes());
    whole = ending.ask("POST", "/v1/completions", body.dump());
  }
  ASSERT_TRUE(whole->wait() && streamed->wait());
  EXPECT_EQ(whole->status(), 503);
  EXPECT_EQ(streamed->events().back()["error"]["type"], "unavailable_error");
}

TEST(Api, AFullQueueSaysSoAndWhenToComeBack) {
  auto options = ApiUnderTest::small_options();
  options.max_queue = 1, options.max_sequences = 1;
  ApiUnderTest small("window_stream", options);
  std::vector<std::shared_ptr<RecordingResponder>> asked;
  const json body{{"prompt", "ka"}, {"max_tokens", 300}, {"ignore_eos", true}, {"stream", true}};
  for (int i = 0; i < 20; ++i) asked.push_back(small.ask("POST", "/v1/completions", body.dump()));
  int refused = 0;
  for (const auto& responder : asked) {
    ASSERT_TRUE(responder->wait());
    if (responder->status() == 200) continue;
    ++refused;
    EXPECT_EQ(responder->status(), 429);
    EXPECT_EQ(responder->body()["error"]["type"], "rate_limit_error");
    EXPECT_NE(responder->header("retry-after"), "");
    EXPECT_FALSE(responder->is_stream());
  }
  EXPECT_GT(refused, 0);
}

// ---- the context ----

TEST(Api, TheContextFitsExactlyAndNotOneTokenMore) {
  const auto prompt = random_tokens(590, 400, 1);
  const json body{{"prompt", prompt}, {"ignore_eos", true}};
  for (const json& n : {json(10), json(0)}) EXPECT_EQ(api().complete(with(body, {{"max_tokens", n}}))->status(), 200);
  for (const std::int64_t n : {11, 5000}) {
    const auto responder = api().complete(with(body, {{"max_tokens", n}}));
    EXPECT_EQ(responder->status(), 400);
    const json error = responder->body()["error"];
    EXPECT_EQ(error["code"], "context_length_exceeded");
    EXPECT_EQ(error["param"], "max_tokens");
    EXPECT_NE(error["message"].get<std::string>().find("600"), std::string::npos);
    EXPECT_NE(error["message"].get<std::string>().find(std::to_string(590 + n)), std::string::npos);
  }
  EXPECT_EQ(api().complete({{"prompt", random_tokens(601, 400, 1)}, {"max_tokens", 0}})->body()["error"]["param"],
            "prompt");
}

// ---- chat ----

const char* chat_json = R"({"system": "su {content}\n", "user": "ka {content}\n", "assistant": "lo {content}\n",
                            "generation_prompt": "lo", "stop": ["ka"]})";

TEST(Api, AChatIsTheCompletionOfItsText) {
  ApiUnderTest chatty("window_stream", ApiUnderTest::small_options(), true, chat_json);
  const json body{{"max_tokens", 30}, {"seed", 2}, {"n", 2}};
  const json expected = answer(with(body, {{"prompt", "su x\nka mi\nlo"}, {"stop", "ka"}, {"logprobs", 2}}), chatty);
  const json messages = {{{"role", "system"}, {"content", "x"}}, {{"role", "user"}, {"content", "mi"}}};
  const json chat_body = with(body, {{"messages", messages}, {"logprobs", true}, {"top_logprobs", 2}});
  const json chat = chatty.post("/v1/chat/completions", chat_body.dump())->body();
  EXPECT_EQ(chat["object"], "chat.completion");
  ASSERT_EQ(chat["choices"].size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const json &choice = chat["choices"][i], &same = expected["choices"][i];
    EXPECT_EQ(choice["message"]["content"], same["text"]);
    EXPECT_EQ(choice["message"]["role"], "assistant");
    EXPECT_EQ(choice["finish_reason"], same["finish_reason"]);
    const json& content = choice["logprobs"]["content"];
    ASSERT_EQ(content.size(), same["logprobs"]["tokens"].size());
    for (std::size_t j = 0; j < content.size(); ++j) {
      EXPECT_EQ(content[j]["token"], same["logprobs"]["tokens"][j]);
      EXPECT_EQ(content[j]["logprob"], same["logprobs"]["token_logprobs"][j]);
      EXPECT_EQ(content[j]["top_logprobs"].size(), 2u);
    }
  }

  const auto streamed = chatty.post("/v1/chat/completions", with(chat_body, {{"stream", true}}).dump());
  std::map<std::int64_t, std::string> texts, roles;
  for (const json& event : streamed->events()) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    const json& part = event["choices"][0];
    const auto index = part["index"].get<std::int64_t>();
    texts[index] += part["delta"].value("content", "");
    roles[index] += part["delta"].value("role", "");
  }
  for (std::int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(texts[i], chat["choices"][static_cast<std::size_t>(i)]["message"]["content"]);
    EXPECT_EQ(roles[i], "assistant");  // once
  }
}

TEST(Api, AChatWithoutALengthGetsWhatTheContextHasLeft) {
  ApiUnderTest chatty("window_stream", ApiUnderTest::small_options(), true, chat_json);
  const json body{
      {"messages", {{{"role", "user"}, {"content", "mi"}}}}, {"ignore_eos", true}, {"logit_bias", {{"30", 100}}}};
  const json usage = chatty.post("/v1/chat/completions", body.dump())->body()["usage"];
  EXPECT_EQ(usage["total_tokens"], 600);
}

// ---- the tokenizer, and what the server says of itself ----

TEST(Api, TokenizeIsWhatPromptsBecome) {
  const Tokenizer& tokenizer = api().tokenizer();
  const auto tokenize = [](const json& body) { return api().post("/tokenize", body.dump())->body(); };
  const std::string text = "ka lo é\n";
  const std::vector<std::int32_t> plain = tokenizer.encode(text);
  std::vector<std::int32_t> begun = plain;
  begun.insert(begun.begin(), 1);
  EXPECT_EQ(tokenize({{"prompt", text}})["tokens"], json(begun));
  EXPECT_EQ(tokenize({{"prompt", text}, {"add_special_tokens", false}})["tokens"], json(plain));
  EXPECT_EQ(tokenize({{"content", text}})["tokens"], json(plain));
  EXPECT_EQ(tokenize({{"content", text}, {"add_special", true}})["tokens"], json(begun));
  const json all = tokenize({{"prompt", text}, {"return_token_strs", true}});
  EXPECT_EQ(all["count"], begun.size());
  EXPECT_EQ(all["max_model_len"], 600);
  EXPECT_EQ(all["token_strs"].size(), begun.size());
  EXPECT_EQ(all["token_strs"][0], "<s>");
  EXPECT_EQ(tokenize({{"content", text}, {"with_pieces", true}})["tokens"][0]["id"], plain[0]);
  EXPECT_EQ(tokenize({{"prompt", ""}})["tokens"], json({1}));
  EXPECT_EQ(tokenize({{"content", ""}})["tokens"], json::array());
  const json whole = answer({{"prompt", text}, {"max_tokens", 0}});
  EXPECT_EQ(whole["usage"]["prompt_tokens"], begun.size());
}

TEST(Api, RemoteTokenizersFindWhatTheyNeed) {  // as lm-evaluation-harness does
  const json info = api().get("/tokenizer_info");
  EXPECT_EQ(info["eos_token"], "</s>");
  EXPECT_EQ(info["bos_token"], "<s>");
  for (const auto& [name, id] : {std::pair("eos_token", 2), std::pair("bos_token", 1)}) {
    const json body{{"prompt", info[name]}, {"add_special_tokens", false}};
    EXPECT_EQ(api().post("/tokenize", body.dump())->body()["tokens"], json({id}));
  }
  const json text = api().post("/detokenize", json{{"tokens", api().tokenizer().encode("ka lo")}}.dump())->body();
  EXPECT_EQ(text["prompt"], "ka lo");
  EXPECT_EQ(text["content"], "ka lo");
  EXPECT_EQ(api().post("/detokenize", R"({"tokens": []})")->body()["prompt"], "");
}

TEST(Api, ModelsAreListedUnderTheirName) {
  const json list = api().get("/v1/models");
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "tiny");
  EXPECT_EQ(api().get("/v1/models/tiny"), list["data"][0]);
  const std::string folder = api().folder().filename();
  EXPECT_EQ(api().get("/v1/models/" + folder)["id"], folder);
  for (const std::string& name : {std::string("tiny"), folder})
    EXPECT_EQ(answer({{"prompt", "a"}, {"model", name}, {"max_tokens", 1}})["model"], name);
  const auto unknown = api().ask("GET", "/v1/models/nope");
  EXPECT_EQ(unknown->status(), 404);
  EXPECT_EQ(unknown->body()["error"]["code"], "model_not_found");
}

TEST(Api, PropsSayWhatTheModelCosts) {
  const json props = api().get("/props");
  EXPECT_EQ(props["model"], "tiny");
  EXPECT_EQ(props["levels"].size(), 2u);
  EXPECT_EQ(props["levels"][0]["chunk_size"], 4);
  EXPECT_EQ(props["levels"][0]["encoder_span"], json({{"kind", "window"}, {"size", 3}}));
  EXPECT_EQ(props["protocols"], json({"hiergen", "recgen"}));
  EXPECT_EQ(props["n_ctx"], 600);
  EXPECT_EQ(props["limits"]["n"], 128);
  for (const char* which : {"hiergen", "recgen", "vanilla"})
    EXPECT_GT(props["kv"][which]["bytes_per_token"], 0) << which;
  EXPECT_EQ(vanilla().get("/props")["protocols"], json({"hiergen"}));
}

TEST(Api, AModelWithoutATokenizerTakesAndGivesIds) {
  ApiUnderTest mute("window_stream", ApiUnderTest::small_options(), /*with_tokenizer=*/false);
  const json body{{"prompt", {1, 20}}, {"max_tokens", 5},         {"seed", 1}, {"ignore_eos", true}, {"echo", true},
                  {"logprobs", 1},     {"return_token_ids", true}};
  const json choice = answer(body, mute)["choices"][0];
  std::string expected;
  for (const json& id : choice["token_ids"]) expected.append(expected.empty() ? "" : ",").append(id.dump());
  EXPECT_EQ(choice["text"], expected);
  EXPECT_TRUE(choice["text"].get<std::string>().starts_with("1,20,"));
  EXPECT_EQ(mute.complete({{"prompt", "text"}})->body()["error"]["code"], "no_tokenizer");
  EXPECT_EQ(mute.post("/tokenize", R"({"prompt": "x"})")->status(), 400);
}

TEST(Api, LongBodiesAreAnsweredLikeShortOnes) {  // they are worked on elsewhere
  json body{{"prompt", "ka"}, {"max_tokens", 3}, {"seed", 1}};
  const json expected = answer(body)["choices"];
  body["user"] = std::string(100'000, 'x');
  EXPECT_EQ(answer(body)["choices"], expected);
  body["prompt"] = std::string(100'000, 'x');
  EXPECT_EQ(api().complete(body)->body()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(api().post("/v1/completions", "[" + std::string(100'000, ' '))->status(), 400);
}

}  // namespace
}  // namespace photon
