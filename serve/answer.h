// What a completion looks like on the wire: OpenAI's objects, whole and as server-sent events.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/choice_text.h"
#include "text/tokenizer.h"

namespace photon {

/// One choice of a whole answer.
struct Choice {
  TextDelta text;
  std::string_view finish_reason;           // "stop" or "length"
  nlohmann::ordered_json photon = nullptr;  // our own fields of it, if any
};

/// Makes the objects of one answer.
class Answer {
 public:
  enum class Endpoint { completions, chat };

  /// @param tokenizer  outlives it; null: tokens are told by their ids
  Answer(Endpoint endpoint, const std::string& request_id, std::string model, const Tokenizer* tokenizer);

  bool logprobs = false, token_ids = false;  // choices have them
  bool usage_follows = false;                // the stream's last event says what was used

  std::string whole(std::span<const Choice> choices, const nlohmann::ordered_json& usage) const;
  /// One event of a choice.  The first of a choice, chat: says whose words follow.
  std::string event(std::int64_t index, const TextDelta& delta, std::optional<std::string_view> finish_reason,
                    bool is_first) const;
  std::string usage_event(const nlohmann::ordered_json& usage) const;

 private:
  using Json = nlohmann::ordered_json;
  Json head(bool as_event) const;
  Json logprobs_of(std::span<const TextToken> tokens) const;
  Json chat_logprobs_of(std::span<const TextToken> tokens) const;
  void add_details(Json& choice, const TextDelta& text) const;

  Endpoint endpoint_;
  std::string id_, model_;
  const Tokenizer* tokenizer_;
  std::int64_t created_;  // seconds since 1970
};

/// A token as text of its own: its piece, or its name where it has no piece or is part of a character; its id without a
/// tokenizer.
std::string token_text(const Tokenizer* tokenizer, std::int32_t token);

/// "data: …" with the blank line that ends an event.
std::string server_event(std::string_view data);
inline constexpr std::string_view end_of_events = "data: [DONE]\n\n";

}  // namespace photon
