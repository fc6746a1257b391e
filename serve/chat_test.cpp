// Properties of serve/chat.h: the declared template, and what a chat becomes.
#include "serve/chat.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "serve/errors.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using nlohmann::json;
using testing_support::TemporaryFolder;

const ChatTemplate tags{.system = "<s>{content}\n",
                        .user = "<u>{content}\n",
                        .assistant = "<a>{content}\n",
                        .generation_prompt = "<a>",
                        .stops = {"<u>"}};

CompletionRequest parse_chat(const json& body, const ChatTemplate& chat = tags) {
  return parse_chat_request(body, {.vocab_size = 400}, chat);
}

std::string text_of(const std::vector<json>& messages, const ChatTemplate& chat = tags) {
  return std::get<std::string>(parse_chat({{"messages", json(messages)}}, chat).prompts.front());
}

std::string refused_chat_param(const json& body, const ChatTemplate& chat = tags) {
  try {
    parse_chat(body, chat);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    return error.param;
  }
  return "accepted";
}

json message(const std::string& role, const json& content) { return {{"role", role}, {"content", content}}; }

TEST(Chat, BecomesTheTextThatItsTemplateSays) {
  EXPECT_EQ(text_of({message("user", "hi")}), "<u>hi\n<a>");
  EXPECT_EQ(text_of({message("system", "be kind"), message("user", "hi"), message("assistant", "hello"),
                     message("user", "and?")}),
            "<s>be kind\n<u>hi\n<a>hello\n<u>and?\n<a>");
  EXPECT_EQ(text_of({message("developer", "x")}), "<s>x\n<a>");
}

TEST(Chat, ContentIsTakenLiterally) {
  EXPECT_EQ(text_of({message("user", "{content}")}), "<u>{content}\n<a>");
  EXPECT_EQ(text_of({message("user", "")}), "<u>\n<a>");
}

TEST(Chat, TextPartsAreJoined) {
  const json parts = {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}};
  EXPECT_EQ(text_of({message("user", parts)}), "<u>ab\n<a>");
}

TEST(Chat, TheTemplatesStopsAreAdded) {
  const auto request = parse_chat({{"messages", {message("user", "hi")}}, {"stop", "X"}});
  EXPECT_EQ(request.stops, (std::vector<std::string>{"X", "<u>"}));
}

TEST(Chat, AnAnswerMayBeSentBackAsItCame) {
  json answer = message("assistant", "hello");
  answer["refusal"] = nullptr;
  answer["tool_calls"] = json::array();
  answer["annotations"] = json::array();
  answer["audio"] = nullptr;
  EXPECT_EQ(text_of({message("user", "hi"), answer}), "<u>hi\n<a>hello\n<a>");
}

TEST(Chat, LogprobsAreSaidAsChatsSayThem) {
  const json hi = {message("user", "hi")};
  EXPECT_EQ(parse_chat({{"messages", hi}}).logprobs, std::nullopt);
  EXPECT_EQ(parse_chat({{"messages", hi}, {"logprobs", true}}).logprobs, 0);
  EXPECT_EQ(parse_chat({{"messages", hi}, {"logprobs", true}, {"top_logprobs", 5}}).logprobs, 5);
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"top_logprobs", 5}}), "top_logprobs");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"logprobs", 5}}), "logprobs");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"logprobs", true}, {"top_logprobs", 21}}), "top_logprobs");
}

TEST(Chat, BothNamesOfTheLengthAreTaken) {
  const json hi = {message("user", "hi")};
  EXPECT_EQ(parse_chat({{"messages", hi}}).max_tokens, std::nullopt);
  EXPECT_EQ(parse_chat({{"messages", hi}, {"max_tokens", 7}}).max_tokens, 7);
  EXPECT_EQ(parse_chat({{"messages", hi}, {"max_completion_tokens", 7}}).max_tokens, 7);
  EXPECT_EQ(parse_chat({{"messages", hi}, {"max_completion_tokens", 7}, {"max_tokens", 7}}).max_tokens, 7);
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"max_completion_tokens", 7}, {"max_tokens", 8}}), "max_tokens");
}

TEST(Chat, RefusalsNameTheField) {
  EXPECT_EQ(refused_chat_param(json::object()), "messages");
  EXPECT_EQ(refused_chat_param({{"messages", "hi"}}), "messages");
  EXPECT_EQ(refused_chat_param({{"messages", json::array()}}), "messages");
  EXPECT_EQ(refused_chat_param({{"messages", {"hi"}}}), "messages[0]");
  EXPECT_EQ(refused_chat_param({{"messages", {{{"content", "x"}}}}}), "messages[0].role");
  EXPECT_EQ(refused_chat_param({{"messages", {message("user", "x"), message("tool", "x")}}}), "messages[1].role");
  EXPECT_EQ(refused_chat_param({{"messages", {{{"role", "user"}}}}}), "messages[0].content");
  EXPECT_EQ(refused_chat_param({{"messages", {message("user", 7)}}}), "messages[0].content");
  EXPECT_EQ(refused_chat_param({{"messages", {message("user", {{{"type", "image_url"}}})}}}),
            "messages[0].content[0].type");
  EXPECT_EQ(refused_chat_param({{"messages", {message("user", {{{"type", "text"}}})}}}), "messages[0].content[0].text");
  json named = message("user", "x");
  named["name"] = "bob";
  EXPECT_EQ(refused_chat_param({{"messages", {named}}}), "messages[0].name");
  named = message("user", "x");
  named["colour"] = "red";
  EXPECT_EQ(refused_chat_param({{"messages", {named}}}), "messages[0].colour");
  const json hi = {message("user", "hi")};
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"tools", {1}}}), "tools");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"tools", json::array()}}), "accepted");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"response_format", {{"type", "json_object"}}}}), "response_format");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"response_format", {{"type", "text"}}}}), "accepted");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"prompt", "x"}}), "prompt");
  EXPECT_EQ(refused_chat_param({{"messages", hi}, {"echo", true}}), "echo");
  const ChatTemplate no_system{.system = "", .user = "{content}", .assistant = "{content}", .generation_prompt = ""};
  EXPECT_EQ(refused_chat_param({{"messages", {message("system", "x")}}}, no_system), "messages");
}

TEST(ChatTemplate, IsReadFromTheModelFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(load_chat_template(folder.path()), std::nullopt);
  folder.write("chat.json", R"({"system": "S{content}", "user": "U{content}", "assistant": "A{content}",
                                "generation_prompt": "A", "stop": ["U", "S"]})");
  const auto chat = load_chat_template(folder.path());
  ASSERT_TRUE(chat);
  EXPECT_EQ(text_of({message("system", "1"), message("user", "2")}, *chat), "S1U2A");
  EXPECT_EQ(chat->stops, (std::vector<std::string>{"U", "S"}));
}

TEST(ChatTemplate, MistakesAreNamedWithTheFile) {
  const TemporaryFolder folder;
  for (const std::string text :
       {"", "{", "[]", R"({"user": "{content}"})", R"({"user": "x", "assistant": "{content}"})",
        R"({"user": "{content}{content}", "assistant": "{content}"})", R"({"user": 1, "assistant": "{content}"})",
        R"({"user": "{content}", "assistant": "{content}", "stop": "x"})",
        R"({"user": "{content}", "assistant": "{content}", "stop": [""]})",
        R"({"user": "{content}", "assistant": "{content}", "stop": [1]})",
        R"({"user": "{content}", "assistant": "{content}", "tool": "{content}"})",
        R"({"user": "{content}", "user": "{content}", "assistant": "{content}"})"}) {
    folder.write("chat.json", text);
    try {
      load_chat_template(folder.path());
      ADD_FAILURE() << text;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("chat.json"), std::string::npos);
    }
  }
}

TEST(ChatTemplate, AFolderThatOnlyHasJinjaSaysSo) {
  const TemporaryFolder folder;
  EXPECT_EQ(no_chat_reason(folder.path()).find("Jinja"), std::string::npos);
  folder.write("chat_template.jinja", "{{ x }}");
  EXPECT_NE(no_chat_reason(folder.path()).find("Jinja"), std::string::npos);
}

}  // namespace
}  // namespace photon
