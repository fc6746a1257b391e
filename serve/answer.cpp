#include "serve/answer.h"

#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <utility>

#include "serve/json.h"
#include "text/utf8.h"

namespace photon {
namespace {

using Json = nlohmann::ordered_json;

double number(float logprob) { return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0; }

Json or_null(std::optional<std::string_view> text) { return text ? Json(*text) : Json(); }

}  // namespace

std::string token_text(const Tokenizer* tokenizer, std::int32_t token) {
  if (tokenizer == nullptr) return std::to_string(token);
  std::string piece = tokenizer->piece(token);
  return piece.empty() || !is_valid_utf8(piece) ? tokenizer->name(token) : piece;
}

std::string server_event(std::string_view data) { return fmt::format("data: {}\n\n", data); }

Answer::Answer(Endpoint endpoint, const std::string& request_id, std::string model, const Tokenizer* tokenizer)
    : endpoint_(endpoint),
      id_((endpoint == Endpoint::chat ? "chatcmpl-" : "cmpl-") + request_id),
      model_(std::move(model)),
      tokenizer_(tokenizer),
      created_(std::time(nullptr)) {}

Json Answer::head(bool as_event) const {
  const char* object = endpoint_ == Endpoint::completions ? "text_completion"
                       : as_event                         ? "chat.completion.chunk"
                                                          : "chat.completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

// {tokens, token_logprobs, top_logprobs, text_offset}.  Two tokens of the same text share a key, which the better one
// has; the chosen token is always among them.
Json Answer::logprobs_of(std::span<const TextToken> tokens) const {
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const TextToken& t : tokens) {
    texts.push_back(token_text(tokenizer_, t.token));
    offsets.push_back(t.offset);
    if (!t.logprob) {
      values.push_back(nullptr), tops.push_back(nullptr);
      continue;
    }
    values.push_back(number(t.logprob->logprob));
    Json top = Json::object();
    for (const auto& [token, logprob] : t.logprob->top) top.emplace(token_text(tokenizer_, token), number(logprob));
    top.emplace(texts.back().get<std::string>(), number(t.logprob->logprob));
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json Answer::chat_logprobs_of(std::span<const TextToken> tokens) const {
  const auto entry = [&](std::int32_t token, float logprob) {
    Json bytes = Json::array();
    if (tokenizer_ != nullptr)
      for (const char byte : tokenizer_->piece(token)) bytes.push_back(static_cast<unsigned char>(byte));
    return Json{{"token", token_text(tokenizer_, token)}, {"logprob", number(logprob)}, {"bytes", std::move(bytes)}};
  };
  Json content = Json::array();
  for (const TextToken& t : tokens) {
    if (!t.logprob) continue;
    Json one = entry(t.token, t.logprob->logprob);
    Json& top = one["top_logprobs"] = Json::array();
    for (const auto& [token, logprob] : t.logprob->top) top.push_back(entry(token, logprob));
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

void Answer::add_details(Json& choice, const TextDelta& text) const {
  choice["logprobs"] = !logprobs                            ? Json()
                       : endpoint_ == Endpoint::completions ? logprobs_of(text.tokens)
                                                            : chat_logprobs_of(text.tokens);
  if (!token_ids) return;
  Json& ids = choice["token_ids"] = Json::array();
  for (const TextToken& t : text.tokens) ids.push_back(t.token);
}

std::string Answer::whole(std::span<const Choice> choices, const Json& usage) const {
  Json answer = head(false);
  Json& list = answer["choices"] = Json::array();
  for (const Choice& c : choices) {
    Json choice{{"index", list.size()}};
    if (endpoint_ == Endpoint::completions)
      choice["text"] = c.text.text;
    else
      choice["message"] = {{"role", "assistant"}, {"content", c.text.text}, {"refusal", nullptr}};
    add_details(choice, c.text);
    choice["finish_reason"] = c.finish_reason;
    if (!c.photon.is_null()) choice["photon"] = c.photon;
    list.push_back(std::move(choice));
  }
  answer["usage"] = usage;
  return to_bytes(answer);
}

std::string Answer::event(std::int64_t index, const TextDelta& delta, std::optional<std::string_view> finish_reason,
                          bool is_first) const {
  Json choice{{"index", index}};
  if (endpoint_ == Endpoint::completions) {
    choice["text"] = delta.text;
  } else {
    Json& words = choice["delta"] = Json::object();
    if (is_first) words["role"] = "assistant";
    if (is_first || !delta.text.empty()) words["content"] = delta.text;
  }
  add_details(choice, delta);
  choice["finish_reason"] = or_null(finish_reason);
  Json answer = head(true);
  answer["choices"] = Json::array({std::move(choice)});
  if (usage_follows) answer["usage"] = nullptr;
  return server_event(to_bytes(answer));
}

std::string Answer::usage_event(const Json& usage) const {
  Json answer = head(true);
  answer["choices"] = Json::array();
  answer["usage"] = usage;
  return server_event(to_bytes(answer));
}

}  // namespace photon
