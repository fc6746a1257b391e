// What is wrong with a request is said with a status, its field and a code, and never is it our fault: a table.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "serve/api_testing.h"
#include "serve/json.h"
#include "text/utf8.h"

namespace photon {
namespace {

using namespace testing_support;
using namespace std::string_literals;

struct BadRequest {
  std::string path, body;
  int status = 400;
  json param = nullptr, code = nullptr;
};

std::vector<BadRequest> bad_requests() {
  std::vector<BadRequest> table;
  const auto completion = [&](const std::string& body, const json& param = nullptr, const json& code = nullptr,
                              int status = 400) {
    table.push_back({"/v1/completions", body, status, param, code});
  };
  // A prompt and one field more.
  const auto field = [&](const std::string& name, const std::vector<std::string>& values, const json& code = nullptr) {
    for (const std::string& value : values) completion(R"({"prompt":"ka",")" + name + "\":" + value + "}", name, code);
  };
  const std::string much(100'000, 'a');

  // No JSON, or not an object.
  for (const std::string& body : {""s,
                                  " "s,
                                  "x"s,
                                  "{"s,
                                  "{\"prompt\""s,
                                  "null"s,
                                  "[]"s,
                                  "7"s,
                                  "\"text\""s,
                                  "true"s,
                                  "{\"prompt\":\"a\"}}"s,
                                  "{\"prompt\":\"a\"}\0"s,
                                  "{\"prompt\":\"a\",}"s,
                                  "{\"prompt\":NaN}"s,
                                  "{\"prompt\":\"a\",\"temperature\":NaN}"s,
                                  "{\"prompt\":\"a\",\"temperature\":Infinity}"s,
                                  "{\"prompt\":\"a\",\"temperature\":1e999}"s,
                                  "{\"prompt\":\"\xff\"}"s,
                                  "{\"prompt\":\"\xed\xa0\x80\"}"s,
                                  R"({"prompt":"\ud800"})"s,
                                  R"({"prompt":"\udc00x"})"s,
                                  "{\"prompt\":\"a\nb\"}"s,
                                  "{\"prompt\":\"a\",\"prompt\":\"b\"}"s,
                                  "{\"\xc3\":1}"s,
                                  std::string(100'000, '['),
                                  std::string(40, '[') + std::string(40, ']'),
                                  "\xef\xbb\xbf{"s,
                                  "prompt=a"s,
                                  "PK\x03\x04"s})
    completion(body);
  std::string values = "{\"prompt\":[1";
  for (std::int64_t i = 0; i < max_json_values; ++i) values += ",1";
  completion(values + "]}");

  completion("{}", "prompt");
  for (const char* prompt : {"null",
                             "1",
                             "true",
                             "{}",
                             "[]",
                             "[[]]",
                             "[-1]",
                             "[400]",
                             "[1.5]",
                             "[1e30]",
                             "[1,\"a\"]",
                             "[\"a\",1]",
                             "[[1],[]]",
                             "[[1],\"a\"]",
                             "[[[1]]]",
                             "[null]",
                             "[true]",
                             "[18446744073709551616]",
                             "[99999999999999999999999]",
                             "[[1,400]]"})
    completion(R"({"prompt":)" + std::string(prompt) + "}", "prompt");

  field("model", {"1", "[]"});
  completion(R"({"prompt":"ka","model":"gpt-4"})", "model", "model_not_found", 404);
  completion(R"({"prompt":"ka","model":"../tiny"})", "model", "model_not_found", 404);
  field("max_tokens", {"-1", "1.5", "\"5\"", "true", "9223372036854775808", "1e9", "[]"});
  field("max_tokens", {"599", "1000000"}, "context_length_exceeded");
  field("n", {"0", "-1", "1000000000", "1.5", "\"2\"", "129"});
  field("best_of", {"0", "-5", "\"x\"", "1000000000"});
  completion(R"({"prompt":"ka","n":3,"best_of":2})", "best_of");
  completion(R"({"prompt":"ka","stream":true,"best_of":2})", "best_of");
  field("temperature", {"-1", "1000000000", "\"hot\"", "2.001", "[1]"});
  field("top_p", {"0", "-1", "2"});
  field("top_k", {"-1", "2147483648", "0.5"});
  field("min_p", {"2", "-0.1"});
  field("presence_penalty", {"1000000000", "-3"});
  field("frequency_penalty", {"-1000000000", "\"0\""});
  field("repetition_penalty", {"0", "-1", "1e30"});
  field("logprobs", {"-1", "21", "true", "1000000000", "\"1\""});
  field("echo", {"1", "\"yes\""});
  field("stream", {"1", "\"yes\""});
  field("stop",
        {"\"\"", "[\"\"]", "1", "[1]", "{}", "\"" + much + "\"",
         "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]"});
  field("seed", {"-1", "18446744073709551616", "0.5", "\"7\""});
  field("logit_bias", {"{\"-1\":1}", "{\"400\":1}", "{\"abc\":1}", "{\"1\":101}", "{\"1\":null}", "[[1,2]]", "\"x\""});
  field("suffix", {"\"end\""}, "unsupported_parameter");
  field("stream_options", {"{\"include_usage\":true}", "1"});
  completion(R"({"prompt":"ka","stream":true,"stream_options":{"include_usage":"yes"}})",
             "stream_options.include_usage");
  field("protocol", {"\"vanilla\"", "\"\"", "1"});
  field("integrate", {"\"most\"", "true"});
  completion(R"({"prompt":"ka","integrate":"best","stream":true})", "integrate");
  completion(R"({"prompt":"ka","integrate":"majority","integrate_regex":"("})", "integrate_regex");
  field("integrate_regex", {"\"a\""});
  field("ignore_eos", {"1"});
  field("return_token_ids", {"\"true\""});
  field("prompts", {"1"}, "unknown_parameter");
  field("tools", {"[]"}, "unknown_parameter");
  field("max_completion_tokens", {"5"}, "unknown_parameter");
  field("n_predict", {"5"}, "unknown_parameter");
  completion(R"({"prompt":")" + much + "\"}", "prompt", "context_length_exceeded");
  completion(R"({"prompt":["ka",")" + much + "\"]}", "prompt", "context_length_exceeded");
  completion(R"({"prompt":"ka","n":128,"max_tokens":500,"logprobs":20})", "logprobs");

  for (const std::string& path : {"/v1/chat/completions"s, "/tokenize"s, "/detokenize"s})
    for (const std::string& body : {""s, "[1]"s, "{"s, "{\"a\":1,\"a\":2}"s}) table.push_back({path, body});
  table.back().param = nullptr;
  const auto chat = [&](const std::string& body, const json& param, const json& code = nullptr) {
    table.push_back({"/v1/chat/completions", body, 400, param, code});
  };
  const std::string hi = R"("messages":[{"role":"user","content":"mi"}])";
  chat("{}", "messages");
  chat(R"({"messages":[]})", "messages");
  chat(R"({"messages":[{"role":"robot","content":"x"}]})", "messages[0].role");
  chat(R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]})",
       "messages[0].content[0].type");
  chat("{" + hi + R"(,"tools":[{"type":"function"}]})", "tools", "unsupported_parameter");
  chat("{" + hi + R"(,"response_format":{"type":"json_object"}})", "response_format", "unsupported_parameter");
  chat("{" + hi + R"(,"logprobs":3})", "logprobs");
  chat("{" + hi + R"(,"top_logprobs":3})", "top_logprobs");
  chat("{" + hi + R"(,"max_completion_tokens":100000})", "max_tokens", "context_length_exceeded");
  chat(R"({"messages":[{"role":"user","content":")" + much + "\"}]}", "messages", "context_length_exceeded");
  chat("{" + hi + R"(,"echo":true})", "echo", "unknown_parameter");
  const auto tokenizing = [&](const std::string& path, const std::string& body, const json& param) {
    table.push_back({path, body, 400, param});
  };
  tokenizing("/tokenize", "{}", "prompt");
  tokenizing("/tokenize", R"({"prompt":"a","content":"b"})", "prompt");
  table.push_back(
      {"/tokenize", R"({"content":"a","parse_special":true})", 400, "parse_special", "unsupported_parameter"});
  tokenizing("/tokenize", R"({"prompt":1})", "prompt");
  tokenizing("/tokenize", R"({"content":["a"]})", "content");
  tokenizing("/tokenize", R"({"prompt":"a","add_special_tokens":1})", "add_special_tokens");
  tokenizing("/detokenize", "{}", "tokens");
  tokenizing("/detokenize", R"({"tokens":"1"})", "tokens");
  tokenizing("/detokenize", R"({"tokens":[400]})", "tokens");
  tokenizing("/detokenize", R"({"tokens":[-1]})", "tokens");
  tokenizing("/detokenize", R"({"tokens":[1.0]})", "tokens");
  return table;
}

TEST(ApiErrors, EveryMalformedRequestIsToldWhatIsWrong) {
  ApiUnderTest api("window_stream", ApiUnderTest::small_options(), true,
                   R"({"user": "ka {content}\n", "assistant": "lo {content}\n", "generation_prompt": "lo"})");
  const json good{{"prompt", "ka"}, {"max_tokens", 2}, {"seed", 1}};
  const json expected = api.complete(good)->body()["choices"];
  const auto table = bad_requests();
  ASSERT_GE(table.size(), 80u);
  for (const BadRequest& bad : table) {
    const auto responder = api.post(bad.path, bad.body);
    const std::string shown_body = bad.path + " " + bad.body.substr(0, 200);
    EXPECT_EQ(responder->status(), bad.status) << shown_body;
    ASSERT_FALSE(responder->is_stream()) << shown_body;
    const json body = responder->body();
    ASSERT_TRUE(body.contains("error")) << shown_body;
    const json& error = body["error"];
    EXPECT_EQ(error.size(), 4u);
    EXPECT_EQ(error["type"], bad.status == 404 ? "not_found_error" : "invalid_request_error") << shown_body;
    EXPECT_EQ(error["param"], bad.param) << shown_body << ": " << error;
    EXPECT_EQ(error["code"], bad.code) << shown_body << ": " << error;
    const std::string message = error["message"];
    EXPECT_GT(message.size(), 10u) << shown_body;
    EXPECT_LT(message.size(), 400u) << shown_body;  // it repeats little of what was sent
    EXPECT_EQ(message.find('\n'), std::string::npos) << shown_body;
  }
  EXPECT_EQ(api.complete(good)->body()["choices"], expected);
}

TEST(ApiErrors, ABodyThatClaimsToBeSomethingElseIsRefused) {
  ApiUnderTest api;
  const std::string body = R"({"prompt":"ka","max_tokens":1})";
  for (const char* type : {"text/plain", "multipart/form-data; boundary=x", "application/xml", "application/jsonp"})
    EXPECT_EQ(api.ask("POST", "/v1/completions", body, type)->status(), 415) << type;
  for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/json ;x=y", "",
                           "application/x-www-form-urlencoded"}) {
    const auto responder = api.ask("POST", "/v1/completions", body, type);
    ASSERT_TRUE(responder->wait());
    EXPECT_EQ(responder->status(), 200) << type;
  }
}

TEST(ApiErrors, AModelWithoutAChatTemplateSaysSo) {
  ApiUnderTest api;
  const auto responder = api.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(responder->status(), 400);
  EXPECT_EQ(responder->body()["error"]["code"], "no_chat_template");
}

TEST(ApiErrors, WhatMemoryCannotHoldIsRefusedWithBothNumbers) {
  auto options = ApiUnderTest::small_options();
  options.kv_budget_bytes = 1 << 20, options.n_ctx = 0;
  ApiUnderTest api("window_stream", options);
  const json props = api.get("/props");
  const std::int64_t n_ctx = props["n_ctx"];
  EXPECT_GT(n_ctx, 1000);
  EXPECT_LT(n_ctx, 1'000'000);  // as much as fits
  const json body{{"prompt", "ka"}, {"max_tokens", n_ctx}};
  EXPECT_EQ(api.complete(body)->body()["error"]["code"], "context_length_exceeded");
  const auto responder = api.complete({{"prompt", "ka"}, {"max_tokens", n_ctx - 10}, {"n", 4}});
  EXPECT_EQ(responder->status(), 400);
  EXPECT_EQ(responder->body()["error"]["code"], "request_too_large");
  EXPECT_EQ(responder->body()["error"]["param"], "n");
  EXPECT_NE(responder->body()["error"]["message"].get<std::string>().find("1048576"), std::string::npos);
  options.n_ctx = n_ctx + 1;
  EXPECT_THROW(ApiUnderTest("window_stream", options), InputError);
  options.kv_budget_bytes = 100, options.n_ctx = 0;
  EXPECT_THROW(ApiUnderTest("window_stream", options), InputError);
}

TEST(ApiErrors, MorePromptsThanMayWaitAreRefusedForGood) {
  auto options = ApiUnderTest::small_options();
  options.max_queue = 2;
  ApiUnderTest api("window_stream", options);
  EXPECT_EQ(api.get("/props")["limits"]["prompts"], 2);
  EXPECT_EQ(api.complete({{"prompt", {"ka", "mi", "lo"}}, {"max_tokens", 1}})->status(), 400);
  EXPECT_EQ(api.complete({{"prompt", {"ka", "mi"}}, {"max_tokens", 1}})->status(), 200);
}

TEST(ApiErrors, ACompressedBodyIsRefused) {
  ApiUnderTest api;
  EXPECT_EQ(api.ask("POST", "/v1/completions", "x", "application/json", {{"content-encoding", "gzip"}})->status(), 415);
}

}  // namespace
}  // namespace photon
