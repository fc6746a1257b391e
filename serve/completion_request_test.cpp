// Properties of serve/completion_request.h: every field is taken as documented, and nothing else is.
#include "serve/completion_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "serve/errors.h"

namespace photon {
namespace {

using nlohmann::json;

const RequestRules rules{.vocab_size = 400};

json with(const json& fields) {
  json body{{"prompt", "x"}};
  body.update(fields);
  return body;
}
CompletionRequest parse_fields(const json& fields) { return parse_completion_request(with(fields), rules); }

std::string refused_field(const json& fields, const RequestRules& under = rules) {
  try {
    parse_completion_request(with(fields), under);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_STRNE(error.what(), "");
    return error.param;
  }
  return "accepted";
}

TEST(CompletionRequest, DefaultsAreThoseOfTheDocumentation) {
  const auto request = parse_fields(json::object());
  EXPECT_EQ(request.max_tokens, 16);
  EXPECT_EQ(request.n, 1);
  EXPECT_EQ(request.engine.n_continuations, 1);
  EXPECT_EQ(request.engine.protocol, Protocol::hiergen);
  EXPECT_EQ(request.engine.sampler.temperature, 1.0);
  EXPECT_EQ(request.engine.sampler.top_p, 1.0);
  EXPECT_EQ(request.engine.sampler.top_k, 0);
  EXPECT_EQ(request.engine.sampler.min_p, 0.0);
  EXPECT_EQ(request.engine.sampler.repetition_penalty, 1.0);
  EXPECT_EQ(request.engine.sampler.presence_penalty, 0.0);
  EXPECT_EQ(request.engine.sampler.frequency_penalty, 0.0);
  EXPECT_TRUE(request.engine.sampler.logit_bias.empty());
  EXPECT_TRUE(request.stops.empty());
  EXPECT_FALSE(request.stream || request.echo || request.engine.ignore_eos || request.include_usage ||
               request.return_token_ids);
  EXPECT_EQ(request.logprobs, std::nullopt);
  EXPECT_EQ(request.integrate, Integrate::none);
}

TEST(CompletionRequest, NullIsAsGoodAsNothing) {
  json fields;
  for (const char* name : {"model",
                           "max_tokens",
                           "temperature",
                           "top_p",
                           "top_k",
                           "min_p",
                           "seed",
                           "stop",
                           "n",
                           "best_of",
                           "echo",
                           "logprobs",
                           "logit_bias",
                           "presence_penalty",
                           "frequency_penalty",
                           "repetition_penalty",
                           "stream",
                           "stream_options",
                           "integrate",
                           "integrate_regex",
                           "protocol",
                           "ignore_eos",
                           "return_token_ids",
                           "suffix",
                           "user",
                           "metadata"})
    fields[name] = nullptr;
  EXPECT_EQ(refused_field(fields), "accepted");
}

TEST(CompletionRequest, TakesEveryField) {
  const auto request = parse_fields({{"model", "m"},
                                     {"max_tokens", 7},
                                     {"temperature", 0},
                                     {"top_p", 0.5},
                                     {"top_k", 3},
                                     {"min_p", 0.1},
                                     {"seed", 18446744073709551615u},
                                     {"stop", {"a", "b"}},
                                     {"n", 2},
                                     {"best_of", 3},
                                     {"echo", true},
                                     {"logprobs", 0},
                                     {"logit_bias", {{"7", -100}, {"399", 2.5}}},
                                     {"presence_penalty", -2},
                                     {"frequency_penalty", 2},
                                     {"repetition_penalty", 1.5},
                                     {"protocol", "recgen"},
                                     {"ignore_eos", true},
                                     {"return_token_ids", true},
                                     {"user", "me"}});
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_EQ(request.engine.sampler.temperature, 0);
  EXPECT_EQ(request.engine.sampler.top_p, 0.5);
  EXPECT_EQ(request.engine.sampler.top_k, 3);
  EXPECT_EQ(request.engine.sampler.min_p, 0.1);
  EXPECT_EQ(request.engine.sampler.seed, UINT64_MAX);
  EXPECT_EQ(request.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.engine.n_continuations, 3);
  EXPECT_TRUE(request.echo && request.engine.ignore_eos && request.return_token_ids);
  EXPECT_EQ(request.logprobs, 0);
  ASSERT_EQ(request.engine.sampler.logit_bias.size(), 2u);
  EXPECT_EQ(request.engine.sampler.presence_penalty, -2);
  EXPECT_EQ(request.engine.sampler.frequency_penalty, 2);
  EXPECT_EQ(request.engine.sampler.repetition_penalty, 1.5);
  EXPECT_EQ(request.engine.protocol, Protocol::recgen);
  EXPECT_TRUE(parse_fields({{"stream", true}, {"stream_options", {{"include_usage", true}}}}).include_usage);
  EXPECT_EQ(parse_fields({{"stop", "end"}}).stops, std::vector<std::string>{"end"});
  EXPECT_EQ(parse_fields({{"n", 4}}).engine.n_continuations, 4);
}

TEST(CompletionRequest, PromptsAreTextsOrTokenIds) {
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(std::get<std::string>(parse_fields({{"prompt", ""}}).prompts.at(0)), "");
  EXPECT_EQ(parse_fields({{"prompt", {"a", "b", ""}}}).prompts.size(), 3u);
  EXPECT_EQ(std::get<Ids>(parse_fields({{"prompt", {1, 399}}}).prompts.at(0)), (Ids{1, 399}));
  const auto lists = parse_fields({{"prompt", {{1, 2}, {3}}}}).prompts;
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(std::get<Ids>(lists[1]), Ids{3});
}

TEST(CompletionRequest, ASeedThatNobodyGaveIsRandomAndFitsIntoADouble) {
  const auto a = parse_fields(json::object()).engine.sampler.seed, b = parse_fields(json::object()).engine.sampler.seed;
  EXPECT_NE(a, b);
  EXPECT_LT(a, std::uint64_t{1} << 53);
}

TEST(CompletionRequest, IntegrationNeedsWholeAnswers) {
  const auto majority = parse_fields({{"n", 3}, {"integrate", "majority"}, {"integrate_regex", "(\\d+)"}});
  EXPECT_EQ(majority.integrate, Integrate::majority);
  EXPECT_EQ(majority.integrate_regex->pattern(), "(\\d+)");
  EXPECT_EQ(parse_fields({{"integrate", "best"}}).integrate, Integrate::best);
  EXPECT_EQ(refused_field({{"integrate", "most"}}), "integrate");
  EXPECT_EQ(refused_field({{"integrate", "best"}, {"stream", true}}), "integrate");
  EXPECT_EQ(refused_field({{"integrate", "best"}, {"n", 2}, {"best_of", 3}}), "best_of");
  EXPECT_EQ(refused_field({{"integrate_regex", "a"}}), "integrate_regex");
  EXPECT_EQ(refused_field({{"integrate", "best"}, {"integrate_regex", "a"}}), "integrate_regex");
  for (const char* pattern : {"(", "a{5000}", "(?=a)", "\\1", "((a{100}){100}){100}"})
    EXPECT_EQ(refused_field({{"integrate", "majority"}, {"integrate_regex", pattern}}), "integrate_regex") << pattern;
  EXPECT_EQ(refused_field({{"integrate", "majority"}, {"integrate_regex", std::string(513, 'a')}}), "integrate_regex");
}

TEST(CompletionRequest, TheVanillaModelHasNoRecgen) {
  const RequestRules vanilla{.vocab_size = 400, .has_levels = false};
  EXPECT_EQ(refused_field({{"protocol", "recgen"}}, vanilla), "protocol");
  EXPECT_EQ(refused_field({{"protocol", "hiergen"}}, vanilla), "accepted");
}

TEST(CompletionRequest, TheWholeAnswerIsBounded) {
  RequestRules strict = rules;
  strict.limits.tokens = 100, strict.limits.logprob_values = 60;
  const std::vector<std::vector<std::int32_t>> prompts(2, std::vector<std::int32_t>(10, 1));
  const auto refused = [&](const json& fields) -> std::string {
    try {
      check_amount(parse_completion_request(with(fields), strict), strict, prompts);
    } catch (const ApiError& error) {
      return error.param;
    }
    return "accepted";
  };
  EXPECT_EQ(refused({{"max_tokens", 50}}), "accepted");  // of each prompt
  EXPECT_EQ(refused({{"max_tokens", 51}}), "max_tokens");
  EXPECT_EQ(refused({{"max_tokens", 40}, {"echo", true}}), "accepted");
  EXPECT_EQ(refused({{"max_tokens", 41}, {"echo", true}}), "max_tokens");
  EXPECT_EQ(refused({{"max_tokens", 26}, {"n", 2}}), "n");
  EXPECT_EQ(refused({{"max_tokens", 15}, {"logprobs", 1}}), "accepted");
  EXPECT_EQ(refused({{"max_tokens", 15}, {"logprobs", 2}}), "logprobs");
}

TEST(CompletionRequest, NothingIsConverted) {
  const std::vector<std::pair<std::string, std::vector<json>>> bad{
      {"model", {1, json::array({"m"}), true}},
      {"max_tokens", {-1, 1.0, 1.5, "1", true, std::int64_t{1} << 40, UINT64_MAX, 1e30}},
      {"temperature", {-0.1, 2.1, 1e9, "1", true, json::array()}},
      {"top_p", {0, -1, 1.01, 2, "1"}},
      {"top_k", {-1, 2147483648u, 1.5, "1", false}},
      {"min_p", {-0.1, 1.1, 2, "0"}},
      {"seed", {-1, 1.5, 1e30, "1", true}},
      {"stop",
       {"", json::array({""}), json::array({1}), 1, json::object(), json(std::vector<std::string>(17, "a")),
        std::string(513, 'a')}},
      {"n", {0, -1, 129, 1'000'000'000, 1.5, "2", true}},
      {"best_of", {0, -1, 129, 1.5, "2"}},
      {"echo", {1, "true", 0}},
      {"logprobs", {-1, 21, 1.0, true, "5", 1'000'000'000}},
      {"logit_bias",
       {json::array(),
        "x",
        {{"-1", 1}},
        {{"400", 1}},
        {{"abc", 1}},
        {{"", 1}},
        {{"01", 1}},
        {{"1.0", 1}},
        {{" 1", 1}},
        {{"99999999999999999999", 1}},
        {{"1", 101}},
        {{"1", -101}},
        {{"1", "1"}},
        {{"1", nullptr}},
        {{"1", true}}}},
      {"presence_penalty", {-2.1, 2.1, 1e9, "0"}},
      {"frequency_penalty", {-2.1, 2.1, -1e9, "0"}},
      {"repetition_penalty", {0, -1, 10.1, 1e9, "1"}},
      {"stream", {1, "true"}},
      {"stream_options", {json::object(), 1, "x"}},  // without stream
      {"protocol", {"", "HierGen", "vanilla", 1}},
      {"ignore_eos", {1, "true"}},
      {"return_token_ids", {1, "true"}},
      {"suffix", {"x", 1}},
      {"prompt",
       {1, true, 1.5, json::object(), json::array(), json::array({json::array()}), json::array({-1}),
        json::array({400}), json::array({1.5}), json::array({1, "a"}), json::array({"a", 1}),
        json::array({json::array({1}), 2}), json::array({json::array({1}), json::array({"a"})}),
        json::array({json::array({json::array({1})})}), json::array({nullptr}), json::array({true}),
        json::array({1e30}), json(std::vector<std::string>(257, "a"))}},
      {"tools", {json::array()}},
      {"min_tokens", {1}},
      {"", {1}},
  };
  for (const auto& [name, values] : bad)
    for (const json& value : values) EXPECT_EQ(refused_field({{name, value}}), name) << name << ": " << value;
}

TEST(CompletionRequest, RefusalsOfInnerFieldsNameThem) {
  EXPECT_EQ(refused_field({{"stream", true}, {"stream_options", {{"include_usage", 1}}}}),
            "stream_options.include_usage");
  EXPECT_EQ(refused_field({{"stream", true}, {"stream_options", {{"other", true}}}}), "stream_options.other");
  EXPECT_EQ(refused_field({{"stream", true}, {"n", 1}, {"best_of", 2}}), "best_of");
  EXPECT_EQ(refused_field({{"n", 3}, {"best_of", 2}}), "best_of");
  json many;
  for (int i = 0; i < 1025; ++i) many[std::to_string(i)] = 0;
  EXPECT_EQ(refused_field({{"logit_bias", many}}, {.vocab_size = 2000}), "logit_bias");
  many.erase("0");
  EXPECT_EQ(refused_field({{"logit_bias", many}}, {.vocab_size = 2000}), "accepted");
}

TEST(CompletionRequest, ABodyThatIsNoObjectIsRefused) {
  for (const json& body : {json(), json(1), json("x"), json::array()})
    EXPECT_THROW(parse_completion_request(body, rules), ApiError);
  try {
    parse_completion_request(json::object(), rules);
    ADD_FAILURE();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.param, "prompt");
  }
}

}  // namespace
}  // namespace photon
