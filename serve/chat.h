// Chats as texts: the template that a model folder declares, and the body of /v1/chat/completions.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "serve/completion_request.h"

namespace photon {

inline constexpr const char* chat_file = "chat.json";

/// How a model wants to be talked to, chat.json of its folder (docs/model-format.md): a text for each role, in which
/// the message stands for {content}.
struct ChatTemplate {
  struct Message {
    std::string role, content;  // "system", "user" or "assistant"
  };
  std::string system, user, assistant;  // each with {content} once; system: empty if the model knows none
  std::string generation_prompt;        // what the model goes on from
  std::vector<std::string> stops{};     // where its turn ends, beside the end of text
  bool operator==(const ChatTemplate&) const = default;

  /// @throws ApiError for a system message that the model does not know.
  std::string text_of(std::span<const Message> messages) const;
};

/// The template of a model folder; none if it has none.
/// @throws InputError naming the file and what is wrong with it.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& folder);
/// Why a folder without chat.json cannot chat: a sentence for whoever asks.
std::string no_chat_reason(const std::filesystem::path& folder);

/// The chat as a request to complete its text; where the template's stops are among the stops.  `max_tokens` stays
/// unsaid if it is.  @throws ApiError (400) naming the field.
CompletionRequest parse_chat_request(const nlohmann::json& body, const RequestRules& rules,
                                     const ChatTemplate& chat_template);

}  // namespace photon
