#include "serve/chat.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "base/file.h"
#include "serve/errors.h"
#include "serve/json.h"

namespace photon {
namespace {

using nlohmann::json;

constexpr std::string_view placeholder = "{content}";
constexpr std::int64_t most_file_bytes = 1 << 16, most_file_depth = 4;

std::string with_content(const std::string& role_text, const std::string& content) {
  std::string text = role_text;
  return text.replace(text.find(placeholder), placeholder.size(), content);
}

// A string, or a list of parts that are all text.
std::string read_content(Fields& message) {
  const json* content = message.find("content");
  if (content == nullptr) throw invalid_request(message.param("content") + " is missing", message.param("content"));
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) message.refuse("content", *content, "a string or a list of text parts");
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    Fields part((*content)[i], fmt::format("{}[{}]", message.param("content"), i));
    if (part.text("type").value_or("") != "text")
      throw invalid_request(part.param("type") + " must be \"text\": the model reads nothing else", part.param("type"));
    const auto words = part.text("text");
    if (!words) throw invalid_request(part.param("text") + " is missing", part.param("text"));
    text += *words;
    part.refuse_others();
  }
  return text;
}

ChatTemplate::Message read_message(const json& value, std::size_t i) {
  Fields message(value, fmt::format("messages[{}]", i));
  auto role = message.word("role", {"system", "developer", "user", "assistant"});
  if (!role) throw invalid_request(message.param("role") + " is missing", message.param("role"));
  ChatTemplate::Message result{*role == "developer" ? "system" : *role, read_content(message)};
  // What OpenAI's clients send back with an answer.
  for (const char* name : {"refusal", "audio", "function_call", "name"}) message.only_neutral(name, {});
  for (const char* name : {"tool_calls", "annotations"}) message.only_neutral(name, {json::array()});
  message.refuse_others();
  return result;
}

void read_logprobs(Fields& fields, const RequestRules& rules, CompletionRequest& request) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, rules.limits.logprobs);
  if (top && !wanted) throw invalid_request("top_logprobs needs \"logprobs\": true", "top_logprobs");
  if (wanted) request.logprobs = top.value_or(0);
}

void refuse_unsupported(Fields& fields) {
  fields.only_neutral("tools", {json::array()});
  fields.only_neutral("tool_choice", {"none", "auto"});
  fields.only_neutral("parallel_tool_calls", {true, false});
  fields.only_neutral("functions", {json::array()});
  fields.only_neutral("function_call", {"none", "auto"});
  fields.only_neutral("response_format", {{{"type", "text"}}});
  fields.only_neutral("modalities", {json::array({"text"})});
  for (const char* name : {"audio", "prediction", "reasoning_effort", "verbosity", "web_search_options"})
    fields.only_neutral(name, {});
}

}  // namespace

std::string ChatTemplate::text_of(std::span<const Message> messages) const {
  std::string text;
  for (const Message& message : messages) {
    if (message.role == "system" && system.empty())
      throw invalid_request("this model's chat template has no system messages", "messages");
    text += with_content(message.role == "system" ? system
                         : message.role == "user" ? user
                                                  : assistant,
                         message.content);
  }
  return text + generation_prompt;
}

std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& folder) {
  const auto path = folder / chat_file;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string text = read_text(path, most_file_bytes);
  try {
    const json root = parse_json(text, most_file_depth, "the file");
    Fields fields(root);
    const auto role_text = [&](const char* role, bool required) {
      const auto value = fields.text(role);
      if (!value && !required) return std::string();
      if (!value || value->find(placeholder) == std::string::npos ||
          value->find(placeholder) != value->rfind(placeholder))
        throw invalid_request(fmt::format("{} must be a text that holds {} once", role, placeholder));
      return *value;
    };
    ChatTemplate chat{.system = role_text("system", false),
                      .user = role_text("user", true),
                      .assistant = role_text("assistant", true),
                      .generation_prompt = fields.text("generation_prompt").value_or("")};
    if (const json* stops = fields.find("stop")) {
      if (!stops->is_array()) fields.refuse("stop", *stops, "a list of strings");
      for (const json& stop : *stops) {
        if (!stop.is_string() || stop.get_ref<const std::string&>().empty())
          fields.refuse("stop", stop, "a string that is not empty");
        chat.stops.push_back(stop.get<std::string>());
      }
    }
    fields.refuse_others();
    return chat;
  } catch (const ApiError& e) {
    throw InputError(fmt::format("{}: {}", path.string(), e.what()));
  }
}

std::string no_chat_reason(const std::filesystem::path& folder) {
  constexpr const char* way_out = "use /v1/completions, or declare a template in the model folder's chat.json";
  if (std::filesystem::exists(folder / "chat_template.jinja") ||
      std::filesystem::exists(folder / "tokenizer_config.json"))
    return fmt::format("this model declares no chat template that is read here (Jinja is not); {}", way_out);
  return fmt::format("this model declares no chat template; {}", way_out);
}

CompletionRequest parse_chat_request(const json& body, const RequestRules& rules, const ChatTemplate& chat_template) {
  Fields fields(body);
  const json* list = fields.find("messages");
  if (list == nullptr) throw invalid_request("messages is missing; it must be a list of messages", "messages");
  if (!list->is_array()) fields.refuse("messages", *list, "a list of messages");
  if (list->empty()) throw invalid_request("messages is an empty list", "messages");
  std::vector<ChatTemplate::Message> messages;
  for (std::size_t i = 0; i < list->size(); ++i) messages.push_back(read_message((*list)[i], i));

  CompletionRequest request;
  request.prompts.emplace_back(chat_template.text_of(messages));
  read_generation_fields(fields, rules, request);
  if (const auto most = fields.integer("max_completion_tokens", 0, max_context)) {
    if (request.max_tokens && request.max_tokens != most)
      throw invalid_request("max_tokens and max_completion_tokens say different things; leave max_tokens out",
                            "max_tokens");
    request.max_tokens = most;
  }
  read_logprobs(fields, rules, request);
  refuse_unsupported(fields);
  fields.refuse_others();
  request.stops.insert(request.stops.end(), chat_template.stops.begin(), chat_template.stops.end());
  return request;
}

}  // namespace photon
